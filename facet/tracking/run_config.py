"""A run's config for W&B: a key for each knob, its value resolved, so that runs compare."""

from collections.abc import Mapping
from typing import Any

from facet.base.config import Experiment, Layer, Network, merge, parse_run
from facet.base.prepared import InputInfo, SplitInfo


def describe_config(
    run: str, declared: Mapping[str, Any], split: SplitInfo, how: InputInfo
) -> dict[str, Any]:
    """The knobs that made RUN, EXPERIMENT-SEED, flat.

    `declared` is the part of params.yaml that train declares: the defaults and the experiment;
    `split` and `how` are what the data say of how they were split and prepared.
    """
    name, seed = parse_run(run)
    tree = merge(declared["defaults"], declared["experiments"][name])
    experiment = Experiment.model_validate(tree)
    size = how.get("size")
    return {
        "experiment": name,
        "seed": seed,
        "split": split["by"],
        "split_seed": split["seed"],
        "test_share": split["test"],
        "validation_share": split["validation"],
        "size": "x".join(map(str, size)) if size else None,
        **experiment.model_dump(exclude={"network", "heads"}),
        "network": describe_network(experiment.network),
    }


def describe_network(network: Network) -> str:
    """A network as text: `trunk: conv 32 pool 2, flatten, dense 64; pose: dense 32`."""
    parts = {"trunk": network.trunk, **network.heads}
    texts = [f"{name}: {', '.join(map(describe_layer, ls))}" for name, ls in parts.items() if ls]
    return "; ".join(texts)


def describe_layer(layer: Layer) -> str:
    """A layer as text: its kind, then its settings: `conv 32 pool 2 batchnorm`."""
    given = {k: v for k, v in layer.model_dump().items() if k in layer.model_fields_set and v}
    return " ".join(key if value is True else f"{key} {value}" for key, value in given.items())
