"""Arrays on disk: .npy files, written chunk by chunk and read through a memory map.

However large an array is, memory holds a few of its chunks. Each file is a plain .npy without
Python objects: `numpy.load(file, mmap_mode="r")` opens it anywhere.
"""

import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import DTypeLike

from facet.errors import InputError

CHUNK_ITEMS = 256
CHUNK_BYTES = 1 << 23
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
    if array.dtype.kind not in "biufU":
        raise TypeError(f"{path.name}: an array of {array.dtype} is not a plain thing to store")
    dtype = array.dtype.newbyteorder("<")
    if dtype.kind == "U" and isinstance(array, np.ndarray):  # as wide as the longest
        dtype = np.dtype(f"<U{max(int(np.strings.str_len(array).max(initial=0)), 1)}")
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


def check_disk(path: Path, size: int) -> None:
    """Raise InputError unless the disk that is to hold the file `path` has `size` bytes left."""
    free = shutil.disk_usage(path.parent).free
    if size > free:
        raise InputError(
            f"{path.name}: needs {size / 1e9:.1f} GB of disk, {free / 1e9:.1f} GB are free in "
            f"{path.parent.parent}; free some, or lower augment.copies or size"
        )


def load_array(path: Path) -> np.ndarray:
    """A memory map of what `save_array` wrote, read-only. Raises InputError for anything else."""
    try:
        # A plain view: numpy's memmap class is looked after in Python at each index.
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except FileNotFoundError:
        raise InputError(f"{path}: not found; make it with `dvc repro` or `dvc pull`") from None
    except (ValueError, EOFError) as e:
        raise InputError(f"{path}: not a file this project wrote: {e}") from None


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
