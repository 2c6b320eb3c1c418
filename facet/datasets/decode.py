"""Decode a data set's raw files once, into plain arrays."""

import os
import warnings
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from facet.base.arrays import PixelFile, load_array, map_ahead
from facet.base.config import Index, Read
from facet.base.names import (
    ARRAY_SUFFIXES,
    IMAGE_SUFFIXES,
    RAW_INDEX,
    RAW_INDEX_COLUMN,
    RAW_MANIFEST,
    TABLE_SUFFIXES,
)
from facet.base.processor import usable_cores
from facet.base.terminal import silence_native_output
from facet.datasets.array_files import read_arrays
from facet.datasets.depth import Extremes, Scale, scale_pixels
from facet.datasets.items import Images, Items
from facet.datasets.tables import join_index, read_columns, read_tables
from facet.errors import InputError

KEPT_MODES = ("L", "LA", "RGB", "RGBA")
MAX_PIXELS = 50_000_000
# What IMAGE_SUFFIXES name, by content whatever a file is called. Pillow knows forty more, among
# them PostScript, for which it starts another program.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


def decode_image(path: Path) -> np.ndarray:
    """One image, height x width for grey, else height x width x 2, 3 or 4 channels.

    Turned as its EXIF data say; of several frames or pages the first.
    Palettes become RGB (RGBA if they have a transparent entry), other modes the nearest kept one.
    It is uint8, or what the file has if that is deeper: 16 or 32 bits, float32.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of odd EXIF data and of size
            with Image.open(path, formats=FORMATS) as opened:
                if opened.width * opened.height > MAX_PIXELS:
                    raise ValueError(f"{opened.width}x{opened.height} pixels are too many")
                if _is_cut_to_eight_bits(opened):
                    return _decode_deep_colour(path)
                image: Image.Image = ImageOps.exif_transpose(opened)
                if image.mode == "P":
                    image = image.convert("RGBA" if "transparency" in image.info else "RGB")
                elif image.mode[0] not in "IF" and image.mode not in KEPT_MODES:
                    image = image.convert("L" if image.mode == "1" else "RGB")
                pixels = np.asarray(image)
                return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    except MemoryError:
        raise
    except Exception as e:
        # Pillow's decoders raise whatever they meet in broken bytes: all of it means the same.
        if isinstance(e, OSError) and e.filename and e.errno:  # it cannot be opened
            raise
        kinds = ", ".join(FORMATS)
        reason = f"not one of {kinds}" if isinstance(e, UnidentifiedImageError) else str(e)
        raise InputError(f"{path}: {reason}; repair it or take it out of the source") from None


def _is_cut_to_eight_bits(image: Image.Image) -> bool:
    """Whether Pillow would keep only the upper halves of 16 bits: it has no deep colours."""
    tiles = getattr(image, "tile", None) or []
    words = " ".join(str(tile[3]) for tile in tiles)
    return image.mode in KEPT_MODES and ";16" in words


def _decode_deep_colour(path: Path) -> np.ndarray:
    import cv2  # here: nothing else of `pickle` needs it

    pixels = cv2.imdecode(np.fromfile(path, "uint8"), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ValueError("a kind of 16-bit image that cannot be decoded")
    order = {3: [2, 1, 0], 4: [2, 1, 0, 3]}  # OpenCV has blue first
    return pixels[..., order[pixels.shape[2]]] if pixels.ndim == 3 else pixels


def decode_eight_bits(path: Path, scale: Scale | None) -> np.ndarray:
    """One image as uint8, brought there by `scale` if it is deeper. Raises InputError."""
    pixels = decode_image(path)
    if pixels.dtype == np.uint8:
        return pixels
    if scale is None:
        extremes = Extremes()
        extremes.add(pixels)
        raise extremes.refuse(str(path), 1)
    return scale_pixels(pixels, scale, str(path))


def decode_images(folder: Path, names: list[str], pixels: Path, scale: Scale | None) -> Items:
    """Images of all sizes, decoded on all cores, their pixels in the file `pixels`."""
    shapes = np.empty((len(names), 3), "int64")
    file, extremes = PixelFile(pixels), Extremes()

    def decode(name: str) -> np.ndarray:
        if scale is None:
            return decode_image(folder / name)
        return decode_eight_bits(folder / name, scale)

    with closing(file), silence_native_output() as terminal:
        decoded = map_ahead(decode, names, usable_cores())
        bar = tqdm(decoded, "pickle", len(names), unit="image", delay=1, file=terminal)
        for shape, image in zip(shapes, bar, strict=True):
            if image.dtype == np.uint8:
                file.append(image)
            else:
                extremes.add(image)
            shape[:] = (*image.shape, 1)[:3]
    if extremes.count:
        raise extremes.refuse(str(folder), len(names))
    return Items(np.array(names), {}, Images(load_array(pixels), shapes))


@dataclass(frozen=True)
class RawFiles:
    """The files of a raw folder by kind, sorted paths beneath `home`."""

    home: Path
    images: list[str]
    tables: list[str]
    arrays: list[str]


def list_raw_files(folder: Path) -> RawFiles:
    """What a raw folder holds. Raises InputError for what is none of these kinds."""
    # Strings: a Path takes ten times the memory, and there may be a million.
    files = sorted(
        os.path.relpath(os.path.join(place, name), folder)
        for place, _, names in os.walk(folder)
        for name in names
        if name != RAW_MANIFEST
    )

    def choose(suffixes: set[str]) -> list[str]:
        return [f for f in files if os.path.splitext(f)[1].lower() in suffixes]

    images, tables, arrays = map(choose, (IMAGE_SUFFIXES, TABLE_SUFFIXES, ARRAY_SUFFIXES))
    home = folder
    if images and all(f.startswith("images/") for f in images):
        home = folder / "images"
        images = [f.removeprefix("images/") for f in images]
        tables = [os.path.relpath(folder / f, home) for f in tables]
    alone = len(files) == len(tables) or len(files) == len(arrays) == 1
    if not images and not (files and alone):
        raise InputError(f"{folder}: holds neither images, nor one .npz, nor .csv tables alone")
    return RawFiles(home, images, tables, arrays)


def find_index(raw: RawFiles, read: Read) -> Index | None:
    """The index that says more of images than their names; None where there is none.

    Raises InputError for a table beside images where nothing else could tell a label.
    """
    others = {os.path.basename(f): f for f in raw.tables}
    plain = RAW_INDEX in others and len(read_columns(raw.home / others[RAW_INDEX])) == 1
    if read.index:
        if read.index.file not in {*others, *raw.tables}:
            known = ", ".join(sorted(others)) or "no table"
            raise InputError(
                f"read.index.file: no {read.index.file} beside the images; there is {known}"
            )
        return read.index
    if RAW_INDEX in others and not plain:
        return Index(file=RAW_INDEX, column=RAW_INDEX_COLUMN)
    if not read.parts and not read.folders and (unread := describe_unread(raw, read)):
        raise InputError(unread)
    return None


def describe_unread(raw: RawFiles, read: Read) -> str:
    """A sentence on the tables beside images that nothing reads, with what to do; "" for none."""
    index = read.index.file if read.index else RAW_INDEX
    unread = sorted(os.path.basename(f) for f in raw.tables)
    unread = [name for name in unread if name != os.path.basename(index)]
    if not raw.images or not unread:
        return ""
    return (
        f"{', '.join(unread)}: beside the images, and not read; to join a table's columns to the "
        f"images, set read.index: {{file: {unread[0]}, column: NAME}}"
    )


def decode_items(folder: Path, pixels: Path, read: Read) -> Items:
    """All items of a raw folder, of whichever kind it holds: images, arrays or tables.

    Images' pixels go into the file `pixels`, of which the items have a memory map.
    """
    raw = list_raw_files(folder)
    if raw.arrays and not raw.images:
        return read_arrays(raw.home / raw.arrays[0], pixels, read.arrays, read.scale)
    if not raw.images:
        return read_tables([raw.home / f for f in raw.tables])
    names, joined = raw.images, None
    if index := find_index(raw, read):
        file = next(f for f in raw.tables if index.file in (f, os.path.basename(f)))
        places, joined = join_index(names, raw.home / file, index)
        names = [names[place] for place in places]
    items = decode_images(raw.home, names, pixels, read.scale)
    return replace(items, columns=joined.columns) if joined else items
