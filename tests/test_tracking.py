"""W&B holds what the run's own files hold, and its failures cost seconds, never a result."""

import contextlib
import csv
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from wandb.util import get_core_path

from stages import tracking
from tests.conftest import ROOT, Project

KEY = "k" * 40


def records(folder: Path) -> dict[str, list[Any]]:
    """What each offline run recorded, by kind, all runs together in order of time."""
    found: dict[str, list[Any]] = {}
    for file in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        words = [get_core_path(), "leet", "inspect", "--no-observability", "--json"]
        done = subprocess.run([*words, "--run-file", str(file), str(file.parents[1])],
                              capture_output=True, text=True, check=True)  # fmt: skip
        for line in done.stdout.splitlines():
            record = json.loads(line)
            found.setdefault(record["type"], []).append(record)
    return found


def train(project: Project, **env: str) -> None:
    project.run(sys.executable, "-m", "stages.train", "plain-0", **env)


def test_an_offline_run_holds_the_history_the_config_and_the_machine(prepared: Project) -> None:
    train(prepared, WANDB_MODE="offline")
    text = json.dumps(found := records(prepared.folder))
    with (prepared.folder / "data/runs/plain-0/history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(found["history"]) == len(rows) == 2
    for row, record in zip(rows, found["history"], strict=True):
        item = record["history"]["item"]
        assert item["items_per_second"] > 0
        for key, value in row.items():
            name = key.replace("val_", "validation/") if "val_" in key else f"train/{key}"
            name = key if key in ("epoch", "learning_rate") else name
            assert item[name] == pytest.approx(float(value), rel=1e-6), name
    assert text.count('"cpu"') >= 2
    for word in ("memory_percent", "provenance", "data_sha256", "learning_rate"):
        assert word in text
    about = json.loads((prepared.folder / "data/runs/plain-0/model.json").read_text())
    assert about["wandb"]["id"] in text


# --- what a server can do, without a training ------------------------------------------------

RUN = """
import time, sys
from stages import tracking
begun = time.monotonic()
run = tracking.Run("plain-0-abc", sys.argv[1] == "resumed", project="p", config={"a": 1})
run.axis("epoch")
for epoch in (1, 2):
    run.log({"epoch": epoch, "loss": 1 / epoch}, step=epoch)
run.finish()
print(run.id, time.monotonic() - begun)
"""


def track(folder: Path, resumed: bool = False, **env: str) -> tuple[str, float, str]:
    """A run without a training: its id, the seconds it took, and what it said."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
    done = subprocess.run(
        [sys.executable, "-c", RUN, "resumed" if resumed else "new"], cwd=folder, check=True,
        capture_output=True, text=True, env=clean | {"PYTHONPATH": str(ROOT)} | env,
    )  # fmt: skip
    id, seconds = done.stdout.split()
    return id, float(seconds), done.stderr


def test_a_repeat_is_a_run_beside_the_first_and_a_resumed_one_the_same(tmp_path: Path) -> None:
    ids = [track(tmp_path)[0], track(tmp_path)[0], track(tmp_path, resumed=True)[0]]
    assert ids == ["plain-0-abc", "plain-0-abc-r1", "plain-0-abc"]


@pytest.mark.parametrize("server", ["absent", "silent", "broken"])
def test_a_bad_server_costs_seconds_and_nothing_is_lost(tmp_path: Path, server: str) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    port, held = listener.getsockname()[1], []

    def answer() -> None:
        with contextlib.suppress(OSError):
            while True:
                held.append(listener.accept()[0])
                if server == "broken":
                    held[-1].recv(4096)
                    held[-1].sendall(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")
                    held[-1].close()

    if server == "absent":
        listener.close()
    else:
        threading.Thread(target=answer, daemon=True).start()
    _, seconds, said = track(tmp_path, WANDB_MODE="online", WANDB_API_KEY=KEY,
                             WANDB_BASE_URL=f"http://127.0.0.1:{port}")  # fmt: skip
    listener.close()
    assert "tracking: " in said
    assert "Traceback" not in said
    # The promise is 15 seconds; the rest is for a machine that is busy with other tests.
    assert seconds < 45
    assert len(records(tmp_path)["history"]) == 2
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path


def test_a_settings_file_is_heard_and_the_environment_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", {"WANDB_CONFIG_DIR": str(tmp_path), "HOME": "/nowhere"})
    assert tracking.configure() == "offline"
    assert os.environ["WANDB_X_STATS_SAMPLING_INTERVAL"] == "0.5"
    (tmp_path / "settings").write_text("[default]\nmode = online\nx_stats_sampling_interval = 9\n")
    monkeypatch.setattr(os, "environ", {"WANDB_CONFIG_DIR": str(tmp_path)})
    assert tracking.configure() == "online"
    assert "WANDB_X_STATS_SAMPLING_INTERVAL" not in os.environ
    os.environ["WANDB_MODE"] = "disabled"
    assert tracking.configure() == "disabled"
