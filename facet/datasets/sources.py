"""Fetch a data set's raw files, from a URL through fsspec or drawn by the embedded module."""

import csv
import hashlib
import importlib
import io
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import aiohttp
import tenacity
from fsspec.core import url_to_fs
from tqdm import tqdm

from facet.base.arrays import map_ahead
from facet.base.names import (
    ARRAY_SUFFIXES,
    IMAGE_SUFFIXES,
    RAW_INDEX,
    RAW_INDEX_COLUMN,
    TABLE_SUFFIXES,
)
from facet.base.storage import file_sha256
from facet.errors import InputError
from facet.formats import RawManifest

ARCHIVES = (".tar.gz", ".tgz", ".tar", ".tar.bz2", ".tar.xz", ".zip")
PARALLEL_FETCHES = 64  # of 250 ms each, 624 files take 3.4 s; 16 at once took 10.8 s
TRIES = 5
# Seconds. A slow large file is no fault, a silent server is.
TIMEOUT = aiohttp.ClientTimeout(total=3600, sock_connect=10, sock_read=30)
HTTP = {"client_kwargs": {"timeout": TIMEOUT}}
TRANSIENT = (OSError, aiohttp.ClientError, TimeoutError)
FINAL = (FileNotFoundError, PermissionError, IsADirectoryError)
retried = tenacity.retry(
    retry=tenacity.retry_if_exception(
        lambda e: (
            isinstance(e, TRANSIENT)
            and not isinstance(e, FINAL)
            and not 400 <= getattr(e, "status", 500) < 408
        )
    ),
    wait=tenacity.wait_exponential_jitter(multiplier=0.2, max=8),
    stop=tenacity.stop_after_attempt(TRIES),
    reraise=True,
)


def select_data_files(names: list[str]) -> tuple[list[str], list[str]]:
    """The names that hold data, of one kind, and the names left out.

    A folder with images is a set of images, and the tables beside them may say more of each; else
    it is tables, else arrays. What is hidden is left out: macOS puts a `._a.png` beside a.png.
    """
    seen = [n for n in names if not _is_hidden(n)]

    def choose(suffixes: set[str]) -> list[str]:
        return [n for n in seen if PurePosixPath(n).suffix.lower() in suffixes]

    images, tables, arrays = map(choose, (IMAGE_SUFFIXES, TABLE_SUFFIXES, ARRAY_SUFFIXES))
    if not images:
        tables = [n for n in tables if PurePosixPath(n).name != RAW_INDEX]
    chosen = images + tables if images else tables or arrays
    return sorted(chosen), sorted(set(names) - set(chosen))


