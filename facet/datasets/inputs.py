"""Bring images to one size and mode."""

import hashlib
import itertools
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageFilter
from tqdm import tqdm

from facet.base.arrays import CHUNK_ITEMS, Chunks, map_ahead
from facet.base.config import Operation, Read
from facet.base.processor import usable_cores
from facet.datasets.items import Items
from facet.errors import InputError

FILTERS = {
    "blur": ImageFilter.BLUR,
    "contour": ImageFilter.CONTOUR,
    "detail": ImageFilter.DETAIL,
    "edge_enhance": ImageFilter.EDGE_ENHANCE,
    "sharpen": ImageFilter.SHARPEN,
    "smooth": ImageFilter.SMOOTH,
}
CHANNEL_MODES = {2: "LA", 3: "RGB", 4: "RGBA"}


def convert_mode(image: Image.Image, mode: str, alpha: str, name: str) -> Image.Image:
    """`image` in `mode`, its transparency treated by the rule `alpha`."""
    if image.mode in ("LA", "RGBA"):
        if alpha == "refuse":
            raise InputError(
                f"{name}: has an alpha channel; set read.alpha to black, white or drop"
            )
        if alpha != "drop":
            under = Image.new("RGBA", image.size, alpha)
            image = Image.alpha_composite(under, image.convert("RGBA"))
        image = image.convert("RGB" if image.mode == "RGBA" else "L")
    return image.convert(mode)


def spread_pixels(image: Image.Image, distance: int, name: str) -> Image.Image:
    """Each pixel exchanged for one at most `distance` away, the same for the same name.

    Pillow's effect_spread draws from C's rand, whose state depends on what ran before.
    """
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    shift = np.random.default_rng(seed).integers(
        -distance, distance + 1, (2, image.height, image.width)
    )
    y, x = np.indices((image.height, image.width)) + shift
    pixels = np.asarray(image)
    return Image.fromarray(pixels[y.clip(0, image.height - 1), x.clip(0, image.width - 1)])


def apply_operation(image: Image.Image, operation: Operation, name: str) -> Image.Image:
    """One declared operation."""
    if operation.crop:
        left, top, right, bottom = operation.crop
        if not (0 <= left < right <= image.width and 0 <= top < bottom <= image.height):
            raise InputError(
                f"{name}: crop {list(operation.crop)} is not inside {image.width}x{image.height}"
            )
        return image.crop(operation.crop)
    if operation.rotate is not None:
        return image.rotate(operation.rotate, Image.Resampling.BILINEAR)
    if operation.transpose:
        return image.transpose(Image.Transpose[operation.transpose.upper()])
    if operation.filter:
        return image.filter(FILTERS[operation.filter])
    return spread_pixels(image, operation.spread or 1, name)


def middle_size(shapes: np.ndarray) -> tuple[int, int]:
    """The size, (width, height), in the middle of those present, by area; `shapes` (N, 3)."""
    sizes = sorted(
        {(w, h) for h, w in np.unique(shapes[:, :2], axis=0).tolist()},
        key=lambda size: (size[0] * size[1], size),
    )
    return sizes[(len(sizes) - 1) // 2]


def prepare_image(pixels: np.ndarray, size: tuple[int, int], read: Read, name: str) -> np.ndarray:
    """One image, decoded, as uint8, height x width x channels (1 for grey, 3 for RGB), Lanczos."""
    width, height = size
    mode = CHANNEL_MODES[pixels.shape[2]] if pixels.ndim == 3 else "L"
    if read.operations or mode != read.mode or pixels.shape[:2] != (height, width):
        image = convert_mode(Image.fromarray(pixels), read.mode, read.alpha, name)
        for operation in read.operations:
            image = apply_operation(image, operation, name)
        if image.size != size:
            image = image.resize(size, Image.Resampling.LANCZOS)
        pixels = np.asarray(image)
    return pixels.reshape(height, width, -1)


def prepare_images(items: Items, rows: np.ndarray, size: tuple[int, int], read: Read) -> Chunks:
    """The images of `rows` as `prepare_image` makes them, N x height x width x channels uint8."""
    images, names = items.images, items.names
    assert images is not None

    def prepare(row: int) -> np.ndarray:
        return prepare_image(images[row], size, read, str(names[row]))

    def make() -> Iterator[np.ndarray]:
        made = map_ahead(prepare, rows.tolist(), usable_cores())
        bar = iter(tqdm(made, "normalise", len(rows), unit="image", delay=1))
        while chunk := list(itertools.islice(bar, CHUNK_ITEMS)):
            yield np.stack(chunk)

    width, height = size
    return Chunks((len(rows), height, width, len(read.mode)), "uint8", make)
