"""Make a plan's targets in worker processes, each in a git worktree of its own."""

import multiprocessing
import os
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from facet.errors import InputError
from facet.grid.plan import Plan, ready_targets
from facet.grid.progress import Progress
from facet.grid.worker import TargetResult, begin_worker, run_target
from facet.grid.worktree import LOGS, PROGRESS, WORKERS, sync_worktree

TRIES = 2  # of a target whose worker process is killed
LOOK = 0.25  # seconds between two looks at how far the stages are


def prepare_workers() -> None:
    """Start the process that workers fork from: it imports DVC while this one goes on.

    Not this process: it may have threads. Each worker would need a second for the import.
    """
    # Where this process is killed, the system takes back what Python would speak of.
    warnings = [os.environ.get("PYTHONWARNINGS", ""), "ignore:resource_tracker:UserWarning"]
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, warnings))
    multiprocessing.set_forkserver_preload(["__main__", "facet.grid.worker"])
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited: Ctrl-C is not for it
    # A worker that starts as the coordinator ends would say so in a traceback. What it says of a
    # target goes to that target's log, and its errors come back with the result.
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    forkserver.ensure_running()
    os.dup2(kept, 2)
    os.close(kept)
    os.close(nothing)
    signal.signal(signal.SIGINT, handler)


@contextmanager
def start_pool(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Worker processes; an error or Ctrl-C ends them in the middle of what they do."""
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("forkserver"), begin_worker)
    try:
        yield pool
    except BaseException:
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def run_plan(
    plan: Plan,
    jobs: int,
    root: Path,
    known: dict[str, Any],
    progress: Progress,
    params: str = "",
    notes: Path | None = None,
) -> list[TargetResult]:
    """Make the plan's targets, `jobs` at once, those that are expected to take longest first.

    `known` are dvc.lock's stages. `params` and `notes` are as `sync_worktree` takes them.
    """
    for folder in (LOGS, PROGRESS):
        (root / folder).mkdir(parents=True, exist_ok=True)
    free = [root / WORKERS / str(number) for number in range(jobs)]
    for folder in free:
        sync_worktree(folder, root, params, notes)
    results: dict[str, TargetResult] = {}
    left = sorted(plan, key=progress.seconds_through, reverse=True)
    killed: list[str] = []
    broken = 0
    while left:
        # Where one was killed, the others go one at a time: they have more memory so, and it is
        # known whose fault the next time is.
        at_once = 1 if killed else jobs
        with start_pool(at_once) as pool:
            running: dict[Future[TargetResult], tuple[str, Path]] = {}
            try:
                while left or running:
                    for target in ready_targets(left, plan, results):
                        waits, stages = plan[target]
                        if any(results[w].status != 0 for w in waits):
                            left.remove(target)
                            results[target] = TargetResult(target, None)
                            progress.end(results[target])
                        elif len(running) < at_once:
                            entries = {s: known[s] for s in stages if s in known}
                            for before in waits:
                                entries |= results[before].entries
                            words = (target, stages, free[-1], root, entries)
                            future = pool.submit(run_target, *words)
                            running[future] = target, free.pop()
                            left.remove(target)
                            progress.begin(target)
                    done, _ = wait(running, LOOK, FIRST_COMPLETED)
                    for future in done:
                        result = future.result()
                        target, folder = running.pop(future)
                        free.append(folder)
                        results[target] = result
                        progress.end(result)
                    progress.look()
            except (BrokenExecutor, EOFError, ConnectionError):
                # A worker was killed, and takes what the others do along; or the process that
                # workers fork from was.
                if not running and (broken := broken + 1) == TRIES:
                    raise InputError(
                        "worker processes are killed at their start; try again"
                    ) from None
                for target, folder in running.values():
                    free.append(folder)
                    killed.append(target)
                    if killed.count(target) < TRIES:
                        left.append(target)
                    else:
                        why = "its process was killed; out of memory? (make repro JOBS=1)"
                        results[target] = TargetResult(target, 1, output=why)
                        progress.end(results[target])
    shutil.rmtree(root / PROGRESS)
    return [results[target] for target in plan]
