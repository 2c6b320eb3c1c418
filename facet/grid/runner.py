"""Run the grid on all cores: `make repro`.

Each worker process has a git worktree of its own, laid like the working tree, uncommitted edits
included; all share DVC's cache, which carries what they make. Their entries of dvc.lock are brought
together at the end, and the closing `dvc repro` must find every grid stage up to date.
"""

import datetime
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from dvc.repo import Repo

from facet.base.config import Parameters, check_params, parse_run, read_params, run_names, suggest
from facet.base.names import (
    COMPARISONS_FILE,
    LOCK_FILE,
    PARAMS_FILE,
    REPORT_FILE,
    STAGES,
    TIMINGS_FILE,
)
from facet.base.processor import CORES_VARIABLE, note_other_bytes, usable_cores
from facet.base.storage import read_json, write_json
from facet.errors import InputError
from facet.grid.dvc_session import changed_stages, open_dvc, read_lock, write_lock
from facet.grid.estimate import (
    check_disk,
    check_experiments,
    choose_jobs,
    estimate_disk,
    estimate_memory,
    measure_dataset,
)
from facet.grid.plan import plan_targets, stage_names, stages_to_make
from facet.grid.stage_server import StageServer
from facet.grid.summary import format_summary
from facet.grid.worker import TargetResult, extract_error, run_target
from facet.grid.worktree import WORKERS, sync_worktree
from facet.memory import format_bytes, machine_memory
from facet.tracking import wandb_run


def write_timings(ran: dict[str, float]) -> None:
    """Write which stages ran and how long each took; all others were taken from the cache."""
    try:
        stages = read_json(TIMINGS_FILE)["stages"]
        kept = {name: {"ran": False, "seconds": s["seconds"]} for name, s in stages.items()}
    except (InputError, KeyError, TypeError, AttributeError):
        kept = {}
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    new = {name: {"ran": True, "seconds": seconds} for name, seconds in ran.items()}
    write_json(TIMINGS_FILE, {"finished": now, "stages": kept | new})


