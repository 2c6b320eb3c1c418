"""What every stage shares: the wrapper it enters by, its errors, files written whole."""

import contextlib
import csv
import ctypes
import hashlib
import json
import os
import pickle
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

RAW, PICKLED, NORMALISED = "data/{}/raw", "data/{}/pickled.pkl", "data/{}/normalised.pkl"
AUGMENTED, RUN, EVALUATION = "data/augmented/{}.pkl", "data/runs/{}", "data/evaluations/{}"
METRICS, COSTS = "metrics/runs/{}.json", "metrics/costs/{}.json"
MANIFESTS = "metrics/manifests/{}.json"
PARTS = ("train", "validation", "test")


class Refused(Exception):
    """Input that cannot be used; the message names the file or key, the fault and the remedy."""


# --- entering a stage -----------------------------------------------------------------------


def enter(main: Callable[..., None]) -> None:
    """Run `main` as a stage: in a process group that dies with its parent, else as `command`."""
    _supervise()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    command(main)


def command(main: Callable[..., None]) -> None:
    """Run `main` as a command line, its errors told in one line.

    Exit status 0, or 1 with one line on stderr, 130 after Ctrl-C, 143 after SIGTERM.
    """
    import typer

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    try:
        app()
    except Refused as e:
        _fail(str(e))
    except KeyboardInterrupt:
        sys.exit(130)
    except MemoryError:
        _fail("out of memory: use smaller sizes or fewer processes (make repro JOBS=1)")
    except OSError as e:
        _fail(f"{e.filename or 'input/output'}: {e.strerror or e}")


def _fail(message: str) -> None:
    name = Path(sys.argv[0]).stem
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


# --- files ----------------------------------------------------------------------------------


@contextlib.contextmanager
def writing(target: str | Path) -> Iterator[Path]:
    """A path to write a file or folder to, which becomes `target` if all went well."""
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.{os.getpid()}.part")
    _remove(aside)
    try:
        yield aside
        _remove(target) if target.is_dir() else None
        os.replace(aside, target)
    finally:
        _remove(aside)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def digest(path: str | Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save(path: str | Path, content: dict[str, Any]) -> None:
    """Write a dict of plain things as a pickle whose bytes depend on its content alone.

    Raises TypeError for anything but dicts, lists, str, int, float, bool, None and arrays of
    numbers or fixed-width strings.
    """
    with writing(path) as aside, aside.open("wb") as file:
        pickler = pickle.Pickler(file, protocol=5)
        # Without a memo, equal content gives equal bytes whichever objects are shared in it.
        pickler.fast = True
        pickler.dump(_canonical(content))


def _canonical(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _canonical(value[k]) for k in sorted(value)}
    if isinstance(value, (list, tuple)):
        return [_canonical(v) for v in value]
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufU":
        width = value.dtype.newbyteorder("<")
        if width.kind == "U":  # as wide as the longest, however it was made
            width = np.dtype(f"<U{max(int(np.strings.str_len(value).max(initial=0)), 1)}")
        return np.array(value, dtype=width, order="C")
    if value is None or type(value) in (str, int, float, bool):
        return value
    raise TypeError(f"{type(value).__name__} is not a plain thing to store")


class _Plain(pickle.Unpickler):
    """Admits arrays and builtin containers and nothing else: a pickle can name any function."""

    ALLOWED = frozenset(
        {
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy._core.numeric", "_frombuffer"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not admitted")
        return super().find_class(module, name)


def load(path: str | Path) -> dict[str, Any]:
    """Read what `save` wrote; whatever else a file holds is refused before any of it runs."""
    try:
        with open(path, "rb") as file:
            content = _Plain(file).load()
    except FileNotFoundError:
        raise Refused(f"{path}: not found; make it with `dvc repro` or `dvc pull`") from None
    except OSError:
        raise
    except Exception as e:
        raise Refused(f"{path}: not a file this project wrote: {e}") from None
    if not isinstance(content, dict):
        raise Refused(f"{path}: not a file this project wrote: holds no dict")
    return content


def read_json(path: str | Path) -> Any:
    """A JSON file this project wrote."""
    try:
        return json.loads(Path(path).read_text())
    except (OSError, ValueError) as e:
        raise Refused(_lost(path, e)) from None


def read_csv(path: str | Path) -> list[dict[str, str]]:
    """The rows of a CSV file this project wrote."""
    try:
        with open(path, newline="") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as e:
        raise Refused(_lost(path, e)) from None


def _lost(path: str | Path, why: Exception) -> str:
    told = why.strerror if isinstance(why, OSError) else why
    return f"{path}: not readable ({told}); make it with `dvc repro` or `dvc pull`"


def rounded(value: Any) -> Any:
    """Fractions with eight digits: what is beyond depends on the order of a sum."""
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(v) for v in value]
    return round(value, 8) if isinstance(value, float) else value


def dump(path: str | Path, value: Any) -> None:
    """JSON with sorted keys, written whole."""
    with writing(path) as aside:
        aside.write_text(
            json.dumps(rounded(value), indent=1, sort_keys=True, allow_nan=False) + "\n"
        )


def split_of(content: dict[str, Any], seed: int) -> dict[str, Any]:
    """The one split of a normalised or augmented dict that runs of `seed` use.

    With a list as split.seed there are several, under `splits`; the run's own seed picks one, so
    that a further run never changes what an earlier one used.
    """
    splits = content.get("splits")
    return splits[seed % len(splits)] if splits else content
