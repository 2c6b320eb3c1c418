"""Runs that are tracked, what they recorded, and whether a server was told the same."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from facet.base.storage import file_sha256, folder_sha256
from facet.tracking import offline_records, run_record
from tests.helpers import ROOT, run_program, wandb_environment
from tests.tracking.server import ReceivedRun, Server
from tests.warm import run_warm

# A run without a training; its argument says what it does besides.
RUN = """
import os, sys, time
import numpy as np
from facet.tracking import wandb_run
how = sys.argv[1].split(",")
run = wandb_run.Run("plain-0-abc", "resumed" in how, "joins" in how, config={"a": 1})
first = 6 if "resumed" in how else 1
for epoch in range(first, first + 5):
    run.log({"epoch": epoch, "loss": 1 / epoch}, step=epoch)
time.sleep(3 * ("long" in how))
if "tells" in how:
    table = wandb_run.Table(["n"], [[1], [2]])
    image = np.zeros((4, 4, 1), "uint8")
    shown = {"table": table, "images": wandb_run.Table(["image"], [[image]])}
    more = {"summary": {"b": 2}, "alerts": {"careful": "now"}}
    run.log_record(wandb_run.RunRecord("", {}, shown=shown, **more))
if "killed" in how:
    from facet.tracking.offline_records import read_records, record_files
    while not any(len(read_records(f).get("history", [])) == 5 for f in record_files(id=run.id)):
        time.sleep(0.1)
    os.kill(os.getpid(), 9)
if "dies" in how:
    input()
run.finish()
print(run.id, "wandb" in sys.modules)
"""
# Seconds that a run may take whatever its server does. It promises 15; left alone, W&B's client
# waits 102 for a server that is not there and without end for one that has died.
PATIENCE = 60


class Tracked(NamedTuple):
    """What became of a run: its W&B id, whether it imported W&B, what it said."""

    id: str
    imported_wandb: bool
    errors: str


def clean_environment(**env: str) -> dict[str, str]:
    """The environment without W&B's variables but those given."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
    return kept | {"PYTHONPATH": str(ROOT)} | env


def track(folder: Path, how: str = "new", cold: bool = False, **env: str) -> Tracked:
    """Do a run in `folder`."""
    words, environment = (sys.executable, "-c", RUN, how), clean_environment(**env)
    done = None if cold else run_warm(words, folder, environment, PATIENCE)
    if done is None:
        done = subprocess.run(
            words, cwd=folder, capture_output=True, text=True, timeout=PATIENCE, env=environment
        )
    assert "killed" in how or done.returncode == 0, done.stderr
    id, imported = (done.stdout or "- -").split()
    return Tracked(id, imported == "True", done.stderr)


def call(folder: Path, url: str, tool: str = "sync") -> subprocess.CompletedProcess[str]:
    """`facet sync`, or another tool, in `folder`, with the server at `url`."""
    words = (sys.executable, "-m", "facet", tool)
    return run_program(*words, folder=folder, **wandb_environment(url, "offline"))


def recorded(folder: Path, id: str = "*") -> dict[str, list[Any]]:
    """What runs recorded here, by kind, all processes together in order of time."""
    found: dict[str, list[Any]] = {}
    for file in offline_records.record_files(folder / "wandb", id):
        for kind, those in offline_records.read_records(file).items():
            found.setdefault(kind, []).extend(those)
    return found


def waiting(folder: Path) -> set[str]:
    """The ids of the runs here that no marker calls uploaded."""
    files = offline_records.record_files(folder / "wandb")
    return {
        f.stem.removeprefix("run-") for f in files if not f.with_name(f.name + ".synced").exists()
    }


def steps(server: Server, id: str = "plain-0-abc") -> list[tuple[int, int]]:
    """Each row of a run's history that the server has: its step, and the epoch in it."""
    return [(row["_step"], row.get("epoch", 0)) for row in server.runs[id].history]


def check_samples(server: Server, folder: Path, id: str) -> None:
    """Assert that the machine's samples arrived as they were recorded here."""
    local = [s["stats"]["item"] for s in recorded(folder, id).get("stats", [])]
    arrived = [
        {k.removeprefix("system."): v for k, v in e.items() if k.startswith("system.")}
        for e in server.runs[id].events
    ]
    assert len(local) == len(arrived) > 0
    for here, there in zip(local, arrived, strict=True):
        assert there == pytest.approx(here, rel=1e-6)


