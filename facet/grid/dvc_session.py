"""DVC in this process: its lock, its status, its stages, with what it says in a log."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.utils.serialize import dump_yaml, load_yaml

from facet.base.names import LOCK_FILE
from facet.base.storage import atomic_write, find_unwritable_place
from facet.base.unchanged import lock_outputs
from facet.errors import InputError
from facet.launch import TIMINGS_VARIABLE


def changed_stages() -> set[str]:
    """The stages whose inputs, parameters or outputs are not what dvc.lock says."""
    mend_lock()
    mend_running()
    try:
        with Repo() as repo:
            return set(repo.status())
    except DvcException as e:
        raise InputError(f"dvc status failed: {e}") from None


def mend_lock() -> None:
    """Put the last commit's dvc.lock in the place of one that is not whole: DVC was killed.

    What has been made since is in DVC's cache, which knows it by its inputs.
    """
    try:
        lock_outputs()
        return
    except InputError:
        words = ["git", "show", f"HEAD:./{LOCK_FILE}"]
        committed = subprocess.run(words, capture_output=True).stdout
    with atomic_write(LOCK_FILE) as aside:
        aside.write_bytes(committed or b"schema: '2.0'\nstages: {}\n")
    print(f"{LOCK_FILE}: was not whole; the last commit's is in its place")


def mend_running() -> None:
    """Remove DVC's list of the files in use where it is not whole: DVC was killed writing it."""
    place = Path(".dvc/tmp/rwlock")
    for wait in (0.2, 0.0):  # another DVC may be writing it
        try:
            json.loads(place.read_bytes())
            return
        except FileNotFoundError:
            return
        except ValueError:
            time.sleep(wait)
    place.unlink(missing_ok=True)


def read_lock(lock: Path) -> dict[str, Any]:
    """What a dvc.lock holds, stage by stage."""
    return load_yaml(lock).get("stages", {}) if lock.exists() else {}


def write_lock(lock: Path, stages: dict[str, Any]) -> None:
    """Write a dvc.lock as DVC does, at once: DVC rewrites all of it for each stage it runs."""
    with atomic_write(lock) as aside:
        dump_yaml(aside, {"schema": "2.0", "stages": stages})


@dataclass
class Session:
    """DVC in this process, and what came of it."""

    repo: Repo
    status: int = 0  # 1 where DVC refused
    ran: dict[str, float] = field(default_factory=dict)  # seconds by stage


@contextlib.contextmanager
def open_dvc(log: Path) -> Iterator[Session]:
    """DVC in this process, with all that it and its stages say in `log`.

    In this process, since starting DVC's own takes longer than what it has to do for a run. Where
    DVC refuses, that is said, and the session's status is 1.
    """
    mend_running()
    log.unlink(missing_ok=True)
    timings = log.with_suffix(".timings").absolute()
    timings.unlink(missing_ok=True)
    os.environ[TIMINGS_VARIABLE] = str(timings)
    try:
        with log.open("a") as file, redirect_output(file), Repo() as repo:
            session = Session(repo)
            try:
                yield session
            except DvcException as e:
                print(f"ERROR: {describe_refusal(e)}")
                session.status = 1
    finally:
        del os.environ[TIMINGS_VARIABLE]
        if timings.exists():
            lines = (line.split("\t") for line in timings.read_text().splitlines())
            session.ran = {name: float(seconds) for name, seconds in lines}


def describe_refusal(error: BaseException | None) -> str:
    """Why DVC refused, its causes too; it does not say that a disk is full."""
    reasons, cause = list[str](), error
    while cause:
        reasons.append(" ".join(str(cause).split()))
        cause = cause.__cause__
    return ": ".join([*reasons, *filter(None, [find_unwritable_place()])])


def reproduce_stages(session: Session, names: list[str]) -> dict[str, Any]:
    """Make these stages of dvc.yaml, one after the other; returns the entries of those that ran.

    `dvc repro` builds the whole graph and writes dvc.lock for each stage: 1.4 s where this takes
    0.4 s (56 times in the default grid), and `repo.stage.load_one` parses dvc.yaml for each stage.
    Where another release of DVC has none of these functions, `dvc repro` is called after all.
    """
    entries, known = dict[str, Any](), read_lock(LOCK_FILE)
    try:
        from dvc.dvcfile import PROJECT_FILE, load_file
        from dvc.stage.serialize import to_lockfile

        stages = load_file(session.repo, PROJECT_FILE).stages
        with session.repo.lock:
            for name in names:
                if (stage := stages[name]).reproduce():
                    entries |= to_lockfile(stage)
                    # The next stage compares its inputs with it.
                    write_lock(LOCK_FILE, known | entries)
    except (AttributeError, ImportError, TypeError):
        command = ["dvc", "repro", "--single-item", *names]
        done = subprocess.run(command, stdin=subprocess.DEVNULL)
        session.status = int(done.returncode != 0)
        return read_lock(LOCK_FILE)
    return entries


@contextlib.contextmanager
def redirect_output(file: TextIO) -> Iterator[None]:
    """What this process and those it starts print goes to `file`."""
    kept = [
        (stream, os.dup(stream.fileno())) for stream in (sys.__stdout__, sys.__stderr__) if stream
    ]
    for stream, _ in kept:
        stream.flush()
        os.dup2(file.fileno(), stream.fileno())
    try:
        yield
    finally:
        for stream, number in kept:
            stream.flush()
            os.dup2(number, stream.fileno())
            os.close(number)
