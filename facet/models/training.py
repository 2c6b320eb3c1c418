"""Train one network epoch by epoch."""

import math
from typing import Any

import numpy as np

from facet.base.config import Experiment
from facet.base.prepared import StoredData
from facet.base.terminal import silence_native_output
from facet.errors import InputError

PREDICT_BATCH, PREDICT_NUMBERS = 256, 1 << 20  # items at once, and numbers in them


def predict_batch(shape: tuple[int, ...]) -> int:
    """How many items of a shape are predicted at once: 256, a smaller power of 2 if they are large.

    A function of the shape alone, since it may show in the last bit of a prediction.
    """
    fitting = max(PREDICT_NUMBERS // math.prod(shape), 1)
    return min(PREDICT_BATCH, 1 << fitting.bit_length() - 1)


def item_weights(y: np.ndarray, classes: int, how: str) -> np.ndarray:
    """A weight for each item, (N,) float32: 1, or inverse to its class's share, 1 on average."""
    if how == "none":
        return np.ones(len(y), "float32")
    counts = np.bincount(y, minlength=classes).clip(1)
    present = (np.bincount(y, minlength=classes) > 0).sum()
    return (len(y) / (present * counts))[y].astype("float32")


def shuffled_order(n: int, seed: int, epoch: int) -> np.ndarray:
    """The order of items in an epoch: a function of seed and epoch alone, (n,) int64."""
    return np.random.default_rng([seed, epoch]).permutation(n)


def cross_entropy(p: np.ndarray, y: np.ndarray) -> float:
    """Mean cross-entropy in nats of labels `y` (n,) under probabilities `p` (n, classes)."""
    return float(-np.log(p[np.arange(len(y)), y].astype(float).clip(1e-7)).mean())


class Training:
    """A training that goes epoch by epoch and can be interrupted and resumed between any two."""

    def __init__(self, spec: Experiment, data: StoredData, seed: int) -> None:
        import tensorflow as tf

        from facet.models import network

        with silence_native_output():
            tf.config.list_physical_devices()
        self.spec, self.data, self.seed = spec, data, seed
        self.heads = spec.heads or data.about["heads"]
        self.classes = {h: len(data.classes[h]) for h in self.heads}
        self.network = network
        self.model: Any = None
        self.history: list[dict[str, float]] = []
        self.build()

    def build(self) -> None:
        """Make the network, its optimiser and the graphs of an epoch and of a prediction."""
        import keras
        import tensorflow as tf

        shape = self.data.splits["train"].X.shape[1:]
        self.model = self.network.build_network(self.spec, shape, self.classes, self.seed)
        self.logits = self.network.make_logits_model(self.model)
        self.optimizer = keras.optimizers.Adam(self.spec.learning_rate)
        self.optimizer.build(self.model.trainable_variables)
        given = [tf.TensorSpec([None], tf.int64), tf.TensorSpec([2], tf.float32)]
        self._epoch = tf.function(self._steps, input_signature=given, autograph=False)
        self.trace_predictions()

    def trace_predictions(self) -> None:
        """Make the graph by which `predict` asks the model."""
        import tensorflow as tf

        shape = self.data.splits["train"].X.shape[1:]
        self._predict = tf.function(
            lambda x: self.model(x, training=False),
            input_signature=[tf.TensorSpec((None, *shape), tf.float32)],
            autograph=False,
        )

    def _steps(self, order: Any, rates: Any) -> Any:
        """One pass over the training items in `order`, (n,) int64.

        `rates` are the learning rate of the first step and how much lower it is after an item.
        Returns the mean loss and each head's accuracy on the batches as they were trained. As one
        graph for the whole epoch: Keras's train_on_batch took 1.3 times the processor time for
        faces_shallow, and twice as long to trace.
        """
        import tensorflow as tf

        train, batch = self.data.splits["train"], self.spec.batch
        weights = {
            h: item_weights(train.y[h], n, self.spec.class_weights) for h, n in self.classes.items()
        }

        def read_batch(rows: np.ndarray) -> list[np.ndarray]:
            """A batch from the memory map: the graph holds no data."""
            labels = [train.y[h][rows] for h in self.heads]
            return [train.scale(rows), *labels, *(weights[h][rows] for h in self.heads)]

        heads = len(self.heads)
        kinds = [tf.float32, *[tf.int64] * heads, *[tf.float32] * heads]

        def step(start: Any, total: Any, right: Any) -> Any:
            rows = order[start : start + batch]
            x, *targets = tf.numpy_function(read_batch, [rows], kinds)
            x.set_shape((None, *train.X.shape[1:]))
            y = dict(zip(self.heads, targets[:heads], strict=True))
            w = dict(zip(self.heads, targets[heads:], strict=True))
            with tf.GradientTape() as tape:
                logits = self.logits(x, training=True)
                losses, hits = [], []
                for head, classes in self.classes.items():
                    item_loss, hit = self.network.loss_and_correct(
                        logits[head], tf.reshape(y[head], [-1]), classes
                    )
                    losses.append(tf.reduce_mean(item_loss * tf.reshape(w[head], [-1])))
                    hits.append(tf.reduce_sum(hit))
                loss = tf.add_n(losses)
            self.optimizer.learning_rate = rates[0] - rates[1] * tf.cast(start, tf.float32)
            variables = self.model.trainable_variables
            self.optimizer.apply(tape.gradient(loss, variables), variables)
            return start + batch, total + loss * tf.cast(tf.size(rows), "float32"), right + hits

        _, total, right = tf.while_loop(
            lambda start, *_: start < tf.size(order),
            step,
            (0, tf.zeros(()), tf.zeros(len(self.heads))),
            parallel_iterations=1,
        )
        n = tf.cast(tf.size(order), tf.float32)
        return total / n, right / n

    def train_epoch(self, number: int) -> dict[str, float]:
        """Train an epoch, counted from 0: its learning rate, mean loss, each head's accuracy.

        Order, dropout masks and learning rate are functions of seed and epoch, so that a resumed
        training equals an undisturbed one.
        """
        rate, last = self.network.learning_rates(self.spec, number)
        for layer in self.model.layers:
            if hasattr(layer, "seed_generator"):
                draw = self.network.derive_seed(self.seed, layer.name, number)
                layer.seed_generator.state.assign([draw, 0])
        order = shuffled_order(len(self.data.splits["train"]), self.seed, number)
        rates = np.array([rate, (rate - last) / len(order)], "float32")
        mean, accuracy = self._epoch(order, rates)
        accuracies = {f"{h}_accuracy": float(a) for h, a in zip(self.heads, accuracy, strict=True)}
        return {"learning_rate": rate, "loss": float(mean), **accuracies}

    def epoch(self) -> dict[str, float]:
        """Train one more epoch; returns and remembers its row of the history.

        Raises InputError on a loss that is not finite.
        """
        number = len(self.history)
        row = {"epoch": number + 1, **self.train_epoch(number)}
        if not math.isfinite(row["loss"]):
            raise InputError(
                f"non-finite loss ({row['loss']}) in epoch {number + 1}; "
                "lower learning_rate or look for extreme inputs"
            )
        validation = self.data.splits["validation"]
        if len(validation):
            held, truth = self.predict("validation"), validation.y
            row["val_loss"] = sum(cross_entropy(held[h], truth[h]) for h in self.heads)
            row |= {
                f"val_{h}_accuracy": float((held[h].argmax(1) == truth[h]).mean())
                for h in self.heads
            }
        self.history.append(row)
        return row

    def predict(self, split: str) -> dict[str, np.ndarray]:
        """Each head's class probabilities in inference mode, N x classes float32, for a split's
        untouched items.
        """
        items = self.data.splits[split]
        rows, many = items.originals, predict_batch(items.X.shape[1:])
        batches = [
            self._predict(items.scale(rows[i : i + many])) for i in range(0, len(rows), many)
        ]
        out = {}
        for head, classes in self.classes.items():
            p = np.concatenate(
                [np.zeros((0, 1 if classes == 2 else classes)), *(b[head].numpy() for b in batches)]
            )
            out[head] = (np.hstack([1 - p, p]) if classes == 2 else p).astype("float32")
        return out

    def variables(self) -> list[Any]:
        """All that a training step changes: the model's variables, then the optimiser's."""
        return [*self.model.variables, *self.optimizer.variables]

    def summary(self) -> str:
        """The epochs and the last accuracies in words."""
        return f"{self.spec.epochs} epochs; {self.describe_accuracy()}"

    def describe_accuracy(self) -> str:
        """The last accuracies in words, of validation where there is any."""
        last = self.history[-1]
        accuracies = ", ".join(
            f"{h} {last.get(f'val_{h}_accuracy', last[f'{h}_accuracy']):.2f}" for h in self.heads
        )
        split = "validation" if "val_loss" in last else "training"
        return f"{split} accuracy {accuracies}"
