"""Add randomly changed copies of the training images, each change with its effect on labels."""

import hashlib
from collections.abc import Iterator

import cv2
import numpy as np
from tqdm import tqdm

from facet.base.arrays import CHUNK_ITEMS, Array, Chunks, iterate_chunks, map_ahead
from facet.base.config import Augmentation
from facet.base.prepared import AugmentInfo, NewData, NewSplit, SplitData, StoredData
from facet.base.processor import usable_cores
from facet.errors import InputError

cv2.setNumThreads(0)  # a thread for each chunk of images is faster than several for one image
CELLS = 4  # of the grid that `elastic` lays over an image, along each side
NODES = CELLS + 3  # of cubic B-splines over so many cells


def uniform_draws(names: list[str], seed: int, copy: int) -> np.ndarray:
    """Six uniform numbers in 0-1 for each image, N x 6 float64.

    They depend on the seed, the copy and the image's name alone, so not on order or batch.
    """
    digests = (hashlib.sha256(f"{seed}/{copy}/{n}".encode()).digest()[:24] for n in names)
    return np.frombuffer(b"".join(digests), "<u4").reshape(-1, 6) / 2.0**32


def affine_matrices(draws: np.ndarray, config: Augmentation, height: int, width: int) -> np.ndarray:
    """For each row of `draws` the way from a copy's pixel to its image's, N x 2 x 3 float64.

    The copy is the image mirrored or not, then sheared sideways and turned about its centre,
    enlarged and shifted. Each matrix takes (x, y, 1), pixels right and down, to (x, y).
    """
    between = 2 * draws - 1
    # Enlarging by f and shrinking by f are equally likely.
    zoom = (1 + config.zoom) ** between[:, 3]
    down = config.translate * between[:, 1] * height + (height - 1) / 2
    right = config.translate * between[:, 2] * width + (width - 1) / 2
    angle = np.deg2rad(config.rotate * between[:, 0])
    cos, sin = np.cos(angle) / zoom, np.sin(angle) / zoom
    out = np.empty((len(draws), 2, 3))
    out[:, 0] = np.stack([cos, -sin, sin * down - cos * right], 1)
    out[:, 1] = np.stack([sin, cos, -sin * right - cos * down], 1)
    out[:, 0] -= config.shear * between[:, 5:6] * out[:, 1]
    out[:, :, 2] += (width - 1) / 2, (height - 1) / 2
    mirrored = is_flipped(draws, config)
    out[mirrored, 0] *= -1
    out[mirrored, 0, 2] += width - 1
    return out


def elastic_nodes(
    names: list[str], config: Augmentation, copy: int, height: int
) -> np.ndarray | None:
    """How far the nodes of a grid over each image move: right, then down, in pixels.

    N x 2 x NODES x NODES float64, uniform up to `config.elastic` of the height; None if that is 0.
    """
    if not config.elastic:
        return None
    shape = (-1, 2, NODES, NODES)
    numbers = 4 * 2 * NODES**2
    digests = (
        hashlib.shake_256(f"{config.seed}/{copy}/{n}/elastic".encode()).digest(numbers)
        for n in names
    )
    draws = np.frombuffer(b"".join(digests), "<u4").reshape(shape) / 2.0**32
    return config.elastic * height * (2 * draws - 1)


def spline_weights(pixels: int) -> np.ndarray:
    """What each node of a side weighs at each pixel of it, pixels x NODES float64, rows sum to 1.

    Uniform cubic B-splines; the first and the last node lie a cell outside the image.
    """
    place = (np.arange(pixels) + 0.5) / pixels * CELLS
    away = np.abs(place[:, None] - np.arange(-1, CELLS + 2))
    near = 2 / 3 - away**2 + away**3 / 2
    return np.where(away < 1, near, (2 - away).clip(0) ** 3 / 6)


def is_flipped(draws: np.ndarray, config: Augmentation) -> np.ndarray:
    """Which of the copies are mirrored, (N,) bool."""
    return draws[:, 4] < (config.flip.probability if config.flip else 0)


def warp_images(X: np.ndarray, matrices: np.ndarray, nodes: np.ndarray | None) -> np.ndarray:
    """Images sampled at other places, N x height x width x channels uint8.

    `matrices` as `affine_matrices` gives them, `nodes` as `elastic_nodes`: a pixel is moved by them
    and then taken where its matrix says (elastic distortion: Simard, Steinkraus and Platt 2003, but
    by splines in place of smoothed noise). Bilinear, the edge continued outwards. OpenCV's
    warpAffine and remap have the same bytes on every processor with AVX2 (`facet portable` compares
    them).
    """
    out = np.empty_like(X)
    height, width = X.shape[1:3]
    if nodes is None:
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        for image, matrix, place in zip(X, matrices, out, strict=True):
            cv2.warpAffine(image, matrix, (width, height), place, flags, cv2.BORDER_REPLICATE)
        return out
    rows, columns = spline_weights(height), spline_weights(width)
    down, right = np.mgrid[:height, :width]
    for image, matrix, moved, place in zip(X, matrices, nodes, out, strict=True):
        aside, below = rows @ moved @ columns.T + (right, down)
        where = [m[0] * aside + m[1] * below + m[2] for m in matrix]
        x, y = np.asarray(where, "float32")
        cv2.remap(image, x, y, cv2.INTER_LINEAR, place, cv2.BORDER_REPLICATE)
    return out


