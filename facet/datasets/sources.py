"""Fetch a data set's raw files, from a URL through fsspec or drawn by the embedded module."""

import email.utils
import errno
import hashlib
import importlib
import re
import shutil
import threading
import time
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

import aiohttp
import tenacity
from fsspec.callbacks import Callback
from fsspec.core import url_to_fs
from tqdm import tqdm

from facet.base.arrays import map_ahead
from facet.base.config import find_embedded
from facet.base.names import ARRAY_SUFFIXES, IMAGE_SUFFIXES, RAW_INDEX, TABLE_SUFFIXES
from facet.base.storage import describe_os_error, file_sha256
from facet.datasets.archives import ARCHIVES, OTHER_ARCHIVES, unpack_archive
from facet.datasets.raw_files import read_index, says_more, select_data_files
from facet.errors import InputError
from facet.formats import RawManifest

PARALLEL_FETCHES = 64  # of 250 ms each, 624 files take 3.4 s; 16 at once took 10.8 s
USUAL_BYTES = 20 * 10**9  # of one source, where it does not say more
LEAST_RATE, SLOW_SECONDS = 100, 60  # bytes a second, looked at every so many seconds
CACHES = ("simplecache", "filecache", "blockcache")  # fsspec's; a download has its own
TRIES = 5
LONGEST_WAIT = 120  # seconds; a server may ask for more in vain
# Seconds. A slow large file is no fault, a silent server is.
TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=30)
# Names and passwords from ~/.netrc, proxies from the environment, as other programs have them.
HTTP = {"client_kwargs": {"timeout": TIMEOUT, "trust_env": True}}
TRANSIENT = (OSError, aiohttp.ClientError, TimeoutError)
FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
FINAL_NUMBERS = (errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.ENAMETOOLONG)


def find_cause(error: BaseException) -> BaseException:
    """What is behind an error: fsspec calls each answer that it does not get "not found"."""
    cause = error.__cause__
    if isinstance(error, FileNotFoundError) and isinstance(cause, TRANSIENT):
        return cause if getattr(cause, "status", 0) != 404 else error
    # Its own wrapping of a time limit says nothing.
    return cause if isinstance(error, TimeoutError) and cause else error


def is_transient(error: BaseException) -> bool:
    """Whether it is worth asking again."""
    error = find_cause(error)
    if isinstance(error, FINAL) or getattr(error, "errno", None) in FINAL_NUMBERS:
        return False
    status = getattr(error, "status", 500)
    return isinstance(error, TRANSIENT) and (status in (408, 425, 429) or status >= 500)


_usual_wait = tenacity.wait_exponential_jitter(multiplier=0.2, max=8)


def choose_wait(state: tenacity.RetryCallState) -> float:
    """The seconds to the next try: what the server asks for, else ever more."""
    error = state.outcome.exception() if state.outcome else None
    headers = getattr(find_cause(error), "headers", None) if error else None
    retry_after = (headers or {}).get("Retry-After", "").strip()
    if retry_after.isascii() and retry_after.isdecimal():
        return min(float(retry_after), LONGEST_WAIT)
    if date := email.utils.parsedate_tz(retry_after):
        return min(max(email.utils.mktime_tz(date) - time.time(), 0), LONGEST_WAIT)
    return _usual_wait(state)


retried = tenacity.retry(
    retry=tenacity.retry_if_exception(is_transient),
    wait=choose_wait,
    stop=tenacity.stop_after_attempt(TRIES),
    reraise=True,
)


@dataclass(frozen=True)
class Address:
    """A source's address, and what is said of it after a `#`."""

    url: str
    sha256: str | None = None
    most: int | None = None
    """How many bytes it may have, unpacked too; None: as usual."""


