"""Add randomly changed copies of the training images, each change with its effect on labels."""

from facet.config import get_params, raw_params
from facet.datasets.augmentation import augment
from facet.errors import InputError
from facet.names import AUGMENTED, NORMALISED
from facet.process import run_stage
from facet.storage import load_pickle, save_pickle


def main(experiment: str) -> None:
    """Make data/augmented/EXPERIMENT.pkl from its data set's normalised.pkl."""
    (spec,) = get_params(f"experiments.{experiment}")
    (how,) = get_params(f"datasets.{spec.dataset}.augment")
    how = spec.augment or how
    content = load_pickle(NORMALISED.format(spec.dataset))
    try:
        done = (
            {"splits": [augment(c, how) for c in content["splits"]]}
            if "splits" in content
            else augment(content, how)
        )
    except InputError as e:
        raise InputError(f"{experiment}: {e}") from None
    # What else the experiment asks for goes along, so that train need not read it again: DVC would
    # parse params.yaml for each of its runs.
    declared = raw_params("defaults", f"experiments.{experiment}")
    for one in done.get("splits", [done]):
        one["about"] = one["about"] | {"declared": declared}
    save_pickle(AUGMENTED.format(experiment), done)
    first = done.get("splits", [done])[0]
    n = len(first["X_train"])
    print(f"{experiment}: {n} training items, made of {n // how.copies}")


if __name__ == "__main__":
    run_stage(main)
