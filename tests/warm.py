"""The project's programs in processes forked from one that has imported what they import.

Python, TensorFlow and DVC take seconds to start and most programs of the tests do less than that. A
test whose subject is a start, a signal or the environment of a process starts a plain one.

Run as a program, this file is the server: `facet.grid.stage_server` with more libraries.
"""

import atexit
import contextlib
import filecmp
import functools
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FACET = Path(__file__).parents[1] / "facet"
# What `facet` and `dvc` import beside what stages do.
LIBRARIES = (
    "dvc.cli",
    "dvc.commands.repro",
    "dvc.commands.stage",
    "dvc.commands.status",
    "dvc.dvcfile",
    "dvc.repo",
    "dvc.stage.cache",
    "dvc.stage.run",
    "dvc_data.hashfile.build",
    "jinja2",
    "rich.live",
    "ruamel.yaml",
    "sklearn.ensemble",
    "sklearn.linear_model",
    "typer",
)
MODULES = ("stages", "facet", "dvc", "wandb")
STARTUP = "sitecustomize.py"
ADDRESS = "FACET_TESTS_SERVER"


def load_stage_server() -> Any:
    """The module of the stage server, without the package it is in: forks import that anew."""
    spec = importlib.util.spec_from_file_location("stage_server", FACET / "grid/stage_server.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@functools.cache
def server_address() -> str:
    """The address of the server, which ends with the process that started it.

    That is this one, or the one that the tests' workers are started by. Empty where none can be.
    """
    if ADDRESS in os.environ:
        return os.environ[ADDRESS]
    # Not in the server's own process: a fork imports them anew.
    from facet.environment import stage_environment
    from facet.launch import die_with

    if not load_stage_server().can_serve():
        return ""
    name = f"facet-tests-{os.getpid()}"
    # With what a review has Python start with: a stage that is to note what it reads does so.
    site = tempfile.TemporaryDirectory()
    shutil.copy(FACET / "review/trace.py", Path(site.name) / STARTUP)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(f"\0{name}")
        listening.listen(64)
        process = subprocess.Popen(
            [sys.executable, "-P", __file__, str(listening.fileno())],
            pass_fds=[listening.fileno()],
            stdin=subprocess.DEVNULL,
            env=stage_environment() | {"PYTHONPATH": site.name},
            preexec_fn=functools.partial(die_with, os.getpid()),
        )
    atexit.register(site.cleanup)
    atexit.register(process.kill)
    os.environ[ADDRESS] = f"@{name}"
    return f"@{name}"


def is_plain(environment: Mapping[str, str]) -> bool:
    """Whether Python runs nothing at its start but what a review has it run: a fork does so too."""
    folders = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    found = [file for folder in folders if (file := Path(folder) / STARTUP).exists()]
    return all(filecmp.cmp(file, FACET / "review/trace.py", shallow=False) for file in found)


def as_module(words: Sequence[str], place: Path) -> list[str]:
    """The module and the words of a command that can be run warm; empty for any other.

    Code after -c becomes a module in `place`.
    """
    if words[0] == "dvc":
        return list(words)
    if list(words[:2]) == [sys.executable, "-m"] and words[2].partition(".")[0] in MODULES:
        return list(words[2:])
    if list(words[:2]) == [sys.executable, "-c"]:
        (place / "given_code.py").write_text(words[2])
        return ["given_code", *words[3:]]
    return []


def run_warm(
    words: Sequence[str], folder: Path, environment: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str] | None:
    """Run `words` as subprocess.run does, in a fork; None where it has to be started anew.

    Raises subprocess.TimeoutExpired, and has ended it then.
    """
    if not is_plain(environment) or not (address := server_address()):
        return None
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server,
        tempfile.TemporaryFile() as output,
        tempfile.TemporaryFile() as errors,
        tempfile.TemporaryDirectory() as place,
    ):
        if not (module := as_module(words, Path(place))):
            return None
        path = [*filter(None, [environment.get("PYTHONPATH")]), *[place] * ("-c" in words[1:2])]
        known = {**environment, "PYTHONPATH": os.pathsep.join(path)}
        server.settimeout(timeout)
        server.connect(f"\0{address[1:]}")
        request = json.dumps([module, str(folder), known, sys.prefix])
        socket.send_fds(server, [request.encode()], [output.fileno(), errors.fileno()])
        try:
            answer = server.recv(16)
        except TimeoutError:
            raise subprocess.TimeoutExpired(list(words), timeout) from None
        if not answer:  # it would import other libraries
            return None
        texts = []
        for file in (output, errors):
            file.seek(0)
            texts.append(file.read().decode())
    return subprocess.CompletedProcess(list(words), int(answer), *texts)


if __name__ == "__main__":
    stage_server = load_stage_server()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    full_state = stage_server.library_state

    def library_state(environment: Mapping[str, str]) -> list[object]:
        return full_state(
            {**environment, "PYTHONPATH": ""} if is_plain(environment) else environment
        )

    stage_server.library_state = library_state
    state = library_state(os.environ)
    for package in LIBRARIES:
        with contextlib.suppress(ImportError):
            importlib.import_module(package)
    stage_server.import_libraries()
    with socket.socket(fileno=int(sys.argv[1])) as listening_socket:
        stage_server.serve_forever(listening_socket, state)
