"""Stages run from a process that has their libraries imported."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from dvc.stage import run as dvc_run
from dvc.stage.exceptions import StageCmdFailedError

from facet.grid import worker
from facet.grid.stage_server import Client, Server
from tests.helpers import ROOT, is_alive, wait_for_pid

PROBE = """
import os, sys, time
from pathlib import Path

loaded = [n for n in sys.modules if n.startswith("facet")]

def main(what: str) -> None:
    Path("pid").write_text(str(os.getpid()))
    if what == "tell":
        print("told", os.environ.get("TOLD"), sys.argv[0].rpartition("/")[2])
        print("warm", "tensorflow" in sys.modules, loaded)
    elif what == "wait":
        time.sleep(60)
    elif what == "die":
        os.kill(os.getpid(), 9)
    else:
        from facet.errors import InputError
        raise InputError(f"{what}: is wrong; mend it")

if __name__ == "__main__":
    from facet.process import run_stage
    run_stage(main)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the project's code and a stage that tells of itself."""
    folder = tmp_path_factory.mktemp("warm")
    for name in ("stages", "facet"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "facet/review/trace.py", folder / "sitecustomize.py")
    (folder / "stages/probe.py").write_text(PROBE)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))  # for sitecustomize
        server = Server()
    with server:
        yield server
    assert server.process.returncode == -signal.SIGTERM


@pytest.fixture
def client(server: Server) -> Client:
    return Client(server.path)


def test_a_stage_runs_as_python_m_runs_it(
    client: Client, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    environment = dict(os.environ) | {"TOLD": "by the environment"}
    assert client.run(["stages.probe", "tell"], str(folder), environment) == 0
    warm = capfd.readouterr().out
    assert warm == "told by the environment probe.py\nwarm True []\n"
    subprocess.run(
        [sys.executable, "-m", "stages.probe", "tell"], cwd=folder, env=environment, check=True
    )
    assert capfd.readouterr().out == warm.replace("warm True", "warm False")

    # Who has Python note what a stage reads, as a review does, has its notes.
    traced = environment | {
        "FACET_TRACE": str(tmp_path),
        "DVC_STAGE": "probe",
        "DVC_ROOT": str(folder),
    }
    assert client.run(["stages.probe", "tell"], str(folder), traced) == 0
    assert capfd.readouterr().out == warm
    assert "open\tfacet/process.py" in (tmp_path / "probe").read_text().splitlines()

    # The project's code is read anew, and a stage leaves the next one nothing.
    (folder / "stages/probe.py").write_text(PROBE.replace("told", "now"))
    assert client.run(["stages.probe", "tell"], str(folder), {}) == 0
    assert capfd.readouterr().out.startswith("now None probe.py\n")
    (folder / "stages/probe.py").write_text(PROBE)


def test_how_a_stage_ends_is_told(
    client: Client, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert client.run(["stages.probe", "that"], str(folder), {}) == 1
    assert capfd.readouterr().err == "probe: that: is wrong; mend it\n"
    assert client.run(["stages.probe"], str(folder), {}) == 2
    assert "Missing argument" in capfd.readouterr().err
    assert client.run(["stages.probe", "die"], str(folder), {}) == 128 + 9
    assert client.run(["stages.absent"], str(folder), {}) == 1
    assert "No module named stages.absent" in capfd.readouterr().err
    assert client.run(["stages.probe", "tell"], str(folder), {}) == 0


def test_dvc_takes_what_the_server_says_and_does_without_it(
    client: Client,
    folder: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    cold = dvc_run._run
    options = {"cwd": str(folder), "env": dict(os.environ) | {"PYTHONPATH": str(folder)}}
    with worker.run_on_server(client):
        dvc_run._run("/bin/sh", "python -m stages.probe tell", **options)
        assert "warm True" in capfd.readouterr().out
        # What needs a shell is given one.
        dvc_run._run("/bin/sh", "python -m stages.probe tell; echo also", **options)
        out = capfd.readouterr().out
        assert "warm False" in out
        assert "also" in out
        with pytest.raises(StageCmdFailedError, match="exited with 1"):
            dvc_run._run("/bin/sh", "python -m stages.probe that", **options)
    assert dvc_run._run is cold

    with Server() as server:
        gone = Client(server.path)
    with worker.run_on_server(gone), worker.run_on_server(Client(server.path)):
        dvc_run._run("/bin/sh", "python -m stages.probe tell", **options)
    assert "warm False" in capfd.readouterr().out


def ends(*processes: int) -> bool:
    for _ in range(200):
        if not any(map(is_alive, processes)):
            return True
        time.sleep(0.05)
    return False


def test_a_stage_ends_with_who_asked_for_it(
    server: Server, client: Client, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "pid").unlink(missing_ok=True)
    ask = (
        "from facet.grid.stage_server import Client\n"
        "Client(%r).run(['stages.probe', 'wait'], %r, {})"
    )
    asker = subprocess.Popen([sys.executable, "-c", ask % (server.path, str(folder))])
    stage = wait_for_pid(folder, seconds=60)
    asker.kill()
    asker.wait()
    assert ends(stage)
    assert client.run(["stages.probe", "tell"], str(folder), {}) == 0  # others are served


def test_server_and_stage_end_with_who_started_them(folder: Path) -> None:
    (folder / "pid").unlink(missing_ok=True)
    start = (
        "from facet.grid.stage_server import Client, Server\nserver = Server()\n"
        "print(server.process.pid, flush=True)\n"
        "Client(server.path).run(['stages.probe', 'wait'], '.', {})"
    )
    starter = subprocess.Popen(
        [sys.executable, "-c", start], cwd=folder, stdout=subprocess.PIPE, text=True
    )
    assert starter.stdout
    server = int(starter.stdout.readline())
    stage = wait_for_pid(folder, seconds=60)
    assert is_alive(server)
    starter.kill()
    starter.wait()
    assert ends(stage, server)
