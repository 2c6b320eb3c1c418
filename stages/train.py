"""Train one run, EXPERIMENT-SEED, and save the model, its history and its predictions."""

import contextlib
import csv
import gc
import hashlib
import json
import math
import os
import re
import resource
import shutil
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from stages import manifest, tracking
from stages.common import (
    AUGMENTED,
    COSTS,
    PARTS,
    RUN,
    Refused,
    digest,
    dump,
    enter,
    load,
    save,
    split_of,
    writing,
)
from stages.parameters import Experiment, experiment, parse_run
from stages.processor import note_other_bytes

if TYPE_CHECKING:
    import keras

CHECKPOINTS = Path(".ckpt")
LOCK = Path("requirements.lock")
AT_ONCE = 256  # items predicted at once; fixed, since it may show in the last bit


def sources() -> list[Path]:
    """The project's modules that this process has imported, in order of name."""
    here = Path(__file__).parent
    modules = [m for n, m in sys.modules.items() if n.startswith("stages") or n == "__main__"]
    files = {Path(str(getattr(m, "__file__", ""))) for m in modules}
    return sorted(f for f in files if f.parent == here)


def identity(run: str, spec: Experiment, data: Path) -> str:
    """A hash of all that the run's result depends on: parameters, data, code, packages."""
    files = {p.name: digest(p) for p in [data, LOCK, *sources()]}
    told = {"run": run, "spec": spec.model_dump(), "files": files}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keep what native code says about absent GPU drivers from the terminal."""
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def tensorflow() -> Any:
    """Import TensorFlow, with no more than training needs."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Keras looks for these to wrap or draw with. Training needs none of them, and without them
    # the import takes 5.0 s of processor time instead of 8.5 s.
    spared = [m for m in ("matplotlib", "pandas", "scipy", "sklearn") if m not in sys.modules]
    sys.modules.update(dict.fromkeys(spared))  # type: ignore[arg-type]
    gc.disable()  # nothing of 2,900 modules is garbage: looking takes a tenth of the import
    with silence():
        import tensorflow as tf
    gc.enable()
    for module in spared:
        del sys.modules[module]
    return tf


def configure_tensorflow(threads: int) -> None:
    """Have TensorFlow repeat itself: a fixed number of threads, ordered sums."""
    tf = tensorflow()
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.experimental.enable_op_determinism()
    # Rewriting the graph takes 0.3 to 1.2 s of every run, and the epochs are no faster for it.
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


def visible_gpus() -> list[str]:
    """The GPUs that TensorFlow uses: their types, [] for none."""
    import tensorflow as tf

    with silence():
        found = tf.config.list_physical_devices("GPU")
        details = [tf.config.experimental.get_device_details(gpu) for gpu in found]
    return [str(d.get("device_name", "GPU")) for d in details]


def weights(y: np.ndarray, classes: int, how: str) -> np.ndarray:
    """A weight for each item, (N,) float32: 1, or inverse to its class's share, 1 on average."""
    if how == "none":
        return np.ones(len(y), "float32")
    counts = np.bincount(y, minlength=classes).clip(1)
    present = (np.bincount(y, minlength=classes) > 0).sum()
    return (len(y) / (present * counts))[y].astype("float32")


def shuffled(n: int, seed: int, epoch: int) -> np.ndarray:
    """The order of items in an epoch: a function of seed and epoch alone, (n,) int64."""
    return np.random.default_rng([seed, epoch]).permutation(n)


def loss(p: np.ndarray, y: np.ndarray) -> float:
    """Mean cross-entropy in nats of labels `y` (n,) under probabilities `p` (n, classes)."""
    return float(-np.log(p[np.arange(len(y)), y].astype(float).clip(1e-7)).mean())


