"""Networks are what params.yaml says; trainings repeat themselves to the byte, also when killed."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import psutil
import pytest

from facet.base.arrays import load_arrays
from facet.base.config import check_params
from facet.base.names import PACKAGES_FILE
from facet.base.prepared import load_prepared
from facet.base.storage import file_sha256
from facet.models import checkpoint
from facet.models.training import item_weights, shuffled_order
from facet.tracking import offline_records
from tests.helpers import (
    ONE_CORE,
    Project,
    run_program,
    small_parameters,
    wait_until,
    wandb_environment,
    words_of,
)


def hashes(project: Project, run: str) -> dict[str, str]:
    return {p.name: file_sha256(p) for p in (project.folder / "data/runs" / run).iterdir()}


def test_a_run_repeats_itself_to_the_byte_on_any_cores_and_after_kill_9(
    made_once: Project, prepared: Project
) -> None:
    first = hashes(made_once, "dropped-0")
    assert set(first) == {"model.keras", "model.json", "history.csv", "predictions.npz"}
    assert not list(made_once.folder.glob(".ckpt/*/state.npz"))
    prepared.run(*ONE_CORE, sys.executable, "-m", "stages.train", "dropped-0")
    assert hashes(prepared, "dropped-0") == first

    words = [sys.executable, "-m", "stages", "train", "dropped-0"]
    process = subprocess.Popen(
        words,
        cwd=prepared.folder,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: list(prepared.folder.glob(".ckpt/*/state.npz")), "a checkpoint")
    for child in psutil.Process(process.pid).children():
        child.kill()
    process.kill()
    process.wait(60)
    assert list(prepared.folder.glob(".ckpt/*/state.npz")), "it ended before it could be killed"
    prepared.run(*words)
    assert hashes(prepared, "dropped-0") == first
    costs = json.loads((prepared.folder / "metrics/costs/dropped-0.json").read_text())
    assert costs["resumed"]
    assert 0 < costs["epochs_timed"] < 40


def test_a_broken_checkpoint_is_passed_over(prepared: Project) -> None:
    prepared.stage("train plain-0")
    first = hashes(prepared, "plain-0")
    about = json.loads((prepared.folder / "data/runs/plain-0/model.json").read_text())
    (folder,) = (prepared.folder / ".ckpt" / i for i in [about["identity"]])
    folder.mkdir(parents=True)
    (folder / "state.npz").write_bytes(b"cut off")
    prepared.stage("train plain-0")
    assert hashes(prepared, "plain-0") == first


class Variable:
    """As much of a Keras variable as a checkpoint sees."""

    def __init__(self, value: np.ndarray) -> None:
        self.value, self.shape = value, value.shape

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.value

    def assign(self, value: np.ndarray) -> None:
        self.value = value


def a_training(*values: Any) -> Any:
    variables = [Variable(np.asarray(v)) for v in values]
    return mock.Mock(history=[], variables=lambda: variables)


def test_a_checkpoint_is_loaded_whole_or_not_at_all(tmp_path: Path) -> None:
    old = a_training([1.0, 2.0], 3)
    old.history = [{"epoch": 1, "loss": 0.1, "accuracy": 1 / 3}]
    checkpoint.save_checkpoint(old, tmp_path / "a")
    again = a_training([0.0, 0.0], 0)
    assert checkpoint.load_checkpoint(again, tmp_path / "a")
    assert again.history == old.history
    assert list(again.history[0]) == ["epoch", "loss", "accuracy"]
    assert [np.asarray(v).tolist() for v in again.variables()] == [[1.0, 2.0], 3]
    for other in (a_training([0.0, 0.0], [0, 0]), a_training([0.0, 0.0], 0, 0)):
        assert not checkpoint.load_checkpoint(other, tmp_path / "a")
        assert not other.history
        assert not any(np.asarray(v).any() for v in other.variables())


def test_a_fingerprint_is_of_all_that_a_training_depends_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names the checkpoint: a training never goes on from one of other data or code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checkpoint, "ROOT", tmp_path)
    data, spec = Path("plain"), check_params(small_parameters("embedded")).experiments["plain"]
    files = [data / "X_train.npy", PACKAGES_FILE, *map(Path, checkpoint.CODE)]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(str(file))

    def fingerprint(run: str = "plain-0", **changes: Any) -> str:
        return checkpoint.run_fingerprint(run, spec.model_copy(update=changes), data)

    first = fingerprint()
    others = [fingerprint("plain-1"), fingerprint(batch=17), fingerprint(epochs=3)]
    for file in files:
        file.write_text("changed")
        others.append(fingerprint())
        file.write_text(str(file))
    assert fingerprint() == first
    assert len({first, *others}) == 1 + len(others)


def test_the_seed_changes_the_run_and_the_history_is_whole(prepared: Project) -> None:
    prepared.parameters["seeds"] = [0, 1]
    prepared.write()
    prepared.stage("train plain-0")
    prepared.stage("train plain-1")
    a, b = hashes(prepared, "plain-0"), hashes(prepared, "plain-1")
    assert all(a[k] != b[k] for k in a)
    with (prepared.folder / "data/runs/plain-0/history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [r["epoch"] for r in rows] == ["1", "2"]
    assert set(rows[0]) == {
        "epoch",
        "learning_rate",
        "loss",
        "pose_accuracy",
        "eyes_accuracy",
        "val_loss",
        "val_pose_accuracy",
        "val_eyes_accuracy",
    }


def test_a_model_depends_on_its_training_part_alone(prepared: Project) -> None:
    """Other validation and test items, other labels of theirs: the same weights, other curves."""
    folder, made = prepared.folder / "data/augmented/plain", []
    for other in (False, True):
        for split in ("validation", "test") if other else ():
            np.save(folder / f"X_{split}.npy", 255 - np.load(folder / f"X_{split}.npy"))
            for head in ("pose", "eyes"):
                file = folder / f"y_{split}_{head}.npy"
                np.save(file, np.load(file)[::-1])
        prepared.stage("train plain-0")
        with (prepared.folder / "data/runs/plain-0/history.csv").open() as file:
            rows = list(csv.DictReader(file))
        learnt, held = (
            [[v for k, v in row.items() if k.startswith("val_") == of_validation] for row in rows]
            for of_validation in (False, True)
        )
        made.append((hashes(prepared, "plain-0")["model.keras"], learnt, held))
    (model, learnt, held), (again, learnt_again, held_again) = made
    assert (again, learnt_again) == (model, learnt)
    assert held_again != held


def test_a_loss_that_is_not_finite_is_a_failure_with_that_name(prepared: Project) -> None:
    prepared.parameters["experiments"]["plain"]["learning_rate"] = 1e30
    prepared.write()
    prepared.stage("augment plain")
    words = (sys.executable, "-m", "stages.train", "plain-0")
    done = prepared.run(*words, check=False, **wandb_environment())
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("train: ")
    assert {"nan", "learning_rate"} <= words_of(last)
    assert not (prepared.folder / "data/runs/plain-0").exists()
    (file,) = offline_records.record_files(prepared.folder / "wandb")
    (ended,) = offline_records.read_records(file)["exit"]
    assert ended["exit"]["exit_code"] == 1  # W&B calls it failed


PLAIN = """
import json, sys
import keras, numpy as np
model = keras.saving.load_model(sys.argv[1], compile=False)
assert not any(name.startswith(("facet", "stages")) for name in sys.modules)
rows = model(np.load(sys.argv[2]), training=False)
print(json.dumps([[type(layer).__module__.partition(".")[0] for layer in model.layers],
                  {head: np.asarray(p).tolist() for head, p in rows.items()}]))
