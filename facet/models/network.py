"""Build the networks that params.yaml describes. Pure: a description in, a Keras model out.

Of the operations in here, none may be approximate: `rsqrt` and `reciprocal`, which each maker of
processors rounds its own way, and what hides them, the gradients of `log` and `log1p`.
"""

import hashlib
import math
from typing import Any

import keras

from facet.base.config import Experiment, Layer


def build_network(
    spec: Experiment, shape: tuple[int, ...], heads: dict[str, int], seed: int
) -> keras.Model:
    """An uncompiled model from `shape` (without the batch) to a dict of head outputs.

    `heads` maps each head to its number of classes: two give one sigmoid unit (the probability of
    the second class), more a softmax. Weights are drawn from `seed` and the layer's name alone.
    Batch normalisation is `ExactBatchNormalization`; `make_plain` exchanges it for Keras's.
    """
    inputs = keras.Input(shape, name="input")
    trunk = stack_layers(inputs, spec.network.trunk, "trunk", seed)
    outputs = {}
    for head, classes in heads.items():
        layers = spec.network.heads.get(head, spec.network.heads.get("each", []))
        x = stack_layers(trunk, layers, head, seed)
        if len(x.shape) > 2:
            x = keras.layers.Flatten(name=f"{head}_flatten")(x)
        units, activation = (1, "sigmoid") if classes == 2 else (classes, "softmax")
        logits = dense_layer(units, f"{head}_logits", seed)(x)
        outputs[head] = keras.layers.Activation(activation, name=head)(logits)
    return keras.Model(inputs, outputs, name="facet")


def make_logits_model(model: keras.Model) -> keras.Model:
    """The same layers up to each head's logits: a dict of (N, 1) or (N, classes) float32."""
    heads = {head: model.get_layer(f"{head}_logits").output for head in model.output}
    return keras.Model(model.inputs[0], heads, name=model.name)


class ExactBatchNormalization(keras.layers.BatchNormalization):  # type: ignore[misc]
    """Keras's batch normalisation over the last axis, the same to the byte on each processor.

    Keras's own takes the approximate reciprocal root (`rsqrt`); this divides by the root. Same
    weights, same configuration.
    """

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Normalise `inputs`, (N, ..., channels) float32, by the batch or by moving averages."""
        ops = keras.ops
        if training:
            mean, variance = ops.moments(inputs, axes=list(range(len(inputs.shape) - 1)))
            for average, seen in ((self.moving_mean, mean), (self.moving_variance, variance)):
                average.assign(average * self.momentum + seen * (1.0 - self.momentum))
        else:
            mean, variance = self.moving_mean, self.moving_variance
        scale = self.gamma / ops.sqrt(variance + self.epsilon)
        return inputs * scale + (self.beta - mean * scale)


def make_plain(model: keras.Model) -> keras.Model:
    """`model` of Keras's own layers alone: what is saved loads without this project."""
    return exchange_layers(model, ExactBatchNormalization, keras.layers.BatchNormalization)


def make_exact(model: keras.Model) -> keras.Model:
    """A plain model as `build_network` makes it, with the same weights."""
    return exchange_layers(model, keras.layers.BatchNormalization, ExactBatchNormalization)


def exchange_layers(
    model: keras.Model, old: type[keras.layers.Layer], new: type[keras.layers.Layer]
) -> keras.Model:
    """A copy of `model` whose layers of the class `old` are of `new`; itself if it has none."""
    if not any(type(layer) is old for layer in model.layers):
        return model

    def copy(layer: keras.layers.Layer) -> keras.layers.Layer:
        kind = new if type(layer) is old else type(layer)
        return kind.from_config(layer.get_config())

    copied = keras.models.clone_model(model, clone_function=copy)
    copied.set_weights(model.get_weights())
    return copied


def stack_layers(x: Any, layers: list[Layer], prefix: str, seed: int) -> Any:
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
                    kernel_initializer=keras.initializers.GlorotUniform(derive_seed(seed, name)),
                )(x)
            else:
                x = dense_layer(layer.dense or 0, name, seed)(flatten_if_needed(x, name))
            if layer.batchnorm:
                # Keras's 0.99 needs hundreds of steps to forget what it started from, more than a
                # small data set's training has: digits_conv answered at 0.2 on 1,100 digits.
                x = ExactBatchNormalization(momentum=0.9, name=f"{name}_norm")(x)
            if layer.pool > 1:  # before ReLU: the same values from a quarter of the work
                x = keras.layers.MaxPooling2D(layer.pool, name=f"{name}_pool")(x)
            x = keras.layers.ReLU(name=f"{name}_relu")(x)
        elif layer.dropout is not None:
            x = keras.layers.Dropout(layer.dropout, seed=derive_seed(seed, name), name=name)(x)
        elif layer.flatten:
            x = keras.layers.Flatten(name=name)(x)
        else:
            x = keras.layers.GlobalAveragePooling2D(name=name)(x)
    return x


def flatten_if_needed(x: Any, name: str) -> Any:
    """`x` with one axis beside the batch's."""
    return keras.layers.Flatten(name=f"{name}_flatten")(x) if len(x.shape) > 2 else x


def dense_layer(units: int, name: str, seed: int, **options: Any) -> keras.layers.Dense:
    """A dense layer whose weights are drawn from `seed` and its name."""
    start = keras.initializers.GlorotUniform(derive_seed(seed, name))
    return keras.layers.Dense(units, name=name, kernel_initializer=start, **options)


def derive_seed(seed: int, *parts: object) -> int:
    """A 31-bit seed of its own for each place that draws."""
    text = "/".join(map(str, (seed, *parts)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little") >> 1


def loss_and_correct(logits: Any, y: Any, classes: int) -> tuple[Any, Any]:
    """Cross-entropy in nats and whether it is right (0 or 1) of each item, both (n,) float32.

    `logits` are a head's, n x 1 for two classes or n x classes; `y` (n,) int64. For two classes as
    softplus(z) - y z: the usual form's gradient holds that of log1p, which is approximate.
    """
    ops = keras.ops
    if classes == 2:
        z, truth = logits[:, 0], ops.cast(y, "float32")
        return ops.softplus(z) - truth * z, ops.cast(ops.equal(z > 0, y > 0), "float32")
    loss = keras.losses.sparse_categorical_crossentropy(y, logits, from_logits=True)
    return loss, ops.cast(ops.equal(ops.argmax(logits, -1), y), "float32")


def learning_rates(spec: Experiment, epoch: int) -> tuple[float, float]:
    """The learning rate where an epoch, counted from 0, begins, and where it ends.

    Constant; `cosine`, half a cosine down to 0 epoch by epoch; `linear`, a straight line down to 0
    step by step.
    """
    whole, epochs = spec.learning_rate, spec.epochs
    if spec.schedule == "linear":
        return whole * (1 - epoch / epochs), whole * (1 - (epoch + 1) / epochs)
    if spec.schedule == "cosine":
        whole *= (1 + math.cos(math.pi * epoch / epochs)) / 2
    return whole, whole


def count_costs(model: keras.Model) -> dict[str, int]:
    """Trainable parameters, and an item's multiply-adds in convolutions and dense layers."""
    multiply_adds = 0
    for layer in model.layers:
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense)):
            places = math.prod(layer.output.shape[1:-1])  # 1 for a dense layer
            multiply_adds += places * math.prod(layer.kernel.shape)
    trainable = sum(math.prod(w.shape) for w in model.trainable_weights)
    return {"parameters": int(trainable), "multiply_adds": int(multiply_adds)}
