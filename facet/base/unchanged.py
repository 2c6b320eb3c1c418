"""What a stage reads is what dvc.lock says, and stays so until the stage ends.

DVC hashes a stage's inputs when it has ended, and trusts its cache: what was edited meanwhile, or
damaged on the disk, would be stored as the result of what it no longer is.
"""

import json
import os
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import lru_cache
from pathlib import Path

import yaml

from facet.base.config import VALUES_READ, get_params
from facet.base.names import LOCK_FILE, PARAMS_FILE
from facet.base.storage import cache_folder, file_md5, md5
from facet.errors import InputError

# What tells that a file was written: its size, its time, its place on the disk.
State = tuple[int, int, int]
HASHES = Path(".ckpt/hashes.db")  # all workers have one .ckpt
LARGE, RECENT = 1 << 20, 2 * 10**9  # bytes, nanoseconds
_inputs: dict[Path, dict[str, State]] = {}


def read_input(path: str | Path) -> Path:
    """`path`, an input of this stage: a file or folder that another stage made.

    Raises InputError where DVC runs the stage and dvc.lock says something else of it.
    """
    path = Path(path)
    _inputs[path] = list_states(path)
    # By hand a stage may be given what its maker likes.
    if "DVC_STAGE" in os.environ and path.exists():
        check_input(path)
    return path


def check_input(path: Path) -> None:
    """Raise InputError, by name, for a file or folder that is not what dvc.lock says."""
    expected = lock_outputs().get(path.as_posix())
    if expected is None or md5(path, known_md5) == expected:
        return
    name, held = path, cache_object(expected)
    if path.is_dir():
        listed = {m["relpath"]: m["md5"] for m in json.loads(held.read_bytes())} if held else {}
        for member in (m for m in sorted(listed) if (path / m).is_file()):
            if md5(path / member) != listed[member]:
                name, held = path / member, cache_object(listed[member])
                break
    rotten = held is not None and held.is_file() and md5(held) != held.parent.name + held.name
    also = f" and {held}" if rotten else ""
    raise InputError(
        f"{name}: is not what dvc.lock says, edited or damaged; remove {path}{also}, then "
        "`dvc repro` makes it again"
    )


def known_md5(path: Path) -> str:
    """The MD5 of a file; of a large one as computed before, if it has not been touched since.

    DVC's own notes do not do: they have what a file should be, for files it links from its cache.
    """
    found = path.stat()
    if found.st_size < LARGE:
        return file_md5(path)
    # The time of change as well: nobody can put that back. A further link to the file changes it.
    state = f"{found.st_dev} {found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"
    if known := _hashes("SELECT md5 FROM hashes WHERE state = ?", state):
        return known
    started, computed = time.time_ns(), file_md5(path)
    # What was touched just now may be written again within the same tick of the clock.
    if abs(started - found.st_ctime_ns) > RECENT:
        _hashes("INSERT OR REPLACE INTO hashes VALUES (?, ?) RETURNING md5", state, computed)
    return computed


def _hashes(command: str, *values: str) -> str:
    """Ask or tell the file of known hashes, which many processes use; "" where that fails."""
    with suppress(sqlite3.Error, OSError):
        HASHES.parent.mkdir(exist_ok=True)
        with closing(sqlite3.connect(HASHES, timeout=5)) as file, file:
            file.execute("CREATE TABLE IF NOT EXISTS hashes (state TEXT PRIMARY KEY, md5 TEXT)")
            return next(file.execute(command, values), [""])[0]
    return ""


def lock_outputs() -> dict[str, str]:
    """The MD5 of each output in dvc.lock, by its path. Raises InputError if it is not whole."""
    return _parse_lock(state_of(LOCK_FILE))


@lru_cache(1)
def _parse_lock(_: State) -> dict[str, str]:
    try:
        # libyaml's reader, where there is one, is ten times as fast.
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        lock = yaml.load(LOCK_FILE.read_bytes(), loader) if LOCK_FILE.exists() else {}
        stages = lock.get("stages", {}).values()
        return {o["path"]: o["md5"] for stage in stages for o in stage.get("outs", [])}
    except (yaml.YAMLError, AttributeError, KeyError, TypeError):
        raise InputError(f"{LOCK_FILE}: not readable; `git checkout {LOCK_FILE}`") from None


def cache_object(hash: str) -> Path | None:
    """The file in DVC's cache that holds what has this MD5; None if there is none."""
    held = cache_folder() / "files/md5" / hash[:2] / hash[2:]
    return held if held.is_file() else None


@contextmanager
def unchanged_inputs() -> Iterator[None]:
    """Raise InputError, by name, if what the stage read changes while it runs.

    That is what `read_input` gave, the values of params.yaml that it asked for, the project's
    modules that it imported.
    """
    code = list_states(Path("facet")) | list_states(Path("stages"))
    parameters = state_of(PARAMS_FILE)
    yield
    changed = [path.as_posix() for path, state in _inputs.items() if list_states(path) != state]
    changed += [file for file in imported_files() if code.get(file, ()) not in ((), state_of(file))]
    if state_of(PARAMS_FILE) != parameters:
        changed += changed_values()
    if changed:
        raise InputError(
            f"{', '.join(sorted(changed)[:4])}: changed while the stage ran, so that its result is "
            "of neither; run it again"
        )


def imported_files() -> list[str]:
    """The files below this folder that this process has imported, without its packages."""
    root, packages = Path.cwd(), sys.prefix + os.sep
    files = {getattr(module, "__file__", None) or "" for module in list(sys.modules.values())}
    return [
        Path(file).relative_to(root).as_posix()
        for file in sorted(files)
        if Path(file).is_relative_to(root) and not file.startswith(packages)
    ]


def changed_values() -> list[str]:
    """The keys asked for whose values in params.yaml are others now."""
    values = dict(VALUES_READ)
    try:
        now = dict(zip(values, get_params(*values), strict=True))
    except InputError:
        return [str(PARAMS_FILE)]  # what it says now nobody can tell
    return [f"{PARAMS_FILE}: {key}" for key, value in values.items() if now[key] != value]


def list_states(path: Path) -> dict[str, State]:
    """The state of a file, or of each file in a folder, by its path."""
    if not path.is_dir():
        return {path.as_posix(): state_of(path)} if path.exists() else {}
    return {
        os.path.join(folder, name): state_of(os.path.join(folder, name))
        for folder, _, names in os.walk(path)
        for name in names
        if not name.endswith(".pyc")
    }


def state_of(path: str | Path) -> State:
    """Size, time of the last change in nanoseconds, inode; zeros if it has gone."""
    try:
        found = os.stat(path)
    except OSError:
        return 0, 0, 0
    return found.st_size, found.st_mtime_ns, found.st_ino
