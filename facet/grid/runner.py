"""Run the grid on all cores: `make repro`.

Each worker process has a git worktree of its own, laid like the working tree, uncommitted edits
included; all share DVC's cache, which carries what they make. Their entries of dvc.lock are brought
together at the end, and the closing `dvc repro` must find every grid stage up to date.
"""

import datetime
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from dvc.repo import lock_repo

from facet.base.config import (
    Parameters,
    check_params,
    find_embedded,
    parse_run,
    read_params,
    run_names,
    suggest,
)
from facet.base.names import (
    COMPARISONS_FILE,
    LOCK_FILE,
    PARAMS_FILE,
    REPORT_FILE,
    STAGES,
    TIMINGS_FILE,
)
from facet.base.processor import CORES_VARIABLE, note_other_bytes, usable_cores
from facet.base.storage import find_unwritable_place, write_json
from facet.comparisons import remove_leftovers
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
from facet.grid.plan import (
    Plan,
    plan_targets,
    stage_names,
    stages_after,
    stages_to_make,
    target_chain,
)
from facet.grid.pool import prepare_workers, run_plan
from facet.grid.progress import Progress, read_timings
from facet.grid.remote_store import has_outputs, open_remote, pull_stages
from facet.grid.summary import format_summary
from facet.grid.worker import TargetResult, extract_error
from facet.grid.worktree import LOGS
from facet.memory import format_bytes, machine_memory
from facet.tracking import wandb_run

if TYPE_CHECKING:
    from facet.grid.cluster import Cluster


def write_timings(ran: dict[str, float]) -> None:
    """Write which stages ran and how long each took; all others were taken from the cache."""
    kept = {n: {"ran": False, "seconds": s["seconds"]} for n, s in read_timings().items()}
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    new = {name: {"ran": True, "seconds": seconds} for name, seconds in ran.items()}
    write_json(TIMINGS_FILE, {"finished": now, "stages": kept | new})


def merge_results(parameters: Parameters, results: list[TargetResult]) -> set[str]:
    """Write the workers' entries into dvc.lock; returns the stages that they are of."""
    made = {k: v for r in results if r.status == 0 for k, v in r.entries.items()}
    remove_leftovers(run_names(parameters))
    found = read_lock(LOCK_FILE) | made
    # In the order of the graph, and without what it no longer names.
    names = [name for name in stage_names(parameters) if name in found]
    write_lock(LOCK_FILE, {name: found[name] for name in names})
    return set(made)


def choose_runs(parameters: Parameters, run: str) -> list[str]:
    """The runs that `run` names: runs or experiments with commas, all if empty.

    Raises InputError for a name that params.yaml lacks.
    """
    every = run_names(parameters)
    requested = run.replace(",", " ").split()
    for name in requested:
        if name not in [*every, *parameters.experiments]:
            known = [*parameters.experiments, *every]
            raise InputError(f"RUN={name}: no run or experiment of that name{suggest(name, known)}")
    if not requested:
        return every
    return [r for r in every if r in requested or parse_run(r)[0] in requested]


def prepare_tracking() -> None:
    """Set what W&B needs, and say what is particular about this machine."""
    wandb_run.configure_wandb()
    wandb_run.clear_offline_marker()
    if message := note_other_bytes():
        print(message)