class Training:
    """A training that goes epoch by epoch and can be put down and taken up between any two."""

    def __init__(self, spec: Experiment, content: dict[str, Any], seed: int) -> None:
        import keras
        import tensorflow as tf

        from stages import network

        with silence():
            tf.config.list_physical_devices()
        self.spec, self.content, self.seed = spec, content, seed
        self.heads = spec.heads or content["about"]["heads"]
        self.classes = {h: len(content[f"classes_{h}"]) for h in self.heads}
        self.network = network
        self.model = network.build(spec, content["X_train"].shape[1:], self.classes, seed)
        self.logits = network.logits_model(self.model)
        self.optimizer = keras.optimizers.Adam(spec.learning_rate)
        self.optimizer.build(self.model.trainable_variables)
        self.history: list[dict[str, float]] = []
        shape = (None, *content["X_train"].shape[1:])
        order = tf.TensorSpec([None], tf.int64)
        self._epoch = tf.function(self._steps, input_signature=[order], autograph=False)
        self._predict = tf.function(
            lambda x: self.model(x, training=False),
            input_signature=[tf.TensorSpec(shape, tf.float32)],
            autograph=False,
        )

    def _steps(self, order: Any) -> Any:
        """One pass over the training items in `order`, (n,) int64.

        Returns the mean loss and each head's accuracy on the batches as they were trained. As one
        graph for the whole epoch: Keras's train_on_batch took 1.3 times the processor time for
        faces_shallow, and twice as long to trace.
        """
        import tensorflow as tf

        X, batch = tf.constant(self.content["X_train"]), self.spec.batch
        y = {h: tf.constant(self.content[f"y_train_{h}"]) for h in self.heads}
        w = {
            h: tf.constant(weights(self.content[f"y_train_{h}"], n, self.spec.class_weights))
            for h, n in self.classes.items()
        }

        def step(start: Any, total: Any, right: Any) -> Any:
            rows = order[start : start + batch]
            with tf.GradientTape() as tape:
                logits = self.logits(tf.gather(X, rows), training=True)
                losses, hits = [], []
                for head, classes in self.classes.items():
                    item_loss, hit = self.network.loss_and_correct(
                        logits[head], tf.gather(y[head], rows), classes
                    )
                    losses.append(tf.reduce_mean(item_loss * tf.gather(w[head], rows)))
                    hits.append(tf.reduce_sum(hit))
                loss = tf.add_n(losses)
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

    def epoch(self) -> dict[str, float]:
        """Train one more epoch; returns and remembers its row of the history.

        Order, dropout masks and learning rate are functions of seed and epoch, so that a resumed
        training equals an undisturbed one. Raises Refused on a loss that is not finite.
        """
        number, content = len(self.history), self.content
        rate = self.network.rate(self.spec, number)
        self.optimizer.learning_rate = rate
        for layer in self.model.layers:
            if hasattr(layer, "seed_generator"):
                draw = self.network.derived(self.seed, layer.name, number)
                layer.seed_generator.state.assign([draw, 0])
        mean, accuracy = self._epoch(shuffled(len(content["X_train"]), self.seed, number))
        row = {"epoch": number + 1, "learning_rate": rate, "loss": float(mean)}
        if not math.isfinite(row["loss"]):
            raise Refused(
                f"non-finite loss ({row['loss']}) in epoch {number + 1}; "
                "lower learning_rate or look for extreme inputs"
            )
        row |= {f"{h}_accuracy": float(a) for h, a in zip(self.heads, accuracy, strict=True)}
        if len(content["X_validation"]):
            held = self.predict("validation")
            truth = {h: content[f"y_validation_{h}"] for h in self.heads}
            row["val_loss"] = sum(loss(held[h], truth[h]) for h in self.heads)
            row |= {
                f"val_{h}_accuracy": float((held[h].argmax(1) == truth[h]).mean())
                for h in self.heads
            }
        self.history.append(row)
        return row

    def predict(self, part: str) -> dict[str, np.ndarray]:
        """Each head's class probabilities in inference mode, N x classes float32, for a part's
        untouched items.
        """
        X = self.content[f"X_{part}"]
        if part == "train":
            X = X[self.content["copy_train"] == 0]
        batches = [self._predict(X[i : i + AT_ONCE]) for i in range(0, len(X), AT_ONCE)]
        out = {}
        for head, classes in self.classes.items():
            p = np.concatenate(
                [np.zeros((0, 1 if classes == 2 else classes)), *(b[head].numpy() for b in batches)]
            )
            out[head] = (np.hstack([1 - p, p]) if classes == 2 else p).astype("float32")
        return out

    def variables(self) -> list[Any]:
        return [*self.model.variables, *self.optimizer.variables]

    def put_down(self, path: Path) -> None:
        """Write all that the next epoch depends on."""
        values = {f"{i:04d}": np.asarray(v) for i, v in enumerate(self.variables())}
        # As pairs: a saved dict comes back in the order of its keys, and that of columns is told.
        history = [list(row.items()) for row in self.history]
        save(path, {"history": history, "variables": values})

    def take_up(self, path: Path) -> bool:
        """Go on from what `put_down` wrote; False where there is nothing whole to go on from."""
        try:
            state = load(path)
            for i, v in enumerate(self.variables()):
                v.assign(state["variables"][f"{i:04d}"])
            self.history = [dict(row) for row in state["history"]]
        except (Refused, KeyError, ValueError):
            return False
        return True


