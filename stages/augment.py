"""Add randomly changed copies of the training images, each change with its effect on labels."""

from facet.config import get_params
from facet.datasets.augmentation import augment
from facet.errors import InputError
from facet.names import AUGMENTED, NORMALISED
from facet.process import run_stage
from facet.storage import load_pickle, save_pickle


def main(experiment: str) -> None:
    """Make data/augmented/EXPERIMENT.pkl from its data set's normalised.pkl."""
    (dataset,) = get_params(f"experiments.{experiment}.dataset")
    (config,) = get_params(f"datasets.{dataset}.augment")
    how = config.of_experiment(experiment)
    content = load_pickle(NORMALISED.format(dataset))
    try:
        done = (
            {"splits": [augment(c, how) for c in content["splits"]]}
            if "splits" in content
            else augment(content, how)
        )
    except InputError as e:
        raise InputError(f"{experiment}: {e}") from None
    save_pickle(AUGMENTED.format(experiment), done)
    first = done.get("splits", [done])[0]
    n = len(first["X_train"])
    print(f"{experiment}: {n} training items, made of {n // how.copies}")


if __name__ == "__main__":
    run_stage(main)