"""


def test_a_saved_model_is_plain_keras_and_answers_as_the_training_did(prepared: Project) -> None:
    prepared.parameters["experiments"]["plain"]["network"] = {
        "trunk": [
            {"conv": 4, "pool": 2, "batchnorm": True},
            {"average": True},
            {"dense": 8, "batchnorm": True},
        ]
    }
    prepared.write()
    prepared.stage("augment plain")
    prepared.stage("train plain-0")
    folder = prepared.folder / "data/runs/plain-0"
    inputs = prepared.folder.parent / "inputs.npy"
    (data,) = load_prepared(prepared.folder / "data/augmented/plain")
    np.save(inputs, data.splits["test"].scale(data.splits["test"].originals))
    words = [sys.executable, "-c", PLAIN, str(folder / "model.keras"), str(inputs)]
    done = run_program(*words, folder=inputs.parent, PYTHONPATH="")
    assert done.returncode == 0, done.stderr
    modules, answers = json.loads(done.stdout.splitlines()[-1])
    assert set(modules) == {"keras"}
    predictions = load_arrays(folder / "predictions.npz")
    np.testing.assert_allclose(answers["pose"], predictions["pose_test"], atol=1e-5)
    np.testing.assert_allclose(np.ravel(answers["eyes"]), predictions["eyes_test"][:, 1], atol=1e-5)


BUILD = """
import json, sys
import numpy as np
from facet.models import network
from facet.base.config import Experiment
spec = Experiment.model_validate(json.loads(sys.argv[1]))
model = network.build_network(spec, (16, 12, 1), {"a": 2, "b": 5}, seed=3)
again = network.build_network(spec, (16, 12, 1), {"a": 2, "b": 5}, seed=3)
other = network.build_network(spec, (16, 12, 1), {"a": 2, "b": 5}, seed=4)
same = all((x == y).all() for x, y in zip(model.get_weights(), again.get_weights()))
new = any((x != y).any() for x, y in zip(model.get_weights(), other.get_weights()))
print(json.dumps({
    "layers": [[l.name, type(l).__name__] for l in model.layers],
    "shapes": {h: list(o.shape) for h, o in model.output.items()},
    "rates": [[round(r, 6) for r in network.learning_rates(spec, e)] for e in range(4)],
    "same": same, "new": new, **network.count_costs(model)}))
