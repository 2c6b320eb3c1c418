"""Stages run from a process that has their libraries imported."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from facet.grid import stage_server
from facet.grid.stage_server import StageServer, library_state, serve_stages
from facet.launch import SERVER_VARIABLE, TIMINGS_VARIABLE, ask_server
from tests.helpers import ROOT, TIMEOUT, is_alive, run_program, wait_for_end, wait_for_pid

# Takes the place of a stage.
PROBE = """
import os, sys, time
from pathlib import Path

modules = "facet.base.config", "facet.base.storage", "facet.models"
loaded = [n for n in modules if n in sys.modules]

def main(what: str) -> None:
    Path("pid").write_text(str(os.getpid()))
    if what == "tell":
        print("value", os.environ.get("TERM"), sys.argv[0].rpartition("/")[2])
        print("warm", "cv2" in sys.modules, loaded)
    elif what == "wait":
        time.sleep(60)
    elif what == "die":
        os.kill(os.getpid(), 9)
    else:
        from facet.errors import InputError
        raise InputError(f"{what}: is wrong; mend it")

if __name__ == "__main__":
    from facet.launch import run_stage
    run_stage(main)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the project's code, in which `pickle` tells of itself."""
    folder = tmp_path_factory.mktemp("warm")
    for name in ("stages", "facet"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "facet/review/trace.py", folder / "sitecustomize.py")
    (folder / "stages/pickle.py").write_text(PROBE)
    # One library that stages import, and that is imported soon.
    program = folder / "facet/grid/stage_server.py"
    text = program.read_text()
    program.write_text(
        re.sub(r"^LIBRARIES = \(.*?^\)", 'LIBRARIES = ("cv2",)', text, flags=re.S | re.M)
    )
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[StageServer]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage_server, "__file__", str(folder / "facet/grid/stage_server.py"))
        server = StageServer()
        with server:
            yield server
    assert server.process
    assert server.process.returncode == -signal.SIGTERM
    assert SERVER_VARIABLE not in os.environ