def _is_hidden(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return "__MACOSX" in parts or any(p.startswith(".") and p != ".." for p in parts)


def read_index(text: str, where: str) -> list[str]:
    """The file names in an index's column `files`, each once, plain relative names alone."""
    rows = csv.DictReader(io.StringIO(text.lstrip("\ufeff")))
    if RAW_INDEX_COLUMN not in (rows.fieldnames or []):
        raise InputError(f"{where}: no column `{RAW_INDEX_COLUMN}`; its first line must name it")
    names = [name for row in rows if (name := (row[RAW_INDEX_COLUMN] or "").strip())]
    if not names:
        raise InputError(f"{where}: lists no files")
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
            raise InputError(f"{where}: {name!r} is not a plain relative file name")
        if (
            name.endswith("/")
            or path.suffix.lower() not in IMAGE_SUFFIXES | TABLE_SUFFIXES | ARRAY_SUFFIXES
        ):
            raise InputError(f"{where}: {name!r} has no ending of a known kind (.png, .csv, ...)")
    if len(set(names)) < len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise InputError(f"{where}: {twice} is listed twice")
    return names


def says_more(index: str) -> bool:
    """Whether an index has further columns than that of the files, such as labels."""
    return len(next(csv.reader(index.splitlines()), [])) > 1


def split_checksum(url: str) -> tuple[str, str | None]:
    """A source's address, and the SHA-256 that follows it as `#sha256=...`, if any."""
    address, mark, value = url.partition("#sha256=")
    if mark and (len(value) != 64 or set(value.lower()) - set("0123456789abcdef")):
        raise InputError(f"{url}: sha256 is 64 hexadecimal digits")
    return address, value.lower() or None


def open_filesystem(url: str) -> tuple[Any, str]:
    """fsspec's file system for `url`, with time limits, and the path on it."""
    try:
        options = HTTP if url.startswith(("http://", "https://")) else {}
        return url_to_fs(url, skip_instance_cache=True, **options)
    except (ValueError, ImportError) as e:
        raise InputError(f"{url}: {e}") from None


def fetch_resumable(fs: Any, path: str, target: Path) -> None:
    """Copy one file; what an earlier try left in `target`.part is kept and gone on from."""
    partial = target.with_name(target.name + ".part")
    target.parent.mkdir(parents=True, exist_ok=True)
    facts = fs.info(path)
    size = facts.get("size")
    # Only a source that still is what it was then may be gone on from.
    seen = " ".join(str(facts.get(k)) for k in ("size", "ETag", "mtime", "LastModified"))
    origin = partial.with_name(partial.name + ".source")
    have = partial.stat().st_size if partial.exists() else 0
    if have and size and origin.exists() and origin.read_text() == seen and have < size:
        try:
            with fs.open(path, "rb", cache_type="none") as source, partial.open("ab") as file:
                source.seek(have)
                shutil.copyfileobj(source, file, 2**20)
        except ValueError:  # a web server that gives no ranges
            have = 0
    else:
        have = 0
    if not have:
        origin.write_text(seen)
        whole = {"block_size": 0} if "http" in fs.protocol else {}  # one request, as it comes
        with fs.open(path, "rb", **whole) as source, partial.open("wb") as file:
            shutil.copyfileobj(source, file, 2**20)
    if size is not None and partial.stat().st_size != size:
        raise OSError(f"{path}: {partial.stat().st_size} bytes came, of {size}")
    origin.unlink()
    partial.rename(target)


@retried
def fetch_small(fs: Any, path: str, target: Path) -> None:
    """Copy one small file in one request."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".part")
    fs.get_file(path, str(partial))
    if partial.stat().st_size == 0:
        raise OSError(f"{path}: no bytes came")
    partial.rename(target)


def name_failures(url: str, action: Callable[..., Any], *args: Any) -> Any:
    """`action(*args)`, its failure an InputError that names `url`."""
    try:
        return action(*args)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{url}: not found") from None
    except TRANSIENT as e:
        raise InputError(f"{url}: {type(e).__name__} after {TRIES} tries: {e}"[:400]) from None


def fetch_folder(url: str, folder: Path) -> list[str]:
    """Fetch what a folder's index lists (or, without one, what a local folder holds).

    Returns the names left out.
    """
    fs, root = open_filesystem(url)
    root = root.rstrip("/")
    left_out: list[str] = []
    try:
        text = retried(fs.cat_file)(f"{root}/{RAW_INDEX}").decode("utf-8-sig")
        names = read_index(text, f"{url}/{RAW_INDEX}")
        inside = f"{root}/images/"
        first = name_failures(url, retried(fs.exists), inside + names[0])
        paths = {n: (inside if first else f"{root}/") + n for n in names}
        if says_more(text):
            (folder / RAW_INDEX).write_text(text, encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{url}/{RAW_INDEX}: not a text file") from None
    except FileNotFoundError:
        if url.startswith(("http://", "https://")):
            raise InputError(f"{url}/{RAW_INDEX}: not found; a web folder needs one") from None
        found = sorted(p[len(root) :].lstrip("/") for p in name_failures(url, fs.find, root))
        if not found and not name_failures(url, fs.exists, root):
            raise InputError(f"{url}: not found") from None
        names, left_out = select_data_files(found)
        if not names:
            raise InputError(f"{url}: holds no images, tables or arrays") from None
        paths = {n: f"{root}/{n}" for n in names}
    except TRANSIENT as e:
        raise InputError(
            f"{url}/{RAW_INDEX}: {type(e).__name__} after {TRIES} tries: {e}"
        ) from None
    pictures = any(PurePosixPath(n).suffix.lower() in IMAGE_SUFFIXES for n in names)
    home = folder / "images" if pictures else folder
    missing = [n for n in names if not (home / n).exists()]

    def fetch(name: str) -> None:
        name_failures(paths[name], fetch_small, fs, paths[name], home / name)

    fetched = map_ahead(fetch, missing, PARALLEL_FETCHES)
    for _ in tqdm(fetched, f"download {folder.name}", len(missing), unit="file", delay=1):
        pass
    return left_out


def fetch_file(url: str, folder: Path) -> list[str]:
    """Fetch one file, and unpack it if it is an archive. Returns the names left out."""
    address, sha256 = split_checksum(url)
    fs, path = open_filesystem(address)
    target = folder / PurePosixPath(path).name
    if not target.exists():
        name_failures(address, retried(fetch_resumable), fs, path, target)
    if sha256 and (found := file_sha256(target)) != sha256:
        target.unlink()
        raise InputError(f"{address}: SHA-256 is {found}, params.yaml pins {sha256}")
    return unpack_archive(target) if target.name.endswith(ARCHIVES) else []


def unpack_archive(archive: Path) -> list[str]:
    """Put an archive's data files beside it, in its place. Returns the names left out."""
    folder = archive.parent
    try:
        if archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as z:
                names, left_out = select_data_files(
                    [i.filename for i in z.infolist() if not i.is_dir()]
                )
                for name in tqdm(names, "unpack", unit="file", delay=1):
                    z.extract(name, folder)
        else:
            with tarfile.open(archive) as t:
                members = {m.name: m for m in t if m.isfile()}
                names, left_out = select_data_files(list(members))
                for name in tqdm(
                    sorted(names, key=lambda n: members[n].offset), "unpack", unit="file", delay=1
                ):
                    # Not by `extract`: without the filter that Python has from 3.11.4 on it follows
                    # links and leaves the folder, and any 3.11 will do here (Debian's is 3.11.2).
                    # Regular files alone, copied byte by byte, need no more than this check.
                    place = (folder / name).resolve()
                    if not place.is_relative_to(folder.resolve()):
                        raise InputError(
                            f"{archive.name}: an archive with a file outside it: {name}"
                        )
                    place.parent.mkdir(parents=True, exist_ok=True)
                    with t.extractfile(members[name]) as packed, place.open("wb") as file:  # type: ignore[union-attr]
                        shutil.copyfileobj(packed, file)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, ValueError) as e:
        raise InputError(f"{archive.name}: not a whole archive: {e}") from None
    if not names:
        raise InputError(f"{archive.name}: holds no images, tables or arrays")
    archive.unlink()
    return left_out


