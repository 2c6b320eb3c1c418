"""Make one target of the grid in a worker process."""

import contextlib
import os
import re
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from dvc.dvcfile import PROJECT_FILE, load_file
from dvc.stage import run as dvc_run
from dvc.stage.exceptions import StageCmdFailedError
from dvc.stage.serialize import to_lockfile

from facet.grid.dvc_session import open_dvc, write_lock
from facet.grid.stage_server import Client
from facet.grid.worktree import WORKERS
from facet.names import LOCK_FILE, STAGES


def run_target(
    target: str,
    stages: list[str],
    root: str,
    server_path: str,
    lock_entries: dict[str, Any],
    *upstream: Any,
) -> dict[str, Any]:
    """The `stages` of one target, in this worker's worktree; runs in a worker process.

    `server_path` is where the stage server listens; `lock_entries` are entries of dvc.lock, to
    which those of `upstream`, the results of the targets before it, are added. Returns target,
    status, seconds, output, the stages' entries and the seconds of those that ran; status None
    where a target before it failed.
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
    # Stage by stage and not by `reproduce`, which builds the whole graph for each target, and
    # without writing dvc.lock for each stage: that was most of DVC's share.
    with (
        contextlib.chdir(folder),
        run_on_server(connect(server_path)),
        open_dvc(log) as (repo, timer),
        repo.lock,
    ):
        found = load_file(repo, PROJECT_FILE).stages
        for name in stages:
            stage = found[name]
            if stage.reproduce():
                lock_entries |= to_lockfile(stage)
    return {
        "target": target,
        "status": timer.status,
        "seconds": time.monotonic() - started,
        "output": log.read_text(errors="replace"),
        "entries": lock_entries,
        "ran": timer.ran,
    }


@cache
def connect(path: str) -> Client:
    """This worker process's own connection to the stage server."""
    return Client(path)


@contextlib.contextmanager
def run_on_server(client: Client) -> Iterator[None]:
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


def extract_error(output: str) -> str:
    """The stage's own last words among what DVC printed, or DVC's."""
    lines = [line.split("\r")[-1] for line in output.splitlines() if line.strip()]
    stage = [line for line in lines if line.split(":")[0] in STAGES]
    return "    " + "\n    ".join((stage or lines or ["no output"])[-1 if stage else -5 :])
