"""Images and labels in the arrays of an `.npz`, as Keras has them or under any names."""

import math
import zipfile
from contextlib import closing
from pathlib import Path
from typing import IO

import numpy as np

from facet.base.arrays import (
    CHUNK_BYTES,
    Header,
    PixelFile,
    check_disk,
    check_text,
    load_array,
    read_header,
)
from facet.base.config import KERAS_ARRAYS, ArrayPair, Arrays, suggest
from facet.datasets.depth import Extremes, Scale, scale_pixels
from facet.datasets.items import Images, Items
from facet.datasets.tables import write_number
from facet.errors import InputError

# What arrays may grow to: so many times what they are packed in, or so many bytes.
RATIO, SMALL_BYTES = 200, 10**7


def list_arrays(path: Path) -> dict[str, Header]:
    """The arrays of an `.npz` by name, their data unread. Raises InputError."""
    try:
        with zipfile.ZipFile(path) as members:
            found: dict[str, Header] = {}
            packed, size = path.stat().st_size, sum(m.file_size for m in members.infolist())
            # Each item takes memory, however small its image: some bytes may stand for a billion.
            if size > max(SMALL_BYTES, RATIO * packed):
                raise ValueError(f"{size / 1e6:.0f} MB packed {size // packed} times smaller")
            for info in members.infolist():
                name = info.filename.removesuffix(".npy")
                if name in found:
                    raise ValueError(f"it has two arrays {name}")
                with members.open(info) as member:
                    header = found[name] = read_header(member)
                    shape, _, dtype = header
                    # Before any of it is read: a header may ask for more than there is.
                    if member.tell() + math.prod(shape) * dtype.itemsize != info.file_size:
                        raise ValueError(f"{name} is not as long as it says")
            return found
    except MemoryError:
        raise
    except Exception as e:  # zipfile and numpy raise whatever they meet in broken bytes
        raise _refuse(path, e) from None


def _refuse(path: Path, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:200]
    return InputError(f"{path}: not a whole .npz of plain arrays: {reason}; save it by numpy.savez")


def describe_arrays(arrays: dict[str, Header]) -> str:
    """`x_train (60000, 28, 28) uint8, y_train (60000,) uint8`."""
    return ", ".join(f"{name} {shape} {dtype}" for name, (shape, _, dtype) in arrays.items())


def read_arrays(path: Path, pixels: Path, names: Arrays | None, scale: Scale | None) -> Items:
    """Images and labels of an `.npz`, with its own split if it has one.

    The images go into the file `pixels` chunk by chunk, those deeper than 8 bits by `scale`.
    Without `names` they are those of Keras's mnist.npz. Labels are column `y`, or what `names`
    calls them.
    """
    names = names or KERAS_ARRAYS
    there = list_arrays(path)
    for pair in names.pairs.values():
        for name in (pair.x, *pair.labels.values()):
            if name not in there:
                raise InputError(
                    f"{path}: has no array {name}{suggest(name, there)}; it has "
                    f"{describe_arrays(there)}; set read.arrays: {{x: NAME, y: NAME}}, or "
                    "{train: {x: NAME, y: NAME}, test: ...}"
                )
    images = {part: check_images(path, pair.x, there[pair.x]) for part, pair in names.pairs.items()}
    shapes = list(images.values())
    if any(shape[1:] != shapes[0][1:] for shape in shapes):
        each = ", ".join(pair.x for pair in names.pairs.values())
        raise InputError(f"{path}: {each} differ in the shape of an image")
    for pair in names.pairs.values():
        check_label_header(path, pair, there)
    check_disk(pixels, sum(map(math.prod, shapes)))
    file, extremes = PixelFile(pixels), Extremes()
    labels: dict[str, list[np.ndarray]] = {}
    try:
        with closing(file), zipfile.ZipFile(path) as members:
            for pair in names.pairs.values():
                with members.open(f"{pair.x}.npy") as member:
                    _copy_images(member, f"{path}: {pair.x}", file, scale, extremes)
                for column, name in pair.labels.items():
                    with members.open(f"{name}.npy") as member:
                        labels.setdefault(column, []).append(_read_labels(member))
    except (InputError, MemoryError):
        raise
    except Exception as e:
        raise _refuse(path, e) from None
    if extremes.count:
        raise extremes.refuse(str(path), sum(shape[0] for shape in shapes))
    columns = {
        column: np.concatenate(
            [
                make_label_texts(path, pair.labels[column], y)
                for pair, y in zip(names.pairs.values(), found, strict=True)
            ]
        )
        for column, found in labels.items()
    }
    counts = [shape[0] for shape in shapes]
    parts = np.repeat(list(images), counts)
    numbers = [f"{i:05d}" for n in counts for i in range(n)]
    items = [f"{p}/{n}" if p else n for p, n in zip(parts.tolist(), numbers, strict=True)]
    each_shape = np.tile(np.array([(*shapes[0], 1)[1:4]], "int64"), (len(items), 1))
    return Items(
        np.array(items),
        columns,
        Images(load_array(pixels), each_shape),
        None if "" in images else parts,
    )