def save_model(model: "keras.Model", path: Path) -> None:
    """Write a .keras file whose bytes depend on the model alone: no dates, no addresses."""
    aside = path.with_name("dated.keras")
    model.save(aside)
    with zipfile.ZipFile(aside) as dated, zipfile.ZipFile(path, "w") as undated:
        for name in sorted(dated.namelist()):
            content = dated.read(name)
            if name == "config.json":  # its shared_object_id are addresses in memory
                found = dict.fromkeys(re.findall(rb'"shared_object_id": (\d+)', content))
                for number, address in enumerate(found):
                    content = content.replace(b": " + address, b": %d" % number)
            if name == "metadata.json":
                facts = json.loads(content) | {"date_saved": ""}
                content = json.dumps(facts, sort_keys=True).encode()
            undated.writestr(zipfile.ZipInfo(name), content)
    aside.unlink()


def write_history(history: list[dict[str, float]], path: Path) -> None:
    """One row an epoch, fractions and nats with seven digits."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(history[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: f"{v:.7g}" for k, v in row.items()} for row in history)


def main(run: str) -> None:
    """Train RUN, EXPERIMENT-SEED, into data/runs/RUN."""
    started = time.monotonic()
    name, seed = parse_run(run)
    data = Path(AUGMENTED.format(name))
    content = split_of(load(data), seed)
    spec = experiment(content["about"]["declared"], name)
    if tracking.configure() != "disabled":
        tracking.library()  # takes twice as long once TensorFlow's modules are there
    if note := note_other_bytes():
        print(note)
    configure_tensorflow(spec.threads)
    from stages import network  # noqa: F401  the identity counts the module's code in

    id = identity(run, spec, data)
    checkpoint = CHECKPOINTS / id / "state.pkl"
    dataset = content["about"]["dataset"]
    origin = manifest.provenance(run, dataset, id, data)
    origin["processor"] = manifest.describe_processor(visible_gpus())
    tracked = tracking.Run(
        f"{run}-{id[:8]}",
        checkpoint.exists(),
        config=content["about"]["declared"] | {"provenance": origin},
        **tracking.described(run, dataset),
    )
    try:
        costs = train(run, spec, content, seed, id, checkpoint, tracked)
    except BaseException:
        tracked.finish(failed=True)
        raise
    tracked.finish()
    costs |= {"wall_seconds": time.monotonic() - started, "wandb_id": tracked.id}
    dump(COSTS.format(run), costs)
    manifest.write(run, origin, [data, LOCK, *sources()], tracked.id)
    shutil.rmtree(checkpoint.parent, ignore_errors=True)


def train(
    run: str,
    spec: Experiment,
    content: dict[str, Any],
    seed: int,
    id: str,
    checkpoint: Path,
    tracked: tracking.Run,
) -> dict[str, Any]:
    """Train to the last epoch and write data/runs/RUN; returns what it cost on this machine."""
    training = Training(spec, content, seed)
    resumed = training.take_up(checkpoint)
    if resumed:
        print(f"{run}: going on after epoch {len(training.history)}")
    tracked.axis("epoch")
    n, seconds = len(content["X_train"]), []
    bar = tqdm(range(spec.epochs), run, unit="epoch", delay=1, initial=len(training.history))
    while len(training.history) < spec.epochs:
        begun = time.monotonic()
        row = training.epoch()
        training.put_down(checkpoint)
        seconds.append(time.monotonic() - begun)
        tracked.log(
            tracking.epoch(row) | {"items_per_second": n / seconds[-1]},
            step=len(training.history),
        )
        bar.update()
    bar.close()
    heads = training.heads
    with writing(RUN.format(run)) as folder:
        folder.mkdir()
        save_model(training.network.make_plain(training.model), folder / "model.keras")
        write_history(training.history, folder / "history.csv")
        said = {f"{h}_{p}": v for p in PARTS for h, v in training.predict(p).items()}
        truth = {f"{h}_truth": content[f"y_test_{h}"] for h in heads}
        items = {k: content[k] for k in ("names_test", "groups_test")}
        save(folder / "predictions.pkl", said | truth | items)
        about = {
            **content["about"],
            "identity": id,
            "experiment": parse_run(run)[0],
            "seed": seed,
            "epochs": spec.epochs,
            "heads": {h: content[f"classes_{h}"].tolist() for h in heads},
            "wandb": {"id": f"{run}-{id[:8]}"},
            **training.network.cost(training.model),
        }
        dump(folder / "model.json", about)
    last = training.history[-1]
    told = ", ".join(
        f"{h} {last.get(f'val_{h}_accuracy', last[f'{h}_accuracy']):.2f}" for h in heads
    )
    print(
        f"{run}: {spec.epochs} epochs; {'validation' if 'val_loss' in last else 'training'} "
        f"accuracy {told}"
    )
    return {
        "train_seconds": sum(seconds),
        "epochs_timed": len(seconds),
        "resumed": resumed,
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "threads": spec.threads,
    }


if __name__ == "__main__":
    enter(main)
