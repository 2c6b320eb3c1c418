"""DVC in this process: its lock, its status, its stages, with what it says in a log."""

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, TextIO

from dvc.dependency import param as dvc_param
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.utils.serialize import dump_yaml, load_yaml

from facet.errors import InputError


@contextlib.contextmanager
def parse_params_once() -> Iterator[None]:
    """Have DVC parse params.yaml once, and not for each stage that declares a key of it."""
    load_path = dvc_param.load_path
    dvc_param.load_path = cache(load_path)
    try:
        yield
    finally:
        dvc_param.load_path = load_path


def changed_stages() -> set[str]:
    """The stages whose inputs, parameters or outputs are not what dvc.lock says."""
    try:
        with parse_params_once(), Repo() as repo:
            return set(repo.status())
    except DvcException as e:
        raise InputError(f"dvc status failed: {e}") from None


def read_lock(lock: Path) -> dict[str, Any]:
    """What a dvc.lock holds, stage by stage."""
    return load_yaml(lock).get("stages", {}) if lock.exists() else {}


def write_lock(lock: Path, stages: dict[str, Any]) -> None:
    """Write a dvc.lock as DVC does, at once: DVC rewrites all of it for each stage it runs."""
    dump_yaml(lock, {"schema": "2.0", "stages": stages})


class StageTimer(logging.Handler):
    """Takes the seconds of each stage that DVC runs, from what it logs."""

    def __init__(self) -> None:
        super().__init__()
        self.ran: dict[str, float] = {}
        self.status = 0
        self._running, self._since = "", 0.0

    def emit(self, record: logging.LogRecord) -> None:
        """Note when a stage begins, and that the one before has ended."""
        if isinstance(record.msg, str) and record.msg.startswith(("Running stage", "Stage '")):
            self.stop()
            running = record.msg.startswith("Running")
            self._running = str(record.args[0]) if running and record.args else ""  # type: ignore[index]
            self._since = time.monotonic()

    def stop(self) -> None:
        """Note that the stage that ran last has ended."""
        if self._running:
            self.ran[self._running] = time.monotonic() - self._since
        self._running = ""


@contextlib.contextmanager
def open_dvc(log: Path) -> Iterator[tuple[Repo, StageTimer]]:
    """DVC in this process, with all that it and its stages say in `log`.

    In this process, since starting DVC's own takes longer than what it has to do for a run. Where
    DVC refuses, that is said, and the timer's status is 1.
    """
    timer, logger = StageTimer(), logging.getLogger("dvc")
    logger.addHandler(timer)
    log.unlink(missing_ok=True)
    try:
        with log.open("a") as file, redirect_output(file), parse_params_once(), Repo() as repo:
            try:
                yield repo, timer
            except DvcException as e:
                print(f"ERROR: {e}")
                timer.status = 1
    finally:
        logger.removeHandler(timer)
        timer.stop()


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
