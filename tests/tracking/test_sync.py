"""What waits is uploaded once and arrives whole, whatever the server did before; prune keeps it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from wandb.sdk.lib import wbauth

import wandb
from facet.errors import InputError
from facet.tracking import records, sync, wandb_run
from tests.helpers import KEY, ROOT, Project, wandb_environment
from tests.tracking.server import Server, check_received, serving
from tests.tracking.test_wandb_run import RUN, track


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as it:
        yield it


def make(folder: Path, url: str, tool: str = "sync") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "facet", tool],
        cwd=folder,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | wandb_environment(url, "offline"),
        capture_output=True,
    )


def epochs(server: Server, id: str = "plain-0-abc") -> list[tuple[int, int]]:
    return [(row["_step"], row.get("epoch", 0)) for row in server.runs[id].history]


def samples(server: Server, folder: Path, id: str) -> None:
    """Assert that the machine's samples arrived as they were recorded here."""
    local = [
        s["stats"]["item"]
        for f in records.record_files(folder / "wandb", id)
        for s in records.read_records(f).get("stats", [])
    ]
    arrived = [
        {k.removeprefix("system."): v for k, v in e.items() if k.startswith("system.")}
        for e in server.runs[id].events
    ]
    assert len(local) == len(arrived) > 0
    for here, there in zip(local, arrived, strict=True):
        assert there == pytest.approx(here, rel=1e-6)


def test_offline_runs_arrive_whole_and_once(tracked: Project, server: Server) -> None:
    done = make(tracked.folder, server.url)
    assert done.returncode == 0, done.stderr
    assert "3 runs uploaded" in done.stdout
    for run in ("plain-0", "dropped-0"):
        samples(server, tracked.folder, check_received(server, tracked.folder, run).name)
    (comparisons,) = (r for r in server.runs.values() if r.name.startswith("comparisons-"))
    assert comparisons.about["jobType"] == "compare"
    server.requests.clear()
    assert "nothing waits" in make(tracked.folder, server.url).stdout
    assert server.requests == []
    for path in tracked.folder.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path


def test_prune_removes_what_is_uploaded_and_nothing_else(tmp_path: Path, server: Server) -> None:
    track(tmp_path, "tells")
    assert make(tmp_path, server.url).returncode == 0
    track(tmp_path, "tells")
    (waits,) = (f for f in records.record_files(tmp_path / "wandb") if "abc-r1" in f.name)
    copies = {
        e["local_path"]
        for a in records.read_records(waits)["artifact"]
        for e in a["artifact"]["manifest"]["contents"]
    }
    for path in (tmp_path / ".wandb-data").rglob("tmp*"):
        os.utime(path, (0, 0))
    errors = make(tmp_path, server.url, "prune").stdout
    assert f"{tmp_path}/wandb: " in errors
    assert "1 uploaded folders removed, 1 not uploaded stay" in errors
    assert records.record_files(tmp_path / "wandb") == [waits]
    assert {str(p) for p in (tmp_path / ".wandb-data").rglob("*") if p.is_file()} == copies
    assert make(tmp_path, server.url).returncode == 0  # nothing it needs was taken


def test_an_online_run_arrives_as_it_goes_and_evaluation_joins_it(
    prepared: Project, server: Server
) -> None:
    for stage in ("train", "evaluate"):
        words = [sys.executable, "-m", f"stages.{stage}", "plain-0"]
        done = prepared.run(*words, **wandb_environment(server.url))
        assert "tracking: " not in done.stderr
    samples(server, prepared.folder, check_received(server, prepared.folder, "plain-0").name)
    uploads = server.requests.count("file_stream")
    done = make(prepared.folder, server.url)
    assert done.returncode == 0, done.stderr
    assert server.requests.count("file_stream") == uploads  # asked, and it was all there
    assert "nothing waits" in make(prepared.folder, server.url).stdout


def test_a_killed_and_resumed_run_is_one_with_contiguous_steps(
    tmp_path: Path, server: Server
) -> None:
    track(tmp_path, "killed")
    (file,) = records.record_files(tmp_path / "wandb")
    os.utime(file, (0, 0))  # killed a while ago: no longer taken for running
    track(tmp_path, "resumed")
    assert make(tmp_path, server.url).returncode == 0
    assert epochs(server) == [(i, i) for i in range(1, 11)]
    track(tmp_path)
    assert make(tmp_path, server.url).returncode == 0
    assert len(epochs(server, "plain-0-abc-r1")) == 5
    assert len(epochs(server)) == 10


