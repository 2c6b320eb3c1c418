"""Make one target of the grid in a worker process."""

import contextlib
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from facet.base.names import LOCK_FILE, STAGES
from facet.grid.dvc_session import open_dvc, reproduce_stages, write_lock
from facet.grid.worktree import WORKERS


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


def run_target(
    target: str, stages: list[str], root: str, entries: dict[str, Any], *upstream: TargetResult
) -> TargetResult:
    """Make the `stages` of one target in this worker's worktree; runs in a worker process.

    `entries` are those of dvc.lock, to which those of the targets before it are added.
    """
    from distributed import get_worker

    if any(before.status != 0 for before in upstream):
        return TargetResult(target, None)
    folder = Path(root) / WORKERS / str(get_worker().name)
    started = time.monotonic()
    os.environ.setdefault("WANDB_DIR", root)
    os.environ.setdefault("WANDB_DATA_DIR", f"{root}/.wandb-data")
    os.environ.setdefault("WANDB_CACHE_DIR", f"{root}/.wandb-cache")
    entries = entries | {k: v for before in upstream for k, v in before.entries.items()}
    write_lock(folder / LOCK_FILE, entries)
    log = Path(root) / WORKERS / "logs" / f"{target}.log"
    log.parent.mkdir(exist_ok=True)
    with contextlib.chdir(folder), open_dvc(log) as session:
        entries |= reproduce_stages(session, stages)
    seconds, output = time.monotonic() - started, log.read_text(errors="replace")
    return TargetResult(target, session.status, seconds, output, entries, session.ran)


def extract_error(output: str) -> str:
    """The stage's own last words among what DVC printed, or DVC's."""
    lines = [line.split("\r")[-1] for line in output.splitlines() if line.strip()]
    stage = [line for line in lines if line.split(":")[0] in STAGES]
    return "    " + "\n    ".join((stage or lines or ["no output"])[-1 if stage else -5 :])