def parse_source(source: str) -> Address:
    """A source as params.yaml has it: `URL#sha256=HEX&most=50GB`. Raises InputError."""
    found = re.fullmatch(r"(.*?)#((?:sha256|most)=.*)", source, re.DOTALL)
    if not found:
        return Address(source)
    options = dict(part.partition("=")[::2] for part in found[2].split("&"))
    if strange := sorted(set(options) - {"sha256", "most"}):
        raise InputError(f"{source}: {strange[0]} is neither sha256 nor most")
    sha256, most = options.get("sha256"), options.get("most")
    if sha256 is not None and not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise InputError(f"{source}: sha256 is 64 hexadecimal digits")
    if most is not None and not re.fullmatch(r"[1-9]\d{0,5}GB", most):
        raise InputError(f"{source}: most is a whole number of gigabytes, like most=50GB")
    return Address(found[1], sha256 and sha256.lower(), int(most[:-2]) * 10**9 if most else None)


class Bounds:
    """What the files of one source may take together."""

    def __init__(self, most: int | None) -> None:
        self.most = USUAL_BYTES if most is None else most
        self._came, self._lock = 0, threading.Lock()

    def add(self, count: int) -> None:
        """So many bytes came. Raises InputError if they are too many."""
        with self._lock:
            self._came += count
            too_many = self._came > self.most
        if too_many:
            raise InputError(
                f"more than {self.most / 1e9:g} GB; if that is right, add "
                f"#most={max(1, 2 * self.most // 10**9)}GB to the source's address"
            )


class Transfer(Callback):  # type: ignore[misc]
    """One file on its way: fsspec says what came, and is told where that is too much or too slow.

    A context: what an attempt that failed has brought does not count.
    """

    def __init__(self, bounds: Bounds) -> None:
        super().__init__()
        self._bounds, self._came = bounds, 0
        self._since, self._bytes = time.monotonic(), 0

    def __exit__(self, *error: object) -> None:
        """End the transfer."""
        if error[0]:
            self._bounds.add(-self._came)

    def relative_update(self, inc: int = 1) -> None:
        """A piece of `inc` bytes came. Raises InputError or TimeoutError."""
        self._came += inc
        self._bounds.add(inc)
        self._bytes += inc
        if (seconds := time.monotonic() - self._since) > SLOW_SECONDS:
            if self._bytes < LEAST_RATE * seconds:
                raise TimeoutError(f"fewer than {LEAST_RATE} bytes a second came")
            self._since, self._bytes = time.monotonic(), 0

    def copy(self, source: Any, target: IO[bytes]) -> None:
        """Copy what is left of an open file to another."""
        while piece := source.read(2**20):
            target.write(piece)
            self.relative_update(len(piece))


def hide_secrets(text: str) -> str:
    """A text without what addresses may tell: names and passwords, signatures after a `?`."""
    return re.sub(r"\?[^\s'\"]+", "?...", re.sub(r"//[^/@\s]+@", "//", text))


def open_filesystem(url: str) -> tuple[Any, str]:
    """fsspec's file system for `url`, with time limits, and the path on it."""
    if url.startswith("file://") and not Path(url[7:]).exists():
        url = urllib.parse.unquote(url)  # as browsers and Path.as_uri write them
    options = HTTP if url.startswith(("http://", "https://")) else {}
    return name_failures(url, url_to_fs, url, skip_instance_cache=True, **options)  # type: ignore[no-any-return]


def fetch_resumable(fs: Any, path: str, target: Path, bounds: Bounds) -> None:
    """Copy one file; what an earlier try left in `target`.part is kept and gone on from."""
    partial = target.with_name(target.name + ".part")
    target.parent.mkdir(parents=True, exist_ok=True)
    facts = fs.info(path)
    size = facts.get("size")
    if size is not None:
        check_room(size, bounds, target)
    # Only a source that still is what it was then may be gone on from.
    seen = " ".join(str(facts.get(k)) for k in ("size", "ETag", "mtime", "LastModified"))
    origin = partial.with_name(partial.name + ".source")
    have = partial.stat().st_size if partial.exists() else 0
    if have and size and origin.exists() and origin.read_text() == seen and have < size:
        try:
            with (
                Transfer(bounds) as transfer,
                fs.open(path, "rb", cache_type="none") as source,
                partial.open("ab") as file,
            ):
                source.seek(have)
                transfer.copy(source, file)
        except ValueError:  # a web server that gives no ranges
            have = 0
    else:
        have = 0
    if not have:
        origin.write_text(seen)
        whole = {"block_size": 0} if "http" in fs.protocol else {}  # one request, as it comes
        with (
            Transfer(bounds) as transfer,
            fs.open(path, "rb", **whole) as source,
            partial.open("wb") as file,
        ):
            transfer.copy(source, file)
    if size is not None and partial.stat().st_size != size:
        raise OSError(f"{partial.stat().st_size} bytes came, of {size}")
    origin.unlink()
    partial.rename(target)


