"""The grid runner's parts; the whole of it is in test_pipeline.py."""

import json
import logging
import subprocess
from pathlib import Path

import pytest

from facet.config import check_params, run_names
from facet.grid import dvc_session, summary
from facet.grid.plan import plan_targets
from tests.helpers import small_parameters


def test_a_plan_holds_what_is_stale_and_what_waits_for_it() -> None:
    parameters = check_params(small_parameters("embedded"))
    wanted = run_names(parameters)
    assert plan_targets(parameters, wanted, set()) == {}
    assert plan_targets(parameters, wanted, {"compare"}) == {}

    plan = plan_targets(parameters, wanted, {"train@plain-0"})
    assert list(plan) == ["evaluate@plain-0"]
    waits, stages = plan["evaluate@plain-0"]
    assert waits == []
    assert stages == [
        "download@faces",
        "pickle@faces",
        "normalise@faces",
        "augment@plain",
        "train@plain-0",
        "evaluate@plain-0",
    ]

    plan = plan_targets(parameters, wanted, {"pickle@faces"})
    assert {target: waits for target, (waits, _) in plan.items()} == {
        "normalise@faces": [],
        "augment@plain": ["normalise@faces"],
        "augment@dropped": ["normalise@faces"],
        "evaluate@plain-0": ["augment@plain"],
        "evaluate@dropped-0": ["augment@dropped"],
    }


def test_warnings_of_an_experiments_seeds_are_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("metrics/runs")
    folder.mkdir(parents=True)
    warnings_by_run = {
        "deep-0": ["below_chance: pose: 0.10 is below 0.25", "absent_class: pose: no up"],
        "deep-1": ["below_chance: pose: 0.12 is below 0.25"],
        "flat-0": [],
    }
    for run, warnings in warnings_by_run.items():
        metrics = {"experiment": run[:-2], "warnings": warnings}
        (folder / f"{run}.json").write_text(json.dumps(metrics))
    assert summary.format_warnings() == [
        "warning: deep, 2 runs: below_chance: pose: 0.10 is below 0.25",
        "warning: deep, 1 run: absent_class: pose: no up",
    ]


def test_what_is_said_goes_to_the_log_and_comes_back_after_an_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        print("inside")
        subprocess.run(["sh", "-c", "echo child; echo wrong >&2"], check=True)
        raise RuntimeError

    log = tmp_path / "log"
    with (
        pytest.raises(RuntimeError),
        log.open("w") as file,
        capfd.disabled(),
        dvc_session.redirect_output(file),
    ):
        fail()
    assert {"child", "wrong"} <= set(log.read_text().split())
    subprocess.run(["echo", "outside"], check=True)
    assert capfd.readouterr().out == "outside\n"


def test_only_stages_that_ran_are_timed() -> None:
    watch = dvc_session.StageTimer()
    for message, *args in (
        ("Stage '%s' didn't change, skipping", "download@faces"),
        ("Running stage '%s':", "train@plain-0"),
        ("Running stage '%s':", "evaluate@plain-0"),
        ("Stage '%s' is cached - skipping run, checking out outputs", "compare"),
        ("To track the changes with git, run:",),
    ):
        watch.emit(logging.LogRecord("dvc", logging.INFO, "", 0, message, tuple(args), None))
    watch.stop()
    assert list(watch.ran) == ["train@plain-0", "evaluate@plain-0"]
