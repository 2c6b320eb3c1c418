"""What waits is uploaded once and arrives whole, whatever the server did before; prune keeps it."""

import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import wandb
from wandb.sdk.lib import wbauth

from facet.errors import InputError
from facet.tracking import offline_records, sync, wandb_run
from facet.tracking.prune import remove_uploaded
from tests.helpers import KEY, Project, wait_until, wandb_environment
from tests.tracking.helpers import (
    PATIENCE,
    RUN,
    call,
    check_received,
    check_samples,
    clean_environment,
    recorded,
    steps,
    track,
    waiting,
)
from tests.tracking.server import Server


def test_offline_runs_arrive_whole_and_once(made: Project, server: Server) -> None:
    assert len(waiting(made.folder)) == 3
    done = call(made.folder, server.url)
    assert done.returncode == 0, done.stderr
    assert waiting(made.folder) == set()
    assert len(server.runs) == 3
    for run in ("plain-0", "dropped-0"):
        check_samples(server, made.folder, check_received(server, made.folder, run).name)
    (comparisons,) = (r for r in server.runs.values() if r.name.startswith("comparisons-"))
    assert comparisons.about["jobType"] == "compare"
    server.requests.clear()
    assert call(made.folder, server.url).returncode == 0
    assert server.requests == []
    for path in made.folder.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path


@pytest.mark.slow
def test_a_folder_uploaded_by_itself_is_what_the_docs_warn_of(
    made: Project, server: Server
) -> None:
    """Once this fails, W&B puts folders in order by itself, and docs/wandb.md may say less."""
    about = json.loads((made.folder / "data/runs/plain-0/model.json").read_text())
    id = about["wandb"]["id"]
    train, evaluate = offline_records.record_files(made.folder / "wandb", id)
    for file in (evaluate, train):
        words = [sys.executable, "-m", "wandb", "sync", str(file.parent)]
        made.run(*words, **wandb_environment(server.url, "offline"))
    assert id not in waiting(made.folder)
    epochs = [row["_step"] for row in server.runs[id].history if "epoch" in row]
    assert min(epochs) > len(epochs) == about["epochs"]
    assert not [key for key in server.runs[id].summary if key.startswith("test/")]


def test_prune_removes_what_is_uploaded_and_nothing_else(tmp_path: Path, server: Server) -> None:
    track(tmp_path, "tells")
    assert call(tmp_path, server.url).returncode == 0
    track(tmp_path, "tells")
    (waits,) = (f for f in offline_records.record_files(tmp_path / "wandb") if "abc-r1" in f.name)
    copies = {
        e["local_path"]
        for a in offline_records.read_records(waits)["artifact"]
        for e in a["artifact"]["manifest"]["contents"]
    }
    for path in (tmp_path / ".wandb-data").rglob("tmp*"):
        os.utime(path, (0, 0))
    done = call(tmp_path, server.url, "prune")
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "wandb") in done.stdout
    assert offline_records.record_files(tmp_path / "wandb") == [waits]
    assert {str(p) for p in (tmp_path / ".wandb-data").rglob("*") if p.is_file()} == copies
    assert call(tmp_path, server.url).returncode == 0  # nothing it needs was taken


def test_prune_leaves_what_other_projects_put_into_the_same_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = tmp_path / "shared/artifacts/staging/tmp1"
    theirs.parent.mkdir(parents=True)
    theirs.touch()
    os.utime(theirs, (0, 0))
    (tmp_path / "project/wandb").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "shared"))
    remove_uploaded(Path("wandb"))
    assert theirs.exists()


