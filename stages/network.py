"""Build the networks that params.yaml describes. Pure: a description in, a Keras model out."""

import hashlib
import math
from typing import Any

import keras

from stages.parameters import Experiment, Layer


def build(
    spec: Experiment, shape: tuple[int, ...], heads: dict[str, int], seed: int
) -> keras.Model:
    """An uncompiled model from `shape` (without the batch) to a dict of head outputs.

    `heads` maps each head to its number of classes: two give one sigmoid unit (the probability of
    the second class), more a softmax. Weights are drawn from `seed` and the layer's name alone.
    """
    inputs = keras.Input(shape, name="input")
    trunk = stack(inputs, spec.network.trunk, "trunk", seed)
    outputs = {}
    for head, classes in heads.items():
        layers = spec.network.heads.get(head, spec.network.heads.get("each", []))
        x = stack(trunk, layers, head, seed)
        if len(x.shape) > 2:
            x = keras.layers.Flatten(name=f"{head}_flatten")(x)
        units, activation = (1, "sigmoid") if classes == 2 else (classes, "softmax")
        outputs[head] = dense(units, head, seed, activation=activation)(x)
    return keras.Model(inputs, outputs, name="facet")


def stack(x: Any, layers: list[Layer], prefix: str, seed: int) -> Any:
    """`x` through a list of layers."""
    for i, layer in enumerate(layers, 1):
        name = f"{prefix}_{i}"
        if layer.conv or layer.dense:
            if layer.conv:
                x = keras.layers.Conv2D(
                    layer.conv,
                    layer.kernel,
                    padding="same",
                    name=name,
                    kernel_initializer=keras.initializers.GlorotUniform(derived(seed, name)),
                )(x)
            else:
                x = dense(layer.dense or 0, name, seed)(flat(x, name))
            if layer.batchnorm:
                # Keras's 0.99 needs hundreds of steps to forget what it started from, more than a
                # small data set's training has: digits_conv answered at 0.2 on 1,100 digits.
                x = keras.layers.BatchNormalization(momentum=0.9, name=f"{name}_norm")(x)
            if layer.pool > 1:  # before ReLU: the same values from a quarter of the work
                x = keras.layers.MaxPooling2D(layer.pool, name=f"{name}_pool")(x)
            x = keras.layers.ReLU(name=f"{name}_relu")(x)
        elif layer.dropout is not None:
            x = keras.layers.Dropout(layer.dropout, seed=derived(seed, name), name=name)(x)
        elif layer.flatten:
            x = keras.layers.Flatten(name=name)(x)
        else:
            x = keras.layers.GlobalAveragePooling2D(name=name)(x)
    return x


def flat(x: Any, name: str) -> Any:
    return keras.layers.Flatten(name=f"{name}_flatten")(x) if len(x.shape) > 2 else x


def dense(units: int, name: str, seed: int, **options: Any) -> keras.layers.Dense:
    start = keras.initializers.GlorotUniform(derived(seed, name))
    return keras.layers.Dense(units, name=name, kernel_initializer=start, **options)


def derived(seed: int, *parts: object) -> int:
    """A 31-bit seed of its own for each place that draws."""
    text = "/".join(map(str, (seed, *parts)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little") >> 1


def judged(output: Any, y: Any, classes: int) -> tuple[Any, Any]:
    """Cross-entropy in nats and whether it is right (0 or 1) of each item, both (n,) float32.

    `output` is a head's, n x 1 for two classes or n x classes; `y` (n,) int64.
    """
    if classes == 2:
        truth = keras.ops.cast(y, "float32")[:, None]
        return (
            keras.losses.binary_crossentropy(truth, output),
            keras.metrics.binary_accuracy(truth, output),
        )
    return (
        keras.losses.sparse_categorical_crossentropy(y, output),
        keras.metrics.sparse_categorical_accuracy(y, output),
    )


def rate(spec: Experiment, epoch: int) -> float:
    """The learning rate of an epoch, counted from 0: constant, or half a cosine down to 0."""
    if spec.schedule == "constant":
        return spec.learning_rate
    return spec.learning_rate * (1 + math.cos(math.pi * epoch / spec.epochs)) / 2


def cost(model: keras.Model) -> dict[str, int]:
    """Trainable parameters, and an item's multiply-adds in convolutions and dense layers."""
    multiply_adds = 0
    for layer in model.layers:
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense)):
            places = math.prod(layer.output.shape[1:-1])  # 1 for a dense layer
            multiply_adds += places * math.prod(layer.kernel.shape)
    trainable = sum(math.prod(w.shape) for w in model.trainable_weights)
    return {"parameters": int(trainable), "multiply_adds": int(multiply_adds)}
