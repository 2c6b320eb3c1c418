"""What the coordinator gives to each Dask worker: it makes targets in a process of its own.

Sent by value, since a worker has none of the project's code until it has a clone: the standard
library and Dask alone. The process, facet/grid/cluster_worker.py, is of the commit that is made.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import threading
from itertools import count
from pathlib import Path
from typing import IO, Any

from distributed import Worker, WorkerPlugin, get_worker

# Where a machine keeps its clones and DVC's cache; a folder on a disk of its own.
FOLDER_VARIABLE = "FACET_CLUSTER_FOLDER"
DEFAULT_FOLDER = "~/.cache/facet-cluster"
# Dask has a worker's memory given back at once, which is three times the page faults of a training.
TRIM_VARIABLE = "MALLOC_TRIM_THRESHOLD_"
LOOK = 0.5  # seconds between two looks at how far a target is


def run_git(*words: str | Path, folder: Path) -> str:
    """What git prints. Raises RuntimeError, with git's last line, where it fails."""
    # A worker may have been started in a hook, or with another repository's variables.
    passed = {k: v for k, v in os.environ.items() if not k.startswith("GIT_") or "SSH" in k}
    environment = passed | {"GIT_TERMINAL_PROMPT": "0"}
    done = subprocess.run(
        ["git", *words], cwd=folder, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"git {words[0]}: {' '.join(done.stderr.split())[-300:]}")
    return done.stdout


def lay_tree(url: str, commit: str) -> tuple[Path, IO[str]]:
    """A working tree at `commit` of the repository at `url`, and the lock that holds it.

    A machine clones a repository once; its processes have a tree each and share DVC's cache.
    """
    place = Path(os.environ.get(FOLDER_VARIABLE, DEFAULT_FOLDER)).expanduser()
    place = place / hashlib.sha256(url.encode()).hexdigest()[:12]
    clone = place / "clone.git"
    place.mkdir(parents=True, exist_ok=True)
    with (place / "clone.lock").open("w") as laying:
        fcntl.flock(laying, fcntl.LOCK_EX)
        if not (clone / "HEAD").exists():
            run_git("init", "--quiet", "--bare", clone, folder=place)
        try:
            run_git("cat-file", "-e", f"{commit}^{{commit}}", folder=clone)
        except RuntimeError:
            run_git("fetch", "--quiet", "--force", url, "+refs/heads/*:refs/heads/*", folder=clone)
        for number in count():
            held = (place / f"{number}.lock").open("w")
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                held.close()
        tree = place / str(number)
        try:
            run_git("reset", "--quiet", "--hard", commit, folder=tree)
            run_git("clean", "--quiet", "-fd", folder=tree)
        except (OSError, RuntimeError):  # new, or its last process was killed in the midst of it
            shutil.rmtree(tree, ignore_errors=True)
            run_git("worktree", "prune", folder=clone)
            force = ("--force", "--force", "--detach")
            run_git("worktree", "add", "--quiet", *force, tree, commit, folder=clone)
        return tree, held


class TargetProcess:
    """A process that makes targets, in a tree of its own; `unfit` says why if it cannot."""

    def __init__(self, url: str, commit: str, environment: dict[str, str]) -> None:
        self.tree, self._held = lay_tree(url, commit)
        own = {k: v for k, v in os.environ.items() if k != TRIM_VARIABLE}
        self._child = subprocess.Popen(
            [sys.executable, "-m", "facet.grid.cluster_worker"],
            cwd=self.tree,
            # A core for each of the worker's threads, if its machine does not say otherwise.
            env={"FACET_CORES": "1"} | own | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.unfit: str = self._read()["unfit"]

    def _read(self) -> dict[str, Any]:
        assert self._child.stdout
        line = self._child.stdout.readline()
        if not line:
            status = self._child.wait()
            raise RuntimeError(
                f"the process that makes targets ended with {status}: out of memory?"
            )
        answer: dict[str, Any] = json.loads(line)
        return answer

    def make(self, request: dict[str, Any], tell: Any) -> dict[str, Any]:
        """The answer to a request; `tell` is given each line of progress meanwhile."""
        assert self._child.stdin
        assert self._child.stdout
        progress, last = self.tree / ".workers/progress" / request["target"], ""
        self._child.stdin.write(json.dumps(request) + "\n")
        self._child.stdin.flush()
        while not select.select([self._child.stdout], [], [], LOOK)[0]:
            with contextlib.suppress(OSError):
                if (line := progress.read_text()) != last:
                    last = line
                    tell(line)
        answer = self._read()
        if error := answer.get("error"):
            raise RuntimeError(error)
        return answer

    def lives(self) -> bool:
        """Whether it can be given a target: after a while without one it ends."""
        return self._child.poll() is None

    def end(self) -> None:
        """End it, and what it does."""
        self._child.terminate()
        self._child.wait()
        self._held.close()


class TargetPlugin(WorkerPlugin):
    """On each worker for as long as the coordinator is there: its processes, by the threads."""

    def __init__(self, name: str, url: str, commit: str, environment: dict[str, str]) -> None:
        self.name, self.url, self.commit, self.environment = name, url, commit, environment

    def setup(self, worker: Worker) -> None:
        """Called when a worker gets it: a first process starts, ready for the first target."""
        self.worker = worker
        self.lock = threading.Lock()
        self.idle: list[TargetProcess] = []
        self.busy: list[TargetProcess] = []
        self.ended = False
        self.first = threading.Thread(target=self._start_first, daemon=True)
        self.first.start()

    def _start_first(self) -> None:
        with contextlib.suppress(Exception):  # the first target says what is wrong
            process = TargetProcess(self.url, self.commit, self.environment)
            with self.lock:
                if not (self.ended or process.unfit):
                    self.idle.append(process)
                    return
            process.end()

    def teardown(self, worker: Worker) -> None:
        """Called when the coordinator, or the worker, ends."""
        with self.lock:
            self.ended = True
            for process in self.idle + self.busy:
                process.end()

    def make(self, request: dict[str, Any]) -> dict[str, Any]:
        """Make a target; what comes of it, or why this machine is unfit for all."""
        where = {"worker": self.worker.address, "machine": socket.gethostname()}
        topic, target = self.name, request["target"]

        def tell(line: str) -> None:
            self.worker.log_event(topic, {"target": target, "progress": line, **where})

        tell("")
        process = self._take()
        if process.unfit:
            process.end()
            return {"unfit": process.unfit, **where}
        try:
            answer = process.make(request, tell)
        except BaseException:
            process.end()
            raise
        finally:
            with self.lock:
                self.busy.remove(process)
        with self.lock:
            self.idle.append(process)
        return answer | where

    def _take(self) -> TargetProcess:
        """A process that has nothing to do, made if there is none.

        Raises RuntimeError where the coordinator ends meanwhile: nobody would end the process.
        """
        self.first.join()
        with self.lock:
            while self.idle and not self.ended:
                process = self.idle.pop()
                if process.lives():
                    self.busy.append(process)
                    return process
                process.end()
        if not self.ended:
            process = TargetProcess(self.url, self.commit, self.environment)
            with self.lock:
                if not self.ended:
                    self.busy += [] if process.unfit else [process]
                    return process
            process.end()
        raise RuntimeError("the coordinator has ended")


def make_target(plugin: str, request: dict[str, Any]) -> dict[str, Any]:
    """What a Dask task is: the worker's plugin makes a target."""
    found: Any = get_worker().plugins[plugin]
    answer: dict[str, Any] = found.make(request)
    return answer
