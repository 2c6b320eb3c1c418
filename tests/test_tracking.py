"""W&B holds what the run's own files hold, and its failures cost seconds, never a result."""

import csv
import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from wandb.util import get_core_path

from tests.conftest import Project

KEY = "k" * 40


@pytest.fixture
def prepared(project: Project) -> Project:
    project.parameters["experiments"]["plain"] |= {"epochs": 4}
    project.write()
    for stage in ("download faces", "pickle faces", "normalise faces", "augment plain"):
        project.run(sys.executable, "-m", *f"stages.{stage}".split())
    return project


def train(project: Project, **env: str) -> str:
    return project.run(sys.executable, "-m", "stages.train", "plain-0", **env).stderr


def records(project: Project) -> dict[str, list[Any]]:
    """What each offline run recorded, by kind, all runs together in order of time."""
    found: dict[str, list[Any]] = {}
    for file in sorted(project.folder.glob("wandb/offline-run-*/*.wandb")):
        words = [get_core_path(), "leet", "inspect", "--no-observability", "--json"]
        done = subprocess.run([*words, "--run-file", str(file), str(file.parents[1])],
                              capture_output=True, text=True, check=True)  # fmt: skip
        for line in done.stdout.splitlines():
            record = json.loads(line)
            found.setdefault(record["type"], []).append(record)
    return found


def test_an_offline_run_holds_the_history_the_config_and_the_machine(prepared: Project) -> None:
    train(prepared, WANDB_MODE="offline")
    text = json.dumps(found := records(prepared))
    with (prepared.folder / "data/runs/plain-0/history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(found["history"]) == len(rows) == 4
    for row, record in zip(rows, found["history"], strict=True):
        told = json.dumps(record)
        assert "items_per_second" in told
        for key in ("loss", "val_loss", "pose_accuracy", "val_pose_accuracy"):
            assert f"{float(row[key]):.5g}"[:6] in told, (key, row[key], told)
    assert text.count('"cpu"') >= 2
    assert "memory_percent" in text
    assert "provenance" in text
    assert "learning_rate" in text
    about = json.loads((prepared.folder / "data/runs/plain-0/model.json").read_text())
    assert about["wandb"]["id"] in text
    assert not list(Path.home().glob(".cache/wandb/facet*"))


def test_a_repeat_is_a_run_beside_the_first(prepared: Project) -> None:
    train(prepared, WANDB_MODE="offline")
    train(prepared, WANDB_MODE="offline")
    ids = {p.name.partition("plain-0")[2] for p in prepared.folder.glob("wandb/offline-run-*")}
    assert len(ids) == 2
    assert any(i.endswith("-r1") for i in ids)


@pytest.mark.parametrize("server", ["absent", "silent"])
def test_a_server_that_is_absent_or_silent_costs_seconds(prepared: Project, server: str) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    held = []
    if server == "absent":
        listener.close()
    else:
        threading.Thread(target=lambda: held.append(listener.accept()), daemon=True).start()
    begun = time.monotonic()
    said = train(prepared, WANDB_MODE="online", WANDB_API_KEY=KEY,
                 WANDB_BASE_URL=f"http://127.0.0.1:{port}")  # fmt: skip
    assert "going on offline" in said or "failed" in said
    assert time.monotonic() - begun < 120
    assert (prepared.folder / "data/runs/plain-0/model.keras").exists()
    assert len(records(prepared)["history"]) == 4
    for path in prepared.folder.rglob("*"):
        if path.is_file() and ".git" not in path.parts:
            assert KEY.encode() not in path.read_bytes(), path
    if server == "silent":
        listener.close()


def test_a_settings_file_is_heard(prepared: Project, tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/settings").write_text("[default]\nmode = disabled\n")
    import os

    env = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
    subprocess.run([sys.executable, "-m", "stages.train", "plain-0"], cwd=prepared.folder,
                   env=env | {"WANDB_CONFIG_DIR": str(tmp_path / "config")}, check=True,
                   capture_output=True)  # fmt: skip
    assert not list(prepared.folder.glob("wandb/*run*"))