def check_room(size: int, bounds: Bounds, target: Path) -> None:
    """Raise InputError before a file of `size` bytes that is too large comes."""
    bounds.add(size)
    bounds.add(-size)
    free = shutil.disk_usage(target.parent).free
    if size > free:
        raise InputError(f"needs {size / 1e9:.1f} GB of disk, {free / 1e9:.1f} GB are free")


@retried
def fetch_small(fs: Any, path: str, target: Path, bounds: Bounds) -> None:
    """Copy one small file in one request."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".part")
    with Transfer(bounds) as transfer:
        fs.get_file(path, str(partial), callback=transfer)
    if partial.stat().st_size == 0:
        raise OSError("no bytes came")
    if "http" in fs.protocol:
        refuse_web_page(partial)
    partial.rename(target)


def refuse_web_page(file: Path) -> None:
    """Raise InputError for a page where data were asked for: servers send one to say no."""
    with file.open("rb") as opened:
        begin = opened.read(512).removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if begin.startswith((b"<!doctype html", b"<html")):
        file.unlink()
        raise InputError("the server sends a web page instead of the file; open it in a browser")


def describe_failure(url: str, error: Exception) -> InputError:
    """An error as an InputError that names `url`, without secrets."""
    e = find_cause(error)
    if isinstance(e, InputError):
        reason = str(e)
    elif isinstance(e, FileNotFoundError):
        reason = "not found"
    elif getattr(e, "errno", None) in FINAL_NUMBERS and isinstance(e, OSError):
        reason = describe_os_error(e)
    else:
        tries = f" after {TRIES} tries" if is_transient(e) else ""
        reason = f"{type(e).__name__}{tries}: {' '.join(str(e).split())}"
    return InputError(hide_secrets(f"{url}: {reason}")[:400])


def name_failures(url: str, action: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """`action(*args)`, its failure described by `describe_failure`."""
    try:
        return action(*args, **options)
    except MemoryError:
        raise
    except Exception as e:  # a file system may be anyone's, and raise anything
        raise describe_failure(url, e) from None


def fetch_folder(url: str, folder: Path, bounds: Bounds) -> list[str]:
    """Fetch what a folder's index lists (or, without one, what a local folder holds).

    Returns the names left out.
    """
    fs, root = open_filesystem(url)
    root = root.rstrip("/")
    index, left_out = f"{hide_secrets(url)}/{RAW_INDEX}", list[str]()
    try:
        text = retried(fs.cat_file)(f"{root}/{RAW_INDEX}").decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{index}: not a text file") from None
    except Exception as e:
        if not isinstance(find_cause(e), FileNotFoundError):
            raise describe_failure(index, e) from None
        if url.startswith(("http://", "https://")):
            raise InputError(f"{index}: not found; a web folder needs one") from None
        found = sorted(p[len(root) :].lstrip("/") for p in name_failures(url, fs.find, root))
        if not found and not name_failures(url, fs.exists, root):
            raise InputError(f"{url}: not found") from None
        names, left_out = select_data_files(found)
        if not names:
            raise InputError(f"{url}: holds no images, tables or arrays") from None
        paths = {n: f"{root}/{n}" for n in names}
    else:
        names = read_index(text, index)
        inside = f"{root}/images/"
        first = name_failures(url, retried(fs.exists), inside + names[0])
        paths = {n: (inside if first else f"{root}/") + n for n in names}
        if says_more(text):
            (folder / RAW_INDEX).write_text(text, encoding="utf-8")
    pictures = any(PurePosixPath(n).suffix.lower() in IMAGE_SUFFIXES for n in names)
    home = folder / "images" if pictures else folder
    missing = [n for n in names if not (home / n).exists()]

    def fetch(name: str) -> None:
        name_failures(paths[name], fetch_small, fs, paths[name], home / name, bounds)

    fetched = map_ahead(fetch, missing, PARALLEL_FETCHES)
    for _ in tqdm(fetched, f"download {folder.name}", len(missing), unit="file", delay=1):
        pass
    return left_out


def fetch_outer(address: Address, folder: Path) -> str:
    """The address of what lies in an archive (`zip://INNER::URL`), which comes into `folder` first.

    fsspec would copy it by itself: without bounds, and from the beginning at each try.
    """
    *inner, outer = address.url.split("::")
    inner = [step for step in inner if step not in CACHES]
    if not inner or outer.startswith("file://"):
        return "::".join([*inner, outer])
    fs, path = open_filesystem(outer)
    target = folder.absolute() / PurePosixPath(path).name
    if not target.exists():
        bounds = Bounds(address.most)
        name_failures(outer, retried(fetch_resumable), fs, path, target, bounds)
    if "http" in fs.protocol:
        name_failures(outer, refuse_web_page, target)
    return "::".join([*inner, f"file://{target}"])


def fetch_file(address: Address, url: str, folder: Path) -> list[str]:
    """Fetch one file from `url`, and unpack it if it is an archive. Returns the names left out."""
    fs, path = open_filesystem(url)
    target = folder / PurePosixPath(path).name
    if not target.exists():
        bounds = Bounds(address.most)
        name_failures(address.url, retried(fetch_resumable), fs, path, target, bounds)
    if "http" in fs.protocol:
        name_failures(address.url, refuse_web_page, target)
    if address.sha256 and (found := file_sha256(target)) != address.sha256:
        target.unlink()
        raise InputError(f"{address.url}: SHA-256 is {found}, params.yaml pins {address.sha256}")
    if not target.name.lower().endswith(ARCHIVES):
        return []
    try:
        return unpack_archive(target, address.most)
    except InputError:
        target.unlink()  # the next try has what the server gives then
        raise


def copy_files(source: Path, target: Path) -> None:
    """Copy a folder's files into another. An OSError is of one file, unlike that of copytree."""
    for path in sorted(p for p in source.rglob("*") if p.is_file()):
        there = target / path.relative_to(source)
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, there)


