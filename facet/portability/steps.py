"""Train each kind of layer, loss and weighting for a few steps and print the hashes of the results.

`facet portable` runs `python -m facet.portability.steps` on this processor and on emulated ones.
With --faults it ends with the two faults that this way of comparing has to find; with --data it
trains nothing.
"""

import hashlib
import json
import sys
from dataclasses import replace
from typing import Any

import numpy as np

from facet.base.config import Augment, Experiment, Read
from facet.base.names import MAIN_METRIC, SPLITS
from facet.base.prepared import DataInfo, SplitData, StoredData
from facet.datasets import augmentation, inputs
from facet.evaluation import statistics

EPOCHS, BATCH, ITEMS = 2, 16, 40
IMAGE, TABLE = (30, 32, 1), (11,)
BRANCHES = {"each": [], "many": [{"dense": 12, "batchnorm": True}, {"dropout": 0.2}]}
NETWORKS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "conv, pool, flatten": (
        IMAGE,
        {
            "trunk": [
                {"conv": 32, "pool": 2},
                {"conv": 64, "pool": 2},
                {"conv": 128, "pool": 2},
                {"flatten": True},
                {"dense": 64},
            ]
        },
    ),
    "batchnorm, average": (
        IMAGE,
        {
            "trunk": [
                {"conv": 8, "kernel": 5, "pool": 2, "batchnorm": True},
                {"conv": 16, "batchnorm": True},
                {"average": True},
                {"dropout": 0.3},
            ],
            "heads": BRANCHES,
        },
    ),
    "dense, dropout": (
        IMAGE,
        {
            "trunk": [{"flatten": True}, {"dense": 128}, {"dropout": 0.2}, {"dense": 64}],
            "heads": BRANCHES,
        },
    ),
    "table": (TABLE, {"trunk": [{"dense": 64, "batchnorm": True}, {"dense": 32}]}),
}
FAULTS = ("keras batchnorm", "log1p cross-entropy")


def hash_arrays(*arrays: Any) -> str:
    """The start of the SHA-256 of some arrays' bytes."""
    whole = hashlib.sha256()
    for array in arrays:
        whole.update(np.ascontiguousarray(array).tobytes())
    return whole.hexdigest()[:16]


def make_noise(shape: tuple[int, ...]) -> StoredData:
    """A data set of noise: a head of two classes, one of five."""
    rng = np.random.default_rng(0)
    names = np.arange(ITEMS).astype(str)
    splits = {
        split: SplitData(
            X=(
                rng.integers(0, 256, (ITEMS, *shape), dtype="uint8")
                if len(shape) == 3
                else rng.normal(size=(ITEMS, *shape)).astype("float32")
            ),
            y={"two": rng.integers(0, 2, ITEMS), "many": rng.integers(0, 5, ITEMS)},
            names=names,
            groups=names,
        )
        for split in SPLITS
    }
    about: DataInfo = {
        "dataset": "noise",
        "split": {"by": "random", "seed": 0, "test": 1 / 3, "validation": 1 / 3},
        "input": {},
        "heads": ["two", "many"],
    }
    classes = {"two": np.array(["a", "b"]), "many": np.array(list("abcde"))}
    return StoredData(about, classes, splits)


def train_some(network: dict[str, Any], shape: tuple[int, ...], **changes: Any) -> str:
    """The hash of weights, optimiser state, history and predictions after EPOCHS, or of what an
    experiment with `changes` has in their place.
    """
    from facet.models.kinds import make_training  # with TensorFlow

    spec = Experiment.model_validate(
        {
            "dataset": "noise",
            "epochs": EPOCHS,
            "batch": BATCH,
            "threads": 1,
            "network": network,
            "learning_rate": 0.01,
            "schedule": "cosine",
            "class_weights": "balanced",
            **changes,
        }
    )
    training = make_training(spec, make_noise(shape), seed=0)
    rows = [list(training.epoch().values()) for _ in range(spec.epochs)]
    predictions = training.predict("test")
    return hash_arrays(*map(np.asarray, training.variables()), rows, *predictions.values())


