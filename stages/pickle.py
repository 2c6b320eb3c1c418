"""Decode a data set's raw files once, into plain arrays."""

from pathlib import Path

from facet.base.names import PICKLED, RAW
from facet.base.storage import atomic_write
from facet.datasets.decode import decode_items
from facet.datasets.items import describe_sizes, save_items
from facet.launch import run_stage


def main(dataset: str) -> None:
    """Decode data/DATASET/raw into data/DATASET/pickled."""
    with atomic_write(PICKLED.format(dataset)) as folder:
        folder.mkdir()
        items = decode_items(Path(RAW.format(dataset)), folder / "pixels.npy")
        save_items(folder, items)
    print(f"{dataset}: {', '.join([f'{len(items)} items', *describe_sizes(items)])}")


if __name__ == "__main__":
    run_stage(main)
