"""Add randomly changed copies of the training images, each change with its effect on labels."""

import hashlib
from dataclasses import replace

import numpy as np
from scipy import ndimage
from tqdm import tqdm

from facet.config import Augmentation
from facet.datasets.prepared import PreparedData, SplitData
from facet.errors import InputError

CHUNK = 128  # images warped at once; bounds memory


def uniform_draws(names: list[str], seed: int, copy: int) -> np.ndarray:
    """Six uniform numbers in 0-1 for each image, N x 6 float64.

    They depend on the seed, the copy and the image's name alone, so not on order or batch.
    """
    digests = (hashlib.sha256(f"{seed}/{copy}/{n}".encode()).digest()[:24] for n in names)
    return np.frombuffer(b"".join(digests), "<u4").reshape(-1, 6) / 2.0**32


def warp_images(
    X: np.ndarray, angle: np.ndarray, shift: np.ndarray, zoom: np.ndarray
) -> np.ndarray:
    """Images turned about their centre, enlarged and shifted, N x height x width x channels.

    `angle` (N,) in radians, `shift` (N, 2) in pixels down and right, `zoom` (N,) factors; bilinear,
    the edge continued outwards.
    """
    n, height, width, channels = X.shape
    centre = np.array([(height - 1) / 2, (width - 1) / 2])
    y, x = np.indices((height, width)) - centre[:, None, None]
    cos, sin = np.cos(angle) / zoom, np.sin(angle) / zoom
    y, x = y[None] - shift[:, :1, None], x[None] - shift[:, 1:, None]
    at = np.empty((3, n, height, width))
    at[0] = np.arange(n)[:, None, None]
    at[1] = cos[:, None, None] * y + sin[:, None, None] * x + centre[0]
    at[2] = cos[:, None, None] * x - sin[:, None, None] * y + centre[1]
    out = [ndimage.map_coordinates(X[..., c], at, order=1, mode="nearest") for c in range(channels)]
    return np.stack(out, -1).clip(0, 1).astype("float32")


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


def make_copy(data: PreparedData, config: Augmentation, copy: int) -> SplitData:
    """One changed copy of each training image, with its labels."""
    train = data.splits["train"]
    X, n = train.X, len(train)
    draws = uniform_draws(train.names.tolist(), config.seed, copy)
    between = 2 * draws - 1
    # Enlarging by f and shrinking by f are equally likely.
    zoom = (1 + config.zoom) ** between[:, 3]
    shift = config.translate * between[:, 1:3] * X.shape[1:3]
    flip = draws[:, 4] < (config.flip.probability if config.flip else 0)
    turned = np.empty_like(X)
    for start in tqdm(range(0, n, CHUNK), "augment", unit="batch", delay=1):
        rows = slice(start, start + CHUNK)
        batch = np.where(flip[rows, None, None, None], X[rows, :, ::-1], X[rows])
        turned[rows] = warp_images(
            batch, np.deg2rad(config.rotate * between[rows, 0]), shift[rows], zoom[rows]
        )
    y = dict(train.y)
    for head, pair in (config.flip.swap if config.flip else {}).items():
        if head in y:
            y[head] = np.where(
                flip, swap_labels(y[head], data.classes[head].tolist(), pair, head), y[head]
            )
    return replace(train, X=turned, y=y, copies=np.full(n, copy))


def augment(data: PreparedData, config: Augmentation) -> PreparedData:
    """`data` with `config.copies` times the training items: the untouched ones first.

    Validation and test stay as they are. Raises InputError for a table that is to have copies.
    """
    train = data.splits["train"]
    if config.copies > 1 and train.X.ndim != 4:
        raise InputError("augment.copies: only images can be augmented; set 1 for a table")
    parts = [replace(train, copies=np.zeros(len(train), "int64"))]
    parts += [make_copy(data, config, c) for c in range(1, config.copies)]
    grown = SplitData(
        X=np.concatenate([p.X for p in parts]),
        y={h: np.concatenate([p.y[h] for p in parts]) for h in train.y},
        names=np.tile(train.names, config.copies),
        groups=np.tile(train.groups, config.copies),
        copies=np.concatenate([p.copies for p in parts]),
    )
    return replace(data, splits=data.splits | {"train": grown})
