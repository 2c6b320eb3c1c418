"""Arrays on disk: .npy files, written chunk by chunk and read through a memory map; small ones
together in a .npz.

However large an array is, memory holds a few of its chunks. Each file is a plain .npy without
Python objects: `numpy.load(file, mmap_mode="r")` opens it anywhere. No format here can name code.
"""

import contextlib
import io
import math
import re
import shutil
import zipfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import DTypeLike

from facet.base.storage import atomic_write
from facet.errors import InputError

PLAIN_KINDS = "biufU"  # numbers and fixed-width strings
CHUNK_ITEMS = 256
CHUNK_BYTES = 1 << 23
# The header that numpy writes for an array of one plain type. Its own reader has Python parse it.
HEADER = re.compile(
    rb"\{'descr': '([<>|=]?(?:O|[biufcmMSUV][1-9]\d{0,8}))', 'fortran_order': (True|False), "
    rb"'shape': \(((?:\d{1,18}, ?)*(?:\d{1,18})?)\), ?\} *\n"
)
Header: TypeAlias = tuple[tuple[int, ...], bool, np.dtype]
Given = TypeVar("Given")
Made = TypeVar("Made")


class Chunks:
    """An array of known shape that is made chunk by chunk along its first axis."""

    def __init__(
        self, shape: tuple[int, ...], dtype: DTypeLike, make: Callable[[], Iterable[np.ndarray]]
    ) -> None:
        self.shape, self.dtype, self._make = shape, np.dtype(dtype), make

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    def __len__(self) -> int:
        """The length of the first axis."""
        return self.shape[0]

    def __iter__(self) -> Iterator[np.ndarray]:
        """The chunks, one after the other, made anew each time."""
        return iter(self._make())

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        """All of it, in memory."""
        parts = [np.zeros((0, *self.shape[1:]), self.dtype), *self]
        return np.concatenate(parts).astype(dtype or self.dtype, copy=False)


Array: TypeAlias = np.ndarray | Chunks


def iterate_chunks(array: Array, items: int = CHUNK_ITEMS) -> Iterator[np.ndarray]:
    """An array piece by piece along its first axis."""
    if isinstance(array, Chunks):
        yield from array
    else:
        for start in range(0, len(array), items):
            yield array[start : start + items]