def run_on_cluster(
    plan: dict[str, tuple[list[str], list[str]]], jobs: int, root: Path
) -> list[TargetResult]:
    """Run the plan's targets on `jobs` worker processes; returns what `run_target` did of each."""
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
    results, known = list[TargetResult](), read_lock(root / LOCK_FILE)
    with (
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
            sync_worktree(root / WORKERS / str(name), root)
        futures: dict[str, Any] = {}
        for place, (target, (waits, stages)) in enumerate(plan.items()):
            futures[target] = scheduler.submit(
                run_target,
                target,
                stages,
                str(root),
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
            say = f"[{count}/{len(plan)}] {result.target}"
            if result.status == 0:
                print(f"{say} {result.seconds:.0f} s", flush=True)
            elif result.status is None:
                print(f"{say} not run: what it needs failed", flush=True)
            else:
                print(f"{say} FAILED\n{extract_error(result.output)}", flush=True)
    return results


def merge_results(parameters: Parameters, results: list[TargetResult]) -> None:
    """Bring the workers' results into the project: their entries of dvc.lock, their outputs."""
    made = {k: v for r in results if r.status == 0 for k, v in r.entries.items()}
    found = read_lock(LOCK_FILE) | made
    # In the order of the graph, and without what it no longer names.
    names = [name for name in stage_names(parameters) if name in found]
    write_lock(LOCK_FILE, {name: found[name] for name in names})
    with Repo() as repo, repo.lock:
        for stage in repo.index.stages:
            if stage.addressing in made:
                stage.checkout(force=True)


def repro(run: str, jobs: int, write_report: Callable[[set[str]], Path]) -> None:
    """Bring the grid, or the part of it that `run` names, up to date in `jobs` processes.

    `run` holds runs or experiments with commas, all if empty; `jobs` 0 means as many as cores.
    `write_report` is given the stages that are not up to date. Raises InputError for names that
    params.yaml lacks, and where a run failed.
    """
    parameters = check_params(read_params())
    wanted = run_names(parameters)
    if run:
        requested = run.replace(",", " ").split()
        for name in requested:
            if name not in [*wanted, *parameters.experiments]:
                known = [*parameters.experiments, *wanted]
                raise InputError(
                    f"RUN={name}: no run or experiment of that name{suggest(name, known)}"
                )
        wanted = [w for w in wanted if w in requested or parse_run(w)[0] in requested]
    wandb_run.configure_wandb()
    wandb_run.clear_offline_marker()
    if message := note_other_bytes():
        print(message)
    with StageServer():  # it imports while DVC looks for what has changed, and serves `compare` too
        changed = changed_stages()
        if changed:
            make_runs(parameters, wanted, changed, jobs, whole=not run)
    if not changed:
        print("nothing to do: data and pipelines are up to date")
    if not run:
        print(format_summary())
    sources = (PARAMS_FILE, LOCK_FILE, COMPARISONS_FILE)
    times = [f.stat().st_mtime for f in sources if f.exists()]
    if changed or not REPORT_FILE.exists() or REPORT_FILE.stat().st_mtime < max(times):
        write_report(changed_stages() if changed and run else set())
    print(f"report: {REPORT_FILE}")
    if wandb_run.recently_failed():
        print("W&B's server failed: what followed was recorded offline; upload it with: make sync")


def fetch_unknown(
    parameters: Parameters, plan: dict[str, tuple[list[str], list[str]]], changed: set[str]
) -> dict[str, float]:
    """Download the plan's data that come from elsewhere: only then is known how large they are.

    Returns the stages that ran, with their seconds.
    """
    targets = [
        f"download@{name}"
        for name, spec in parameters.datasets.items()
        if f"normalise@{name}" in plan
        and f"download@{name}" in changed
        and spec.source != "embedded"
    ]
    if not targets:
        return {}
    print(f"downloading first, to know their sizes: {', '.join(targets)}", flush=True)
    log = WORKERS / "logs/download.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with open_dvc(log) as session:
        session.repo.reproduce(targets)
    if session.status:
        raise InputError(extract_error(log.read_text()).strip())
    return session.ran


def choose_resources(
    parameters: Parameters,
    plan: dict[str, tuple[list[str], list[str]]],
    changed: set[str],
    jobs: int,
) -> int:
    """How many targets go at once: `jobs`, or if 0 as many as cores and memory allow.

    Prints what they take. Raises InputError where this machine is too small for one of them.
    """
    runs = [t.partition("@")[2] for t in plan if t.startswith("evaluate@")]
    experiments = list(dict.fromkeys(parse_run(r)[0] for r in runs))
    datasets = dict.fromkeys(parameters.experiments[e].dataset for e in experiments)
    sizes = {d: measure_dataset(d, parameters.datasets[d], changed) for d in datasets}
    limit, disk_left = machine_memory(), shutil.disk_usage(".").free
    check_experiments(parameters, sizes, experiments, limit)
    disk = estimate_disk(parameters, sizes, stages_to_make(plan, changed))
    check_disk(disk, disk_left)
    memory = estimate_memory(parameters, sizes, experiments)
    memory_left = min(limit, psutil.virtual_memory().available)
    needs = [memory.get(parse_run(run)[0], 0) for run in runs]
    most = min(jobs or usable_cores(), len(plan))
    fitting = choose_jobs(needs, most, memory_left)
    print(
        f"{len(runs)} runs to make, {jobs or fitting} at a time; each takes up to "
        f"{format_bytes(max(needs, default=0))} of memory, {format_bytes(memory_left)} are free; "
        f"all take {format_bytes(disk)} of disk, {format_bytes(disk_left)} are free",
        flush=True,
    )
    if unknown := [name for name, size in sizes.items() if size.shape is None]:
        print(f"(without {', '.join(unknown)}: how large the images are is not known yet)")
    if jobs > fitting:
        print(f"note: {fitting} at a time would fit into memory; {jobs} may not")
    return most if jobs else fitting


def make_runs(
    parameters: Parameters, wanted: list[str], changed: set[str], jobs: int, whole: bool
) -> None:
    """Make the `wanted` runs that `changed` stages leave stale, and what follows if `whole`."""
    plan = plan_targets(parameters, wanted, changed)
    ran, failed = run_plan(parameters, plan, changed, jobs)
    made = [f"evaluate@{w}" for w in wanted if f"evaluate@{w}" not in failed]
    if made:
        ran |= close_grid([] if whole and not failed else made)
    write_timings(ran)
    if failed:
        raise InputError(
            f"{len(failed)} of {len(plan)} targets failed: {', '.join(failed[:6])}; "
            f"their output is in {WORKERS}/logs"
        )


def run_plan(
    parameters: Parameters,
    plan: dict[str, tuple[list[str], list[str]]],
    changed: set[str],
    jobs: int,
) -> tuple[dict[str, float], list[str]]:
    """Make the targets of a plan; returns the seconds of each stage that ran, and what failed."""
    ran, results = dict[str, float](), list[TargetResult]()
    if plan:
        ran = fetch_unknown(parameters, plan, changed)
        jobs = choose_resources(parameters, plan, changed - set(ran), jobs)
        # The workers' stages decode and warp images on as many cores as they are given.
        os.environ[CORES_VARIABLE] = str(max(1, usable_cores() // jobs))
        results = run_on_cluster(plan, jobs, Path.cwd())
        ran |= {stage: seconds for r in results for stage, seconds in r.ran.items()}
    merge_results(parameters, results)
    return ran, [r.target for r in results if r.status != 0]


def close_grid(targets: list[str]) -> dict[str, float]:
    """Have `dvc repro` find the workers' results, of all if there are no `targets`, and compare.

    Returns the seconds of the stages that ran. Raises InputError where DVC refuses, or runs a stage
    of the grid again.
    """
    log = WORKERS / "logs/closing.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with open_dvc(log) as session:
        session.repo.reproduce(targets)
    if session.status:
        raise InputError(f"dvc repro failed: {extract_error(log.read_text()).strip()}")
    if repeated := [s for s in session.ran if s != STAGES[-1]]:
        raise InputError(
            f"the closing dvc repro ran {', '.join(repeated[:4])} again: the workers' "
            "results were not accepted; is a file being edited meanwhile?"
        )
    return session.ran
