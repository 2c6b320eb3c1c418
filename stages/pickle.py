"""Decode a data set's raw files once, into plain arrays."""

from pathlib import Path

import numpy as np

from facet.datasets.decode import decode_items
from facet.datasets.items import save_items
from facet.names import PICKLED, RAW
from facet.process import run_stage
from facet.storage import atomic_write


def main(dataset: str) -> None:
    """Decode data/DATASET/raw into data/DATASET/pickled."""
    with atomic_write(PICKLED.format(dataset)) as folder:
        folder.mkdir()
        items = decode_items(Path(RAW.format(dataset)), folder / "pixels.npy")
        save_items(folder, items)
    sizes = ""
    if items.images:
        shapes, counts = np.unique(items.images.shapes, axis=0, return_counts=True)
        each = zip(shapes.tolist(), counts.tolist(), strict=True)
        sizes = ", " + ", ".join(f"{n} of {w}x{h}x{c}" for (h, w, c), n in sorted(each)[:9])
    print(f"{dataset}: {len(items)} items{sizes}")


if __name__ == "__main__":
    run_stage(main)
