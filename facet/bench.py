"""Measure on this machine, in turn: preparing faces beside the course's way, training with W&B and
without, stages by the grid's server and without, a repeated `dvc repro`: `make bench`."""

import compileall
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from facet.base.config import read_params
from facet.base.names import COSTS, PACKAGES_FILE, PARAMS_FILE
from facet.base.storage import read_json
from facet.bench_data import (
    bench_augmenting,
    bench_downloading,
    bench_memory,
    format_ratios,
)
from facet.errors import InputError
from facet.grid.stage_server import StageServer
from facet.launch import SERVER_VARIABLE

# One call of Keras's augmentation layers for each image, as the course did it, from the same
# normalised file: 468 training photos at 64x60, five times.
COURSE_SCRIPT = """
import sys
import numpy as np
import keras
X = np.load("data/faces/normalised/X_train.npy").astype("float32") / 255
change = keras.Sequential([
    keras.layers.RandomRotation(0.02), keras.layers.RandomTranslation(0.06, 0.06),
    keras.layers.RandomZoom(0.08), keras.layers.RandomFlip("horizontal")])
out = [np.asarray(change(x[None], training=True))[0] for x in X for _ in range(5)]
np.save("augmented.npy", np.stack(out))
"""


def time_process(place: Path, *words: str, **environment: str) -> float:
    """How long a Python process takes in the folder `place`."""
    begun = time.monotonic()
    here = {"PYTHONPATH": str(Path.cwd()), "TF_CPP_MIN_LOG_LEVEL": "3"} | environment
    done = subprocess.run(
        [sys.executable, *words], cwd=place, env=os.environ | here, capture_output=True, text=True
    )
    if done.returncode:
        raise InputError(((done.stderr or done.stdout).strip() or "it failed").splitlines()[-1])
    return time.monotonic() - begun


def time_stage(place: Path, name: str, what: str, **environment: str) -> float:
    """Seconds of one stage as a process of its own in the folder `place`."""
    return time_process(place, "-m", "stages", name, what, **environment)


