"""Run stages from a process that has their libraries imported.

Imports take longer than most of what a stage does: TensorFlow's alone 4 s of the 6 s of a small
training. So the grid starts a server, and `facet serve` starts one for plain `dvc repro`.
It imports the libraries once; the command of each stage, `python -m stages NAME ITEM`, asks it
(`facet.launch`), and it forks a process that becomes that command. Nothing of the project is
imported here: each stage reads the code of its own folder, as it is then. Where no server answers,
a stage runs by itself, and makes the same bytes.

This file is also the server's program; run so, it uses the standard library alone.
"""

import contextlib
import errno
import gc
import hashlib
import importlib
import json
import os
import runpy
import secrets
import select
import signal
import socket
import struct
import subprocess
import sys
import sysconfig
import traceback
from collections.abc import Mapping
from functools import partial
from pathlib import Path

NOT_HERE = "a stage server needs Linux 5.3 or newer; without one, stages start by themselves"
THREADS = "/proc/self/task"
LARGEST = 1 << 20  # bytes of a request; the environment is most of it
# What the stages import, and what those libraries import where they use it. W&B comes first: it
# asks each module that is imported for its name, and TensorFlow brings thousands.
LIBRARIES = (
    "wandb",
    "wandb.sdk.launch.inputs.internal",  # asked at each start of a run
    "tensorflow",
    "cv2",
    "matplotlib.figure",
    "matplotlib.backends.backend_agg",
    "pandas",
    "PIL.ImageDraw",
    "PIL.ImageFont",
    "PIL.ImageOps",
    "pydantic",
    "scipy.sparse.csgraph",
    "scipy.optimize",
    "scipy.stats",
    "tqdm",
    "yaml",
)


# Variables that the libraries read when they are imported, and that stages may have differently.
LIBRARY_VARIABLES = ("CUDA_VISIBLE_DEVICES", "TF_FORCE_GPU_ALLOW_GROWTH")


class StageServer:
    """The process that stages are forked from, named in the environment; it ends with this one.

    Where the system lacks what it needs there is none: each stage imports its libraries itself,
    with the same bytes.
    """

    def __init__(self, name: str = "") -> None:
        # A name that Linux keeps in no folder: nothing is left where this process is killed.
        self.address = f"@facet-{name or secrets.token_hex(8)}"
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "StageServer":
        from facet.environment import stage_environment
        from facet.launch import SERVER_VARIABLE, die_with

        if not can_serve():
            return self
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
            listening.bind("\0" + self.address[1:])
            listening.listen(64)
            self.process = subprocess.Popen(
                [sys.executable, "-P", __file__, str(listening.fileno())],
                pass_fds=[listening.fileno()],
                stdin=subprocess.DEVNULL,
                env=stage_environment(),
                preexec_fn=partial(die_with, os.getpid()),
            )
        os.environ[SERVER_VARIABLE] = self.address
        return self

    def __exit__(self, *_: object) -> None:
        from facet.launch import SERVER_VARIABLE

        os.environ.pop(SERVER_VARIABLE, None)
        if self.process:
            self.process.terminate()
            self.process.wait()


def serve_stages() -> contextlib.AbstractContextManager[object]:
    """A stage server while a context lasts: the one that the environment names, or a new one."""
    from facet.launch import ask_server

    return contextlib.nullcontext() if ask_server([]) == 0 else StageServer()


def can_serve() -> bool:
    """Whether this system has what a stage server needs: Linux's sockets, pidfds, /proc."""
    if not (hasattr(socket, "SO_PEERCRED") and os.path.isdir(THREADS)):
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):  # not Linux, or one from before 5.3
        return False
    return True


def serve_project(root: Path) -> None:
    """Serve the stages that plain `dvc repro` runs, until Ctrl-C.

    The address depends on the project's folder and the user alone, so that it can stay in a shell's
    settings. Raises InputError where a server is up already, and where none can be.
    """
    from facet.errors import InputError
    from facet.launch import SERVER_VARIABLE

    if not can_serve():
        raise InputError(NOT_HERE)
    folder = hashlib.sha256(str(root).encode()).hexdigest()[:8]
    server = StageServer(f"{os.getuid()}-{folder}")
    # A shell has those that it starts in the background ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with server:
            assert server.process
            print("in the shell that is to run dvc:", file=sys.stderr)
            print(f"export {SERVER_VARIABLE}={server.address}", flush=True)
            server.process.wait()
    except OSError as e:
        if e.errno != errno.EADDRINUSE:
            raise
        raise InputError(f"{server.address}: a stage server of this folder is up") from None


def library_state(environment: Mapping[str, str]) -> list[object]:
    """What an import of the libraries depends on: the environment's packages and variables.

    And a file that Python runs at each start, as a review has one that notes what stages read.
    """
    packages = Path(sysconfig.get_path("purelib"))
    variables = [environment.get(name) for name in LIBRARY_VARIABLES]
    folders = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    startup = [f for folder in folders if os.path.isfile(f := f"{folder}/sitecustomize.py")]
    return [sys.prefix, packages.stat().st_mtime_ns, variables, startup]


def import_libraries() -> None:
    """Import what the stages import, in silence: TensorFlow looks for GPUs aloud."""
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    for name in LIBRARIES:
        with contextlib.suppress(ImportError):  # who needs it says so
            importlib.import_module(name)
    os.dup2(kept, 2)
    os.close(kept)
    os.close(nothing)
    gc.freeze()  # the standard library's way to keep what is there shared between forks


def serve_forever(listening: socket.socket, imported: list[object]) -> None:
    """Fork for each request of the same user; `imported` is the libraries' state."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for these
    while True:
        client, _ = listening.accept()
        _, user, _ = struct.unpack(
            "3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        )
        if user == os.getuid() and os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the client's end is its end
            listening.close()
            with contextlib.suppress(OSError):  # it has gone
                serve_client(client, imported)
            os._exit(0)
        client.close()


def serve_client(client: socket.socket, imported: list[object]) -> None:
    """Run what a client asks for in a child process, and answer with its exit status.

    0 to who asks for nothing. No answer, so that the stage runs by itself, to who would import
    other libraries than these.
    """
    request, outputs, *_ = socket.recv_fds(client, LARGEST, 2)
    if not request:
        return
    words, folder, environment, prefix = json.loads(request)
    if [prefix, *library_state(environment)[1:]] != imported:
        return
    if not words:
        client.send(b"0")
        return
    child = os.fork()
    if child == 0:
        client.close()
        run_module(words, folder, environment, outputs)
    for output in outputs:
        os.close(output)
    running = os.pidfd_open(child)
    # A client asks for one thing: if it is heard of meanwhile, it has gone.
    if client.fileno() in select.select([running, client.fileno()], [], [])[0]:
        os.kill(child, signal.SIGTERM)
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
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        sys.path[:0] = [folder, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
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
    if not can_serve():
        sys.exit(NOT_HERE)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the stages, and for who waits
    state = library_state(os.environ)
    import_libraries()
    # A fork takes one thread along: what another held locked would stay so.
    if (threads := len(os.listdir(THREADS))) > 1:
        sys.exit(f"stage server: {threads} threads after the imports; stages run without it")
    with socket.socket(fileno=int(sys.argv[1])) as listening:
        serve_forever(listening, state)