"""


SPEC = {
    "dataset": "d",
    "epochs": 4,
    "batch": 8,
    "threads": 1,
    "learning_rate": 0.1,
    "schedule": "constant",
    "class_weights": "none",
}


def run_code(code: str, *words: str) -> Any:
    """What a program with TensorFlow in it prints last, as JSON."""
    done = run_program(sys.executable, "-c", code, *words)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def build(network: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return run_code(BUILD, json.dumps(SPEC | {"network": network} | changes))


def test_a_network_is_built_as_described() -> None:
    deep = [{"dense": 7}, {"dropout": 0.5}, {"dense": 3}]
    network = {
        "trunk": [
            {"conv": 4, "pool": 2},
            {"conv": 6, "kernel": 5, "batchnorm": True},
            {"average": True},
        ],
        "heads": {"each": [], "b": deep},
    }
    made = build(network, schedule="cosine")
    kinds = [k for _, k in made["layers"]]
    assert kinds.count("Conv2D") == 2
    assert kinds.count("MaxPooling2D") == kinds.count("GlobalAveragePooling2D") == 1
    assert kinds.count("Dropout") == kinds.count("ExactBatchNormalization") == 1
    assert made["shapes"] == {"a": [None, 1], "b": [None, 5]}
    convolutions = (9 * 4 + 4) + (25 * 4 * 6 + 6) + 2 * 6
    heads = (6 + 1) + (6 * 7 + 7) + (7 * 3 + 3) + (3 * 5 + 5)
    assert made["parameters"] == convolutions + heads
    multiply_adds = 16 * 12 * 9 * 4 + 8 * 6 * 25 * 4 * 6 + 6 + 6 * 7 + 7 * 3 + 3 * 5
    assert made["multiply_adds"] == multiply_adds
    assert made["same"]
    assert made["new"]
    assert made["rates"] == [[r, r] for r in (0.1, 0.085355, 0.05, 0.014645)]


TRAIN = """
import json, sys
import numpy as np
from facet.models.runtime import configure_tensorflow
configure_tensorflow(1)
from facet.base.config import Experiment
from facet.base.prepared import PreparedData, SplitData
from facet.models.training import Training

