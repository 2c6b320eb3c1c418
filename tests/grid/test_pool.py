"""Targets are made in processes, in the order of what they wait for, also where one is killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from facet.base.config import check_params
from facet.errors import InputError
from facet.grid import pool
from facet.grid.plan import Plan
from facet.grid.progress import Progress
from facet.grid.worker import TargetResult
from tests.helpers import small_parameters, wait_for_end

PLAN: Plan = {
    "normalise@faces": ([], ["pickle@faces", "normalise@faces"]),
    "augment@plain": (["normalise@faces"], ["augment@plain"]),
    "evaluate@plain-0": (["augment@plain"], ["train@plain-0", "evaluate@plain-0"]),
    "augment@dropped": (["normalise@faces"], ["augment@dropped"]),
    "evaluate@dropped-0": (["augment@dropped"], ["train@dropped-0", "evaluate@dropped-0"]),
}


def make(
    target: str, stages: list[str], folder: Path, root: Path, entries: dict[str, Any]
) -> TargetResult:
    """Takes the place of a target: notes that it was tried, and ends as a file of its name says."""
    tries = root / "tries" / target
    with tries.open("a") as file:
        file.write(f"{folder.name}\n")
    fate = (root / target).read_text() if (root / target).exists() else ""
    if fate == "killed" or (fate == "killed once" and tries.read_text().count("\n") == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    made = dict.fromkeys(stages, os.getpid())
    return TargetResult(target, int(fate == "fails"), entries=entries | made)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tries").mkdir()
    monkeypatch.setattr(pool, "run_target", make)
    monkeypatch.setattr(pool, "sync_worktree", lambda *_: None)
    return tmp_path


def run(root: Path, known: dict[str, Any] | None = None) -> dict[str, TargetResult]:
    parameters = check_params(small_parameters("embedded"))
    progress = Progress(PLAN, {"pickle@faces"}, parameters, 2, root)
    return {r.target: r for r in pool.run_plan(PLAN, 2, root, known or {}, progress)}


def test_a_target_knows_what_those_before_it_have_made(root: Path) -> None:
    found = run(root, {"pickle@faces": "known", "compare": "of no target"})
    assert list(found) == list(PLAN)
    assert {r.status for r in found.values()} == {0}
    entries = found["evaluate@plain-0"].entries
    assert list(entries) == [
        "pickle@faces",
        "normalise@faces",
        "augment@plain",
        "train@plain-0",
        "evaluate@plain-0",
    ]
    assert os.getpid() not in entries.values()


def test_what_needs_a_failed_target_is_not_tried(root: Path) -> None:
    (root / "augment@plain").write_text("fails")
    found = run(root)
    assert found["augment@plain"].status == 1
    assert found["evaluate@plain-0"].status is None
    assert found["evaluate@dropped-0"].status == 0
    assert not (root / "tries/evaluate@plain-0").exists()


def test_a_target_whose_process_is_killed_is_tried_again(root: Path) -> None:
    (root / "augment@plain").write_text("killed once")
    assert {r.status for r in run(root).values()} == {0}
    assert len((root / "tries/augment@plain").read_text().split()) == 2


def test_a_target_that_is_killed_again_fails_alone(root: Path) -> None:
    (root / "augment@plain").write_text("killed")
    found = run(root)
    assert found["augment@plain"].status == 1
    assert "memory" in found["augment@plain"].output
    assert found["evaluate@plain-0"].status is None
    assert found["evaluate@dropped-0"].status == 0


def test_no_worker_outlives_a_coordinator_that_is_killed(tmp_path: Path) -> None:
    """Also where it has nothing to do, so that nothing else would end it."""
    program = tmp_path / "coordinator.py"
    program.write_text(
        "import os, signal, sys\n"
        "from facet.grid.pool import start_pool\n"
        "if __name__ == '__main__':\n"
        "    with start_pool(1) as pool:\n"
        "        print(pool.submit(os.getpid).result(), flush=True)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    words = [sys.executable, str(program)]
    env = os.environ | {"PYTHONPATH": str(Path.cwd())}
    output = tmp_path / "output"  # a pipe would stay open with the worker
    with output.open("w") as file, (tmp_path / "errors").open("w") as errors:
        done = subprocess.run(words, env=env, stdout=file, stderr=errors)
    assert done.returncode == -signal.SIGKILL, (tmp_path / "errors").read_text()
    wait_for_end(int(output.read_text()))


def test_the_process_that_workers_fork_from_may_be_killed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit = pool.ProcessPoolExecutor.submit
    lost = iter([EOFError(), ConnectionResetError()])

    def submit_or_fail(self: Any, *words: Any) -> Any:
        if error := next(lost, None):
            raise error
        return submit(self, *words)

    monkeypatch.setattr(pool, "TRIES", 3)
    monkeypatch.setattr(pool.ProcessPoolExecutor, "submit", submit_or_fail)
    assert {r.status for r in run(root).values()} == {0}
    lost = iter([EOFError()] * 9)
    with pytest.raises(InputError, match="killed at their start"):
        run(root)
