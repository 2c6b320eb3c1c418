"""Cut the labels, split the items by group, bring inputs to one size and scale."""

from facet.base.config import Dataset, get_params
from facet.base.names import NORMALISED, PICKLED, SPLITS
from facet.base.prepared import save_prepared
from facet.base.unchanged import read_input
from facet.datasets.items import load_items
from facet.datasets.normalisation import normalise
from facet.errors import InputError
from facet.launch import run_stage


def main(dataset: str) -> None:
    """Make data/DATASET/normalised of data/DATASET/pickled."""
    at = f"datasets.{dataset}"
    size, read, heads, group, split = get_params(
        *(f"{at}.{k}" for k in ("size", "read", "heads", "group", "split"))
    )
    spec = Dataset.model_construct(size=size, read=read, heads=heads, group=group, split=split)
    try:
        data = normalise(load_items(read_input(PICKLED.format(dataset))), dataset, spec)
        save_prepared(NORMALISED.format(dataset), data)
    except InputError as e:
        raise InputError(f"{dataset}: {e}") from None
    for one in data:
        counts = ", ".join(f"{len(one.splits[s])} {s}" for s in SPLITS)
        print(f"{dataset}: {counts}, split by {split.by}, seed {one.about['split']['seed']}")


if __name__ == "__main__":
    run_stage(main)