def download(name: str, source: str | list[str], folder: Path, cache: Path) -> RawManifest:
    """Bring a data set's raw files into the empty `folder`; returns the manifest.

    What a source has given so far lies in `cache`, so that a download cut off goes on from there.
    The manifest has each file's name, bytes and SHA-256, and the names left out.
    """
    left_out: list[str] = []
    if source == "embedded":
        try:
            drawn = importlib.import_module(f"facet.datasets.embedded.{name}")
        except ModuleNotFoundError:
            raise InputError(
                f"params.yaml: datasets.{name}.source: no embedded data named {name}; "
                "give the URL of a folder, file or archive"
            ) from None
        drawn.make(folder)
    else:
        urls = [source] if isinstance(source, str) else source
        for url in urls:
            single = (
                PurePosixPath(split_checksum(url)[0])
                .name.lower()
                .endswith((*ARCHIVES, *TABLE_SUFFIXES, *ARRAY_SUFFIXES))
            )
            # One place per address: another source's leftovers are never mixed in.
            place = cache / hashlib.sha256(url.encode()).hexdigest()[:16]
            place.mkdir(parents=True, exist_ok=True)
            left_out += fetch_file(url, place) if single else fetch_folder(url, place)
            shutil.copytree(place, folder, dirs_exist_ok=True)
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    files = [p for p in files if p.name != RAW_INDEX or says_more(p.read_text("utf-8"))]
    return {
        "files": [
            {
                "name": p.relative_to(folder).as_posix(),
                "bytes": p.stat().st_size,
                "sha256": file_sha256(p),
            }
            for p in files
        ],
        "left_out": sorted(left_out),
    }
