"""DVC in this process: its lock, its status, its stages, with what it says in a log."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
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
from facet.git import call_git
from facet.launch import TIMINGS_VARIABLE

RWLOCK_FILE = Path(".dvc/tmp/rwlock")


def changed_stages(allow_missing: bool = False) -> set[str]:
    """The stages whose inputs, parameters or outputs are not what dvc.lock says.

    `allow_missing` leaves out those of which nothing differs but that files are not here.
    """
    mend_lock()
    mend_rwlock()
    try:
        with Repo() as repo:
            found = repo.status()
            stages = repo.index.stages
    except (DvcException, ValueError) as e:  # a ValueError of git's settings
        raise InputError(f"dvc status failed: {' '.join(str(e).split())}") from None
    if not stages:
        raise InputError(
            "dvc.yaml: DVC finds no stage; do git's settings ignore the file? "
            "(git check-ignore --verbose dvc.yaml)"
        )
    if not allow_missing:
        return set(found)
    return {stage for stage, changes in found.items() if not all(map(_is_missing, changes))}


def _is_missing(change: Any) -> bool:
    """Whether a change, as `dvc status --json` has it, is that files are not here."""
    if not isinstance(change, dict):
        return False
    kinds = [
        kind for paths in change.values() if isinstance(paths, dict) for kind in paths.values()
    ]
    return bool(kinds) and all(kind in ("deleted", "not in cache") for kind in kinds)


def mend_lock() -> None:
    """Put the last commit's dvc.lock in the place of one that is not whole: DVC was killed.

    What has been made since is in DVC's cache, which knows it by its inputs.
    """
    try:
        lock_outputs()
        return
    except InputError:
        committed = call_git("show", f"HEAD:./{LOCK_FILE}").stdout.encode()
    with atomic_write(LOCK_FILE) as aside:
        aside.write_bytes(committed or b"schema: '2.0'\nstages: {}\n")
    print(f"{LOCK_FILE}: was not whole; the last commit's is in its place")


def mend_rwlock() -> None:
    """Remove DVC's list of who reads and writes what if DVC was killed while it wrote it.

    It names processes that run; DVC itself removes those that have ended.
    """
    for _ in range(5):
        try:
            json.loads(RWLOCK_FILE.read_bytes())
            return
        except FileNotFoundError:
            return
        except ValueError:  # another process may be writing it
            time.sleep(0.2)
    RWLOCK_FILE.unlink(missing_ok=True)


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
    mend_rwlock()
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


def load_stages(repo: Repo) -> Mapping[str, Any]:
    """DVC's stages by name, each parsed once: `repo.stage.load_one` parses dvc.yaml for each."""
    from dvc.dvcfile import PROJECT_FILE, load_file

    stages: Mapping[str, Any] = load_file(repo, PROJECT_FILE).stages
    return stages


def reproduce_stages(
    session: Session,
    names: list[str],
    prepare: Callable[[Mapping[str, Any], Any], None] | None = None,
) -> dict[str, Any]:
    """Make these stages of dvc.yaml, one after the other; returns the entries of those that ran.

    `prepare` is given all stages of dvc.yaml and each one before it is made.

    `dvc repro` builds the whole graph and writes dvc.lock for each stage: 1.4 s where this takes
    0.4 s (56 times in the default grid). Where another release of DVC has none of these functions,
    `dvc repro` is called after all.
    """
    entries, known = dict[str, Any](), read_lock(LOCK_FILE)
    try:
        from dvc.stage.serialize import to_lockfile

        stages = load_stages(session.repo)
        with session.repo.lock:
            for name in names:
                stage = stages[name]
                if prepare:
                    prepare(stages, stage)
                if stage.reproduce():
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
