"""The program `facet`: every command that is no stage. `make X` is the short form of `facet X`.

What a command needs is imported inside it: `facet --help` and completion answer at once.
"""

import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from facet.launch import errors_in_a_line

app = typer.Typer(
    name="facet",
    help="Train, compare, report and review classifiers with several heads.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
Run = Annotated[str, typer.Option(help="runs or experiments, with commas; all if empty")]
Jobs = Annotated[int, typer.Option(help="processes; as many as cores if 0", min=0)]


def print_version(wanted: bool) -> None:
    """Print the project's version, and those of what computes, and end."""
    if not wanted:
        return
    import tomllib

    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    versions = [f"{name} {metadata.version(name)}" for name in ("dvc", "keras", "wandb")]
    print(f"facet {project['version']} ({', '.join(versions)})")
    raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option("--version", callback=print_version, is_eager=True, help="print the versions"),
    ] = False,
) -> None:
    """Train, compare, report and review classifiers with several heads."""


@app.command(epilog="Example: facet repro --run faces_deep,wine_shallow-0 --jobs 2")
def repro(
    run: Run = "",
    jobs: Jobs = 0,
    values: Annotated[
        list[str] | None,
        typer.Option("--set", help="KEY=VALUE: try it and leave all files as they are; repeatable"),
    ] = None,
) -> None:
    """Bring the grid, or a part of it, up to date on all cores."""
    from facet.grid.stage_server import StageServer
    from facet.grid.worktree import LOGS

    print(f"checking params.yaml and what has changed; what stages say is in {LOGS}", flush=True)
    # It imports what the stages need while this process imports DVC and looks for what has changed.
    with StageServer():
        if values:
            from facet.grid.trial import try_values

            try_values(values, run, jobs)
            return

        from facet.grid.runner import repro

        def write(changed: set[str]) -> Path:
            from facet.report.page import write_report  # seconds, which a repeat can spare

            return write_report(changed)

        repro(run, jobs, write)


@app.command(epilog="Example: facet serve, then in another shell the line that it prints")
def serve() -> None:
    """Keep the libraries imported for plain `dvc repro`, until Ctrl-C; the same bytes, sooner."""
    from facet.grid.stage_server import serve_project

    serve_project(Path.cwd())


@app.command(epilog="Example: facet review --run faces_deep --commit HEAD~1")
def review(
    run: Annotated[
        str, typer.Option(help="runs, experiments or stages, with commas; all if empty")
    ] = "",
    commit: Annotated[str, typer.Option(help="what to review")] = "HEAD",
    quick: Annotated[bool, typer.Option(help="run nothing, need no data")] = False,
    jobs: Jobs = 0,
    env: Annotated[str, typer.Option(help="an environment to use instead of a new one")] = "",
    wandb: Annotated[bool, typer.Option(help="let W&B record the runs made for review")] = False,
    into: Annotated[str, typer.Option(help="a folder for the clone, which then stays")] = "",
) -> None:
    """Prove, or disprove, that a commit's results come out of it; writes review.json, review.md."""
    from facet.review.review import review_commit

    review_commit(run, commit, quick, jobs, env, wandb, into)


@app.command(epilog="Example: facet report")
def report() -> None:
    """Write metrics/report.html, a page of all results that needs no network."""
    from facet.grid.dvc_session import changed_stages
    from facet.report.page import write_report

    print(f"report: {write_report(changed_stages())}")


@app.command(epilog="Example: facet diff --a HEAD~1")
def diff(
    a: Annotated[str, typer.Option("--a", help="the older commit")],
    b: Annotated[str, typer.Option("--b", help="the newer one; the working tree if empty")] = "",
) -> None:
    """Print what two commits differ in: parameters, figures with their intervals, verdicts."""
    from facet.report.diff import show_differences

    show_differences(a, b)


@app.command(epilog="Example: facet comment origin/main")
def comment(
    base: Annotated[str, typer.Argument(help="the commit or branch that HEAD is to go onto")],
) -> None:
    """Print a pull request's comment in Markdown, from the last review and `facet diff`."""
    from facet.review.comment import write_comment

    print(write_comment(base))


@app.command(epilog="Example: facet predict faces_deep-0 photo.png")
def predict(
    run: Annotated[str, typer.Argument(help="a run, like faces_deep-0, or a copy of its folder")],
    files: Annotated[
        list[str], typer.Argument(help="images or CSV tables; folders, patterns; - for stdin")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="all probabilities, a line each")] = False,
) -> None:
    """Print what RUN's model says of each image or row: head, answer, its probability, others.

    A file that cannot be used is reported and the rest answered; the exit status is then 1.
    """
    from facet.prediction.predict import predict_files

    predict_files(run, files, as_json)


