"""Run the grid on all cores: `make repro`.

Each worker process has a git worktree of its own, laid like the working tree, uncommitted edits
included; all share DVC's cache, which carries what they make. Their entries of dvc.lock are brought
together at the end, and the closing `dvc repro` must find every grid stage up to date.
"""

import contextlib
import datetime
import logging
import os
import re
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from dvc.dependency import param as dvc_param
from dvc.dvcfile import PROJECT_FILE, load_file
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.stage import run as dvc_run
from dvc.stage.exceptions import StageCmdFailedError
from dvc.stage.serialize import to_lockfile
from dvc.utils.serialize import dump_yaml, load_yaml

from stages import tracking
from stages.common import METRICS, Refused, command, dump, read_csv, read_json
from stages.parameters import Parameters, check, nearest, parse_run, raw, runs
from stages.processor import note_other_bytes
from tools.warm import Client, Server

WORKERS = Path(".workers")
LOCK = Path("dvc.lock")
PAGE = Path("metrics/report.html")
STAGES = Path("metrics/costs/stages.json")  # what the last run did, for the page
# What a run leaves outside DVC's outputs.
SHARED = (".ckpt", "metrics/costs", "metrics/manifests")


@contextlib.contextmanager
def parsing_once() -> Iterator[None]:
    """Have DVC parse params.yaml once, and not for each stage that declares a key of it."""
    load = dvc_param.load_path
    dvc_param.load_path = cache(load)
    try:
        yield
    finally:
        dvc_param.load_path = load


def status() -> set[str]:
    """The stages whose inputs, parameters or outputs are not what dvc.lock says."""
    try:
        with parsing_once(), Repo() as repo:
            return set(repo.status())
    except DvcException as e:
        raise Refused(f"dvc status failed: {e}") from None


def entries(lock: Path) -> dict[str, Any]:
    """What a dvc.lock holds, stage by stage."""
    return load_yaml(lock).get("stages", {}) if lock.exists() else {}


def write(lock: Path, stages: dict[str, Any]) -> None:
    """Write a dvc.lock as DVC does, at once: DVC rewrites all of it for each stage it runs."""
    dump_yaml(lock, {"schema": "2.0", "stages": stages})


def chain(parameters: Parameters, run: str) -> dict[str, list[str]]:
    """The targets that make a run, in order, each with the stages it is made of."""
    experiment, _ = parse_run(run)
    data = parameters.experiments[experiment].dataset
    return {
        f"normalise@{data}": [f"{s}@{data}" for s in ("download", "pickle", "normalise")],
        f"augment@{experiment}": [f"augment@{experiment}"],
        f"evaluate@{run}": [f"train@{run}", f"evaluate@{run}"],
    }


def stale(
    parameters: Parameters, wanted: list[str], changed: set[str]
) -> dict[str, tuple[list[str], list[str]]]:
    """Targets that are not up to date, each with the targets it waits for and all its stages."""
    plan: dict[str, tuple[list[str], list[str]]] = {}
    for run in wanted:
        waits: list[str] = []
        before: list[str] = []
        for target, stages in chain(parameters, run).items():
            before = [*before, *stages]
            if waits or changed.intersection(stages):
                plan[target] = (waits, before)
                waits = [target]
    return plan


