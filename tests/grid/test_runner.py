"""The grid runner's parts; the whole of it is in test_pipeline.py."""

import contextlib
import json
import subprocess
from pathlib import Path

import pytest
from dvc.stage import serialize

from facet.base.config import check_params, run_names
from facet.errors import InputError
from facet.grid import dvc_session, summary
from facet.grid.plan import plan_targets
from facet.grid.runner import report_or_note
from tests.helpers import Project, small_parameters, words_of


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


@pytest.mark.parametrize("fault", [ValueError("y1 must be greater"), InputError("a: is wrong")])
def test_a_report_that_cannot_be_written_is_left_out_with_a_note(
    capsys: pytest.CaptureFixture[str], fault: Exception
) -> None:
    def fail(_: set[str]) -> Path:
        raise fault

    report_or_note(fail, set())
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("report: left out")
    assert str(fault) in line


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
    both, once = map(words_of, summary.format_warnings())
    assert {"deep", "2", "below_chance", "pose", "0.10"} <= both
    assert {"deep", "1", "absent_class", "up"} <= once


def test_the_summary_has_means_over_seeds_beside_their_chances(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("metrics/runs").mkdir(parents=True)
    Path("metrics/runs.csv").write_text(
        "experiment,head,accuracy,chance,balanced_accuracy,balanced_chance,verdict\n"
        "deep,pose,0.5,0.3,0.4,0.25,above chance\n"
        "deep,pose,0.7,0.3,0.5,0.25,at chance\n"
        "deep,kind,,,,,not applicable\n"
    )
    compared = {"candidate": "deep", "baseline": "flat", "head": "pose", "metric": "accuracy"}
    found = {"difference": 0.1, "ci95": [0.05, 0.15], "verdict": "better"}
    Path("metrics/comparisons.json").write_text(json.dumps({"depth": compared | found}))
    heading, pose, kind, depth = summary.format_summary().splitlines()
    columns = ["experiment", "head", "seeds", "accuracy", "chance", "balanced", "chance"]
    assert heading.split()[:7] == columns
    assert pose.split()[:7] == ["deep", "pose", "2", "0.600", "0.300", "0.450", "0.250"]
    assert pose.endswith("1 above chance, 1 at chance")
    assert kind.split()[:7] == ["deep", "kind", "1", "-", "-", "-", "-"]
    assert {"depth", "deep", "flat", "pose", "+0.100", "+0.050", "+0.150", "better"} <= words_of(
        depth.replace(",", " ")
    )


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


def test_stages_are_made_timed_and_entered_in_the_lock(project: Project) -> None:
    log = project.folder / "log"
    with contextlib.chdir(project.folder):
        for ran in (["download@faces", "pickle@faces"], []):
            with dvc_session.open_dvc(log) as session:
                entries = dvc_session.reproduce_stages(session, ["download@faces", "pickle@faces"])
            assert session.status == 0
            assert list(session.ran) == list(entries) == ran
            assert all(seconds > 0 for seconds in session.ran.values())
            dvc_session.write_lock(
                Path("dvc.lock"), dvc_session.read_lock(Path("dvc.lock")) | entries
            )
        # By DVC's own methods, without `dvc repro`.
        assert "Running stage 'pickle@faces'" not in log.read_text()
    assert project.ran("pickle@faces") == []  # DVC finds nothing to do


def test_a_dvc_with_other_methods_is_called_as_a_command(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(serialize, "to_lockfile")
    with contextlib.chdir(project.folder):
        with dvc_session.open_dvc(project.folder / "log") as session:
            entries = dvc_session.reproduce_stages(session, ["download@faces", "pickle@faces"])
        assert session.status == 0
        assert list(entries) == ["download@faces", "pickle@faces"]
        with dvc_session.open_dvc(project.folder / "log") as session:
            entries = dvc_session.reproduce_stages(session, ["download@nothing"])
        assert session.status == 1


def test_a_refusal_of_dvc_is_in_the_log(
    project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    with contextlib.chdir(project.folder), capfd.disabled():
        with dvc_session.open_dvc(project.folder / "log") as session:
            dvc_session.reproduce_stages(session, ["download@nothing"])
        assert session.status == 1
        assert "download@nothing" in (project.folder / "log").read_text()
