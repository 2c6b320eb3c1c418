"""Make one target of the grid in a worker process."""

import contextlib
import os
import time
from pathlib import Path
from typing import Any

from facet.grid.dvc_session import open_dvc, reproduce_stages, write_lock
from facet.grid.worktree import WORKERS
from facet.names import LOCK_FILE, STAGES


def run_target(
    target: str,
    stages: list[str],
    root: str,
    lock_entries: dict[str, Any],
    *upstream: Any,
) -> dict[str, Any]:
    """The `stages` of one target, in this worker's worktree; runs in a worker process.

    `lock_entries` are entries of dvc.lock, to which those of `upstream`, the results of the targets
    before it, are added. Returns target, status, seconds, output, the stages' entries and the
    seconds of those that ran; status None where a target before it failed.
    """
    from distributed import get_worker

    if any(w["status"] != 0 for w in upstream):
        nothing: dict[str, Any] = {"seconds": 0.0, "output": "", "entries": {}, "ran": {}}
        return {"target": target, "status": None} | nothing
    folder = Path(root) / WORKERS / str(get_worker().name)
    started = time.monotonic()
    os.environ.setdefault("WANDB_DIR", root)
    os.environ.setdefault("WANDB_DATA_DIR", f"{root}/.wandb-data")
    os.environ.setdefault("WANDB_CACHE_DIR", f"{root}/.wandb-cache")
    lock_entries = lock_entries | {k: v for w in upstream for k, v in w["entries"].items()}
    write_lock(folder / LOCK_FILE, lock_entries)
    log = Path(root) / WORKERS / "logs" / f"{target}.log"
    log.parent.mkdir(exist_ok=True)
    with contextlib.chdir(folder), open_dvc(log) as session:
        lock_entries |= reproduce_stages(session, stages)
    return {
        "target": target,
        "status": session.status,
        "seconds": time.monotonic() - started,
        "output": log.read_text(errors="replace"),
        "entries": lock_entries,
        "ran": session.ran,
    }


def extract_error(output: str) -> str:
    """The stage's own last words among what DVC printed, or DVC's."""
    lines = [line.split("\r")[-1] for line in output.splitlines() if line.strip()]
    stage = [line for line in lines if line.split(":")[0] in STAGES]
    return "    " + "\n    ".join((stage or lines or ["no output"])[-1 if stage else -5 :])
