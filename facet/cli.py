"""The program `facet`: every command that is no stage. `make X` is the short form of `facet X`.

What a command needs is imported inside it: `facet --help` and completion answer at once.
"""

import contextlib
import os
import signal
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated, Literal

import typer
from typer.exceptions import TyperException

from facet.completion import (
    complete_experiments,
    complete_runs,
    complete_settings,
    complete_stored_run,
)
from facet.errors import InputError
from facet.launch import errors_in_a_line

app = typer.Typer(
    name="facet",
    help="Train, compare, report and review classifiers with several heads.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
Run = Annotated[
    str,
    typer.Option(
        help="runs or experiments, with commas; all if empty", autocompletion=complete_runs
    ),
]
StoredRun = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="a run, like faces_deep-0, or a copy of its folder",
        autocompletion=complete_stored_run,
    ),
]
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
    cluster: Annotated[
        str, typer.Option(help="a Dask scheduler, tls://HOST:8786: on its machines, not here")
    ] = "",
    open_network: Annotated[
        bool, typer.Option("--open-network", help="--cluster without TLS, where nobody else is")
    ] = False,
) -> None:
    """Bring the grid, or a part of it, up to date on all cores, or on a cluster's machines."""
    from facet.grid.stage_server import serve_stages
    from facet.grid.worktree import LOGS, only_one

    print(f"checking params.yaml and what has changed; what stages say is in {LOGS}", flush=True)
    # It imports what the stages need while this process imports DVC and looks for what has changed.
    with only_one(), contextlib.nullcontext() if cluster else serve_stages():
        found = None
        if cluster:
            if values or jobs:
                option = "--set" if values else "--jobs"
                raise InputError(f"--cluster: {option} is for this machine alone; leave it out")
            from facet.grid.cluster import Cluster

            found = Cluster(cluster, open_network=open_network)
            found.check_address()
        if values:
            from facet.grid.trial import try_values

            try_values(values, run, jobs)
            return

        from facet.grid.runner import repro

        def write(changed: set[str]) -> Path:
            from facet.report.page import write_report  # seconds, which a repeat can spare

            return write_report(changed)

        repro(run, jobs, write, found)


@app.command(epilog="Example: facet serve, then in another shell the line that it prints")
def serve() -> None:
    """Keep the libraries imported for plain `dvc repro`, until Ctrl-C; the same bytes, sooner."""
    from facet.grid.stage_server import serve_project

    serve_project(Path.cwd())