def write_project(place: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Make `place` a project of params.yaml with `change` made to it."""
    tree = read_params()
    change(tree)
    (place / PARAMS_FILE).write_text(yaml.safe_dump(tree))
    shutil.copy(PACKAGES_FILE, place)


def bench_preparing(place: Path, pairs: int, source: str) -> None:
    """Pickle, normalise and augment as whole processes against the course's way."""
    folder = Path(source or "../shared/data/faces")
    if "://" not in source:
        if not folder.exists():
            print(f"preparing: skipped: {folder}: no faces there; give SOURCE=")
            return
        source = folder.resolve().as_uri()

    def real(tree: dict[str, Any]) -> None:
        faces = tree["datasets"]["faces"]
        faces |= {"source": source, "size": [64, 60]}
        faces["split"] = {"by": "random", "seed": 0, "test": 0.25, "validation": 0}
        faces["augment"]["copies"] = 5

    write_project(place, real)
    time_stage(place, "download", "faces")
    ours, theirs = [], []
    for _ in range(pairs):
        first = time_stage(place, "pickle", "faces") + time_stage(place, "normalise", "faces")
        ours.append(first + time_stage(place, "augment", "faces_shallow"))
        theirs.append(first + time_process(place, "-c", COURSE_SCRIPT))
        print(f"preparing: {ours[-1]:.1f} s, the course's way {theirs[-1]:.1f} s", flush=True)
    print(
        f"preparing: medians {statistics.median(ours):.1f} s and "
        f"{statistics.median(theirs):.1f} s; the course's way takes {format_ratios(theirs, ours)}"
    )


def bench_tracking(place: Path, pairs: int) -> None:
    """Training faces_tiny for 40 epochs with W&B offline against disabled, as whole processes."""

    def longer(tree: dict[str, Any]) -> None:
        tree["experiments"]["faces_tiny"]["epochs"] = 40

    write_project(place, longer)
    for name in ("download", "pickle", "normalise"):
        time_stage(place, name, "faces")
    time_stage(place, "augment", "faces_tiny")
    epochs, more = [], []
    for i in range(pairs):
        found = {}
        # Who goes first changes, so that a machine that slows down favours neither.
        for mode in ("offline", "disabled") if i % 2 else ("disabled", "offline"):
            whole = time_stage(place, "train", "faces_tiny-0", WANDB_MODE=mode)
            found[mode] = (read_json(place / COSTS.format("faces_tiny-0"))["train_seconds"], whole)
        (with_, whole), (without, bare) = found["offline"], found["disabled"]
        epochs.append(with_ / without)
        more.append((whole - with_) - (bare - without))
        print(
            f"tracking: epochs {with_:.1f} s, without {without:.1f} s, ratio {epochs[-1]:.3f}; "
            f"the rest of the process {more[-1]:+.1f} s",
            flush=True,
        )
    print(
        f"tracking: medians of {pairs} pairs: epochs ratio {statistics.median(epochs):.3f}, "
        f"the rest of a process {statistics.median(more):+.1f} s"
    )


def bench_starting(place: Path, pairs: int) -> None:
    """A run's train and evaluate as whole processes against forks of the grid's server."""
    write_project(place, lambda _: None)
    for name, what in (
        ("download", "wine"),
        ("pickle", "wine"),
        ("normalise", "wine"),
        ("augment", "wine_shallow"),
    ):
        time_stage(place, name, what)
    cold: list[float] = []
    warm: list[float] = []
    os.environ["PYTHONPATH"] = str(Path.cwd())  # the server's too
    with StageServer():
        for i in range(pairs + 1):
            for seconds, environment in ((cold, {SERVER_VARIABLE: ""}), (warm, {})):
                seconds.append(
                    sum(
                        time_stage(place, s, "wine_shallow-0", **environment)
                        for s in ("train", "evaluate")
                    )
                )
            if not i:  # the server may have been importing still
                del cold[0], warm[0]
    print(
        f"starting: medians of {pairs} pairs, wine_shallow-0: processes of their own "
        f"{statistics.median(cold):.1f} s, by the server {statistics.median(warm):.1f} s; "
        f"{format_ratios(warm, cold)}"
    )


def bench_repeating(times: int) -> None:
    """`dvc repro` of this folder where nothing has changed."""
    status = subprocess.run(["dvc", "status", "--json"], capture_output=True, text=True)
    if status.returncode or json.loads(status.stdout or "{}"):
        print("repeating: skipped: something is not up to date; make repro first")
        return
    taken = {}
    for words in (["dvc", "repro"], [sys.executable, "-m", "facet", "repro"], ["dvc", "--version"]):
        each = []
        for _ in range(times):
            begun = time.monotonic()
            subprocess.run(words, check=True, capture_output=True)
            each.append(time.monotonic() - begun)
        taken[" ".join(words).replace(sys.executable, "python")] = statistics.median(each)
    print("repeating: medians " + ", ".join(f"{k} {v:.1f} s" for k, v in taken.items()))


def run_benchmarks(
    source: str, pairs: int, trainings: int, starts: int, rounds: int, images: int
) -> None:
    """Time preparing, tracking, starting and repeating, each beside what it is compared with.

    Modules are compiled first, as Python leaves them after a first run.
    """
    for folder in ("facet", "stages"):
        compileall.compile_dir(folder, quiet=1)
    if pairs:
        with tempfile.TemporaryDirectory() as place:
            bench_preparing(Path(place), pairs, source)
    if trainings:
        with tempfile.TemporaryDirectory() as place:
            bench_tracking(Path(place), trainings)
    if starts:
        with tempfile.TemporaryDirectory() as place:
            bench_starting(Path(place), starts)
    if rounds:
        bench_augmenting(rounds)
        bench_downloading(rounds)
    if images:
        bench_memory(images)
    bench_repeating(3)