def content(n, share):
    rng = np.random.default_rng(0)
    splits = {}
    for split, count in (("train", n), ("validation", 8), ("test", 8)):
        X, names = rng.random((count, 3)).astype("float32"), np.arange(count).astype(str)
        y = {"kind": (np.arange(count) < share * count).astype("int64")}
        splits[split] = SplitData(X, y, names, names)
    return PreparedData({"heads": ["kind"]}, {"kind": np.array(["a", "b"])}, splits)

def training(share=0.5, seed=0, n=50, **changes):
    spec = json.loads(sys.argv[1]) | changes
    return Training(Experiment.model_validate(spec), content(n, share), seed)

out = {"states": [], "drawn": []}
for seed in (0, 1):
    one = training(seed=seed, schedule="cosine")
    (layer,) = [l for l in one.model.layers if hasattr(l, "seed_generator")]
    for epoch in range(2):
        before = one.model.get_weights()
        one.epoch()
        draw, count = np.asarray(layer.seed_generator.state).tolist()
        out["states"].append(draw)
        out["drawn"].append(count)
    out["rate"] = float(one.optimizer.learning_rate)
    out["steps"] = int(one.optimizer.iterations)
out["line"] = []
one = training(schedule="linear", epochs=2)
for epoch in range(2):
    out["line"].append(one.epoch()["learning_rate"])
    out["line"].append(float(one.optimizer.learning_rate))
for weights in ("none", "balanced"):
    one = training(share=0.1, n=100, class_weights=weights, epochs=60, learning_rate=0.02)
    for _ in range(60):
        one.epoch()
    out[weights] = float(one.predict("train")["kind"][:, 1].mean())
print(json.dumps(out))
"""


def test_an_epoch_draws_by_seed_and_number_and_takes_each_batch_once() -> None:
    network = {"trunk": [{"dense": 4}, {"dropout": 0.5}]}
    found = run_code(TRAIN, json.dumps(SPEC | {"network": network, "heads": ["kind"]}))
    # Masks start anew in each epoch, of each seed from elsewhere, and are drawn in the training.
    assert len(set(found["states"])) == 4
    assert min(found["drawn"]) > 0
    # Two epochs of 50 items in batches of 8, the second at the rate of half a cosine over four.
    assert found["steps"] == 2 * 7
    assert found["rate"] == pytest.approx(0.1 * (1 + np.cos(np.pi / 4)) / 2)
    # A line falls step by step; the last of an epoch begins after 48 of 50 items.
    assert found["line"] == pytest.approx([0.1, 0.052, 0.05, 0.002])
    # What the inputs do not tell, a network answers by the classes' weights.
    assert found["none"] == pytest.approx(0.1, abs=0.06)
    assert found["balanced"] == pytest.approx(0.5, abs=0.12)


def test_orders_and_weights() -> None:
    orders = [shuffled_order(50, seed, epoch).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(o) == list(range(50)) for o in orders)
    assert len({tuple(o) for o in orders}) == 4
    y = np.array([0] * 8 + [1] * 2)
    assert item_weights(y, 2, "none").tolist() == [1.0] * 10
    balanced = item_weights(y, 2, "balanced")
    assert balanced[y == 0].sum() == pytest.approx(balanced[y == 1].sum())
    assert balanced.mean() == pytest.approx(1)
