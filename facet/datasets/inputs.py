"""Bring inputs to one size: images decoded to one mode, tables to their columns."""

import hashlib

import numpy as np
from PIL import Image, ImageFilter
from tqdm import tqdm

from facet.config import Dataset, Operation, Read
from facet.errors import InputError
from facet.formats import Items

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


def middle_size(items: Items) -> tuple[int, int]:
    """The size, (width, height), in the middle of those present, by area."""
    sizes = {(k.split("x")[1], k.split("x")[0]) for k in items["pixels"]}
    ordered = sorted(((int(w), int(h)) for w, h in sizes), key=lambda s: (s[0] * s[1], s))
    return ordered[(len(ordered) - 1) // 2]


def make_images(items: Items, size: tuple[int, int], read: Read) -> np.ndarray:
    """All images as uint8, N x height x width x channels (1 for grey, 3 for RGB), Lanczos."""
    width, height = size
    out = np.empty((len(items["names"]), height, width, len(read.mode)), "uint8")
    names = items["names"].tolist()
    for key, rows in items["rows"].items():
        shape = key.split("x")
        mode = CHANNEL_MODES[int(shape[2])] if len(shape) == 3 else "L"
        if not read.operations and mode == read.mode and shape[:2] == [str(height), str(width)]:
            out[rows] = items["pixels"][key].reshape(len(rows), height, width, -1)
            continue
        for row, pixels in tqdm(
            zip(rows, items["pixels"][key], strict=True),
            "normalise",
            len(rows),
            unit="image",
            delay=1,
        ):
            image = convert_mode(Image.fromarray(pixels), read.mode, read.alpha, names[row])
            for operation in read.operations:
                image = apply_operation(image, operation, names[row])
            if image.size != size:
                image = image.resize(size, Image.Resampling.LANCZOS)
            out[row] = np.asarray(image).reshape(height, width, -1)
    return out


def read_columns(items: Items, spec: Dataset) -> tuple[list[str], np.ndarray]:
    """The names of a table's readings and the readings, N x columns float64."""
    used = {h.column for h in spec.heads.values()} | {f for g in spec.group.values() for f in g}
    chosen = [c for c in items["columns"] if c not in used and c not in spec.read.ignore]
    for c in chosen:
        values = items["columns"][c]
        if values.dtype.kind != "f":
            raise InputError(
                f"column {c} holds text ({values[0]}); name it in heads, group or read.ignore"
            )
        if not np.isfinite(values).all():
            raise InputError(
                f"column {c}: row {int(np.isfinite(values).argmin()) + 1} is not finite"
            )
    if not chosen:
        raise InputError("the table has no column left for readings")
    return chosen, np.stack([items["columns"][c] for c in chosen], 1)