def test_a_run_that_is_still_running_is_left_alone(tmp_path: Path, server: Server) -> None:
    track(tmp_path, "killed")
    assert "nothing waits" in make(tmp_path, server.url).stdout
    assert not server.requests


def test_an_upload_cut_off_is_repeated_until_it_is_whole(tmp_path: Path, server: Server) -> None:
    track(tmp_path, "tells")
    for what, fault in {"UpsertBucket": "drop", "store": 500, "file_stream": 500}.items():
        server.fault = lambda op, what=what, fault=fault: fault if op == what else None
        done = make(tmp_path, server.url)
        # W&B's exit status calls each of these a success, its marker the last two.
        assert done.returncode == 1, what
        assert done.stderr.startswith("sync: 1 runs still wait; plain-0-abc: ")
        assert not list(tmp_path.glob("wandb/*/*.synced"))
    server.fault = lambda _: None
    assert make(tmp_path, server.url).returncode == 0
    assert epochs(server)[:5] == [(i, i) for i in range(1, 6)]
    assert len(server.runs["plain-0-abc"].history) == 6
    assert server.artifacts["run-plain-0-abc-images"]["state"] == "COMMITTED"


def test_a_server_that_dies_in_the_middle_of_a_run(tmp_path: Path, server: Server) -> None:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, "dies"],
        cwd=tmp_path,
        text=True,
        env=clean | {"PYTHONPATH": str(ROOT)} | wandb_environment(server.url),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    while "file_stream" not in server.requests and process.poll() is None:
        time.sleep(0.05)
    server.fault = lambda _: "drop"
    out, errors = process.communicate("\n")
    assert process.returncode == 0
    assert "make sync" in errors
    assert float(out.split()[1]) < 40
    server.fault = lambda _: None
    done = make(tmp_path, server.url)
    assert done.returncode == 0, done.stderr
    assert epochs(server) == [(i, i) for i in range(1, 6)]


def test_a_key_that_expired_and_a_server_that_is_not_there_are_said_in_a_line(
    tmp_path: Path, server: Server
) -> None:
    track(tmp_path)
    server.fault = lambda _: 401
    done = make(tmp_path, server.url)
    assert done.returncode == 1
    assert "sync: " in done.stderr
    assert "401" in done.stderr or "key" in done.stderr
    assert "Traceback" not in done.stderr
    done = make(tmp_path, "http://127.0.0.1:9")
    assert done.stderr == "sync: http://127.0.0.1:9: cannot be reached; try again later\n"


def test_the_key_is_the_one_that_wandb_login_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_BASE_URL", raising=False)
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    assert wandb_run.server_url() == wandb.Settings().base_url
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example:8443")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(InputError, match=r"wandb.example:8443: no key for it; run `wandb login`"):
        sync.api_key()
    wbauth.write_netrc_auth(host="https://wandb.example:8443", api_key=KEY)
    assert sync.api_key() == KEY
    (tmp_path / "netrc").write_text("machine wandb.example:8443 login user password short\n")
    with pytest.raises(InputError, match=r"8443: .*; log in again: wandb login --relogin"):
        sync.api_key()


def test_a_file_that_is_gone_holds_its_run_back_and_is_named(
    tracked: Project, server: Server
) -> None:
    about = json.loads((tracked.folder / "data/runs/plain-0/model.json").read_text())
    found = [
        e["local_path"]
        for f in records.record_files(tracked.folder / "wandb", about["wandb"]["id"])
        for a in records.read_records(f).get("artifact", [])
        for e in a["artifact"]["manifest"]["contents"]
        if e["path"] == "model.keras"
    ]
    # Recorded where the runs were made; this is a copy of that folder.
    model = Path(found[0])
    kept = model.read_bytes()
    model.write_bytes(b"another")
    try:
        done = make(tracked.folder, server.url)
    finally:
        model.write_bytes(kept)
    assert done.returncode == 1
    assert f"model.keras ({model}) is gone" in done.stderr
    assert about["wandb"]["id"] not in server.runs
    assert "2 runs uploaded" in done.stdout
    assert make(tracked.folder, server.url).returncode == 0
    check_received(server, tracked.folder, "plain-0")