def save_array(path: Path, array: Array) -> None:
    """Write an array of numbers or fixed-width strings; its bytes depend on its content alone.

    Raises TypeError for an array of objects, InputError where the disk has no room for it.
    """
    dtype = _stored_dtype(path, array)
    size = max(1, int(np.prod(array.shape[1:], dtype=int)) * dtype.itemsize)
    check_disk(path, size * len(array))
    with path.open("wb") as file:
        _write_header(file, dtype, array.shape)
        count = 0
        for chunk in iterate_chunks(array, max(1, CHUNK_BYTES // size)):
            file.write(np.ascontiguousarray(chunk, dtype).tobytes())
            count += len(chunk)
    if count != len(array):
        raise AssertionError(f"{path.name}: {count} items came, not {len(array)}")


def _stored_dtype(path: Path, array: Array) -> np.dtype:
    """The type that an array's content alone decides: little-endian, strings as wide as needed."""
    if array.dtype.kind not in PLAIN_KINDS:
        raise TypeError(f"{path.name}: an array of {array.dtype} is not a plain thing to store")
    if array.dtype.kind == "U" and isinstance(array, np.ndarray):
        return np.dtype(f"<U{max(int(np.strings.str_len(array).max(initial=0)), 1)}")
    return array.dtype.newbyteorder("<")


def check_disk(path: Path, size: int) -> None:
    """Raise InputError unless the disk that is to hold the file `path` has `size` bytes left."""
    free = shutil.disk_usage(path.parent).free
    if size > free:
        raise InputError(
            f"{path.name}: needs {size / 1e6:,.1f} MB of disk, {free / 1e6:,.1f} MB are free in "
            f"{path.parent.parent}; free some, or lower augment.copies or size"
        )


def load_array(path: Path) -> np.ndarray:
    """A memory map of what `save_array` wrote, read-only. Raises InputError for anything else."""
    with _naming(path):
        with path.open("rb") as file:
            shape, dtype = _read_plain_header(file, path.stat().st_size)
            start = file.tell()
        # A plain view: numpy's memmap class is looked after in Python at each index.
        array = np.asarray(np.memmap(path, dtype, "r", start, shape))
        check_text(array)
        return array


def read_header(file: IO[bytes]) -> Header:
    """The shape of an .npy file, whether it is in Fortran's order, its type; up to its data.

    Raises ValueError, TypeError for a type that numpy lacks.
    """
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"an array of format {version[0]}.{version[1]}, not 1.0 or 2.0")
    length = int.from_bytes(file.read(2 if version == (1, 0) else 4), "little")
    found = HEADER.fullmatch(file.read(min(length, 10_000)))
    if not found:
        raise ValueError("not the header of an array of numbers or text")
    shape = tuple(map(int, re.findall(rb"\d+", found[3])))
    return shape, found[2] == b"True", np.dtype(found[1].decode())


def _read_plain_header(file: IO[bytes], size: int) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array as this project writes it, in a file of `size` bytes."""
    shape, fortran, dtype = read_header(file)
    wanted = math.prod(shape) * dtype.itemsize
    if fortran or dtype.kind not in PLAIN_KINDS or wanted != size - file.tell():
        raise ValueError("an array that is not as long as it says, or not plain")
    return shape, dtype


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write small arrays of numbers or strings into one .npz, whole; equal content, equal bytes.

    Raises TypeError for an array of objects.
    """
    plain = {
        name: np.asarray(arrays[name], _stored_dtype(path, arrays[name]), order="C")
        for name in sorted(arrays)
    }
    with atomic_write(path) as aside, aside.open("wb") as file:
        np.savez(file, allow_pickle=False, **plain)


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """What `save_arrays` wrote, by name. Raises InputError for anything else.

    What a file asks for is never more than what it holds: its members lie in it as they are, each
    as long as its shape says, and the zip's checksums find what was changed.
    """
    with _naming(path), zipfile.ZipFile(path) as members:
        names = members.infolist()
        if sum(m.file_size for m in names) > path.stat().st_size:
            raise ValueError("its members are larger than it is")
        return {m.filename.removesuffix(".npy"): _parse_array(members.read(m)) for m in names}


def _parse_array(content: bytes) -> np.ndarray:
    file = io.BytesIO(content)
    shape, dtype = _read_plain_header(file, len(content))
    array = np.frombuffer(content, dtype, offset=file.tell()).reshape(shape)
    check_text(array)
    return array


def check_text(array: np.ndarray) -> None:
    """Raise ValueError for strings of numbers that stand for no character: Python cannot read them.

    An array of numbers has none.
    """
    if array.dtype.kind == "U" and array.size:
        codes = np.ascontiguousarray(array).view(np.dtype("u4").newbyteorder(array.dtype.byteorder))
        if codes.max() > 0x10FFFF or ((codes >= 0xD800) & (codes < 0xE000)).any():
            raise ValueError("a text with characters that there are not")


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn what is wrong with the file `path` into an InputError that names it."""
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{path}: not found; make it with `dvc repro` or `dvc pull`") from None
    except MemoryError:
        raise
    except Exception as e:  # numpy's and zipfile's readers raise whatever they meet
        if isinstance(e, OSError) and e.filename:  # it cannot be opened
            raise
        reason = " ".join(str(e).split())[:200]
        raise InputError(f"{path}: not a file this project wrote: {reason}") from None


class PixelFile:
    """An .npy file of bytes, (length,) uint8, that grows until it is closed."""

    def __init__(self, path: Path) -> None:
        self._file, self._length = path.open("wb"), 0
        _write_header(self._file, np.dtype("uint8"), (0,))

    def append(self, pixels: np.ndarray) -> None:
        """Add the bytes of a uint8 array."""
        self._file.write(np.ascontiguousarray(pixels, "uint8").tobytes())
        self._length += pixels.size

    def close(self) -> None:
        """Say in the header how long it is: numpy pads headers so that they keep their size."""
        self._file.seek(0)
        _write_header(self._file, np.dtype("uint8"), (self._length,))
        self._file.close()


def _write_header(file: Any, dtype: np.dtype, shape: tuple[int, ...]) -> None:
    np.lib.format.write_array_header_1_0(
        file, {"descr": dtype.str, "fortran_order": False, "shape": shape}
    )


def map_ahead(
    make: Callable[[Given], Made], items: Iterable[Given], threads: int
) -> Iterator[Made]:
    """`make` of each item, in order, on `threads` threads that run at most a few items ahead."""
    waiting: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(make, item))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