@app.command(epilog="Example: facet pictures faces_deep-0")
def pictures(run: Annotated[str, typer.Argument(help="like faces_deep-0")]) -> None:
    """Write summary.txt, graph.png (needs Graphviz's `dot`) and layers.png into pictures/RUN."""
    from facet.prediction.pictures import draw_network

    draw_network(run)


@app.command(epilog="Example: WANDB_API_KEY=... facet sync")
def sync() -> None:
    """Upload the W&B runs that wait; can be cut off and repeated."""
    from facet.tracking.sync import sync_runs

    sync_runs()


@app.command(epilog="Example: WANDB_API_KEY=... facet dashboard")
def dashboard() -> None:
    """Upload what waits, add what was never recorded, save the workspace; can be repeated."""
    from facet.tracking.dashboard import update_dashboard

    update_dashboard()


@app.command(epilog="Example: facet prune")
def prune() -> None:
    """Remove what W&B's server has; what waits for upload stays."""
    from facet.tracking.prune import prune_runs

    prune_runs()


@app.command(epilog="Example: facet setting class,sitting")
def setting(names: Annotated[str, typer.Argument(help="settings, with commas")]) -> None:
    """Write settings/NAME.yaml into params.yaml, key by key; several NAMES with commas.

    `git checkout params.yaml` undoes it.
    """
    from facet.setting import apply_setting

    apply_setting(names)


@app.command(epilog="Example: facet bench --pairs 5 --trainings 0")
def bench(
    source: Annotated[str, typer.Option(help="URL or folder of the real faces")] = "",
    pairs: Annotated[int, typer.Option(help="how often each way of preparing", min=0)] = 3,
    trainings: Annotated[int, typer.Option(help="pairs of trainings", min=0)] = 9,
    starts: Annotated[int, typer.Option(help="pairs of a run's stages", min=0)] = 3,
    rounds: Annotated[int, typer.Option(help="rounds of augmenting, downloading", min=0)] = 5,
    images: Annotated[int, typer.Option(help="JPEGs to measure memory with", min=0)] = 0,
) -> None:
    """Time preparing, tracking, starting and repeating, each beside what it is compared with."""
    from facet.bench import run_benchmarks

    run_benchmarks(source, pairs, trainings, starts, rounds, images)


@app.command(epilog="Example: facet bench-setting class --run faces_shallow,wine_deep")
def bench_setting(
    name: Annotated[str, typer.Argument(help="of settings/, several with commas")] = "class",
    run: Run = "",
    real: Annotated[
        Path, typer.Option(help="a folder with digits/mnist.npz, uci/faces.tar.gz and wine tables")
    ] = Path("../shared/data"),
) -> None:
    """Run a setting of real data from end to end in a clone; served here as it is published."""
    from facet.bench_setting import bench_setting

    bench_setting(name, real, run)


@app.command(epilog="Example: facet portable --no-pipeline")
def portable(
    processors: Annotated[
        str, typer.Option(help="QEMU's names, with commas; a few common ones if empty")
    ] = "",
    pipeline: Annotated[bool, typer.Option(help="the stages of experiments too")] = True,
    run: Annotated[str, typer.Option(help="experiments, with commas; all if empty")] = "",
) -> None:
    """Compare the bytes made on this processor with those made on emulated ones."""
    from facet.portability.emulation import compare_processors

    compare_processors(processors, pipeline, run)


@app.command(epilog="Example: facet formats > docs/formats.md")
def formats() -> None:
    """What is in each file that the project writes, as docs/formats.md has it."""
    from facet.formats import describe_formats

    print(describe_formats())


@app.command(epilog="Example: facet architecture > docs/architecture.svg")
def architecture() -> None:
    """The picture of stages and packages in the README, drawn from dvc.yaml and the imports."""
    from facet.readme_picture import draw_architecture

    print(draw_architecture(Path(__file__).parents[1]))


@app.command(epilog="Example: facet calibrate --seeds 2 --reviews 500")
def calibrate(
    table: Annotated[Path, typer.Argument(help="a runs.csv with many seeds")] = Path(
        "tests/data/seeds.csv"
    ),
    seeds: Annotated[int, typer.Option(help="of each side of a review", min=2)] = 3,
    reviews: Annotated[int, typer.Option(help="how many to play", min=1)] = 2000,
) -> None:
    """Print how many honest reviews are called inconsistent, and how many changes are found."""
    from facet.review.calibrate import calibrate

    calibrate(table, seeds, reviews)


def main() -> None:
    """Run the command line; an error is one line that begins with the command's name."""
    names = {command.callback.__name__ for command in app.registered_commands if command.callback}
    called = next((word for word in sys.argv[1:] if word in names), "facet")
    with errors_in_a_line(called):
        app(prog_name="facet")


if __name__ == "__main__":
    main()