@app.command(epilog="Example: facet review --run faces_deep --commit HEAD~1")
def review(
    run: Annotated[
        str,
        typer.Option(
            help="runs, experiments or stages, with commas; all if empty",
            autocompletion=complete_runs,
        ),
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


@app.command(epilog="Example: facet plan faces_depth --difference 0.05")
def plan(
    comparison: Annotated[str, typer.Argument(help="a comparison of params.yaml")],
    difference: Annotated[float, typer.Option(help="what is to be shown, as a fraction")] = 0.05,
) -> None:
    """Print how many seeds a comparison needs to show a difference, from the runs made so far."""
    from facet.comparisons import plan_comparison

    print(plan_comparison(comparison, difference))


@app.command(epilog="Example: facet ensemble digits_conv")
def ensemble(
    experiment: Annotated[str, typer.Argument(help="an experiment of params.yaml")],
) -> None:
    """Print how the runs of an experiment, one for each seed, do if they answer together."""
    from facet.comparisons import describe_ensemble

    print(describe_ensemble(experiment))


@app.command(epilog="Example: facet comment origin/main")
def comment(
    base: Annotated[str, typer.Argument(help="the commit or branch that the change goes onto")],
    commit: Annotated[str, typer.Option(help="the change's last commit")] = "HEAD",
    post: Annotated[bool, typer.Option("--post", help="also on the pull request, once")] = False,
) -> None:
    """Print a pull request's comment in Markdown, from review.json and `facet diff`.

    With --post from a checkout of what the change goes onto: proposed code must not see the token.
    """
    from facet.review.comment import write_comment
    from facet.review.post import find_host, post_comment

    text = write_comment(base, commit)
    print(text)
    if post:
        post_comment(text, find_host())


@app.command(epilog="Example: facet predict faces_deep-0 photo.png")
def predict(
    run: StoredRun,
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


@app.command(epilog="Example: facet inspect ~/photos --name tiles --write")
def inspect(
    source: Annotated[
        str, typer.Argument(help="a folder, CSV, .npz or archive, or the URL of one")
    ],
    name: Annotated[str, typer.Option(help="the data set's name; after the source if empty")] = "",
    write: Annotated[bool, typer.Option("--write", help="put it into params.yaml too")] = False,
) -> None:
    """Look at data and print an entry for params.yaml that fits them, and a small experiment.

    Comments say what was found, what was left out, and what could not be known. With --write the
    entry is put at the end of its part of params.yaml, whose comments stay; without it, copy what
    is beneath `datasets` and `experiments` there.
    """
    from facet.datasets.inspection import inspect_source

    inspect_source(source, name, write)


@app.command(epilog="Example: facet export faces_deep-0 --to onnx")
def export(
    run: StoredRun,
    to: Annotated[Literal["saved_model", "onnx", "tflite"], typer.Option(help="the format")],
    into: Annotated[str, typer.Option(help="a folder; exports/RUN/FORMAT if empty")] = "",
) -> None:
    """Write RUN's model for other programs, if it answers there as it did on the test part.

    Beside it lies export.json, with the classes of each head and how inputs are prepared.
    """
    from facet.prediction.export import export_run

    export_run(run, to, into)


@app.command(epilog="Example: facet demo faces_deep-0")
def demo(
    run: StoredRun,
    port: Annotated[int, typer.Option(help="of the page; any that is free if 0", min=0)] = 0,
) -> None:
    """Serve a page on which to try RUN's model, on this machine alone, until Ctrl-C."""
    from facet.prediction.demo import serve_demo

    serve_demo(run, port)


@app.command(epilog="Example: facet pictures faces_deep-0")
def pictures(run: StoredRun) -> None:
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


@app.command(epilog="Example: facet watch --run wine_deep-0")
def watch(run: Run = "") -> None:
    """Show recorded runs in the terminal, in W&B's own viewer; needs no account. `h` helps in it.

    It opens on the newest training, and lists new ones as they begin.
    """
    from facet.tracking.watch import watch_runs

    watch_runs(run)


@app.command(epilog="Example: facet trial digits_plain batch=64 learning_rate=0.003")
def trial(
    experiment: Annotated[str, typer.Argument(help="an experiment of params.yaml")],
    values: Annotated[list[str], typer.Argument(help="KEY=VALUE, keys of an experiment")],
) -> None:
    """Train EXPERIMENT with other values and print its validation metrics; params.yaml stays.

    A W&B sweep calls it (docs/sweep.yaml) and is told these metrics.
    """
    from facet.grid.sweep import run_trial

    run_trial(experiment, values)


@app.command(epilog="Example: facet prune")
def prune() -> None:
    """Remove what W&B's server has; what waits for upload stays."""
    from facet.tracking.prune import prune_runs

    prune_runs()


@app.command(epilog="Example: facet clean && facet repro")
def clean() -> None:
    """Remove what commands have made here; DVC's cache, W&B's runs and your own files stay."""
    from facet.clean import clean

    clean()


@app.command(epilog="Example: facet setting class,sitting")
def setting(
    names: Annotated[
        str, typer.Argument(help="settings, with commas", autocompletion=complete_settings)
    ],
) -> None:
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


@app.command(epilog="Example: facet bench-cluster --runs 2000 --stages ''")
def bench_cluster(
    runs: Annotated[int, typer.Option(help="runs that are not made; 0: none", min=0)] = 2000,
    stages: Annotated[str, typer.Option(help="sizes of DVC's graph")] = "100,1000",
) -> None:
    """Measure what many runs cost a cluster's coordinator, and DVC."""
    from facet.bench_cluster import run_benchmarks

    run_benchmarks(runs, stages)


@app.command(epilog="Example: facet bench-setting class --run faces_shallow,wine_deep")
def bench_setting(
    name: Annotated[
        str,
        typer.Argument(help="of settings/, several with commas", autocompletion=complete_settings),
    ] = "class",
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
    run: Annotated[
        str,
        typer.Option(
            help="experiments, with commas; all if empty", autocompletion=complete_experiments
        ),
    ] = "",
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


def command_names() -> list[str]:
    """The names of all commands."""
    return [
        c.name or c.callback.__name__.replace("_", "-")
        for c in app.registered_commands
        if c.callback
    ]


def main() -> None:
    """Run the command line; an error is one line that begins with the command's name."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:  # see facet/__main__.py
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # in order, workers and all
    # Stages and DVC are this environment's, wherever the shell looks for programs.
    os.environ["PATH"] = os.pathsep.join(
        [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    )
    names = command_names()
    called = next((word for word in sys.argv[1:] if word in names), "facet")
    with errors_in_a_line(called):
        try:
            status = app(sys.argv[1:] or ["--help"], prog_name="facet", standalone_mode=False)
        except (
            TyperException
        ) as e:  # a command line that is wrong, for which typer takes four lines
            program = "facet" if called == "facet" else f"facet {called}"
            message = " ".join(e.format_message().split()).rstrip(".")
            print(f"{called}: {message} (`{program} --help`)", file=sys.stderr)
            sys.exit(e.exit_code)
        sys.exit(status)


if __name__ == "__main__":
    main()