def download(name: str, source: str | list[str], folder: Path, cache: Path) -> RawManifest:
    """Bring a data set's raw files into the empty `folder`; returns the manifest.

    What a source has given so far lies in `cache`, so that a download cut off goes on from there.
    The manifest has each file's name, bytes and SHA-256, and the names left out.
    """
    left_out: list[str] = []
    if (own := find_embedded(name, source)) is not None:
        try:
            drawn = importlib.import_module(f"facet.datasets.embedded.{own}")
        except ModuleNotFoundError:
            raise InputError(
                f"params.yaml: datasets.{name}.source: no embedded data named {own}; "
                "give the URL of a folder, file or archive"
            ) from None
        drawn.make(folder)
    else:
        for url in [source] if isinstance(source, str) else source:
            address = parse_source(url)
            last = PurePosixPath(address.url).name.lower()
            if last.endswith(OTHER_ARCHIVES):
                raise InputError(
                    f"{url}: this kind of archive is not read; pack it as .zip or .tar.gz"
                )
            # One place per address: another source's leftovers are never mixed in.
            place = cache / hashlib.sha256(url.encode()).hexdigest()[:16]
            place.mkdir(parents=True, exist_ok=True)
            outer = place.with_suffix(".outer")
            opened = fetch_outer(address, outer)
            try:
                if last.endswith((*ARCHIVES, *TABLE_SUFFIXES, *ARRAY_SUFFIXES)):
                    left_out += fetch_file(address, opened, place)
                else:
                    left_out += fetch_folder(opened, place, Bounds(address.most))
            except InputError:
                shutil.rmtree(outer, ignore_errors=True)
                raise
            copy_files(place, folder)
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