def train_with_fault(fault: str) -> str:
    """The same with Keras's batch normalisation, or with cross-entropy by log1p, put back."""
    import keras
    import tensorflow as tf

    from facet.models import network

    def by_log1p(logits: Any, y: Any, classes: int) -> Any:
        if classes != 2:
            return good(logits, y, classes)
        z, truth = logits[:, 0], tf.cast(y, "float32")
        loss = tf.maximum(z, 0.0) - z * truth + tf.math.log1p(tf.exp(-tf.abs(z)))
        return loss, tf.cast(tf.equal(z > 0, y > 0), "float32")

    good, exact = network.loss_and_correct, network.ExactBatchNormalization
    shape, described = NETWORKS["batchnorm, average" if fault == FAULTS[0] else "table"]
    try:
        if fault == FAULTS[0]:
            network.ExactBatchNormalization = keras.layers.BatchNormalization  # type: ignore[misc]
        else:
            network.loss_and_correct = by_log1p
        return train_some(described, shape)
    finally:
        network.loss_and_correct, network.ExactBatchNormalization = good, exact  # type: ignore[misc]


def hash_preparation() -> dict[str, str]:
    """Hashes of what normalise, augment and evaluate compute."""
    rng = np.random.default_rng(1)
    names = np.array([f"item{i}" for i in range(6)])
    pixels = rng.integers(0, 256, (6, 40, 36, 3), dtype="uint8")
    resized = np.stack([inputs.prepare_image(x, (32, 30), Read(mode="L"), "item") for x in pixels])
    train = SplitData(resized, {}, names, names)
    config = Augment(copies=3, rotate=20, shear=0.1, translate=0.1, zoom=0.1)
    noise = replace(make_noise((1,)), splits={"train": train})
    grown, bent = (
        augmentation.augment(noise, how)
        for how in (config, config.model_copy(update={"elastic": 0.1}))
    )
    y, predicted = rng.integers(0, 4, 400), rng.integers(0, 4, 400)
    groups = rng.integers(0, 60, 400).astype(str)
    a, b = ([rng.integers(0, 4, 400) for _ in range(3)] for _ in range(2))
    compared = statistics.compare_runs(a, b, [y] * 3, [groups] * 3, MAIN_METRIC, 1000)
    return {
        "resize": hash_arrays(resized),
        "augment": hash_arrays(np.asarray(grown.splits["train"].X)),
        "elastic": hash_arrays(np.asarray(bent.splits["train"].X)),
        "statistics": repr(
            (
                statistics.balanced_accuracy(y, predicted, 4, groups),
                statistics.wilson_interval(7, 9),
                compared,
            )
        ),
        "numpy": hash_arrays(
            *(f(rng.uniform(0.1, 9, 5000)) for f in (np.exp, np.log, np.sin, np.cos, np.sqrt)),
            rng.normal(size=(90, 700)) @ rng.normal(size=(700, 80)),
        ),
    }


def main() -> None:
    """Print one JSON object: a hash or text for each thing computed."""
    found = hash_preparation()
    if "--data" not in sys.argv:
        found |= hash_training("--faults" in sys.argv)
    print(json.dumps(found))


def hash_training(faults: bool) -> dict[str, str]:
    """A hash of what each kind of training computes; with `faults` of the planted ones too."""
    from facet.models import runtime

    runtime.configure_tensorflow(1)
    found = {name: train_some(network, shape) for name, (shape, network) in NETWORKS.items()}
    found["logistic regression"] = train_some(
        {"trunk": [{"flatten": True}]}, IMAGE, logistic_regression={}
    )
    # Few levels: an emulator takes long to build the model of many.
    shallow = {"trees": 3, "leaf": 8}
    found["extra trees"] = train_some({"trunk": []}, IMAGE, extra_trees=shallow)
    if faults:
        found |= {name: train_with_fault(name) for name in FAULTS}
    return found


if __name__ == "__main__":
    main()
