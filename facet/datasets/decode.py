"""Decode a data set's raw files once, into plain arrays."""

import math
import os
import warnings
import zipfile
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from facet.base.arrays import CHUNK_BYTES, PixelFile, load_array, map_ahead
from facet.base.names import IMAGE_SUFFIXES, RAW_INDEX, RAW_MANIFEST
from facet.base.processor import usable_cores
from facet.datasets.items import Images, Items
from facet.errors import InputError

KEPT_MODES = ("L", "LA", "RGB", "RGBA")
MAX_PIXELS = 50_000_000


def decode_image(path: Path) -> np.ndarray:
    """One image as uint8, height x width for grey, else height x width x 2, 3 or 4 channels.

    Palettes become RGB (RGBA if they have a transparent entry), other modes the nearest kept one.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as opened:
                if opened.width * opened.height > MAX_PIXELS:
                    raise ValueError(f"{opened.width}x{opened.height} pixels are too many")
                image: Image.Image = ImageOps.exif_transpose(opened)
                if image.mode == "P":
                    image = image.convert("RGBA" if "transparency" in image.info else "RGB")
                elif image.mode.startswith("I"):  # 16 bits of grey: the upper 8
                    image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype("uint8"))
                elif image.mode not in KEPT_MODES:
                    image = image.convert("L" if image.mode in ("1", "F") else "RGB")
                return np.asarray(image)
    except Exception as e:
        # Pillow's decoders raise whatever they meet in broken bytes: all of it means the same.
        reason = "not an image" if isinstance(e, UnidentifiedImageError) else str(e)
        raise InputError(f"{path}: {reason}; repair it or take it out of the source") from None


def decode_images(folder: Path, names: list[str], pixels: Path) -> Items:
    """Images of all sizes, decoded on all cores, their pixels in the file `pixels`."""
    shapes = np.empty((len(names), 3), "int64")
    file = PixelFile(pixels)
    decoded = map_ahead(lambda name: decode_image(folder / name), names, usable_cores())
    bar = tqdm(decoded, "pickle", len(names), unit="image", delay=1)
    for shape, image in zip(shapes, bar, strict=True):
        file.append(image)
        shape[:] = (*image.shape, 1)[:3]
    file.close()
    return Items(np.array(names), {}, Images(load_array(pixels), shapes))


def read_arrays(path: Path, pixels: Path) -> Items:
    """Images and labels in the layout of Keras's mnist.npz, with its own split.

    The label is column `y`; `own` says train or test. The images go into the file `pixels` chunk by
    chunk.
    """
    file = PixelFile(pixels)
    counts, shapes, labels = {}, [], []
    try:
        with zipfile.ZipFile(path) as members:
            for part in ("train", "test"):
                with members.open(f"x_{part}.npy") as member:
                    shape = _read_header(member, f"{path}: x_{part}")
                    shapes.append(shape[1:])
                    left = math.prod(shape)
                    while left:
                        content = member.read(min(left, CHUNK_BYTES))
                        if not content:
                            raise EOFError(f"x_{part} is cut off")
                        file.append(np.frombuffer(content, "uint8"))
                        left -= len(content)
                counts[part] = shape[0]
        with np.load(path, allow_pickle=False) as arrays:
            labels = [arrays[f"y_{part}"] for part in counts]
    except KeyError as e:
        missing = str(e.args[0]).split("'")[1] if "'" in str(e.args[0]) else str(e.args[0])
        raise InputError(
            f"{path}: {missing.removesuffix('.npy')}; needs x_train, y_train, x_test, y_test"
        ) from None
    except InputError:
        raise
    except Exception as e:
        raise InputError(f"{path}: not a whole .npz of plain arrays: {e}") from None
    file.close()
    for part, y in zip(counts, labels, strict=True):
        if y.shape != (counts[part],):
            raise InputError(f"{path}: y_{part} has not one label for each of x_{part}")
    if shapes[0] != shapes[1]:
        raise InputError(f"{path}: x_train and x_test differ in shape")
    names = [f"{part}/{i:05d}" for part, n in counts.items() for i in range(n)]
    each = np.tile(np.array([(*shapes[0], 1)[:3]], "int64"), (len(names), 1))
    return Items(
        np.array(names),
        {"y": np.concatenate(labels).astype(str)},
        Images(load_array(pixels), each),
        np.repeat(["train", "test"], list(counts.values())),
    )


def _read_header(file: IO[bytes], what: str) -> tuple[int, ...]:
    """The shape of an .npy file of images, read up to its first pixel."""
    version = np.lib.format.read_magic(file)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, fortran, dtype = read(file)
    if fortran or dtype != np.uint8 or len(shape) not in (3, 4) or shape[0] == 0:
        raise InputError(f"{what} must be uint8, items x height x width[ x channels]")
    return shape


def read_tables(paths: list[Path]) -> Items:
    """Rows of CSV files (`,` or `;`) one after the other; numbers float64, the rest strings.

    `names` is FILE:ROW, counted from 1 after the header; blanks in column names become `_`.
    """
    import pandas as pd  # here: it takes a third of the time to start, and images need none of it

    frames = []
    for path in paths:
        try:
            with path.open(encoding="utf-8-sig") as file:
                separator = ";" if ";" in file.readline() else ","
            frame = pd.read_csv(path, sep=separator, encoding="utf-8-sig", index_col=False)
        except (ValueError, UnicodeDecodeError) as e:
            raise InputError(f"{path}: not a CSV table: {e}") from None
        if frame.empty:
            raise InputError(f"{path}: has no rows")
        frame.columns = [str(c).strip().replace(" ", "_") for c in frame.columns]
        if missing := [c for c in frame if frame[c].isna().any()]:
            row = int(frame[missing[0]].isna().to_numpy().argmax()) + 1
            raise InputError(f"{path}: row {row} has no {missing[0]}; fill it in or drop the row")
        frame.insert(0, "file", path.name)
        frame.insert(1, "row", range(1, len(frame) + 1))
        frames.append(frame)
    if len({tuple(f.columns) for f in frames}) > 1:
        raise InputError(f"{paths[0].parent}: the tables' columns differ")
    whole = pd.concat(frames, ignore_index=True)
    names = whole.pop("file") + ":" + whole.pop("row").astype(str)
    return Items(
        names.to_numpy(str),
        {
            str(c): whole[c].to_numpy("float64" if pd.api.types.is_numeric_dtype(whole[c]) else str)
            for c in whole
        },
    )


def decode_items(folder: Path, pixels: Path) -> Items:
    """All items of a raw folder, of whichever kind it holds: images, arrays or tables.

    Images' pixels go into the file `pixels`, of which the items have a memory map.
    """
    images = folder / "images"
    home = str(images if images.is_dir() else folder)
    # Strings: a Path takes ten times the memory, and there may be a million.
    files = [
        os.path.relpath(os.path.join(place, name), home)
        for place, _, names in os.walk(home)
        for name in names
        if name not in (RAW_INDEX, RAW_MANIFEST)
    ]
    pictures = sorted(f for f in files if os.path.splitext(f)[1].lower() in IMAGE_SUFFIXES)
    if pictures:
        return decode_images(Path(home), pictures, pixels)
    if len(files) == 1 and files[0].endswith(".npz"):
        return read_arrays(Path(home, files[0]), pixels)
    if files and all(f.endswith(".csv") for f in files):
        return read_tables([Path(home, f) for f in sorted(files)])
    raise InputError(f"{folder}: holds neither images, nor one .npz, nor .csv tables alone")
