"""Run stages from a process that has their libraries imported: what the grid's workers do.

Imports take longer than most of what a stage does. So the grid starts a server, which imports the
libraries once; each worker is connected to a fork of it, and that forks for every stage. The stage
then runs as `python -m` would run it, on the project's own modules read anew. (The standard
library's forkserver imports its caller's main module, and DVC with it, into each child.)
"""

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import runpy
import secrets
import select
import signal
import socket
import struct
import subprocess
import sys
import traceback
from typing import TextIO

from facet.process import die_with

LARGEST = 1 << 20  # bytes of a request; the environment is most of it


class Server:
    """The process all stages are forked from; it ends with this one."""

    def __init__(self) -> None:
        # A name that Linux keeps in no folder: nothing is left where this process is killed.
        self.path = f"\0facet-{os.getpid()}-{secrets.token_hex(8)}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
            listening.bind(self.path)
            listening.listen()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "facet.grid.stage_server", str(listening.fileno())],
                pass_fds=[listening.fileno()],
                stdin=subprocess.DEVNULL,
            )

    def close(self) -> None:
        """End the server's process."""
        self.process.terminate()
        self.process.wait()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Client:
    """A worker's connection to the server; what it asked for ends with it."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with contextlib.suppress(OSError):
            self.socket.connect(path)

    def run(
        self,
        words: list[str],
        folder: str,
        environment: dict[str, str],
        output: TextIO | None = None,
    ) -> int | None:
        """Run `python -m` with `words` in `folder`; returns its exit status.

        What it prints goes to `output`, or where this process's output goes. None if the server is
        gone.
        """
        request = json.dumps([words, folder, environment]).encode()
        outputs = [output.fileno()] * 2 if output else [1, 2]
        try:
            socket.send_fds(self.socket, [request], outputs)
            answer = self.socket.recv(16)
        except OSError:
            return None
        return int(answer) if answer else None


def import_libraries() -> None:
    """Import what the stages import, TensorFlow as train does, and forget the project's modules."""
    from facet import datasets, evaluation, models
    from facet.models.runtime import import_tensorflow
    from facet.tracking import record, wandb_run  # noqa: F401

    wandb_run.import_wandb()
    import_tensorflow()
    for room in (datasets, models, evaluation):
        for module in pkgutil.iter_modules(room.__path__, f"{room.__name__}."):
            importlib.import_module(module.name)
    # What they import where they use it.
    for name in ("matplotlib.backends.backend_agg", "scipy.optimize", "scipy.stats"):
        importlib.import_module(name)
    # A stage reads the project's code as it is then.
    for name in [n for n in sys.modules if n.partition(".")[0] == "facet"]:
        del sys.modules[name]
    gc.collect()
    gc.freeze()  # what is there stays shared between the processes


def serve_forever(listening: socket.socket) -> None:
    """Fork for each client of the same user."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for these
    while True:
        client, _ = listening.accept()
        server = os.getpid()
        _, user, _ = struct.unpack(
            "3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        )
        if user == os.getuid() and os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            die_with(server)
            listening.close()
            with contextlib.suppress(OSError):  # it has gone
                serve_client(client)
            os._exit(0)
        client.close()


def serve_client(client: socket.socket) -> None:
    """Fork for each of a client's requests in turn, and answer with the exit status."""
    here = os.getpid()
    while True:
        request, outputs, *_ = socket.recv_fds(client, LARGEST, 2)
        if not request:
            return
        child = os.fork()
        if child == 0:
            die_with(here)
            client.close()
            words, folder, environment = json.loads(request)
            run_module(words, folder, environment, outputs)
        for output in outputs:
            os.close(output)
        running = os.pidfd_open(child)
        # A client asks for one thing at a time: if it is heard of meanwhile, it has gone.
        if client.fileno() in select.select([running, client.fileno()], [], [])[0]:
            os.kill(child, signal.SIGTERM)
        os.close(running)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        client.send(str(status).encode())


def run_module(
    words: list[str], folder: str, environment: dict[str, str], outputs: list[int]
) -> None:
    """Be `python -m` with `words` in this process, and end with it."""
    status: object = 1
    try:
        for ours, output in zip((1, 2), outputs, strict=True):
            os.dup2(output, ours)
            os.close(output)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        sys.path[0] = folder
        if "sitecustomize" in sys.modules:  # it too may look at the environment
            importlib.reload(sys.modules["sitecustomize"])
        sys.argv = list(words)
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as e:
        status = e.code
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(status if isinstance(status, int) else int(status is not None))


if __name__ == "__main__":
    die_with(os.getppid())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the stages, and for who waits
    import_libraries()
    with socket.socket(fileno=int(sys.argv[1])) as listening:
        serve_forever(listening)
