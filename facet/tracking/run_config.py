"""A run's config for W&B: a key for each knob, its value resolved, so that runs compare.

Values are numbers and texts, for columns, groups, filters and parallel coordinates. `augment` alone
is a mapping: W&B shows a nested key with a dot, `augment.rotate`, looks it up as nested where it
groups and filters, and so would not find a name that has the dot itself.
"""

from collections.abc import Mapping
from typing import Any

from facet.base.config import (
    BASELINES,
    Experiment,
    ExtraTrees,
    Layer,
    LogisticRegression,
    Network,
    merge,
    parse_run,
)
from facet.base.prepared import AugmentInfo


def describe_config(
    run: str, declared: Mapping[str, Any], data: Mapping[str, Any]
) -> dict[str, Any]:
    """The knobs that made RUN, EXPERIMENT-SEED.

    `declared` is the part of params.yaml that train declares: the defaults and the experiment.
    `data` is what the data say of themselves: how they were split, prepared and augmented.
    """
    name, seed = parse_run(run)
    tree = merge(declared["defaults"], declared["experiments"][name])
    experiment = Experiment.model_validate(tree)
    split, size = data["split"], data["input"].get("size")
    return {
        "experiment": name,
        "seed": seed,
        "split": split["by"],
        "split_seed": split["seed"],
        "test_share": split["test"],
        "validation_share": split["validation"],
        "size": "x".join(map(str, size)) if size else None,
        **experiment.model_dump(exclude={"network", "heads", *BASELINES}),
        "network": describe_network(experiment.network),
        "logistic_regression": describe_fit(experiment.logistic_regression),
        "extra_trees": describe_trees(experiment.extra_trees),
        "augment": describe_augmentation(data["augment"]),
    }


def describe_augmentation(how: AugmentInfo) -> dict[str, float | str]:
    """An augmentation in numbers and text: `flip` is its probability, `swap` what it exchanges."""
    flip = how["flip"] or {"probability": 0.0, "swap": {}}
    swaps = [f"{head}: {' and '.join(pair)}" for head, pair in flip["swap"].items()]
    return {
        **{
            k: how[k] for k in ("copies", "seed", "rotate", "shear", "translate", "zoom", "elastic")
        },
        "flip": flip["probability"],
        "swap": "; ".join(swaps),
    }


def describe_fit(how: LogisticRegression | None) -> str:
    """How scikit-learn fits a baseline: `C 1, 200 iterations`; empty for a network."""
    return f"C {how.C:g}, {how.iterations} iterations" if how else ""


def describe_trees(how: ExtraTrees | None) -> str:
    """How scikit-learn grows a baseline: `100 trees, 2 items a leaf`; empty for a network."""
    return f"{how.trees} trees, {how.leaf} items a leaf" if how else ""


def describe_network(network: Network) -> str:
    """A network as text: `trunk: conv 32 pool 2, flatten, dense 64; pose: dense 32`."""
    parts = {"trunk": network.trunk, **network.heads}
    texts = [f"{name}: {', '.join(map(describe_layer, ls))}" for name, ls in parts.items() if ls]
    return "; ".join(texts)


def describe_layer(layer: Layer) -> str:
    """A layer as text: its kind, then its settings: `conv 32 pool 2 batchnorm`."""
    given = {k: v for k, v in layer.model_dump().items() if k in layer.model_fields_set and v}
    return " ".join(key if value is True else f"{key} {value}" for key, value in given.items())
