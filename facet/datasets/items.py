"""A data set's items, decoded: what `pickle` makes, in memory and in a folder."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facet.base.arrays import load_array, save_array
from facet.base.storage import read_json, write_json


@dataclass(frozen=True)
class Images:
    """Images of any sizes, their pixels one after the other."""

    pixels: np.ndarray
    """(bytes,) uint8: each image's height x width, x channels if it is not grey."""
    shapes: np.ndarray
    """(N, 3) int64: height, width, channels (1 for grey)."""
    starts: np.ndarray | None = None
    """(N,) int64: where each image begins; None: they follow each other without a gap."""

    def __post_init__(self) -> None:
        """Work out where each image begins."""
        sizes = self.shapes.prod(1)
        starts = np.cumsum(sizes) - sizes if self.starts is None else self.starts
        object.__setattr__(self, "_starts", starts.tolist())

    def __len__(self) -> int:
        """The number of images."""
        return len(self.shapes)

    def __getitem__(self, row: int) -> np.ndarray:
        """An image as uint8, height x width for grey, else height x width x channels."""
        start: int = self._starts[row]  # type: ignore[attr-defined]
        height, width, channels = self.shapes[row].tolist()
        flat = self.pixels[start : start + height * width * channels]
        return flat.reshape((height, width) if channels == 1 else (height, width, channels))

    def select(self, rows: np.ndarray) -> "Images":
        """Some of the images, in the order of `rows`; the pixels are shared."""
        starts = np.array(self._starts, "int64")  # type: ignore[attr-defined]
        return Images(self.pixels, self.shapes[rows], starts[rows])


@dataclass(frozen=True)
class Items:
    """N items: images, or the rows of tables."""

    names: np.ndarray
    """(N,) strings: the file's path, FILE:ROW for a table."""
    columns: dict[str, np.ndarray]
    """A table's columns, or what is known of images: (N,) float64 or strings; NaN or "" where a
    value is missing."""
    images: Images | None = None
    own: np.ndarray | None = None
    """(N,) strings, train, validation or test: the own split of an `.npz`."""

    def __len__(self) -> int:
        """The number of items."""
        return len(self.names)

    def select(self, rows: np.ndarray) -> "Items":
        """Some of the items, in the order of `rows`."""
        return Items(
            self.names[rows],
            {name: column[rows] for name, column in self.columns.items()},
            self.images.select(rows) if self.images else None,
            self.own[rows] if self.own is not None else None,
        )


def describe_sizes(items: Items, most: int = 9) -> list[str]:
    """How many images there are of each size, the smallest sizes first; none for a table."""
    if items.images is None:
        return []
    shapes, counts = np.unique(items.images.shapes, axis=0, return_counts=True)
    each = zip(shapes.tolist()[:most], counts.tolist(), strict=False)
    sizes = [f"{n} of {width}x{height}x{channels}" for (height, width, channels), n in each]
    return sizes + ([f"and {len(shapes) - most} more sizes"] if len(shapes) > most else [])


def save_items(folder: Path, items: Items) -> None:
    """Write items into a folder, beside the pixels that are there."""
    save_array(folder / "names.npy", items.names)
    for number, column in enumerate(items.columns.values()):
        save_array(folder / f"column_{number}.npy", column)
    if items.own is not None:
        save_array(folder / "own.npy", items.own)
    if items.images:
        save_array(folder / "shapes.npy", items.images.shapes)
    write_json(folder / "about.json", {"columns": list(items.columns)})


def load_items(folder: Path) -> Items:
    """What `save_items` wrote; pixels and columns are memory maps. Raises InputError."""
    about = read_json(folder / "about.json")
    shapes, own = folder / "shapes.npy", folder / "own.npy"
    images = None
    if shapes.exists():
        images = Images(load_array(folder / "pixels.npy"), load_array(shapes))
    return Items(
        names=load_array(folder / "names.npy"),
        columns={
            name: load_array(folder / f"column_{number}.npy")
            for number, name in enumerate(about["columns"])
        },
        images=images,
        own=load_array(own) if own.exists() else None,
    )
