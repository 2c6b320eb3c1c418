"""The grid on several machines: Dask's own scheduler and workers as processes, a bare git
repository, an S3 server; each machine has folders of its own.

KILLS says how many times `make test-all` kills a machine.
"""

import base64
import contextlib
import csv
import io
import json
import logging
import os
import random
import re
import shlex
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest
import trustme
import yaml
from dvc.repo import Repo
from moto.server import ThreadedMotoServer

from facet.grid import cluster_plugin
from facet.grid.cluster import unpack_notes
from facet.grid.dvc_session import load_stages
from facet.grid.remote_store import open_remote, push_stages
from facet.launch import SERVER_VARIABLE
from tests.helpers import REPRO, Project, wait_for_end, wait_until
from tests.warm import server_address

pytestmark = pytest.mark.cluster
KILLS = min(20, int(os.environ.get("KILLS", "2")))
DASK = str(Path(sys.executable).parent / "dask")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


class Gate:
    """Passes on what comes to a port, unless it is shut."""

    def __init__(self, to: int) -> None:
        self.to, self.shut = to, False
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listening.accept()
                if self.shut:
                    client.close()
                    continue
                server = socket.create_connection(("127.0.0.1", self.to))
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=self._pass_on, args=pair, daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while (data := source.recv(1 << 16)) and not self.shut:
                target.sendall(data)
        for end in (source, target):
            end.close()


