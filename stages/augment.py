"""Add randomly changed copies of the training images, each change with its effect on labels."""

from facet.base.config import get_params
from facet.base.names import AUGMENTED, NORMALISED
from facet.base.prepared import load_prepared, save_prepared
from facet.base.unchanged import read_input
from facet.datasets.augmentation import augment
from facet.errors import InputError
from facet.launch import run_stage


def main(experiment: str) -> None:
    """Make data/augmented/EXPERIMENT of data/DATASET/normalised."""
    (dataset,) = get_params(f"experiments.{experiment}.dataset")
    (config,) = get_params(f"datasets.{dataset}.augment")
    how = config.of_experiment(experiment)
    data = load_prepared(read_input(NORMALISED.format(dataset)))
    try:
        augmented = [augment(one, how) for one in data]
        save_prepared(AUGMENTED.format(experiment), augmented)
    except InputError as e:
        raise InputError(f"{experiment}: {e}") from None
    n = len(augmented[0].splits["train"])
    print(f"{experiment}: {n} training items, made of {n // how.copies}")


if __name__ == "__main__":
    run_stage(main)
