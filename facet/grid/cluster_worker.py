"""The process that makes targets on a machine of a cluster, in its clone of the project.

Requests come as lines of JSON on standard input, answers go as lines to standard output; the first
says whether this machine is fit. It ends when its input does: when the Dask worker has ended.
"""

import base64
import fcntl
import io
import json
import os
import queue
import shutil
import signal
import sys
import tarfile
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dvc.config import Config
from dvc.repo import Repo

from facet.base.names import COSTS, LOCK_FILE, MANIFESTS, PACKAGES_FILE
from facet.base.processor import why_other_bytes
from facet.errors import InputError
from facet.grid.dvc_session import open_dvc, reproduce_stages, write_lock
from facet.grid.remote_store import (
    find_inputs,
    has_outputs,
    open_remote,
    pull_stages,
    push_stages,
)
from facet.grid.stage_server import serve_stages
from facet.grid.worktree import LOGS, PROGRESS
from facet.launch import PROGRESS_VARIABLE
from facet.packages import find_other_versions, installed_versions, read_pins

DASK_FILE = Path("requirements-cluster.lock")
IDLE = 600.0  # seconds without a request after which the process ends
# What a run notes beside DVC's outputs.
NOTES = (COSTS.format("*"), MANIFESTS.format("*"), "wandb/*run-*")
MACHINE = Path("..")  # what the machine's trees share: DVC's cache, checkpoints


def why_unfit() -> str:
    """Why what is made here would not be what the others make; empty where it is."""
    if other := why_other_bytes():
        return other
    try:
        pins = read_pins(PACKAGES_FILE.read_text()) | read_pins(DASK_FILE.read_text())
    except InputError as e:
        return str(e)
    found = find_other_versions(installed_versions(), pins)
    words = [f"{name} is {here}, not {pins[name]}" for name, here in found.items()]
    more = f" and {len(words) - 3} more" if len(words) > 3 else ""
    if words:
        return f"its packages are not those of {PACKAGES_FILE}: {', '.join(words[:3])}{more}"
    if not Config(".dvc", validate=False)["core"].get("remote"):
        return ".dvc/config names no default remote (dvc remote add --default)"
    return ""


def share_folders() -> None:
    """Have DVC's cache and the checkpoints lie once on the machine, for all its trees."""
    with Config(".dvc").edit("local") as settings:
        settings["cache"] = {"dir": "../../cache", "type": ["hardlink", "copy"]}
    (MACHINE / "checkpoints").mkdir(exist_ok=True)
    link = Path(".ckpt")
    if not link.is_symlink():
        shutil.rmtree(link, ignore_errors=True)
        link.symlink_to(MACHINE / "checkpoints")


def pack_notes() -> str:
    """What runs have noted here, as a .tar.gz in base64; it lies here no longer.

    Links, which lead into this machine's folders, are left out.
    """
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for path in sorted(p for pattern in NOTES for p in Path().glob(pattern)):
            archive.add(path, filter=lambda m: m if m.isfile() or m.isdir() else None)
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return base64.b64encode(packed.getvalue()).decode()


def pull_once(repo: Repo, stage: Any, remote: Any) -> None:
    """Bring a stage's outputs here, for all of the machine's trees, if they are not here."""
    if not has_outputs(stage):
        with (MACHINE / "pull.lock").open("w") as pulling:
            fcntl.flock(pulling, fcntl.LOCK_EX)
            pull_stages(repo, [stage], remote)


def make_target(store: Repo, remote: Any, request: dict[str, Any]) -> dict[str, Any]:
    """Make the stages of a target and have DVC's `remote` hold them; the answer to a request."""
    started = time.monotonic()
    target, names, entries = request["target"], request["stages"], request["entries"]
    os.environ[PROGRESS_VARIABLE] = str((PROGRESS / target).absolute())
    PROGRESS.mkdir(parents=True, exist_ok=True)
    LOGS.mkdir(parents=True, exist_ok=True)
    write_lock(LOCK_FILE, entries)
    log = LOGS / f"{target}.log"
    with open_dvc(log) as session:
        before = [name for name in request["chain"] if name not in names]
        made = []

        def prepare(stages: Mapping[str, Any], stage: Any) -> None:
            """Pull what a stage reads, and what it makes where that is known."""
            for one in find_inputs([stages[name] for name in before], stage):
                pull_once(session.repo, one, remote)
            if stage.addressing in entries and not stage.changed_deps():
                pull_once(session.repo, stage, remote)
            made.append(stage)

        entries |= reproduce_stages(session, names, prepare)
        if not session.status:
            push_stages(store, made, remote)
    output = log.read_text(errors="replace")
    return {
        "status": session.status,
        "seconds": time.monotonic() - started,
        "output": output,
        "entries": entries,
        "ran": session.ran,
        "notes": pack_notes(),
    }


def read_requests() -> queue.Queue[str]:
    """The lines of standard input, as they come; this process ends with the last of them."""
    lines: queue.Queue[str] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=read, daemon=True).start()
    return lines


def main() -> None:
    """Answer requests until there are none for a while."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what anything prints is no answer
    requests = read_requests()

    def answer(content: dict[str, Any]) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    if reason := why_unfit():
        answer({"unfit": reason})
        return
    share_folders()
    with serve_stages(), Repo() as store:
        remote = open_remote(store)
        answer({"unfit": ""})
        while True:
            try:
                line = requests.get(timeout=IDLE)
            except queue.Empty:
                return
            try:
                answer(make_target(store, remote, json.loads(line)))
            except Exception as e:  # whatever it is, the coordinator is to hear of it
                traceback.print_exc()
                answer({"error": f"{type(e).__name__}: {e}"})


if __name__ == "__main__":
    main()
