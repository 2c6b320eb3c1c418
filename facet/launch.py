"""Enter a stage or a command: its signals, its parent, its errors in one line."""

import argparse
import contextlib
import ctypes
import inspect
import json
import os
import re
import runpy
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from facet.base.names import PARAMS_FILE, STAGES
from facet.environment import stage_environment
from facet.errors import InputError

# What the launcher's environment may hold: the socket of a stage server (an abstract one, its name
# after an @), a file to which it appends the stage's name and seconds, and one that holds how far
# the stage is.
SERVER_VARIABLE, TIMINGS_VARIABLE = "FACET_STAGE_SERVER", "FACET_TIMINGS"
PROGRESS_VARIABLE = "FACET_PROGRESS"

OUT_OF_MEMORY = "out of memory: use smaller sizes or fewer processes (make repro JOBS=1)"

# What a stage's help calls for, by the name of its parameter.
EXAMPLES = {"dataset": "wine", "experiment": "wine_deep", "run": "wine_deep-0"}


class LineParser(argparse.ArgumentParser):
    """argparse whose errors are one line; not typer, which takes a quarter of what pickle takes."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the command line and end the process with status 2."""
        print(f"{self.prog.split()[-1]}: {message} (`{self.prog} --help`)", file=sys.stderr)
        sys.exit(2)


def find_stage(words: list[str]) -> str:
    """The stage that a command line begins with; help, or a wrong name, end the process."""
    parser = LineParser(
        "python -m stages",
        description="Run one stage, as DVC does. `python -m stages NAME --help` explains it.",
        epilog="Example: python -m stages train wine_deep-0",
    )
    parser.add_argument("name", metavar="NAME", help=f"one of {', '.join(STAGES)}")
    name: str = parser.parse_args(words).name
    if name not in STAGES:
        from facet.base.config import suggest  # with pydantic

        parser.error(f"no stage named {name}{suggest(name, STAGES)}")
    return name


def check_items(items: dict[str, str]) -> None:
    """Raise InputError, with the nearest name, for an item that params.yaml lacks.

    `items` maps what it is (dataset, experiment or run) to its name.
    """
    from facet.base.config import check_params, read_params, run_names, suggest

    try:
        parameters = check_params(read_params())
    except InputError:  # nothing can be said of the name
        return
    known = {
        "dataset": ("data set", list(parameters.datasets)),
        "experiment": ("experiment", list(parameters.experiments)),
        "run": ("run", run_names(parameters)),
    }
    for kind, (what, names) in known.items():
        if (name := items.get(kind)) is not None and name not in names:
            raise InputError(f"{PARAMS_FILE}: no {what} named {name}{suggest(name, names)}")


def launch_stage(name: str, words: list[str]) -> None:
    """Run stage `name` and end with its exit status: what `python -m stages NAME ITEM` does.

    On the stage server that the environment names, if there is one, else in a child process. Either
    way this process waits for it, and the stage ends when it does.
    """
    started = time.monotonic()
    note_progress(name)
    status = None
    if os.environ.get(SERVER_VARIABLE):
        # Whoever ends this process ends the connection, and with it the stage.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        die_with(os.getppid())
        status = ask_server(["stages", name, *words])
    if status is None:
        status = _run_in_child(name, words)
    if file := os.environ.get(TIMINGS_VARIABLE):
        with contextlib.suppress(OSError), open(file, "a") as timings:
            seconds = time.monotonic() - started
            timings.write(f"{'@'.join([name, *words[:1]])}\t{seconds:.3f}\n")
    sys.exit(status if status >= 0 else 128 - status)


def note_progress(stage: str, done: int = 0, total: int = 0) -> None:
    """Note, where the grid asks for it, that `stage` runs and has `done` of `total` epochs."""
    if file := os.environ.get(PROGRESS_VARIABLE):
        with contextlib.suppress(OSError):  # who watches sees less
            Path(file).write_text(f"{stage} {done} {total}")


