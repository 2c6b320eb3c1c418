"""Run the grid on all cores: `make repro`.

Each worker process has a git worktree of its own, laid like the working tree, uncommitted edits
included; all share DVC's cache, which carries what they make. Their entries of dvc.lock are brought
together at the end, and the closing `dvc repro` must find every grid stage up to date.
"""

import datetime
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dvc.repo import Repo

from facet.config import Parameters, check_params, parse_run, read_params, run_names, suggest
from facet.errors import InputError
from facet.grid.dvc_session import changed_stages, open_dvc, read_lock, write_lock
from facet.grid.plan import plan_targets
from facet.grid.stage_server import StageServer
from facet.grid.summary import format_summary
from facet.grid.worker import extract_error, run_target
from facet.grid.worktree import WORKERS, sync_worktree
from facet.names import COMPARISONS_FILE, LOCK_FILE, PARAMS_FILE, REPORT_FILE, STAGES, TIMINGS_FILE
from facet.processor import CORES_VARIABLE, note_other_bytes, usable_cores
from facet.storage import read_json, write_json
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
) -> list[dict[str, Any]]:
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
    results, known = [], read_lock(root / LOCK_FILE)
    with (
        StageServer(),
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
            say = f"[{count}/{len(plan)}] {result['target']}"
            if result["status"] == 0:
                print(f"{say} {result['seconds']:.0f} s", flush=True)
            elif result["status"] is None:
                print(f"{say} not run: what it needs failed", flush=True)
            else:
                print(f"{say} FAILED\n{extract_error(result['output'])}", flush=True)
    return results


def merge_results(results: list[dict[str, Any]]) -> None:
    """Bring the workers' results into the project: their entries of dvc.lock, their outputs."""
    made = {k: v for r in results if r["status"] == 0 for k, v in r["entries"].items()}
    with Repo() as repo:
        stages = {s.addressing: s for s in repo.index.stages}
        found = read_lock(LOCK_FILE) | made
        # In the order of the graph, and without what it no longer names.
        write_lock(LOCK_FILE, {name: found[name] for name in stages if name in found})
    with Repo() as repo, repo.lock:  # read anew, with dvc.lock as it is now
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
    changed = changed_stages()
    if not changed:
        print("nothing to do: data and pipelines are up to date")
    else:
        make_runs(parameters, wanted, changed, jobs, whole=not run)
    if not run:
        print(format_summary())
    sources = (PARAMS_FILE, LOCK_FILE, COMPARISONS_FILE)
    times = [f.stat().st_mtime for f in sources if f.exists()]
    if changed or not REPORT_FILE.exists() or REPORT_FILE.stat().st_mtime < max(times):
        write_report(changed_stages() if changed and run else set())
    print(f"report: {REPORT_FILE}")
    if wandb_run.recently_failed():
        print("W&B's server failed: what followed was recorded offline; upload it with: make sync")


def make_runs(
    parameters: Parameters, wanted: list[str], changed: set[str], jobs: int, whole: bool
) -> None:
    """Make the `wanted` runs that `changed` stages leave stale, and what follows if `whole`."""
    plan = plan_targets(parameters, wanted, changed)
    results: list[dict[str, Any]] = []
    failed: list[str] = []
    ran: dict[str, float] = {}
    if plan:
        count = sum(t.startswith("evaluate@") for t in plan)
        cores = usable_cores()
        jobs = min(jobs or cores, len(plan))
        # The workers' stages decode and warp images on as many cores as they are given.
        os.environ[CORES_VARIABLE] = str(max(1, cores // jobs))
        print(f"{count} of {len(wanted)} runs to make, {jobs} at a time", flush=True)
        results = run_on_cluster(plan, jobs, Path.cwd())
        failed = [r["target"] for r in results if r["status"] != 0]
        ran = {stage: seconds for r in results for stage, seconds in r["ran"].items()}
    merge_results(results)
    made = [f"evaluate@{w}" for w in wanted if f"evaluate@{w}" not in failed]
    if made:
        targets = [] if whole and not failed else made
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
        ran |= session.ran
    write_timings(ran)
    if failed:
        raise InputError(
            f"{len(failed)} of {len(plan)} targets failed: {', '.join(failed[:6])}; "
            f"their output is in {WORKERS}/logs"
        )
