"""Measure preparing faces beside the class's way, in turn, on this machine: `make bench`."""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
import yaml

from stages.common import Refused, command
from stages.parameters import FILE, raw

# One call of Keras's augmentation layers for each image, as the class did it, from the same
# normalised file: 468 training photos at 64x60, five times.
CLASS = """
import sys
import numpy as np
from stages.common import load
import keras
X = load("data/faces/normalised.pkl")["X_train"]
change = keras.Sequential([
    keras.layers.RandomRotation(0.02), keras.layers.RandomTranslation(0.06, 0.06),
    keras.layers.RandomZoom(0.08), keras.layers.RandomFlip("horizontal")])
out = [np.asarray(change(x[None], training=True))[0] for x in X for _ in range(5)]
np.save("augmented.npy", np.stack(out))
"""


def main(
    source: Annotated[str, typer.Option(help="URL or folder of the real faces")] = "",
    pairs: Annotated[int, typer.Option(help="how often each way is measured", min=1)] = 3,
) -> None:
    """Time pickle, normalise and augment as whole processes against the class's way."""
    folder = Path(source or "../shared/data/faces")
    if "://" not in source:
        if not folder.exists():
            raise Refused(f"{folder}: no faces there; give --source")
        source = folder.resolve().as_uri()
    root = Path.cwd()
    with tempfile.TemporaryDirectory() as place:
        tree = raw()
        faces = tree["datasets"]["faces"]
        faces |= {"source": source, "size": [64, 60]}
        faces["split"] = {"by": "random", "seed": 0, "test": 0.25, "validation": 0}
        faces["augment"]["copies"] = 5
        (Path(place) / FILE).write_text(yaml.safe_dump(tree))
        environment = os.environ | {"PYTHONPATH": str(root), "TF_CPP_MIN_LOG_LEVEL": "3"}

        def seconds(*words: str) -> float:
            begun = time.monotonic()
            done = subprocess.run(
                [sys.executable, *words], cwd=place, env=environment, capture_output=True, text=True
            )
            if done.returncode:
                raise Refused(done.stderr.strip().splitlines()[-1])
            return time.monotonic() - begun

        def stage(name: str, what: str) -> float:
            return seconds("-m", f"stages.{name}", what)

        experiment = next(e for e, s in tree["experiments"].items() if s["dataset"] == "faces")
        stage("download", "faces")
        ours, theirs = [], []
        for _ in range(pairs):
            first = stage("pickle", "faces") + stage("normalise", "faces")
            ours.append(first + stage("augment", experiment))
            theirs.append(first + seconds("-c", CLASS))
            print(f"ours {ours[-1]:.1f} s, the class's way {theirs[-1]:.1f} s", flush=True)
        shutil.rmtree(Path(place) / "data")
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    print(f"medians {statistics.median(ours):.1f} s and {statistics.median(theirs):.1f} s; "
          f"ratio {statistics.median(ratios):.3f}")  # fmt: skip


if __name__ == "__main__":
    command(main)
