"""Unpack an archive within bounds: what is in it is looked at before anything is written."""

import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

from tqdm import tqdm

from facet.datasets.raw_files import is_plain, select_data_files
from facet.errors import InputError

ARCHIVES = (".tar.gz", ".tgz", ".tar", ".tar.bz2", ".tar.xz", ".zip")
OTHER_ARCHIVES = (".tar.zst", ".tzst", ".7z", ".rar")  # named, so that nobody looks for a fault
# What data may grow to without a word: beyond, a file of some bytes may stand for a full disk.
RATIO, SMALL_BYTES = 200, 10**9


@dataclass(frozen=True)
class Member:
    """A file in an archive."""

    name: str
    size: int
    place: int
    """Where it begins: an archive is read fastest from its beginning to its end."""
    open: Callable[[], Any]


def list_zip(archive: zipfile.ZipFile) -> list[Member]:
    """A zip's files. Those that Windows packs may have `\\` between folders."""
    return [
        Member(
            i.filename.replace("\\", "/"), i.file_size, i.header_offset, partial(archive.open, i)
        )
        for i in archive.infolist()
        if not i.is_dir()
    ]


def list_tar(archive: tarfile.TarFile) -> list[Member]:
    """A tar's regular files: links and devices are no data."""
    return [
        Member(m.name, m.size, m.offset, partial(archive.extractfile, m))
        for m in archive
        if m.isfile()
    ]


def unpack_archive(archive: Path, most: int | None = None) -> list[str]:
    """Put an archive's data files beside it, in its place. Returns the names left out.

    `most` is how many bytes they may take; None: as many as `check_size` allows without being
    asked. Raises InputError, before anything is written, for what is too large or lies outside.
    """
    try:
        if archive.suffix.lower() == ".zip":
            with zipfile.ZipFile(archive) as z:
                left_out = _unpack(archive, list_zip(z), most)
        else:
            with tarfile.open(archive) as t:
                left_out = _unpack(archive, list_tar(t), most)
    except (InputError, MemoryError):
        raise
    except Exception as e:  # the decoders of six formats raise whatever they meet
        if isinstance(e, OSError) and e.errno and e.filename:  # the disk's fault
            raise
        reason = " ".join(str(e).split())[:200] or type(e).__name__
        raise InputError(
            f"{archive.name}: cannot be unpacked: {reason}; fetch or pack it again, without a "
            "password and by deflate"
        ) from None
    archive.unlink()
    return left_out


def _unpack(archive: Path, members: list[Member], most: int | None) -> list[str]:
    names, left_out = select_data_files([m.name for m in members])
    if not names:
        raise InputError(f"{archive.name}: holds no images, tables or arrays")
    wanted = set(names)
    chosen = [m for m in members if m.name in wanted]
    check_names(archive.name, [m.name for m in chosen])
    check_size(archive, sum(m.size for m in chosen), most)
    for member in tqdm(sorted(chosen, key=lambda m: m.place), "unpack", unit="file", delay=1):
        place = archive.parent / member.name
        place.parent.mkdir(parents=True, exist_ok=True)
        packed: IO[bytes]
        # Copied, not extracted: modes, owners and dates are none of a data set's.
        with member.open() as packed, place.open("wb") as file:
            shutil.copyfileobj(packed, file)
        if place.stat().st_size != member.size:
            raise ValueError(f"{member.name} is not as long as it says")
    return left_out


def check_names(archive: str, names: list[str]) -> None:
    """Raise InputError for members that lie outside the archive's folder, or on one another."""
    seen: dict[str, str] = {}
    for name in names:
        if not is_plain(name):
            raise InputError(f"{archive}: an archive with a file outside it: {name}")
        # As a Mac sees them: `a.png` and `A.png` are one file there, and data must be the same.
        place = os.path.normpath(name).casefold()
        if place in seen:
            raise InputError(
                f"{archive}: {seen[place]} and {name} are the same file; pack it again without one"
            )
        seen[place] = name
    for name in names:
        for folder in PurePosixPath(os.path.normpath(name).casefold()).parents:
            if str(folder) in seen:
                raise InputError(f"{archive}: {seen[str(folder)]} is a file and a folder")


def check_size(archive: Path, size: int, most: int | None) -> None:
    """Raise InputError where what an archive holds is too much for the rules or for the disk."""
    packed = archive.stat().st_size
    allowed = max(SMALL_BYTES, RATIO * packed) if most is None else most
    if size > allowed:
        raise InputError(
            f"{archive.name}: {size / 1e9:.1f} GB are packed in {packed / 1e6:.1f} MB, more than "
            f"the {allowed / 1e9:.1f} GB expected; if that is right, add #most="
            f"{-(-size // 10**9)}GB to the source's address"
        )
    free = shutil.disk_usage(archive.parent).free
    if size > free:
        raise InputError(
            f"{archive.name}: needs {size / 1e9:.1f} GB of disk, {free / 1e9:.1f} GB are free"
        )