# The columns of the little runs' history.csv, and what W&B's charts call them.
SHOWN = {
    "epoch": "epoch",
    "learning_rate": "learning_rate",
    "loss": "train/loss",
    "pose_accuracy": "train/pose/accuracy",
    "eyes_accuracy": "train/eyes/accuracy",
    "val_loss": "val/loss",
    "val_pose_accuracy": "val/pose/accuracy",
    "val_eyes_accuracy": "val/eyes/accuracy",
}


def check_received(server: Server, folder: Path, run: str) -> ReceivedRun:
    """Assert that all the server was told of a run is what the run's own files hold."""
    about = json.loads((folder / f"data/runs/{run}/model.json").read_text())
    metrics = json.loads((folder / f"metrics/runs/{run}.json").read_text())
    received = server.runs[about["wandb"]["id"]]
    assert received.exit == 0
    with (folder / f"data/runs/{run}/history.csv").open() as file:
        rows = list(csv.DictReader(file))
    # A step for each epoch, counted as the epochs are, and one for the pictures.
    assert [line["_step"] for line in received.history] == list(range(1, len(rows) + 2))
    assert set(rows[0]) == set(SHOWN)
    for row, line in zip(rows, received.history, strict=False):
        logged = {key: line[name] for key, name in SHOWN.items()}
        assert logged == pytest.approx({k: float(v) for k, v in row.items()}, rel=1e-6)
    parameters = yaml.safe_load((folder / "params.yaml").read_text())
    knobs = parameters["defaults"] | parameters["experiments"][about["experiment"]]
    for key in ("dataset", "epochs", "batch", "learning_rate", "schedule"):
        assert received.config[key] == knobs[key]
    augment = parameters["datasets"][about["dataset"]]["augment"]
    for key in ("copies", "rotate"):
        assert received.config["augment"][key] == augment[key]
    for key in ("experiment", "seed", "parameters"):
        assert received.config[key] == about[key]
    outputs = {
        p.name.replace(".", "_"): file_sha256(p) for p in (folder / f"data/runs/{run}").iterdir()
    }
    outputs["metrics"] = file_sha256(folder / f"metrics/runs/{run}.json")
    assert received.config["outputs"] == outputs
    data = folder / f"data/augmented/{about['experiment']}"
    assert received.config["provenance"]["data_sha256"] == folder_sha256(data)
    assert received.config["provenance"]["identity"] == about["identity"]
    for head, figures in metrics["heads"].items():
        for key in ("accuracy", "balanced_accuracy", "chance", "correct", "verdict"):
            assert received.summary[f"test/{head}/{key}"] == figures[key]
    for key, best in (("val_loss", min), ("val_pose_accuracy", max)):
        values = [float(r[key]) for r in rows]
        assert received.summary[f"best/{SHOWN[key]}"] == pytest.approx(best(values), rel=1e-6)
        assert received.summary[f"final/{SHOWN[key]}"] == pytest.approx(values[-1], rel=1e-6)
    losses = [float(r["val_loss"]) for r in rows]
    assert received.summary["best_epoch"] == losses.index(min(losses)) + 1
    model = server.artifacts[f"model-{received.name}"]
    assert model["state"] == "COMMITTED"
    assert model["files"]["model.keras"] == (folder / f"data/runs/{run}/model.keras").read_bytes()
    stored = {p.read_bytes() for p in (folder / f"data/evaluations/{run}").glob("*.png")}
    pictures = {c for name, c in received.files.items() if "images/pictures" in name}
    assert stored
    assert stored <= pictures
    table = server.artifacts[f"run-{received.name}-answers"]
    assert table["state"] == "COMMITTED"
    answers = json.loads(table["files"]["answers.table.json"])["data"]
    assert len(answers) == min(metrics["n_test"], run_record.TABLE_ROWS)
    assert received.about["groupName"] == about["experiment"]
    assert received.about["jobType"] == "train"
    assert set(received.about["tags"]) == {about["dataset"], about["experiment"]}
    for warning in metrics["warnings"]:
        assert any(run in title and warning.split(":")[0] in title for title in server.alerts)
    return received
