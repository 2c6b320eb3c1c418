"""What the grid says while it runs, on a terminal and elsewhere."""

import functools
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from facet.base.config import check_params
from facet.grid import progress
from facet.grid.plan import plan_targets
from facet.grid.worker import TargetResult
from tests.helpers import small_parameters

CHANGED = {"train@plain-0", "train@dropped-0"}
PLAIN, DROPPED = "evaluate@plain-0", "evaluate@dropped-0"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with notes of how long stages took, and of the epochs that a run had."""
    monkeypatch.chdir(tmp_path)
    for name in ("metrics/costs", "metrics/runs", ".workers/progress"):
        Path(name).mkdir(parents=True)
    took = {"train@plain-0": 40.0, "train@plain-1": 50.0, "evaluate@plain-1": 6.0}
    stages = {name: {"ran": True, "seconds": seconds} for name, seconds in took.items()}
    Path("metrics/costs/stages.json").write_text(json.dumps({"stages": stages}))
    Path("metrics/runs/plain-0.json").write_text('{"epochs": 8}')
    return tmp_path


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that tells what its only item says."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def watch(jobs: int = 1) -> progress.Progress:
    parameters = check_params(small_parameters("embedded"))
    plan = plan_targets(parameters, ["plain-0", "dropped-0"], CHANGED)
    return progress.Progress(plan, CHANGED, parameters, jobs, Path.cwd())


def note(target: str, words: str) -> None:
    Path(".workers/progress", target).write_text(words)


def test_what_a_stage_takes_is_known_from_before(folder: Path) -> None:
    parameters = check_params(small_parameters("embedded"))
    stages = ["train@plain-0", "evaluate@plain-0", "train@dropped-0", "pickle@faces"]
    assert progress.expect_seconds(parameters, stages) == {
        "train@plain-0": 10.0,  # it took 40 s with 8 epochs, and has 2 now
        "evaluate@plain-0": 6.0,  # as the other seed took
        "train@dropped-0": 45.0,  # as all trainings took
        "pickle@faces": 0.0,
    }
    Path("metrics/costs/stages.json").write_text("[]")
    assert set(progress.expect_seconds(parameters, stages).values()) == {0.0}


def test_the_longest_comes_first(folder: Path) -> None:
    shown = watch()
    assert shown.seconds_through(DROPPED) == 51.0
    assert shown.seconds_through(PLAIN) == 16.0


def test_the_time_to_go_follows_the_epochs(folder: Path, clock: list[float]) -> None:
    shown = watch()
    assert shown.seconds_left() == 67.0
    shown.begin(PLAIN)
    note(PLAIN, "train 0 2")
    shown.look()
    clock[0] += 4
    shown.look()
    assert shown.running[PLAIN].seconds_left() == 6 + 6  # what it was expected to take
    note(PLAIN, "train 1 2")
    clock[0] += 4
    shown.look()
    assert shown.running[PLAIN].seconds_left() == 8 + 6  # an epoch took 8 s
    note(PLAIN, "")  # it is about to note more
    shown.look()
    note(PLAIN, "evaluate 0 0")
    shown.look()
    clock[0] += 2
    assert shown.running[PLAIN].seconds_left() == 4
    assert shown.seconds_left() == 51 + 4
    shown.end(TargetResult(PLAIN, 0, 10))
    assert shown.seconds_left() == 51
    assert watch(jobs=2).seconds_left() == 51  # two at once


def test_without_a_terminal_there_are_lines(
    folder: Path, clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with watch() as shown:
        shown.begin(PLAIN)
        note(PLAIN, "train 1 2")
        clock[0] += 1
        shown.look()  # too soon for another line
        clock[0] += progress.EVERY
        shown.look()
        shown.look()
        shown.end(TargetResult(PLAIN, 0, 33.3))
        shown.end(TargetResult(DROPPED, 1, 1, "train: params.yaml: [bold]wrong[/bold]\n"))
        shown.end(TargetResult("evaluate@other-0", None))
    begins, epoch, whole, done, failed, why, untried = capsys.readouterr().out.splitlines()
    assert begins.split() == [PLAIN, "begins"]
    assert epoch.startswith(f"{PLAIN}: train, epoch 1 of 2, ")
    assert whole.startswith("0 of 2 targets made, about ")
    assert done == f"[1/2] {PLAIN} 33 s"
    assert failed == f"[2/2] {DROPPED} FAILED"
    assert why.strip() == "train: params.yaml: [bold]wrong[/bold]"
    assert "not run" in untried


def test_a_terminal_shows_each_running_target(
    folder: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = io.StringIO()
    terminal = functools.partial(
        Console, file=screen, force_terminal=True, width=90, _environ={"TERM": "xterm"}
    )
    monkeypatch.setattr(progress, "Console", terminal)
    with watch(jobs=2) as shown:
        shown.begin(PLAIN)
        shown.begin(DROPPED)
        note(PLAIN, "train 1 2")
        clock[0] += 3
        shown.look()
        live = screen.getvalue()
        shown.end(TargetResult(PLAIN, 0, 33.3))
    rows = {row.split()[0]: row for row in live.replace("\x1b[1m", "").splitlines() if row.strip()}
    assert "epoch 1 of 2" in next(r for r in rows.values() if PLAIN in r)
    assert "starts" in next(r for r in rows.values() if DROPPED in r)
    assert "0 of 2 targets made" in live
    assert f"[1/2] {PLAIN} 33 s" in screen.getvalue()
    assert "begins" not in screen.getvalue()