class Machines:
    """A Dask scheduler and workers, each with folders of its own."""

    def __init__(self, folder: Path, options: tuple[str, ...] = (), scheme: str = "tcp") -> None:
        self.folder, self.options, self.port = folder, options, free_port()
        self.address = f"{scheme}://127.0.0.1:{self.port}"
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        self.scheduler = self._start_scheduler()

    def _start(self, name: str, *words: str, **env: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [DASK, *words, "--host", "127.0.0.1", *self.options],
                # Their stages run warm.
                env=os.environ | {SERVER_VARIABLE: server_address()} | env,
                cwd=self.folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _start_scheduler(self) -> subprocess.Popen[bytes]:
        port = str(self.port)
        scheduler = self._start("scheduler", "scheduler", "--port", port, "--no-dashboard")
        wait_until(self._answers, "the scheduler")
        return scheduler

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        return False

    def read_log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def start(self, name: str, *options: str, **env: str) -> None:
        place = self.folder / name
        self.workers[name] = self._start(
            name,
            *("worker", self.address, "--nthreads", "1", "--no-dashboard", "--name", name),
            *("--local-directory", str(place / "dask"), *options),
            **env | {"FACET_CLUSTER_FOLDER": str(place)},
        )

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """As when a machine loses its power."""
        with contextlib.suppress(psutil.Error):
            one = psutil.Process(process.pid)
            every = [one, *one.children(recursive=True)]
            for each in every:
                with contextlib.suppress(psutil.Error):
                    each.kill()
            process.wait()
            wait_for_end(*(p.pid for p in every))

    def restart_scheduler(self) -> None:
        """Workers end with their scheduler; who runs a cluster starts them again."""
        self.kill(self.scheduler)
        for process in self.workers.values():
            process.wait(60)
        self.scheduler = self._start_scheduler()

    def stop(self) -> None:
        for process in [*self.workers.values(), self.scheduler]:
            self.kill(process)


class Shared:
    """What the machines share: git and DVC's remote; and a project that was pushed there."""

    def __init__(self, folder: Path, alone: Project, bucket: str, gate: Gate) -> None:
        self.gate, self.origin, self.alone = gate, folder / "origin.git", alone
        self.project = alone.copy_to(folder / "project").forget()
        self.project.run("dvc", "remote", "add", "--default", "store", f"s3://{bucket}/x")
        self.project.run("git", "init", "--quiet", "--bare", str(self.origin))
        self.project.run("git", "remote", "add", "origin", str(self.origin))

    def set_seeds(self, *seeds: int) -> None:
        """Push a commit that has these."""
        self.project.parameters["seeds"] = list(seeds)
        self.project.write()
        self.push()

    def push(self) -> None:
        self.project.commit("next", "--allow-empty")
        self.project.run("git", "push", "--quiet", "origin", "HEAD:main")

    def clone(self, place: Path) -> Project:
        self.project.run(
            "git", "clone", "--quiet", "--branch", "main", str(self.origin), str(place)
        )
        return Project(place)

    def begin(self, machines: Machines, project: Project | None = None) -> subprocess.Popen[str]:
        project = project or self.project
        return subprocess.Popen(
            [*REPRO, "--cluster", machines.address],
            cwd=project.folder,
            env=os.environ | {"PYTHONPATH": "", "WANDB_MODE": "offline"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # Where the tests themselves ignore Ctrl-C, in a shell's background.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )


@pytest.fixture(scope="module")
def shared_things(made_once: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    gate = Gate(server.get_host_and_port()[1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{gate.port}")
        boto3.client("s3").create_bucket(Bucket="store")
        yield Shared(tmp_path_factory.mktemp("shared"), made_once, "store", gate)
    server.stop()


@pytest.fixture
def machines(shared_things: Shared, tmp_path: Path) -> Iterator[Machines]:
    """A scheduler, without workers."""
    made = Machines(tmp_path)
    yield made
    made.stop()


def wait_for_line(process: subprocess.Popen[str], word: str) -> list[str]:
    """The lines of a command's output, up to the first that has the word."""
    assert process.stdout
    lines = []
    for line in process.stdout:
        lines.append(line)
        if word in line:
            return lines
    raise AssertionError("".join(lines))


def end(process: subprocess.Popen[str], status: int = 0) -> str:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == status, output
    return output


def stage_entries(project: Project) -> str:
    return (project.folder / "dvc.lock").read_text()


def test_a_push_of_few_files_asks_for_those_alone(
    shared_things: Shared,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """However many the remote holds: a list of all would take longer with each run."""
    monkeypatch.chdir(tmp_path)
    for words in (
        "init --quiet --no-scm",
        "remote add --quiet --default store s3://store/few",
        "stage add --quiet --run --name make --outs a --outs b 'echo 1 > a; echo 2 > b'",
    ):
        subprocess.run([Path(DASK).with_name("dvc"), *shlex.split(words)], check=True)
    caplog.set_level(logging.INFO, "werkzeug")
    with Repo() as repo:
        push_stages(repo, list(load_stages(repo).values()), open_remote(repo))
    requests = [record.getMessage() for record in caplog.records if record.name == "werkzeug"]
    assert sum("PUT /store/few/" in line for line in requests) == 2
    # With a delimiter a listing ends at the folder, of which there are 256.
    assert [r for r in requests if "list-type" in r and "delimiter=/" not in r] == []


def kill_one_of(
    shared_things: Shared, machines: Machines, names: list[str], coordinator: Project, moment: float
) -> float:
    """Make the grid on machines of these names of which one is killed; returns the seconds."""
    for name in names:
        machines.start(name)
    begun = time.monotonic()
    process = shared_things.begin(machines, coordinator)
    wait_for_line(process, " begins on ")
    time.sleep(moment)
    machines.kill(machines.workers[names[0]])
    end(process)
    for name in names:
        machines.kill(machines.workers[name])
    return time.monotonic() - begun


def check_notes(coordinator: Project, runs: set[str]) -> None:
    """Assert that what is the machines' own has come: each run once, its usage, costs, manifest."""
    trained = [
        match[1]
        for p in (coordinator.folder / "wandb").glob("*run-*")
        if not (p / "joined").exists() and (match := re.search(r"\d{6}-(.*-\d+)-", p.name))
    ]
    assert sorted(trained) == sorted(runs)
    for run in runs:
        costs = json.loads((coordinator.folder / f"metrics/costs/{run}.json").read_text())
        assert costs["train_seconds"] > 0
        assert (coordinator.folder / f"metrics/manifests/{run}.json").exists()
    closing = (coordinator.folder / ".workers/logs/closing.log").read_text()
    assert set(re.findall("Running stage '(.*?)'", closing)) == {"compare"}
    rows = list(csv.DictReader((coordinator.folder / "metrics/runs.csv").open()))
    assert {row["run"] for row in rows} == runs


def test_two_machines_of_which_one_is_killed_make_what_one_makes(
    shared_things: Shared, machines: Machines, tmp_path: Path
) -> None:
    shared_things.set_seeds(0)
    coordinator = shared_things.clone(tmp_path / "coordinator")
    kill_one_of(shared_things, machines, ["first", "second"], coordinator, random.uniform(0, 5))
    assert stage_entries(coordinator) == stage_entries(shared_things.alone)
    check_notes(coordinator, {"plain-0", "dropped-0"})


@pytest.mark.slow
@pytest.mark.timeout(400 * KILLS)
def test_three_machines_of_which_one_is_killed_make_what_one_makes(
    shared_things: Shared, machines: Machines, tmp_path: Path
) -> None:
    shared_things.set_seeds(*range(6))
    runs = {f"{name}-{seed}" for name in ("plain", "dropped") for seed in range(6)}
    alone = shared_things.clone(tmp_path / "alone")
    alone.run(*REPRO)
    draw = random.Random(KILLS)
    seconds = 10.0
    for number in range(KILLS):
        names = [f"machine{number}-{n}" for n in range(3)]
        coordinator = shared_things.clone(tmp_path / f"coordinator{number}")
        moment = draw.uniform(0, 0.7 * seconds)
        seconds = kill_one_of(shared_things, machines, names, coordinator, moment)
        assert stage_entries(coordinator) == stage_entries(alone)
        check_notes(coordinator, runs)
    # All that dvc.lock names is in the remote: a colleague's clone needs to run nothing.
    for name in ("dvc.lock", "metrics"):
        coordinator.run("cp", "-r", name, str(shared_things.project.folder))
    shared_things.push()
    colleague = shared_things.clone(tmp_path / "colleague")
    colleague.run("dvc", "pull", "--quiet", "--allow-missing")
    assert colleague.ran("evaluate") == []
    # Nothing is to do, and a clone without data gets what its report needs.
    again = shared_things.clone(tmp_path / "again")
    output = end(shared_things.begin(machines, again))
    assert "begins" not in output
    assert (again.folder / "metrics/report.html").exists()
    shared_things.project.forget()


@pytest.mark.slow
def test_a_remote_that_fails_and_a_scheduler_that_is_lost_cost_time_alone(
    shared_things: Shared, machines: Machines
) -> None:
    shared_things.set_seeds(10)
    machines.start("one")
    process = shared_things.begin(machines)
    wait_for_line(process, " begins on ")
    shared_things.gate.shut = True
    time.sleep(5)
    shared_things.gate.shut = False
    wait_for_line(process, "] ")
    machines.restart_scheduler()
    machines.start("one")
    output = end(process)
    assert "the scheduler was lost; looking for it" in output
    assert "report: " in output
    lock = yaml.safe_load(stage_entries(shared_things.project))["stages"]
    assert {"evaluate@plain-10", "evaluate@dropped-10", "compare"} <= set(lock)


@pytest.fixture
def other_numpy(tmp_path: Path) -> str:
    """A folder that holds what metadata calls another release of numpy."""
    other = tmp_path / "packages/numpy-1.0.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 1.0\n")
    return str(other.parent)


def test_a_machine_that_is_not_the_locks_is_given_nothing(
    shared_things: Shared, machines: Machines, other_numpy: str
) -> None:
    shared_things.set_seeds(20)
    machines.start("odd", PYTHONPATH=other_numpy)
    output = end(shared_things.begin(machines), 1)
    assert "no worker is fit: " in output
    assert "its packages are not those of requirements.lock: numpy is 1.0, not " in output


@pytest.mark.slow
def test_a_machine_that_is_not_the_locks_does_no_harm_beside_another(
    shared_things: Shared, machines: Machines, other_numpy: str
) -> None:
    shared_things.set_seeds(21)
    machines.start("odd", PYTHONPATH=other_numpy)
    machines.start("good")
    output = end(shared_things.begin(machines))
    assert output.count("is given nothing: its packages") <= 1


@pytest.mark.slow
def test_a_run_goes_to_a_machine_that_can_hold_it_or_is_refused(
    shared_things: Shared, machines: Machines
) -> None:
    experiments = shared_things.project.parameters["experiments"]
    experiments["plain"]["gpu"] = True
    shared_things.set_seeds(70)
    machines.start("small", "--memory-limit", "100MB")
    wait_until(lambda: "Registered to" in machines.read_log("small"), "the worker")
    output = end(shared_things.begin(machines), 1)
    assert re.search(r"needs 0\.\d GB of memory, the largest worker has 0\.1 GB", output)
    machines.kill(machines.workers["small"])
    machines.start("plain", "--resources", "MEMORY=1e9")
    wait_until(lambda: "Registered to" in machines.read_log("plain"), "the worker")
    output = end(shared_things.begin(machines), 1)
    assert "evaluate@plain-70: asks for a GPU, and no worker has one" in output
    machines.start("gpu", "--resources", "GPU=1 MEMORY=1e9")
    wait_until(lambda: "Registered to" in machines.read_log("gpu"), "the worker")
    end(shared_things.begin(machines))
    made = machines.folder.glob("gpu/*/0/.workers/logs/evaluate@plain-70.log")
    assert len(list(made)) == 1
    del experiments["plain"]["gpu"]


@pytest.mark.slow
def test_two_coordinators_at_once_do_no_harm(
    shared_things: Shared, machines: Machines, tmp_path: Path
) -> None:
    shared_things.set_seeds(30)
    machines.start("one")
    machines.start("two")
    clones = [shared_things.clone(tmp_path / name) for name in ("a", "b")]
    for process in [shared_things.begin(machines, clone) for clone in clones]:
        end(process)
    assert stage_entries(clones[0]) == stage_entries(clones[1])


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_made_and_leaves_nothing_running(
    shared_things: Shared, machines: Machines
) -> None:
    shared_things.project.parameters["experiments"]["dropped"]["epochs"] = 500
    shared_things.set_seeds(40)
    machines.start("one")
    process = shared_things.begin(machines)
    wait_for_line(process, "evaluate@dropped-40 begins")
    process.send_signal(signal.SIGINT)
    end(process, 130)
    worker = psutil.Process(machines.workers["one"].pid)

    def stages() -> list[str]:
        with contextlib.suppress(psutil.Error):  # it ends just now
            words = [" ".join(p.cmdline()) for p in worker.children(recursive=True)]
            return [w for w in words if "cluster_worker" in w or "stages" in w]
        return ["?"]

    wait_until(lambda: not stages(), "the end of the targets", 30)
    del shared_things.project.parameters["experiments"]["dropped"]["epochs"]


def test_a_target_that_begins_as_its_coordinator_ends_is_not_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    living: list[Any] = []

    class Process:
        unfit = ""

        def __init__(self, *_: Any) -> None:
            living.append(self)

        def lives(self) -> bool:
            return self in living

        def end(self) -> None:
            if self in living:
                living.remove(self)

    monkeypatch.setattr(cluster_plugin, "TargetProcess", Process)
    plugin = cluster_plugin.TargetPlugin("name", "url", "commit", {})
    worker: Any = None
    plugin.setup(worker)
    assert plugin._take() is living[0]
    plugin.teardown(worker)
    with pytest.raises(RuntimeError, match="coordinator has ended"):
        plugin._take()
    assert not living


@pytest.fixture
def tls_machines(tmp_path: Path) -> Iterator[tuple[Machines, dict[str, str]]]:
    """A scheduler that speaks TLS alone, and the files of certificates by their kind."""
    authority = trustme.CA()
    ours = authority.issue_cert("127.0.0.1")
    files = {name: str(tmp_path / name) for name in ("ca", "cert", "key")}
    authority.cert_pem.write_to_path(files["ca"])
    ours.cert_chain_pems[0].write_to_path(files["cert"])
    ours.private_key_pem.write_to_path(files["key"])
    options = ("--tls-ca-file", files["ca"], "--tls-cert", files["cert"], "--tls-key", files["key"])
    machines = Machines(tmp_path, options, "tls")
    yield machines, files
    machines.stop()


TLS = "DASK_DISTRIBUTED__COMM__TLS__"


def test_wrong_certificates_are_a_line(
    shared_things: Shared, tls_machines: tuple[Machines, dict[str, str]]
) -> None:
    machines, files = tls_machines
    shared_things.set_seeds(50)
    wrong = {"CA_FILE": files["ca"], "CLIENT__CERT": files["cert"], "CLIENT__KEY": files["ca"]}
    for given, named in ((dict[str, str](), "no certific"), (wrong, "certificates ")):
        variables = {f"{TLS}{key}": file for key, file in given.items()}
        words = (*REPRO, "--cluster", machines.address)
        done = shared_things.project.run(*words, check=False, **variables)
        assert done.returncode == 1
        start = f"--cluster {machines.address}: Dask's configuration names {named}"
        assert start in done.stderr


@pytest.mark.slow
def test_tls_and_certificates(
    shared_things: Shared,
    tls_machines: tuple[Machines, dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machines, files = tls_machines
    machines.start("one")
    shared_things.set_seeds(51)
    monkeypatch.setenv(f"{TLS}CA_FILE", files["ca"])
    monkeypatch.setenv(f"{TLS}CLIENT__CERT", files["cert"])
    monkeypatch.setenv(f"{TLS}CLIENT__KEY", files["key"])
    assert "report: " in end(shared_things.begin(machines))


def test_nothing_but_notes_is_taken_from_a_worker(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name in (
            "metrics/costs/a-0.json",
            "facet/cli.py",
            "../out",
            "wandb/../../out",
            "wandb/run-1/x",
        ):
            archive.addfile(tarfile.TarInfo(name))
    unpack_notes(base64.b64encode(packed.getvalue()).decode(), tmp_path / "project")
    found = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert found == {"project/metrics/costs/a-0.json", "project/wandb/run-1/x"}


def test_what_a_cluster_cannot_make_is_a_line(shared_things: Shared, tmp_path: Path) -> None:
    shared_things.set_seeds(60)
    clone = shared_things.clone(tmp_path / "clone")
    nobody = f"tcp://127.0.0.1:{free_port()}"

    def refusal(*words: str, address: str = nobody) -> str:
        done = clone.run(*REPRO, "--cluster", address, *words, check=False)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1, done.stderr
        return done.stderr

    assert "repro: --cluster tcp://192.0.2.1:8786: not encrypted" in refusal(
        address="tcp://192.0.2.1:8786"
    )
    assert "say tcp://HOST:8786" in refusal(address="here")
    assert "--jobs is for this machine alone" in refusal("--jobs", "2")
    assert f"--cluster {nobody}: no Dask scheduler answers" in refusal()
    (clone.folder / "notes.txt").write_text("")
    assert "notes.txt: not as in the last commit" in refusal()
    clone.commit("mine")
    assert "is not on origin: git push" in refusal()
    clone.run("git", "remote", "set-url", "origin", "https://me:secret@192.0.2.1/x.git")
    assert "the address of origin holds a password" in (line := refusal())
    assert "secret" not in line
    clone.run("git", "remote", "set-url", "origin", "https://ghp_secret@192.0.2.1/x.git")
    assert "the address of origin holds a password or token" in (line := refusal())
    assert "secret" not in line
    clone.run("git", "remote", "set-url", "origin", str(shared_things.origin))
    clone.run("git", "reset", "--quiet", "--hard", "HEAD~1")
    (clone.folder / ".dvc/config").write_text("")
    clone.commit("none")
    clone.run("git", "push", "--quiet", "origin", "HEAD:other")
    assert "--cluster: no DVC remote" in refusal()
