"""Files written whole, JSON, CSV, hashes of files."""

import configparser
import contextlib
import csv
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from facet.errors import InputError


@contextlib.contextmanager
def atomic_write(target: str | Path) -> Iterator[Path]:
    """A path to write a file or folder to, which becomes `target` if all went well."""
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.{os.getpid()}.part")
    remove(aside)
    try:
        yield aside
        remove(target) if target.is_dir() else None
        os.replace(aside, target)
    except OSError as e:
        e.filename = e.filename or str(target)  # a disk that is full says nothing of the file
        raise
    finally:
        remove(aside)


def remove(path: Path) -> None:
    """Remove a file or a folder with all in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def cache_folder() -> Path:
    """Where DVC's cache is, as its configuration says."""
    where = Path(".dvc/cache")
    for name in ("config", "config.local"):
        settings = configparser.ConfigParser(interpolation=None)
        with contextlib.suppress(configparser.Error, KeyError):
            settings.read(Path(".dvc") / name)
            where = Path(".dvc") / settings["cache"]["dir"]
    return where


def find_unwritable_place() -> str:
    """The folder of the project that takes no further megabyte, and why; "" if all do."""
    for place in ("data", cache_folder(), ".dvc/tmp", ".ckpt", ".workers", "metrics", "wandb", "."):
        try:
            with tempfile.TemporaryFile(dir=place) as file:
                file.write(bytes(1 << 20))
        except FileNotFoundError:
            continue
        except OSError as e:
            return f"{place}: {e.strerror}"
    return ""


def describe_os_error(error: OSError) -> str:
    """What happened to which file; where a disk is full and nobody says which, the place."""
    reason = error.strerror or str(error)
    if name := error.filename2 or error.filename:
        return f"{name}: {reason}"
    return find_unwritable_place() or f"input/output: {reason}"


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


def file_md5(path: Path) -> str:
    """The MD5 of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def md5(path: Path, hash_file: Callable[[Path], str] = file_md5) -> str:
    """The MD5 by which dvc.lock knows a file, or a folder (ends in .dir)."""
    if not path.is_dir():
        return hash_file(path)
    files = sorted(p for p in path.rglob("*") if p.is_file() and p.parent.name != "__pycache__")
    return md5_of_listing({p.relative_to(path).as_posix(): hash_file(p) for p in files})


def md5_of_listing(members: dict[str, str]) -> str:
    """The MD5 of a folder that holds `members`, a file's MD5 by its path."""
    entries = [{"md5": members[name], "relpath": name} for name in sorted(members)]
    return hashlib.md5(json.dumps(entries, sort_keys=True).encode()).hexdigest() + ".dir"