def repro(
    run: str,
    jobs: int,
    write_report: Callable[[set[str]], Path],
    cluster: "Cluster | None" = None,
) -> None:
    """Bring the grid, or the part of it that `run` names, up to date in `jobs` processes.

    `run` is as `choose_runs` takes it; `jobs` 0 means as many as cores; on the machines of a
    `cluster` it has no meaning. `write_report` is given the stages that are not up to date. Raises
    InputError where a run failed.
    """
    parameters = check_params(read_params())
    wanted = choose_runs(parameters, run)
    prepare_tracking()
    if cluster:
        cluster.check_commit()
    changed = changed_stages(allow_missing=cluster is not None)
    if changed and not cluster:
        prepare_workers()
    stale = set[str]()
    if changed or cluster:
        stale = make_runs(parameters, wanted, changed, jobs, not run, cluster)
    if not changed:
        print("nothing to do: data and pipelines are up to date")
    if not run:
        print(format_summary())
    sources = (PARAMS_FILE, LOCK_FILE, COMPARISONS_FILE)
    times = [f.stat().st_mtime for f in sources if f.exists()]
    if changed or not REPORT_FILE.exists() or REPORT_FILE.stat().st_mtime < max(times):
        report_or_note(write_report, stale)
    else:
        print(f"report: {REPORT_FILE}")
    if wandb_run.recently_failed():
        if place := find_unwritable_place():
            print(f"W&B's records are not whole: {place}")
        else:
            print("W&B's server failed: what followed was recorded offline; upload: make sync")


def report_or_note(write_report: Callable[[set[str]], Path], stale: set[str]) -> None:
    """Write the report and say where it is, or why it is left out: the results stand without it.

    Raises OSError where the disk takes no more.
    """
    try:
        print(f"report: {write_report(stale)}")
    except (MemoryError, OSError):
        raise
    except Exception as e:
        why = str(e) if isinstance(e, InputError) else f"{type(e).__name__}: {str(e)[:200]}"
        print(f"report: left out, and all results are there: {why}; again by: make report")


def fetch_unknown(parameters: Parameters, plan: Plan, changed: set[str]) -> dict[str, float]:
    """Download the plan's data that come from elsewhere: only then is known how large they are.

    Returns the stages that ran, with their seconds.
    """
    targets = [
        f"download@{name}"
        for name, spec in parameters.datasets.items()
        if f"normalise@{name}" in plan
        and f"download@{name}" in changed
        and find_embedded(name, spec.source) is None
    ]
    if not targets:
        return {}
    print(f"downloading first, to know their sizes: {', '.join(targets)}", flush=True)
    log = LOGS / "download.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with open_dvc(log) as session:
        session.repo.reproduce(targets)
    if session.status:
        raise InputError(extract_error(log.read_text()).strip())
    return session.ran


def choose_resources(
    parameters: Parameters,
    plan: Plan,
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
    made = [stage for several in stages_to_make(plan, changed).values() for stage in several]
    disk = estimate_disk(parameters, sizes, made)
    check_disk(disk, disk_left)
    memory = estimate_memory(parameters, sizes, experiments)
    memory_left = min(limit, psutil.virtual_memory().available)
    needs = [memory.get(parse_run(run)[0], 0) for run in runs]
    cores = usable_cores()
    # The few that a second round would make go along: all end sooner than in two rounds.
    most = min(jobs or (len(runs) if cores < len(runs) < 2 * cores else cores), len(plan))
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
    parameters: Parameters,
    wanted: list[str],
    changed: set[str],
    jobs: int,
    whole: bool,
    cluster: "Cluster | None" = None,
) -> set[str]:
    """Make the `wanted` runs that `changed` stages leave stale, and what follows if `whole`.

    Returns the stages that are not up to date afterwards.
    """
    plan = plan_targets(parameters, wanted, changed)
    if cluster:
        results, ran = make_on_cluster(parameters, plan, changed, cluster)
    else:
        results, ran = make_plan(parameters, plan, changed, jobs)
    merged = merge_results(parameters, results)
    failed = [r.target for r in results if r.status != 0]
    targets = [f"evaluate@{w}" for w in wanted if f"evaluate@{w}" not in failed]
    done = {stage for several in stages_to_make(plan, changed).values() for stage in several}
    after = set() if whole else stages_after(parameters, done)
    if whole and not failed:
        targets = []
    # Where all runs have failed there is nothing to close, but what came before them to fetch.
    pulled = reported_stages(parameters, wanted) if cluster else set()
    closing, stale = close_grid(merged, None if failed and not targets else targets, after, pulled)
    write_timings(ran | closing)
    check_results(results)
    return set() if whole else (changed - done - after) | stale