def ask_server(words: list[str]) -> int | None:
    """The exit status of `python -m` with `words` on the stage server that the environment names.

    0 without words if there is a server with this process's libraries. None where there is none, or
    it has gone.
    """
    address = os.environ.get(SERVER_VARIABLE)
    if not address:
        return None
    own = (SERVER_VARIABLE, TIMINGS_VARIABLE)
    given = stage_environment("".join(words[1:2]))
    environment = {k: v for k, v in given.items() if k not in own}
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
            server.connect("\0" + address.removeprefix("@"))
            if peer_user(server) != os.getuid():  # anyone may take a name; this one is told nothing
                return None
            request = json.dumps([words, os.getcwd(), environment, sys.prefix])
            socket.send_fds(server, [request.encode()], [1, 2])
            answer = server.recv(16)
    except (OSError, AttributeError):  # it has gone, or this system has no such sockets
        return None
    return int(answer) if answer else None


def peer_user(connected: socket.socket) -> int:
    """The user id of the process at the other end of a Unix socket (Linux)."""
    fields = "3i"  # process, user, group
    size = struct.calcsize(fields)
    credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    return int(struct.unpack(fields, credentials)[1])


def run_stage(main: Callable[..., None]) -> None:
    """Run `main` with the words of the command line, one for each of its parameters.

    Errors are a line; SIGTERM ends it in order.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    name = Path(sys.argv[0]).stem
    kinds = list(inspect.signature(main).parameters)
    program = f"python -m stages {name}"
    example = " ".join(["Example:", program, *(EXAMPLES.get(kind, "") for kind in kinds)])
    parser = LineParser(program, description=main.__doc__, epilog=example)
    for kind in kinds:
        parser.add_argument(kind, metavar=kind.upper())
    items = vars(parser.parse_args())
    with errors_in_a_line(name):
        from facet.base.unchanged import unchanged_inputs  # with pydantic
        from facet.declared import check_imports, check_packages

        check_packages()
        try:
            with unchanged_inputs():
                main(**items)
                check_imports(name)
        except InputError:
            check_items(items)  # a wrong name is the reason for whatever was not found
            raise


@contextlib.contextmanager
def errors_in_a_line(name: str) -> Iterator[None]:
    """End the process as a command does: an error is a line on stderr that begins with `name`.

    Exit status 0, or 1 with one line on stderr, 130 after Ctrl-C, 143 after SIGTERM.
    """
    try:
        yield
    except InputError as e:
        _fail(name, str(e))
    except KeyboardInterrupt:
        sys.exit(130)
    except MemoryError:
        _fail(name, OUT_OF_MEMORY)
    except ImportError as e:
        if any(reason in str(e) for reason in ("map segment", "allocate memory")):
            _fail(name, OUT_OF_MEMORY)
        if path := os.environ.get("LD_LIBRARY_PATH"):
            reason = str(e).strip().splitlines()[-1]
            _fail(name, f"LD_LIBRARY_PATH={path}: a library there cannot be used: {reason}")
        raise
    except SystemError as e:  # as Python's own import ends where memory does
        if not re.search("without (setting an exception|exception set)", str(e)):
            raise
        _fail(name, OUT_OF_MEMORY)
    except OSError as e:
        from facet.base.storage import describe_os_error

        _fail(name, describe_os_error(e))


def _fail(name: str, message: str) -> None:
    print(f"{name}: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(1)


def _run_in_child(name: str, words: list[str]) -> int:
    """Fork: the child becomes the stage, this process waits, and takes it along when it ends.

    DVC ignores Ctrl-C while a command runs and leaves it to the terminal to tell the command; and
    a killed DVC leaves the command running. So this process stays in the terminal's group and
    passes signals on to the group of the stage.
    """
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        die_with(parent)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.argv = [name, *words]
        with errors_in_a_line(name):
            runpy.run_module(f"stages.{name}", run_name="__main__", alter_sys=True)
        sys.exit(0)
    die_with(os.getppid())

    ended: list[int] = []

    def pass_on(number: int, _: Any) -> None:
        ended.append(number)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)
        signal.alarm(20)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, pass_on)
    signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    if status < 0 and not ended:
        print(
            f"{name}: ended by {signal.Signals(-status).name}, perhaps {OUT_OF_MEMORY}",
            file=sys.stderr,
        )
    return status


def die_with(parent: int) -> None:
    """Ask the kernel for SIGTERM when `parent` ends (Linux; elsewhere there is nothing to ask)."""
    if prctl := getattr(ctypes.CDLL(None), "prctl", None):
        prctl(1, signal.SIGTERM)  # 1 is PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(143)
