"""What a training leaves on disk: the model, its history, the state between two epochs."""

import csv
import hashlib
import json
import re
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from facet.base.arrays import load_arrays, save_arrays
from facet.base.config import Experiment, parse_run
from facet.base.names import HISTORY_FILE, PACKAGES_FILE, PREDICTIONS_FILE, RUN, SPLITS
from facet.base.storage import (
    atomic_write,
    file_sha256,
    folder_sha256,
    write_json,
)
from facet.errors import InputError
from facet.models.training import Training

if TYPE_CHECKING:
    import keras

CHECKPOINTS = Path(".ckpt")
ROOT = Path(__file__).parents[2]
# The code that a training's result depends on: what dvc.yaml declares for train, which
# tests/stages/test_dependencies.py compares.
CODE = (
    "facet/base",
    "facet/models",
    "stages/train.py",
)


def list_code() -> list[str]:
    """The modules of `CODE`, relative to the project's root."""
    paths = [ROOT / name for name in CODE]
    modules = [p for path in paths for p in (path.rglob("*.py") if path.is_dir() else [path])]
    return sorted(str(p.relative_to(ROOT)) for p in modules)


def run_inputs(data: Path) -> list[Path]:
    """The files that a training's result depends on: its data, the packages' lock, the code."""
    return [data, PACKAGES_FILE, *(ROOT / name for name in list_code())]


def run_fingerprint(run: str, spec: Experiment, data: Path) -> str:
    """A hash of all that a run's result depends on: parameters, data, packages, code.

    `data` is the augmented data set. Returns 16 hexadecimal digits; they name the run's checkpoint
    and its W&B run.
    """
    files = {name: file_sha256(ROOT / name) for name in list_code()}
    files |= {str(PACKAGES_FILE): file_sha256(PACKAGES_FILE), "data": folder_sha256(data)}
    whole = {"run": run, "spec": spec.model_dump(), "files": files}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:16]


def save_checkpoint(training: Training, path: Path) -> None:
    """Write all that the next epoch depends on."""
    arrays = {f"variable_{i:04d}": np.asarray(v) for i, v in enumerate(training.variables())}
    arrays["columns"] = np.array(list(training.history[0]))
    arrays["history"] = np.array([list(row.values()) for row in training.history], "float64")
    save_arrays(path, arrays)


def load_checkpoint(training: Training, path: Path) -> bool:
    """Go on from what `save_checkpoint` wrote; False where there is nothing whole to go on from."""
    variables = training.variables()
    try:
        state = load_arrays(path)
        columns = state["columns"].tolist()
        history = [dict(zip(columns, row, strict=True)) for row in state["history"].tolist()]
        values = [state[f"variable_{i:04d}"] for i in range(len(state) - 2)]
    except (InputError, KeyError, TypeError, ValueError):
        return False
    # All of it or nothing: a training that begins anew must not have some of these weights.
    if [v.shape for v in variables] != [value.shape for value in values]:
        return False
    for v, value in zip(variables, values, strict=True):
        v.assign(value)
    training.history = history
    return True


def train_to_end(
    training: Training, name: str, path: Path, on_epoch: Callable[[dict[str, float], float], None]
) -> list[float]:
    """Train the epochs that are left, with a checkpoint at `path` after each.

    `on_epoch` is called after each with its row of the history and its seconds. Returns the
    seconds of each epoch, those of its checkpoint included.
    """
    seconds: list[float] = []
    epochs = training.spec.epochs
    bar = tqdm(range(epochs), name, unit="epoch", delay=1, initial=len(training.history))
    while len(training.history) < epochs:
        begun = time.monotonic()
        row = training.epoch()
        save_checkpoint(training, path)
        seconds.append(time.monotonic() - begun)
        on_epoch(row, seconds[-1])
        bar.update()
    bar.close()
    return seconds


def save_run(training: Training, run: str, fingerprint: str, declared: dict[str, Any]) -> None:
    """Write data/runs/RUN: model, history, predictions, and what they are in model.json.

    `declared` is the part of params.yaml that the training read.
    """
    heads, data = training.heads, training.data
    test = data.splits["test"]
    with atomic_write(RUN.format(run)) as folder:
        folder.mkdir()
        save_model(training.network.make_plain(training.model), folder / "model.keras")
        write_history(training.history, folder / HISTORY_FILE)
        predictions = {f"{h}_{s}": v for s in SPLITS for h, v in training.predict(s).items()}
        truth = {f"{h}_truth": test.y[h] for h in heads}
        items = {"names_test": test.names, "groups_test": test.groups}
        save_arrays(folder / PREDICTIONS_FILE, predictions | truth | items)
        about = {
            **data.about,
            "identity": fingerprint,
            "declared": declared,
            "experiment": parse_run(run)[0],
            "seed": training.seed,
            "epochs": training.spec.epochs,
            "heads": {h: data.classes[h].tolist() for h in heads},
            "wandb": {"id": f"{run}-{fingerprint[:8]}"},
            **training.network.count_costs(training.model),
        }
        write_json(folder / "model.json", about)


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
