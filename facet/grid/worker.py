"""Make one target of the grid in a worker process."""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from facet.base.names import LOCK_FILE, STAGES
from facet.grid.dvc_session import open_dvc, reproduce_stages, write_lock
from facet.grid.worktree import LOGS, PROGRESS
from facet.launch import PROGRESS_VARIABLE


@dataclass(frozen=True)
class TargetResult:
    """What came of a target."""

    target: str
    status: int | None
    """0, 1 where a stage failed, None where it was not tried, since what it needs failed."""
    seconds: float = 0.0
    output: str = ""
    """What DVC and the stages said."""
    entries: dict[str, Any] = field(default_factory=dict)
    """Its stages in dvc.lock, and those before them, as DVC writes them."""
    ran: dict[str, float] = field(default_factory=dict)
    """The seconds of each stage that ran; the others came out of the cache."""


def begin_worker() -> None:
    """Leave Ctrl-C to the stages and to the coordinator, and end when it does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_coordinator, daemon=True).start()


def _end_with_coordinator() -> None:
    """End this process when the coordinator has ended, however that was.

    The kernel's word of a parent's end is of no use here: the parent is the process that workers
    fork from, which itself stays while a worker is there.
    """
    if coordinator := multiprocessing.parent_process():
        coordinator.join()
    os.kill(os.getpid(), signal.SIGTERM)


def run_target(
    target: str, stages: list[str], folder: Path, root: Path, entries: dict[str, Any]
) -> TargetResult:
    """Make the `stages` of one target in the worktree `folder`; runs in a worker process.

    `entries` are those of dvc.lock, those of the targets before it included.
    """
    started = time.monotonic()
    os.environ.setdefault("WANDB_DIR", str(root))
    os.environ.setdefault("WANDB_DATA_DIR", f"{root}/.wandb-data")
    os.environ.setdefault("WANDB_CACHE_DIR", f"{root}/.wandb-cache")
    os.environ[PROGRESS_VARIABLE] = str(root / PROGRESS / target)
    write_lock(folder / LOCK_FILE, entries)
    log = root / LOGS / f"{target}.log"
    with contextlib.chdir(folder), open_dvc(log) as session:
        entries |= reproduce_stages(session, stages)
    seconds, output = time.monotonic() - started, log.read_text(errors="replace")
    return TargetResult(target, session.status, seconds, output, entries, session.ran)


def extract_error(output: str) -> str:
    """The stage's own last words among what DVC printed, or DVC's."""
    lines = [line.split("\r")[-1] for line in output.splitlines() if line.strip()]
    stage = [line for line in lines if line.split(":")[0] in STAGES]
    refused = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    chosen = stage[-1:] or refused[-1:] or lines[-5:] or ["no output"]
    return "    " + "\n    ".join(chosen)
