"""Cut the labels, split the items by group, bring inputs to one size and scale."""

from facet.config import Dataset, get_params
from facet.datasets.normalisation import normalise
from facet.datasets.prepared import save_prepared
from facet.errors import InputError
from facet.names import NORMALISED, PICKLED, SPLITS
from facet.process import run_stage
from facet.storage import load_pickle


def main(dataset: str) -> None:
    """Make data/DATASET/normalised.pkl of data/DATASET/pickled.pkl."""
    at = f"datasets.{dataset}"
    size, read, heads, group, split = get_params(
        *(f"{at}.{k}" for k in ("size", "read", "heads", "group", "split"))
    )
    spec = Dataset.model_construct(size=size, read=read, heads=heads, group=group, split=split)
    try:
        data = normalise(load_pickle(PICKLED.format(dataset)), dataset, spec)
    except InputError as e:
        raise InputError(f"{dataset}: {e}") from None
    save_prepared(NORMALISED.format(dataset), data)
    for one in data:
        counts = ", ".join(f"{len(one.splits[s])} {s}" for s in SPLITS)
        print(f"{dataset}: {counts}, split by {split.by}, seed {one.about['split']['seed']}")


if __name__ == "__main__":
    run_stage(main)
