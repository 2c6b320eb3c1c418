"""Decode a data set's raw files once, into plain arrays."""

from facet.base.config import get_params
from facet.base.names import PICKLED, RAW
from facet.base.storage import atomic_write
from facet.base.unchanged import read_input
from facet.datasets.decode import decode_items, describe_unread, list_raw_files
from facet.datasets.items import describe_sizes, save_items
from facet.errors import InputError
from facet.launch import run_stage


def main(dataset: str) -> None:
    """Decode data/DATASET/raw into data/DATASET/pickled."""
    (read,) = get_params(f"datasets.{dataset}.read")
    raw = read_input(RAW.format(dataset))
    try:
        with atomic_write(PICKLED.format(dataset)) as folder:
            folder.mkdir()
            items = decode_items(raw, folder / "pixels.npy", read)
            save_items(folder, items)
    except InputError as e:
        raise InputError(f"{dataset}: {e}") from None
    if unread := describe_unread(list_raw_files(raw), read):
        print(f"{dataset}: note: {unread}")
    print(f"{dataset}: {', '.join([f'{len(items)} items', *describe_sizes(items)])}")


if __name__ == "__main__":
    run_stage(main)
