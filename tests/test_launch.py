"""The launcher every stage is started by, as a process."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT, wait_for_end, wait_for_pid

STAGE = """
import os, sys, time
from pathlib import Path
from facet.errors import InputError
from facet.launch import run_stage
def main(what: str) -> None:
    Path("pid").write_text(str(os.getpid()))
    if what == "refuse": raise InputError("file.csv: is\\nwrong")
    if what == "missing": open("nowhere/file")
    if what == "wait": time.sleep(60)
run_stage(main)
"""


@pytest.fixture
def stage(tmp_path: Path) -> list[str]:
    """The command of a stage in `tmp_path`, without its item."""
    (tmp_path / "stages").mkdir()
    for name in ("__init__.py", "__main__.py"):
        shutil.copy(ROOT / "stages" / name, tmp_path / "stages")
    (tmp_path / "stages/pickle.py").write_text(STAGE)
    return [sys.executable, "-m", "stages", "pickle"]


def run(stage: list[str], what: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*stage, what],
        cwd=folder,
        text=True,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        # A shell without job control has its background jobs, and all below them, ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.parametrize(
    ("what", "status", "output"),
    [
        ("go", 0, ""),
        ("refuse", 1, "pickle: file.csv: is wrong\n"),
        ("missing", 1, "pickle: nowhere/file: No such file or directory\n"),
    ],
)
def test_errors_are_one_line(
    stage: list[str], tmp_path: Path, what: str, status: int, output: str
) -> None:
    process = run(stage, what, tmp_path)
    assert process.communicate(timeout=60)[1] == output
    assert process.returncode == status


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)],
)
def test_the_stage_ends_with_the_process_that_waits_for_it(
    stage: list[str], tmp_path: Path, number: int, status: int
) -> None:
    process = run(stage, "wait", tmp_path)
    pid = wait_for_pid(tmp_path)
    assert pid != process.pid
    assert os.getpgid(pid) == pid
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == status
    wait_for_end(pid)


def test_the_stage_ends_when_its_parent_is_killed(stage: list[str], tmp_path: Path) -> None:
    command = f"{' '.join(stage)} wait; true"
    parent = subprocess.Popen(
        ["sh", "-c", command], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    pid = wait_for_pid(tmp_path)
    parent.kill()
    parent.wait(60)
    wait_for_end(pid)