def swap_labels(y: np.ndarray, classes: list[str], pair: list[str], head: str) -> np.ndarray:
    """Labels with the two classes of `pair` exchanged, (N,) int64."""
    for name in pair:
        if name not in classes:
            raise InputError(
                f"augment.flip.swap.{head}: {name} is not a class of it ({', '.join(classes[:8])})"
            )
    table = np.arange(len(classes))
    a, b = (classes.index(name) for name in pair)
    table[[a, b]] = b, a
    return table[y]


def make_images(train: SplitData, config: Augmentation) -> Iterator[np.ndarray]:
    """The training images, then each copy of them, in chunks of uint8."""
    yield from iterate_chunks(train.X)
    n, height, width = train.X.shape[:3]

    def make(place: tuple[int, int]) -> np.ndarray:
        copy, start = place
        rows = slice(start, start + CHUNK_ITEMS)
        names = train.names[rows].tolist()
        draws = uniform_draws(names, config.seed, copy)
        nodes = elastic_nodes(names, config, copy, height)
        return warp_images(train.X[rows], affine_matrices(draws, config, height, width), nodes)

    places = [(c, start) for c in range(1, config.copies) for start in range(0, n, CHUNK_ITEMS)]
    warped = map_ahead(make, places, usable_cores())
    yield from tqdm(warped, "augment", len(places), unit="chunk", delay=1)


def repeat_array(array: np.ndarray, times: int) -> Chunks:
    """An array several times, end to end."""
    shape = (len(array) * times, *array.shape[1:])
    return Chunks(
        shape, array.dtype, lambda: (c for _ in range(times) for c in iterate_chunks(array))
    )


def make_labels(data: StoredData, config: Augmentation, copy: int) -> dict[str, np.ndarray]:
    """The training labels of one copy by head, (N,) int64: a flip exchanges what it declares."""
    train = data.splits["train"]
    y = dict(train.y)
    swaps = {h: pair for h, pair in config.flip.swap.items() if h in y} if config.flip else {}
    if swaps:
        flipped = is_flipped(uniform_draws(train.names.tolist(), config.seed, copy), config)
        for head, pair in swaps.items():
            swapped = swap_labels(y[head], data.classes[head].tolist(), pair, head)
            y[head] = np.where(flipped, swapped, y[head])
    return y


def describe_augmentation(config: Augmentation) -> AugmentInfo:
    """What was done to the training items: with one copy, nothing, whatever else is set."""
    applied = config if config.copies > 1 else Augmentation()
    flip = applied.flip
    return {
        "copies": applied.copies,
        "seed": applied.seed,
        "rotate": applied.rotate,
        "shear": applied.shear,
        "translate": applied.translate,
        "zoom": applied.zoom,
        "elastic": applied.elastic,
        "flip": {"probability": flip.probability, "swap": flip.swap} if flip else None,
    }


def augment(data: StoredData, config: Augmentation) -> NewData:
    """`data` with `config.copies` times the training items: the untouched ones first.

    The images are made chunk by chunk as they are asked for. Validation and test stay as they are.
    `about` says what was done, so that experiments that augment alike share one stored result.
    Raises InputError for a table that is to have copies.
    """
    train, copies = data.splits["train"], config.copies
    if copies > 1 and train.X.ndim != 4:
        raise InputError("augment.copies: only images can be augmented; set 1 for a table")
    labels = [train.y, *(make_labels(data, config, copy) for copy in range(1, copies))]
    n = len(train)
    X: Array = train.X
    if copies > 1:
        shape = (n * copies, *train.X.shape[1:])
        X = Chunks(shape, "uint8", lambda: make_images(train, config))
    grown = NewSplit(
        X=X,
        y={h: np.concatenate([y[h] for y in labels]) for h in train.y},
        names=repeat_array(train.names, copies),
        groups=repeat_array(train.groups, copies),
        copies=np.repeat(np.arange(copies), n),
    )
    about = data.about | {"augment": describe_augmentation(config)}
    return NewData(about, data.classes, {**data.splits, "train": grown})