def lay(folder: Path, root: Path) -> None:
    """Make `folder` a git worktree that equals the working tree of `root`."""

    def git(*words: str, at: Path = root) -> str:
        return subprocess.run(
            ["git", *words], cwd=at, check=True, capture_output=True, text=True
        ).stdout

    head = git("rev-parse", "HEAD").strip()
    if not (folder / ".git").exists():
        shutil.rmtree(folder, ignore_errors=True)
        git("worktree", "prune")
        git("worktree", "add", "--force", "--detach", "--no-checkout", str(folder), head)
    git("reset", "--quiet", head, at=folder)
    listed = ("ls-files", "-z", "--cached", "--others", "--exclude-standard")
    ours = [f for f in set(git(*listed).split("\0")) - {""} if (root / f).is_file()]
    for name in set(git(*listed, at=folder).split("\0")) - {"", *ours}:
        (folder / name).unlink(missing_ok=True)
    for name in ours:
        there = folder / name
        if not there.is_file() or there.read_bytes() != (root / name).read_bytes():
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, there)
    local = root / ".dvc/config.local"
    config = local.read_text() if local.exists() else ""
    (folder / ".dvc/config.local").write_text(config)
    cache = subprocess.run(
        ["dvc", "cache", "dir"], cwd=root, check=True, capture_output=True, text=True
    ).stdout.strip()
    subprocess.run(
        ["dvc", "cache", "dir", "--local", str((root / cache).resolve())],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    for name in SHARED:
        (root / name).mkdir(parents=True, exist_ok=True)
        link = folder / name
        if not link.is_symlink():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(root / name)


def work(
    target: str, stages: list[str], root: str, path: str, known: dict[str, Any], *waited: Any
) -> dict[str, Any]:
    """The `stages` of one target, in this worker's worktree; runs in a worker process.

    `path` is where the server listens; `known` are entries of dvc.lock, completed by what it
    `waited` for. Returns target, status, seconds, what was said, the stages' entries and the
    seconds of those that ran; status None where what it waited for failed.
    """
    from distributed import get_worker

    if any(w["status"] != 0 for w in waited):
        nothing: dict[str, Any] = {"seconds": 0.0, "said": "", "entries": {}, "ran": {}}
        return {"target": target, "status": None} | nothing
    folder = Path(root) / WORKERS / str(get_worker().name)
    begun = time.monotonic()
    os.environ.setdefault("WANDB_DIR", root)
    os.environ.setdefault("WANDB_DATA_DIR", f"{root}/.wandb-data")
    os.environ.setdefault("WANDB_CACHE_DIR", f"{root}/.wandb-cache")
    known = known | {k: v for w in waited for k, v in w["entries"].items()}
    write(folder / LOCK, known)
    log = Path(root) / WORKERS / "logs" / f"{target}.log"
    log.parent.mkdir(exist_ok=True)
    # Stage by stage and not by `reproduce`, which builds the whole graph for each target, and
    # without writing dvc.lock for each stage: that was most of DVC's share.
    with contextlib.chdir(folder), warm(client(path)), dvc(log) as (repo, watch), repo.lock:
        found = load_file(repo, PROJECT_FILE).stages
        for name in stages:
            stage = found[name]
            if stage.reproduce():
                known |= to_lockfile(stage)
    return {
        "target": target,
        "status": watch.status,
        "seconds": time.monotonic() - begun,
        "said": log.read_text(errors="replace"),
        "entries": known,
        "ran": watch.ran,
    }


@cache
def client(path: str) -> Client:
    """This worker's own."""
    return Client(path)


@contextlib.contextmanager
def warm(client: Client) -> Iterator[None]:
    """Have DVC, in this process, run the stages by the server, and itself if that is gone."""
    cold = dvc_run._run

    def run(executable: str | None, command: str, **options: Any) -> None:
        status = None
        if re.fullmatch(r"python -m stages\.\w+ [\w-]+", command):
            status = client.run(command.split()[2:], options["cwd"], options["env"])
        if status is None:
            cold(executable, command, **options)
        elif status:
            raise StageCmdFailedError(command, status)

    dvc_run._run = run
    try:
        yield
    finally:
        dvc_run._run = cold


class Watch(logging.Handler):
    """Takes the seconds of each stage that DVC runs, from what it logs."""

    def __init__(self) -> None:
        super().__init__()
        self.ran: dict[str, float] = {}
        self.status = 0
        self._running, self._since = "", 0.0

    def emit(self, record: logging.LogRecord) -> None:
        if isinstance(record.msg, str) and record.msg.startswith(("Running stage", "Stage '")):
            self.stop()
            running = record.msg.startswith("Running")
            self._running = str(record.args[0]) if running and record.args else ""  # type: ignore[index]
            self._since = time.monotonic()

    def stop(self) -> None:
        if self._running:
            self.ran[self._running] = time.monotonic() - self._since
        self._running = ""


@contextlib.contextmanager
def dvc(log: Path) -> Iterator[tuple[Repo, Watch]]:
    """DVC in this process, with all that it and its stages say in `log`.

    In this process, since starting DVC's own takes longer than what it has to do for a run. Where
    DVC refuses, that is said, and the watch's status is 1.
    """
    watch, logger = Watch(), logging.getLogger("dvc")
    logger.addHandler(watch)
    log.unlink(missing_ok=True)
    try:
        with log.open("a") as file, said(file), parsing_once(), Repo() as repo:
            try:
                yield repo, watch
            except DvcException as e:
                print(f"ERROR: {e}")
                watch.status = 1
    finally:
        logger.removeHandler(watch)
        watch.stop()


@contextlib.contextmanager
def said(file: TextIO) -> Iterator[None]:
    """What this process and those it starts print goes to `file`."""
    kept = [(stream, os.dup(stream.fileno())) for stream in (sys.__stdout__, sys.__stderr__)
            if stream]  # fmt: skip
    for stream, _ in kept:
        stream.flush()
        os.dup2(file.fileno(), stream.fileno())
    try:
        yield
    finally:
        for stream, number in kept:
            stream.flush()
            os.dup2(number, stream.fileno())
            os.close(number)


def note(ran: dict[str, float]) -> None:
    """Write which stages ran and how long each took; all others were taken from the cache."""
    try:
        stages = read_json(STAGES)["stages"]
        kept = {name: {"ran": False, "seconds": s["seconds"]} for name, s in stages.items()}
    except (Refused, KeyError, TypeError, AttributeError):
        kept = {}
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    new = {name: {"ran": True, "seconds": seconds} for name, seconds in ran.items()}
    dump(STAGES, {"finished": now, "stages": kept | new})


def spread(
    plan: dict[str, tuple[list[str], list[str]]], jobs: int, root: Path
) -> list[dict[str, Any]]:
    """Run the plan's targets on `jobs` worker processes; returns what `work` did of each."""
    import dask
    from distributed import LocalCluster, as_completed

    dask.config.set(
        {
            "distributed.logging.distributed": "error",
            "distributed.worker.memory.terminate": False,
            "distributed.worker.memory.pause": False,
            # Ctrl-C is for the stages, and for this process, which then ends the workers.
            "distributed.worker.preload": [
                "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
            ],
            # Looks at each worker's stack a hundred times a second: 5 % of a core.
            "distributed.worker.profile.enabled": False,
            "distributed.scheduler.work-stealing": True,
        }
    )
    results, known = [], entries(root / LOCK)
    with (
        Server() as server,
        LocalCluster(
            n_workers=jobs,
            threads_per_worker=1,
            dashboard_address="127.0.0.1:0",
            host="127.0.0.1",
            memory_limit=0,
            silence_logs=logging.ERROR,
        ) as cluster,
        cluster.get_client() as scheduler,
    ):
        for name in range(jobs):
            lay(root / WORKERS / str(name), root)
        futures: dict[str, Any] = {}
        for place, (target, (waits, stages)) in enumerate(plan.items()):
            futures[target] = scheduler.submit(
                work,
                target,
                stages,
                str(root),
                server.path,
                {s: known[s] for s in stages if s in known},
                *(futures[w] for w in waits),
                key=target,
                pure=False,
                retries=1,
                priority=-place,
            )
        for count, future in enumerate(as_completed(list(futures.values())), 1):
            result = future.result()
            results.append(result)
            say = f"[{count}/{len(plan)}] {result['target']}"
            if result["status"] == 0:
                print(f"{say} {result['seconds']:.0f} s", flush=True)
            elif result["status"] is None:
                print(f"{say} not run: what it needs failed", flush=True)
            else:
                print(f"{say} FAILED\n{reason(result['said'])}", flush=True)
    return results


def accept(results: list[dict[str, Any]]) -> None:
    """Bring the workers' results into the project: their entries of dvc.lock, their outputs."""
    made = {k: v for r in results if r["status"] == 0 for k, v in r["entries"].items()}
    with Repo() as repo:
        stages = {s.addressing: s for s in repo.index.stages}
        found = entries(LOCK) | made
        # In the order of the graph, and without what it no longer names.
        write(LOCK, {name: found[name] for name in stages if name in found})
    with Repo() as repo, repo.lock:  # read anew, with dvc.lock as it is now
        for stage in repo.index.stages:
            if stage.addressing in made:
                stage.checkout(force=True)


def reason(said: str) -> str:
    """The stage's own last words among what DVC printed, or DVC's."""
    lines = [line.split("\r")[-1] for line in said.splitlines() if line.strip()]
    stage = [
        line
        for line in lines
        if line.split(":")[0]
        in ("download", "pickle", "normalise", "augment", "train", "evaluate", "compare")
    ]
    return "    " + "\n    ".join((stage or lines or ["no output"])[-1 if stage else -5 :])


def table() -> str:
    """Heads, chance and accuracy of each experiment, as a mean over seeds, and the verdicts."""
    found: dict[tuple[str, str], list[dict[str, str]]] = defaultdict(list)
    for row in read_csv("metrics/runs.csv"):
        found[row["experiment"], row["head"]].append(row)
    lines = [
        f"{'experiment':22} {'head':11} {'seeds':>5} {'accuracy':>8} {'chance':>7} "
        f"{'balanced':>8} {'chance':>7}  verdicts"
    ]
    for (experiment, head), rows in found.items():

        def mean(key: str, rows: list[dict[str, str]] = rows) -> str:
            values = [float(r[key]) for r in rows if r[key]]
            return f"{sum(values) / len(values):.3f}" if values else "-"

        verdicts = [r["verdict"] for r in rows]
        told = ", ".join(f"{verdicts.count(v)} {v}" for v in dict.fromkeys(verdicts))
        lines.append(
            f"{experiment:22} {head:11} {len(rows):5} {mean('accuracy'):>8} "
            f"{mean('chance'):>7} {mean('balanced_accuracy'):>8} "
            f"{mean('balanced_chance'):>7}  {told}"
        )
    for name, c in read_json("metrics/comparisons.json").items():
        interval = f" [{c['ci95'][0]:+.3f}, {c['ci95'][1]:+.3f}]" if c["ci95"] else ""
        amount = f" {c['difference']:+.3f}{interval}" if c["difference"] is not None else ""
        lines.append(
            f"{name}: {c['candidate']} against {c['baseline']}, {c['head']} "
            f"{c['metric']}{amount}: {c['verdict']}"
        )
    return "\n".join([*lines, *warned()])


def warned() -> list[str]:
    """The runs' warnings in a line each, those of an experiment's seeds together."""
    found: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for path in sorted(Path(METRICS.format("x")).parent.glob("*.json")):
        metrics = read_json(path)
        for warning in metrics["warnings"]:
            found[metrics["experiment"], *warning.split(": ")[:2]].append(warning)
    return [
        f"warning: {experiment}, {len(all_)} run{'s' * (len(all_) > 1)}: {all_[0]}"
        for (experiment, *_), all_ in found.items()
    ]


def main(
    run: Annotated[str, typer.Option(help="runs or experiments, with commas; all if empty")] = "",
    jobs: Annotated[int, typer.Option(help="processes; as many as cores if 0", min=0)] = 0,
) -> None:
    """Bring the grid, or a part of it, up to date on all cores."""
    parameters = check(raw())
    wanted = runs(parameters)
    if run:
        asked = run.replace(",", " ").split()
        for name in asked:
            if name not in [*wanted, *parameters.experiments]:
                known = [*parameters.experiments, *wanted]
                raise Refused(
                    f"RUN={name}: no run or experiment of that name{nearest(name, known)}"
                )
        wanted = [w for w in wanted if w in asked or parse_run(w)[0] in asked]
    tracking.configure()
    tracking.forgive()
    if note := note_other_bytes():
        print(note)
    changed = status()
    if not changed:
        print("nothing to do: data and pipelines are up to date")
    else:
        make(parameters, wanted, changed, jobs, whole=not run)
    if not run:
        print(table())
    sources = [Path(f) for f in ("params.yaml", "dvc.lock", "metrics/comparisons.json")]
    times = [f.stat().st_mtime for f in sources if f.exists()]
    if changed or not PAGE.exists() or PAGE.stat().st_mtime < max(times):
        from tools import report  # not above: it takes seconds that a second run can spare

        report.write(status() if changed and run else set())
    print(f"report: {PAGE}")
    if tracking.failing():
        print("W&B's server failed: what followed was recorded offline; upload it with: make sync")


def make(
    parameters: Parameters, wanted: list[str], changed: set[str], jobs: int, whole: bool
) -> None:
    """Make the `wanted` runs that `changed` stages leave stale, and what follows if `whole`."""
    plan = stale(parameters, wanted, changed)
    results: list[dict[str, Any]] = []
    failed: list[str] = []
    ran: dict[str, float] = {}
    if plan:
        count = sum(t.startswith("evaluate@") for t in plan)
        jobs = min(jobs or len(os.sched_getaffinity(0)), len(plan))
        print(f"{count} of {len(wanted)} runs to make, {jobs} at a time", flush=True)
        results = spread(plan, jobs, Path.cwd())
        failed = [r["target"] for r in results if r["status"] != 0]
        ran = {stage: seconds for r in results for stage, seconds in r["ran"].items()}
    accept(results)
    good = [f"evaluate@{w}" for w in wanted if f"evaluate@{w}" not in failed]
    if good:
        targets = [] if whole and not failed else good
        log = WORKERS / "logs/closing.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with dvc(log) as (repo, watch):
            repo.reproduce(targets)
        if watch.status:
            raise Refused(f"dvc repro failed: {reason(log.read_text()).strip()}")
        if again := [s for s in watch.ran if s != "compare"]:
            raise Refused(
                f"the closing dvc repro ran {', '.join(again[:4])} again: the workers' "
                "results were not accepted; is a file being edited meanwhile?"
            )
        ran |= watch.ran
    note(ran)
    if failed:
        raise Refused(
            f"{len(failed)} of {len(plan)} targets failed: {', '.join(failed[:6])}; "
            f"their output is in {WORKERS}/logs"
        )


if __name__ == "__main__":
    command(main)
