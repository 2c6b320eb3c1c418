"""A run's config for W&B: a key for each knob, its value resolved, so that runs compare."""

from typing import Any

from facet.base.config import Layer, Network, check_params, parse_run, read_params


def describe_config(run: str) -> dict[str, Any]:
    """The knobs that made RUN, EXPERIMENT-SEED, from params.yaml with defaults filled in.

    Flat, so that W&B can make columns, groups and filters of each; `augment` alone is a mapping,
    which W&B shows as `augment.copies` and so on. Raises InputError where params.yaml is wrong or
    has no such experiment.
    """
    parameters = check_params(read_params())
    name, seed = parse_run(run)
    experiment = parameters.experiments[name]
    dataset = parameters.datasets[experiment.dataset]
    split, size = dataset.split, dataset.size
    return {
        "experiment": name,
        "seed": seed,
        "split": split.by,
        # Of several splits the seed picks one, as `select_split` does.
        "split_seed": split.seed[seed % len(split.seed)]
        if isinstance(split.seed, list)
        else split.seed,
        "test_share": split.test,
        "validation_share": split.validation,
        "size": "x".join(map(str, size)) if isinstance(size, tuple) else size,
        "augment": dataset.augment.of_experiment(name).model_dump(exclude={"experiments"}),
        **experiment.model_dump(exclude={"network", "heads"}),
        "heads": ", ".join(experiment.heads or dataset.heads),
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