def test_behind_a_proxy_the_server_is_asked_through_it(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's name is known to the proxy alone, as in many companies."""
    seen = []

    class Proxy(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            seen.append(self.path)
            self.send_response(404 if "wandb.invalid" in self.path else 502)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    proxy = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.server_port}")
    monkeypatch.setenv("WANDB_BASE_URL", "http://wandb.invalid")
    assert wandb_run.server_reachable()
    assert seen == ["http://wandb.invalid/"]
    monkeypatch.setenv("WANDB_BASE_URL", "http://nowhere.invalid")
    assert not wandb_run.server_reachable()
    proxy.shutdown()
    proxy.server_close()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    assert wandb_run.server_reachable()


def test_an_online_run_arrives_as_it_goes_and_evaluation_joins_it(
    prepared: Project, server: Server
) -> None:
    for stage in ("train", "evaluate"):
        words = [sys.executable, "-m", f"stages.{stage}", "plain-0"]
        done = prepared.run(*words, **wandb_environment(server.url))
        assert "tracking: " not in done.stderr
    received = check_received(server, prepared.folder, "plain-0")
    check_samples(server, prepared.folder, received.name)
    uploads = server.requests.count("file_stream")
    done = call(prepared.folder, server.url)
    assert done.returncode == 0, done.stderr
    assert server.requests.count("file_stream") == uploads  # asked, and it was all there
    assert waiting(prepared.folder) == set()


def test_a_killed_and_resumed_run_is_one_with_contiguous_steps(
    tmp_path: Path, server: Server
) -> None:
    track(tmp_path, "killed")
    (file,) = offline_records.record_files(tmp_path / "wandb")
    os.utime(file, (0, 0))  # killed a while ago: no longer taken for running
    track(tmp_path, "resumed")
    assert call(tmp_path, server.url).returncode == 0
    assert steps(server) == [(i, i) for i in range(1, 11)]
    track(tmp_path)
    assert call(tmp_path, server.url).returncode == 0
    assert len(steps(server, "plain-0-abc-r1")) == 5
    assert len(steps(server)) == 10


def test_a_run_that_is_still_running_is_left_alone(tmp_path: Path, server: Server) -> None:
    track(tmp_path, "killed")
    assert call(tmp_path, server.url).returncode == 0
    assert not server.requests
    assert waiting(tmp_path) == {"plain-0-abc"}


@pytest.mark.parametrize(
    ("what", "fault"),
    [
        # W&B's exit status calls each of these a success, its marker the last two.
        pytest.param("UpsertBucket", "drop", marks=pytest.mark.slow),
        pytest.param("file_stream", 500, marks=pytest.mark.slow),
        ("store", 500),
    ],
)
def test_an_upload_cut_off_is_repeated_until_it_is_whole(
    tmp_path: Path, server: Server, what: str, fault: Any
) -> None:
    track(tmp_path, "tells")
    server.fault = lambda operation: fault if operation == what else None
    done = call(tmp_path, server.url)
    assert done.returncode == 1
    assert "plain-0-abc" in done.stderr
    assert waiting(tmp_path) == {"plain-0-abc"}
    server.fault = lambda _: None
    assert call(tmp_path, server.url).returncode == 0
    assert steps(server)[:5] == [(i, i) for i in range(1, 6)]
    assert len(server.runs["plain-0-abc"].history) == 6
    assert server.artifacts["run-plain-0-abc-images"]["state"] == "COMMITTED"
    assert "careful" in server.alerts


def test_a_server_that_dies_in_the_middle_of_a_run(tmp_path: Path, server: Server) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, "dies"],
        cwd=tmp_path,
        text=True,
        env=clean_environment(**wandb_environment(server.url)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    wait_until(lambda: "file_stream" in server.requests, "the run's first rows")
    server.fault = lambda _: "drop"
    _, errors = process.communicate("\n", timeout=PATIENCE)
    assert process.returncode == 0
    assert "make sync" in errors
    assert "Traceback" not in errors
    server.fault = lambda _: None
    done = call(tmp_path, server.url)
    assert done.returncode == 0, done.stderr
    assert steps(server) == [(i, i) for i in range(1, 6)]


def test_a_key_that_expired_and_a_server_that_is_not_there_are_said_in_a_line(
    tmp_path: Path, server: Server
) -> None:
    track(tmp_path)
    server.fault = lambda _: 401
    done = call(tmp_path, server.url)
    assert done.returncode == 1
    assert done.stderr.startswith("sync: ")
    assert "plain-0-abc" in done.stderr
    assert "401" in done.stderr
    assert done.stderr.count("\n") == 1
    done = call(tmp_path, "http://127.0.0.1:9")
    assert done.returncode == 1
    assert done.stderr.startswith("sync: http://127.0.0.1:9: ")
    assert done.stderr.count("\n") == 1
    assert waiting(tmp_path) == {"plain-0-abc"}


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
    prepared: Project, server: Server
) -> None:
    folder = prepared.folder
    prepared.stage("train plain-0", "evaluate plain-0", **wandb_environment())
    assert track(folder).id == "plain-0-abc"
    about = json.loads((folder / "data/runs/plain-0/model.json").read_text())
    id = about["wandb"]["id"]
    (found,) = (
        e["local_path"]
        for a in recorded(folder, id)["artifact"]
        for e in a["artifact"]["manifest"]["contents"]
        if e["path"] == "model.keras"
    )
    model = Path(found)
    kept = model.read_bytes()
    model.write_bytes(b"another")
    try:
        done = call(folder, server.url)
    finally:
        model.write_bytes(kept)
    assert done.returncode == 1
    assert str(model) in done.stderr
    assert set(server.runs) == {"plain-0-abc"}
    assert waiting(folder) == {id}
    assert call(folder, server.url).returncode == 0
    check_received(server, folder, "plain-0")
