"""A W&B sweep trains through the pipeline and is told validation metrics, never the test part's."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from facet.errors import InputError
from facet.grid.sweep import parse_values, plan_trial
from facet.launch import SERVER_VARIABLE
from facet.tracking.offline_records import read_records, record_files
from tests.helpers import ROOT, Project, small_parameters, wandb_environment, words_of
from tests.tracking.helpers import clean_environment
from tests.tracking.server import Server, serving
from tests.warm import server_address


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as it:
        yield it


def call_wandb(project: Project, server: Server, *words: str) -> str:
    """W&B's own program in the project, and what it wrote."""
    done = subprocess.run(
        [sys.executable, "-m", "wandb", *words],
        cwd=project.folder,
        capture_output=True,
        text=True,
        timeout=300,
        env=clean_environment(
            **wandb_environment(server.url, "offline"),
            **{"PYTHONPATH": "", SERVER_VARIABLE: server_address()},
        ),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_an_agent_trains_what_the_sweep_asks_for(prepared: Project, server: Server) -> None:
    sweep = yaml.safe_load((ROOT / "docs/sweep.yaml").read_text())
    experiment = sweep["command"][2]
    sweep["command"][2] = "plain"
    sweep |= {"method": "grid", "parameters": {"batch": {"values": [32]}}}
    file = prepared.folder.parent / "sweep.yaml"
    file.write_text(yaml.safe_dump(sweep))
    before = (prepared.folder / "params.yaml").read_bytes()
    call_wandb(prepared, server, "sweep", str(file))
    (name,) = server.sweeps
    output = call_wandb(prepared, server, "agent", "--count", "1", name)
    runs = {id: run for id, run in server.runs.items() if id.startswith("sweep0-")}
    assert len(runs) == 1, output
    for run in runs.values():
        assert run.about["sweep"] == name
        assert run.exit == 0
        assert [row["_step"] for row in run.history] == [1, 2]
        assert {"val/pose/accuracy", "val/eyes/accuracy", "val/loss"} <= set(run.summary)
        assert not [k for k in [*run.history[0], *run.summary] if k.startswith(("test", "train"))]
        assert run.config["batch"] == 32
        assert run.config["experiment"] == "plain"
    # Trainings are recorded as ever, beside the sweep's runs, which have their figures.
    files = record_files(prepared.folder / "wandb", "plain-0-*")
    assert len(files) == 1
    for key in ("val/loss", "val/pose/accuracy"):
        trained = [read_records(f)["history"][-1]["history"]["item"][key] for f in files]
        mine = sorted(run.summary[key] for run in runs.values())
        assert mine == pytest.approx(sorted(trained), rel=1e-6)
    assert not list((prepared.folder / ".workers").glob("trial-*"))
    assert not (prepared.folder / "metrics/costs/plain-0.json").exists()
    assert (prepared.folder / "params.yaml").read_bytes() == before
    # To keep a trial is to write its values down: its training is in the cache.
    prepared.parameters["experiments"]["plain"]["batch"] = 32
    prepared.write()
    assert prepared.ran("train@plain-0") == []
    assert experiment in yaml.safe_load((ROOT / "params.yaml").read_text())["experiments"]


def test_the_worked_sweep_can_be_called() -> None:
    sweep = yaml.safe_load((ROOT / "docs/sweep.yaml").read_text())
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    assert sweep["metric"]["name"].startswith("val/")
    for key, how in sweep["parameters"].items():
        value = how["values"][0] if "values" in how else how["min"]
        assert plan_trial(tree, sweep["command"][2], {key: value})
    head = sweep["metric"]["name"].split("/")[1]
    dataset = tree["experiments"][sweep["command"][2]]["dataset"]
    assert head in tree["datasets"][dataset]["heads"]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["dropt", "batch=8"], {"dropt", "dropped"}),
        (["plain", "bach=8"], {"experiments.plain.bach", "batch"}),
        (["plain", "batch=much"], {"experiments.plain.batch"}),
        (["plain", "batch"], {"batch"}),
    ],
)
def test_a_wrong_trial_is_refused_by_name(words: list[str], named: set[str]) -> None:
    tree: dict[str, Any] = small_parameters("embedded")
    with pytest.raises(InputError) as e:
        plan_trial(tree, words[0], parse_values(words[1:]))
    assert named <= words_of(e.value)


def test_a_trial_has_the_seeds_of_its_experiment_and_typed_values() -> None:
    tree: dict[str, Any] = small_parameters("embedded") | {"seeds": [0, 4]}
    values = parse_values(["batch=8", "learning_rate=1e-05", "schedule=cosine"])
    assert values == {"batch": 8, "learning_rate": 1e-05, "schedule": "cosine"}
    changed, runs = plan_trial(tree, "plain", values)
    assert runs == ["plain-0", "plain-4"]
    assert changed["experiments"]["plain"] == {"dataset": "faces", **values}
    assert "batch" not in tree["experiments"]["plain"]
