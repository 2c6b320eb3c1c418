"""Enter a stage or a command: its signals, its parent, its errors in one line."""

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from facet.errors import InputError


def run_stage(main: Callable[..., None]) -> None:
    """Run `main` as `run_command` does, in a process group that dies with its parent."""
    _supervise()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    run_command(main)


def run_command(main: Callable[..., None]) -> None:
    """Run `main` as a command line named as its program, its errors in one line."""
    import typer

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    with errors_in_a_line(Path(sys.argv[0]).stem):
        app()


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
        _fail(name, "out of memory: use smaller sizes or fewer processes (make repro JOBS=1)")
    except OSError as e:
        _fail(name, f"{e.filename or 'input/output'}: {e.strerror or e}")


def _fail(name: str, message: str) -> None:
    print(f"{name}: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(1)


def _supervise() -> None:
    """Fork: the child goes on as the stage, this process waits, and takes it along when it ends.

    DVC ignores Ctrl-C while a command runs and leaves it to the terminal to tell the command; and
    a killed DVC leaves the command running. So the waiting process stays in the terminal's group
    and passes signals on to the group of the stage.
    """
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        die_with(parent)
        return
    die_with(os.getppid())

    def pass_on(number: int, _: Any) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)
        signal.alarm(20)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, pass_on)
    signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    os._exit(status if status >= 0 else 128 - status)


def die_with(parent: int) -> None:
    """Ask the kernel for SIGTERM when `parent` ends (Linux; elsewhere nothing is asked)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # 1 is PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(143)