def check_results(results: list[TargetResult]) -> None:
    """Raise InputError where a target was not made."""
    if failed := [r.target for r in results if r.status != 0]:
        raise InputError(
            f"{len(failed)} of {len(results)} targets failed: {', '.join(failed[:6])}; "
            f"their output is in {LOGS}"
        )


def make_plan(
    parameters: Parameters,
    plan: Plan,
    changed: set[str],
    jobs: int,
    params: str = "",
    notes: Path | None = None,
) -> tuple[list[TargetResult], dict[str, float]]:
    """Make the targets of a plan; returns what came of each, and the seconds of what ran.

    `params` and `notes` are as `sync_worktree` takes them.
    """
    if not plan:
        return [], {}
    ran = fetch_unknown(parameters, plan, changed)
    jobs = choose_resources(parameters, plan, changed - set(ran), jobs)
    # The workers' stages decode and warp images on as many cores as they are given.
    os.environ[CORES_VARIABLE] = str(max(1, usable_cores() // jobs))
    root = Path.cwd()
    known = read_lock(LOCK_FILE)
    with Progress(plan, changed - set(ran), parameters, jobs, root) as progress:
        results = run_plan(plan, jobs, root, known, progress, params, notes)
    return results, ran | {s: seconds for r in results for s, seconds in r.ran.items()}


def reported_stages(parameters: Parameters, runs: list[str]) -> set[str]:
    """The stages whose outputs the comparisons and the report need, of these runs."""
    kinds = {"normalise", "train", "evaluate"}
    chains = [s for run in runs for s in target_chain(parameters, run).values()]
    return {s for stages in chains for s in stages if s.partition("@")[0] in kinds}


def make_on_cluster(
    parameters: Parameters, plan: Plan, changed: set[str], cluster: "Cluster"
) -> tuple[list[TargetResult], dict[str, float]]:
    """Make the targets of a plan on a cluster's machines; returns as `make_plan` does.

    Where it is ended, dvc.lock has what was made so far.
    """
    from facet.grid.cluster import run_on_cluster  # with Dask, half a second

    results: dict[str, TargetResult] = {}
    try:
        run_on_cluster(parameters, plan, changed, cluster, results)
    except BaseException:
        merge_results(parameters, list(results.values()))
        raise
    ran = {s: seconds for r in results.values() for s, seconds in r.ran.items()}
    return [results[target] for target in plan], ran


def close_grid(
    merged: set[str], targets: list[str] | None, after: set[str], pulled: set[str] | None = None
) -> tuple[dict[str, float], set[str]]:
    """Fetch the outputs of the `merged` stages, and have `dvc repro` find that all is up to date.

    After a cluster those of the stages to be `pulled`, from DVC's remote; others may be missing.
    All of the grid if there are no `targets`, which then makes `compare`; nothing if they are None.
    Returns the seconds of the stages that ran, and which of those `after` are stale. Raises
    InputError where DVC refuses, or runs a stage of the grid again.
    """
    log = LOGS / "closing.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    stale: set[str] = set()
    # Under one lock DVC reads dvc.yaml and dvc.lock once for all three.
    with open_dvc(log) as session, lock_repo(session.repo):
        for stage in session.repo.index.stages:
            if stage.addressing in merged and not pulled:
                stage.checkout(force=True)
        if pulled:
            there = (s for s in session.repo.index.stages if s.addressing in pulled)
            missing = [s for s in there if not has_outputs(s)]
            pull_stages(session.repo, missing, open_remote(session.repo))
        if targets is not None:
            session.repo.reproduce(targets, allow_missing=bool(pulled))
        if after:
            stale = set(session.repo.status(targets=sorted(after)))
    if session.status:
        raise InputError(f"dvc repro failed: {extract_error(log.read_text()).strip()}")
    if repeated := [s for s in session.ran if s != STAGES[-1]]:
        raise InputError(
            f"the closing dvc repro ran {', '.join(repeated[:4])} again: the workers' "
            "results were not accepted; is a file being edited meanwhile?"
        )
    return session.ran, stale
