"""Files written whole, plain pickles that hold no code, JSON, CSV, hashes of files."""

import contextlib
import csv
import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from facet.errors import InputError


@contextlib.contextmanager
def atomic_write(target: str | Path) -> Iterator[Path]:
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


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_sha256(folder: str | Path) -> str:
    """SHA-256 of a folder's files, their names included, hexadecimal."""
    whole = hashlib.sha256()
    for path in sorted(p for p in Path(folder).rglob("*") if p.is_file()):
        whole.update(f"{file_sha256(path)}  {path.relative_to(folder).as_posix()}\n".encode())
    return whole.hexdigest()


def save_pickle(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write a dict of plain things as a pickle whose bytes depend on its content alone.

    Raises TypeError for anything but dicts, lists, str, int, float, bool, None and arrays of
    numbers or fixed-width strings.
    """
    with atomic_write(path) as aside, aside.open("wb") as file:
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


def load_pickle(path: str | Path) -> Any:
    """The mapping that `save_pickle` wrote; anything else in a file is refused before it runs.

    Raises InputError. What is in which file, facet/formats.py says.
    """
    try:
        with open(path, "rb") as file:
            content = _Plain(file).load()
    except FileNotFoundError:
        raise InputError(f"{path}: not found; make it with `dvc repro` or `dvc pull`") from None
    except OSError:
        raise
    except Exception as e:
        raise InputError(f"{path}: not a file this project wrote: {e}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: not a file this project wrote: holds no dict")
    return content


def read_json(path: str | Path) -> Any:
    """A JSON file this project wrote."""
    try:
        return json.loads(Path(path).read_text())
    except (OSError, ValueError) as e:
        raise InputError(_not_readable(path, e)) from None


def read_csv(path: str | Path) -> list[dict[str, str]]:
    """The rows of a CSV file this project wrote."""
    try:
        with open(path, newline="") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as e:
        raise InputError(_not_readable(path, e)) from None


def _not_readable(path: str | Path, why: Exception) -> str:
    reason = why.strerror if isinstance(why, OSError) else why
    return f"{path}: not readable ({reason}); make it with `dvc repro` or `dvc pull`"


def round_floats(value: Any) -> Any:
    """Fractions with eight digits: what is beyond depends on the order of a sum."""
    if isinstance(value, dict):
        return {k: round_floats(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [round_floats(v) for v in value]
    return round(value, 8) if isinstance(value, float) else value


def write_json(path: str | Path, value: Any) -> None:
    """JSON with sorted keys, written whole."""
    with atomic_write(path) as aside:
        aside.write_text(
            json.dumps(round_floats(value), indent=1, sort_keys=True, allow_nan=False) + "\n"
        )


def md5(path: Path) -> str:
    """The MD5 by which dvc.lock knows a file, or a folder (ends in .dir)."""
    if not path.is_dir():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest()
    files = sorted(p for p in path.rglob("*") if p.is_file() and p.parent.name != "__pycache__")
    return md5_of_listing({p.relative_to(path).as_posix(): md5(p) for p in files})


def md5_of_listing(members: dict[str, str]) -> str:
    """The MD5 of a folder that holds `members`, a file's MD5 by its path."""
    entries = [{"md5": members[name], "relpath": name} for name in sorted(members)]
    return hashlib.md5(json.dumps(entries, sort_keys=True).encode()).hexdigest() + ".dir"