def check_images(path: Path, name: str, header: Header) -> tuple[int, ...]:
    """The shape of an array of images. Raises InputError if it is none."""
    shape, fortran, dtype = header
    what = f"{path}: {name} {shape} {dtype}"
    if len(shape) not in (3, 4) or 0 in shape or (len(shape) == 4 and shape[3] > 4):
        hint = "; channels go last" if len(shape) == 4 and shape[1] <= 4 else ""
        raise InputError(f"{what} holds no images: items x height x width[ x channels]{hint}")
    if dtype.kind not in "biuf":
        raise InputError(f"{what} holds no numbers")
    if fortran:
        raise InputError(f"{what} is in Fortran's order; save numpy.ascontiguousarray of it")
    return shape


def _copy_images(
    member: IO[bytes], what: str, file: PixelFile, scale: Scale | None, extremes: Extremes
) -> None:
    """Append an array's images to `file`, or take note of what those too deep hold."""
    shape, _, dtype = read_header(member)
    left = math.prod(shape) * dtype.itemsize
    while left:
        content = member.read(min(left, CHUNK_BYTES))
        if len(content) < min(left, CHUNK_BYTES):
            raise EOFError(f"{what} is cut off")
        left -= len(content)
        values = np.frombuffer(content, dtype)
        if dtype == np.uint8:
            file.append(values)
        elif scale:
            file.append(scale_pixels(values, scale, what))
        else:
            extremes.add(values, 0)
    if dtype != np.uint8 and not scale:
        extremes.count += shape[0]


def _read_labels(member: IO[bytes]) -> np.ndarray:
    shape, _, dtype = read_header(member)
    labels = np.frombuffer(member.read(), dtype).reshape(shape)
    check_text(labels)
    return labels


def check_label_header(path: Path, pair: ArrayPair, there: dict[str, Header]) -> None:
    """Raise InputError for labels of which there is not one for each image, or not a plain one."""
    count = there[pair.x][0][0]
    for name in pair.labels.values():
        shape, _, dtype = there[name]
        if shape not in ((count,), (count, 1)):
            raise InputError(
                f"{path}: {name} {shape} has not one label for each of the {count} of {pair.x}"
            )
        if dtype.kind not in "biufUS":
            raise InputError(f"{path}: {name} {dtype} holds no labels: numbers or text are")


def make_label_texts(path: Path, name: str, y: np.ndarray) -> np.ndarray:
    """Labels as strings, (N,). Raises InputError for one that is missing, or no text."""
    y = y.reshape(len(y))
    if y.dtype.kind == "S":
        try:
            y = np.strings.decode(y, "utf-8")
        except UnicodeDecodeError as e:
            raise InputError(f"{path}: {name}: a label is not UTF-8 text: {e}") from None
    if y.dtype.kind == "f":
        y = np.array([write_number(v) for v in y.tolist()])
    y = y.astype(str)
    if (empty := y == "").any():
        raise InputError(
            f"{path}: {name}[{empty.argmax()}] is no label; fill it in or leave it out"
        )
    return y