def launch(
    folder: Path, *words: str, server: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """`python -m stages pickle` with `words`, in `folder`, told of the server."""
    stage = (sys.executable, "-m", "stages", "pickle")
    own = {"PYTHONPATH": "", SERVER_VARIABLE: server}
    return run_program(*stage, *words, folder=folder, cold=True, **own | environment)


def test_a_stage_runs_warm_as_it_runs_cold(
    server: StageServer, folder: Path, tmp_path: Path
) -> None:
    warm = launch(folder, "tell", server=server.address, TERM="by the environment")
    assert warm.stdout == "value by the environment pickle.py\nwarm True []\n", warm.stderr
    cold = launch(folder, "tell", server="", TERM="by the environment")
    assert cold.stdout == warm.stdout.replace("warm True", "warm False")

    # Who has Python note what a stage reads, as a review does, has its notes.
    traced = {"FACET_TRACE": str(tmp_path), "DVC_STAGE": "pickle", "DVC_ROOT": str(folder)}
    traced["PYTHONPATH"] = str(folder)  # for sitecustomize
    assert launch(folder, "tell", server=server.address, **traced).stdout.startswith("value")
    notes = (tmp_path / "pickle").read_text()
    assert re.search(r"^open\tstages/(__pycache__/)?pickle\.", notes, re.M)

    # The project's code is read anew, and a stage leaves the next one nothing.
    (folder / "stages/pickle.py").write_text(PROBE.replace('"value"', '"now"'))
    assert launch(folder, "tell", server=server.address).stdout.startswith("now ")
    (folder / "stages/pickle.py").write_text(PROBE)


@pytest.mark.parametrize("warm", [True, False])
def test_how_a_stage_ends_is_told(server: StageServer, folder: Path, warm: bool) -> None:
    address = server.address if warm else ""
    refused = launch(folder, "that", server=address)
    assert (refused.returncode, refused.stderr) == (1, "pickle: that: is wrong; mend it\n")
    unusable = launch(folder, server=address)
    assert unusable.returncode == 2
    assert "what" in unusable.stderr.lower()  # the argument that is missing
    assert launch(folder, "die", server=address).returncode == 128 + 9
    assert launch(folder, "tell", server=address).returncode == 0


@pytest.mark.parametrize("warm", [True, False])
def test_a_stage_is_timed_once(
    server: StageServer, folder: Path, tmp_path: Path, warm: bool
) -> None:
    timings = {TIMINGS_VARIABLE: str(tmp_path / "timings")}
    launch(folder, "tell", server=server.address if warm else "", **timings)
    (line,) = (tmp_path / "timings").read_text().splitlines()
    name, seconds = line.split("\t")
    assert name == "pickle@tell"
    assert float(seconds) > 0


def test_a_server_that_the_environment_names_is_used_if_it_is_of_these_libraries(
    server: StageServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(SERVER_VARIABLE, server.address)
    assert not isinstance(serve_stages(), StageServer)
    for name, value in (
        (SERVER_VARIABLE, "@facet-never-was"),
        ("CUDA_VISIBLE_DEVICES", "7"),
        ("FACET_TRACE", str(tmp_path)),  # as a review has Python note what stages read
    ):
        (tmp_path / "sitecustomize.py").write_text("")
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            patch.setenv("PYTHONPATH", str(tmp_path))
            assert isinstance(serve_stages(), StageServer)


def test_a_server_of_another_user_is_told_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Anyone may take the name of a server: it would be sent the environment and the terminal."""
    name = f"facet-test-{os.getpid()}"
    monkeypatch.setenv(SERVER_VARIABLE, f"@{name}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(f"\0{name}")
        listening.listen(1)
        monkeypatch.setattr(os, "getuid", lambda: os.stat("/").st_uid + 4321)
        assert ask_server(["stages", "train", "plain-0"]) is None
        client, _ = listening.accept()
        assert socket.recv_fds(client, 1 << 20, 2)[:2] == (b"", [])
        client.close()


def test_a_server_is_sent_no_key_that_the_stage_does_not_need(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = f"facet-test-{os.getpid()}"
    keys = ("WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN")
    for key in keys:
        monkeypatch.setenv(key, "secret")
    monkeypatch.setenv(SERVER_VARIABLE, f"@{name}")
    needed = {"normalise": [], "train": ["WANDB_API_KEY"], "download": ["AWS_SECRET_ACCESS_KEY"]}
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(f"\0{name}")
        listening.listen(1)

        def answer() -> None:
            client, _ = listening.accept()
            request, outputs, *_ = socket.recv_fds(client, 1 << 20, 2)
            seen.append(json.loads(request)[2])
            for output in outputs:
                os.close(output)
            client.close()

        for stage, expected in needed.items():
            seen: list[dict[str, str]] = []
            thread = threading.Thread(target=answer)
            thread.start()
            assert ask_server(["stages", stage, "x"]) is None
            thread.join()
            assert [key for key in keys if key in seen[0]] == expected, stage


def test_a_stage_does_without_a_server_that_has_gone(folder: Path) -> None:
    with StageServer() as server:
        pass
    for address in (server.address, "@facet-never-was", "nonsense"):
        assert "warm False" in launch(folder, "tell", server=address).stdout


def test_a_stage_that_would_import_other_libraries_runs_by_itself(
    server: StageServer, folder: Path, tmp_path: Path
) -> None:
    """Other variables that they read, another environment, packages that changed since."""
    same = launch(folder, "tell", server=server.address, TF_CPP_MIN_LOG_LEVEL="1")
    assert "warm True" in same.stdout
    other = launch(folder, "tell", server=server.address, CUDA_VISIBLE_DEVICES="7")
    assert "warm False" in other.stdout
    packages = Path(sysconfig.get_path("purelib"))
    moved = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", moved], check=True, timeout=60)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(moved)}))
    (site / "other.pth").write_text(str(packages))
    done = subprocess.run(
        [moved / "bin/python", "-m", "stages", "pickle", "tell"],
        cwd=folder,
        env=os.environ | {SERVER_VARIABLE: server.address, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "warm False" in done.stdout, done.stderr


def test_an_environment_that_changes_is_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    name = "CUDA_VISIBLE_DEVICES"
    before = library_state({name: "1", "HOME": "a"})
    assert library_state({name: "1", "HOME": "b"}) == before
    assert library_state({name: "2"}) != before
    (tmp_path / "another-1.0.dist-info").mkdir()
    assert library_state({name: "1"}) != before


def test_serve_prints_what_plain_dvc_needs(folder: Path) -> None:
    words = [sys.executable, "-m", "facet", "serve"]
    serving = subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, text=True)
    try:
        assert serving.stdout
        name, _, address = serving.stdout.readline().strip().removeprefix("export ").partition("=")
        assert name == SERVER_VARIABLE
        assert "warm True" in launch(folder, "tell", server=address).stdout
        again = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=60)
        assert again.returncode == 1
        assert again.stderr.startswith(f"serve: {address}: ")
    finally:
        serving.send_signal(signal.SIGINT)
        assert serving.wait(60) == 130
    assert "warm False" in launch(folder, "tell", server=address).stdout


@pytest.mark.parametrize(
    "fault",
    [
        # A fork takes one thread along: what another held locked would stay so.
        "threading.Thread(target=time.sleep, args=(600,), daemon=True).start()",
        "del os.pidfd_open",
        "os.pidfd_open = lambda _: os.open('/nowhere', 0)",  # as Linux before 5.3 refuses it
    ],
)
def test_a_server_that_could_not_do_its_work_serves_nobody(
    folder: Path, tmp_path: Path, fault: str
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys, threading, time\n"
        "if sys.argv[0].endswith('stage_server.py') or 'stage_server' in str(sys.orig_argv):\n"
        f"    {fault}\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        patch.setenv("FACET_TRACE", str(tmp_path))  # as a review, whose files Python runs first
        patch.setattr(stage_server, "__file__", str(folder / "facet/grid/stage_server.py"))
        server = StageServer()
        with server:
            assert server.process
            assert server.process.wait(TIMEOUT) == 1
            assert "warm False" in launch(folder, "tell", server=server.address).stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stage_ends_with_who_asked_for_it(
    server: StageServer, folder: Path, number: signal.Signals
) -> None:
    (folder / "pid").unlink(missing_ok=True)
    asker = subprocess.Popen(
        [sys.executable, "-m", "stages", "pickle", "wait"],
        cwd=folder,
        env=os.environ | {SERVER_VARIABLE: server.address},
    )
    stage = wait_for_pid(folder)
    asker.send_signal(number)
    assert asker.wait(60) == -number
    wait_for_end(stage)
    assert launch(folder, "tell", server=server.address).returncode == 0  # others are served


def test_server_and_stage_end_with_who_started_them(folder: Path) -> None:
    (folder / "pid").unlink(missing_ok=True)
    start = (
        "import subprocess, sys\n"
        "from facet.grid.stage_server import StageServer\n"
        "with StageServer() as server:\n"
        "    print(server.process.pid, flush=True)\n"
        "    subprocess.run([sys.executable, '-m', 'stages', 'pickle', 'wait'])\n"
    )
    starter = subprocess.Popen(
        [sys.executable, "-c", start], cwd=folder, stdout=subprocess.PIPE, text=True
    )
    assert starter.stdout
    server = int(starter.stdout.readline())
    stage = wait_for_pid(folder)
    assert is_alive(server)
    starter.kill()
    starter.wait(60)
    wait_for_end(stage, server)
