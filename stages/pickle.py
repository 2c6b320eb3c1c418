"""Decode a data set's raw files once, into one file of plain arrays."""

from pathlib import Path

from facet.datasets.decode import decode_items
from facet.names import PICKLED, RAW
from facet.process import run_stage
from facet.storage import save_pickle


def main(dataset: str) -> None:
    """Decode data/DATASET/raw into data/DATASET/pickled.pkl."""
    items = decode_items(Path(RAW.format(dataset)))
    save_pickle(PICKLED.format(dataset), items)
    shapes = ", ".join(f"{len(v)} of {k}" for k, v in items.get("pixels", {}).items())
    print(f"{dataset}: {len(items['names'])} items" + (f", {shapes}" if shapes else ""))


if __name__ == "__main__":
    run_stage(main)
