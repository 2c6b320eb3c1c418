"""Write a trained model in a format that other programs run: `facet export RUN --to onnx`.

The exported model is asked about the run's test part by its own runtime. It is kept if it answers
as the run did.
"""

import contextlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from facet.base.arrays import load_arrays
from facet.base.config import parse_run
from facet.base.names import AUGMENTED
from facet.base.prepared import SplitData, load_prepared, select_split
from facet.base.storage import atomic_write, write_json
from facet.base.terminal import silence_native_output
from facet.errors import InputError
from facet.formats import ExportFormat, ExportInfo
from facet.models.training import predict_batch
from facet.prediction.trained_run import find_folder, find_path, load_model, read_description

EXPORTS = "exports/{}/{}"  # a run, a format
ABOUT_FILE = "export.json"
# How far a probability may be from the run's: other runtimes sum in another order. docs/using.md
# has what was seen.
TOLERANCE = 1e-4
FILES: dict[ExportFormat, str] = {
    "saved_model": "saved_model",
    "onnx": "model.onnx",
    "tflite": "model.tflite",
}
KERAS_FORMATS = {"saved_model": "tf_saved_model", "onnx": "onnx", "tflite": "litert"}
# What writes and runs a format, besides TensorFlow: modules, by the package that has each.
PACKAGES: dict[ExportFormat, dict[str, str]] = {
    "saved_model": {},
    "onnx": {"tf2onnx": "tf2onnx", "onnxruntime": "onnxruntime"},
    "tflite": {"ai-edge-litert": "ai_edge_litert"},
}
# Gives each head's probabilities for inputs, N x ... float32.
Predict = Callable[[np.ndarray], dict[str, np.ndarray]]


def check_packages(to: ExportFormat) -> None:
    """Raise InputError if a package is missing that the format needs."""
    missing = [
        name for name, module in PACKAGES[to].items() if not importlib.util.find_spec(module)
    ]
    if missing:
        raise InputError(
            f"{to} needs {' and '.join(missing)}, not installed; `make env` installs all, "
            f"`python -m uv pip install {' '.join(missing)}` these"
        )


def check_target(folder: Path) -> None:
    """Raise InputError for a folder that holds more than an earlier export, which may go."""
    if folder.is_dir():
        found = {path.name for path in folder.iterdir()}
        taken = bool(found) and not {ABOUT_FILE} <= found <= {ABOUT_FILE, *FILES.values()}
    else:
        taken = folder.exists()
    if taken:
        raise InputError(f"{folder}: is there already; name a folder to be made")


def read_test_items(folder: Path, run: str) -> tuple[SplitData, dict[str, Any]]:
    """The items that a run was tested on and what it answered, by the names in predictions.npz.

    Raises InputError where they are not here, are none, or are no longer the same.
    """
    experiment, seed = parse_run(run)
    data = find_path(AUGMENTED.format(experiment))
    test = select_split(load_prepared(data), seed).splits["test"]
    answers = load_arrays(folder / "predictions.npz")
    if not len(test):
        raise InputError(f"{data}: has no test items to check the export with (split.test)")
    if test.names.tolist() != answers["names_test"].tolist():
        raise InputError(
            f"{data}: not the data that {run} was tested on; "
            f"use `dvc checkout` or `make repro RUN={run}`"
        )
    return test, answers


def complete_heads(model: Any) -> Any:
    """`model` with a probability for each class of each head: one of two classes has but one."""
    import keras

    heads = {
        head: keras.layers.Concatenate(name=f"{head}_classes")([1 - output, output])
        if output.shape[-1] == 1
        else output
        for head, output in model.output.items()
    }
    return keras.Model(model.inputs[0], heads, name=model.name)


def write_model(model: Any, to: ExportFormat, path: Path) -> None:
    """Write a Keras model in the format `to`, for any number of items at once."""
    import keras
    import tensorflow as tf

    (given,) = model.inputs
    options: dict[str, Any] = {
        "input_signature": [keras.InputSpec("float32", (None, *given.shape[1:]), name="input")],
        "verbose": False,
    }
    if to == "tflite":
        # Its own operations alone: an interpreter on a telephone has none of TensorFlow's.
        options["target_spec"] = {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}
    model.export(path, format=KERAS_FORMATS[to], **options)


def open_model(to: ExportFormat, path: Path) -> Predict:
    """What the exported model says, computed by the format's own runtime."""
    if to == "saved_model":
        import tensorflow as tf

        loaded = tf.saved_model.load(path)  # its variables live as long as it is referred to
        return lambda X: {h: p.numpy() for h, p in loaded.serve(tf.constant(X)).items()}
    if to == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (given,) = session.get_inputs()
        names = [output.name for output in session.get_outputs()]
        return lambda X: dict(zip(names, session.run(names, {given.name: X}), strict=True))
    from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(str(path)).get_signature_runner()
    (name,) = run.get_input_details()
    return lambda X: run(**{name: X})


def largest_difference(
    predict: Predict, test: SplitData, answers: dict[str, Any], heads: dict[str, list[str]]
) -> float:
    """How far the furthest probability is from the run's on its test items.

    `answers` has each head's, N x classes, at HEAD_test. Raises InputError for another class, or a
    difference beyond the tolerance.
    """
    many, largest = predict_batch(test.X.shape[1:]), 0.0
    for start in range(0, len(test), many):
        rows = np.arange(start, min(start + many, len(test)))
        found = predict(test.scale(rows))
        for head, classes in heads.items():
            p, expected = found[head], answers[f"{head}_test"][rows]
            if p.shape != expected.shape:
                raise InputError(f"{head}: {p.shape[1:]} answers for {len(classes)} classes")
            for i in np.flatnonzero(p.argmax(1) != expected.argmax(1)):
                raise InputError(
                    f"{test.names[rows[i]]}: {head} is {classes[p[i].argmax()]}, and "
                    f"{classes[expected[i].argmax()]} in the run"
                )
            largest = float(np.maximum(largest, np.abs(p - expected).max()))  # keeps a NaN
    if not largest <= TOLERANCE:
        raise InputError(f"probabilities differ by {largest:.1e}, more than {TOLERANCE:.0e}")
    return largest


@contextlib.contextmanager
def silence_converters() -> Iterator[None]:
    """Keep from the terminal what converters say of their steps, in Python and native code."""
    with (
        open(os.devnull, "w") as nothing,
        silence_native_output(),
        contextlib.redirect_stdout(nothing),
        contextlib.redirect_stderr(nothing),
    ):
        yield


def export_run(run: str, to: ExportFormat, into: str = "") -> None:
    """Write RUN's model in the format `to` into a folder, with export.json, if it answers the same.

    `into` is a folder that is empty, absent, or holds an earlier export; exports/RUN/FORMAT if "".
    Raises InputError where a package or the run is missing, or the export answers otherwise; an
    earlier export then stays.
    """
    check_packages(to)
    folder = find_folder(run)
    about = read_description(folder)
    name = f"{about['experiment']}-{about['seed']}"
    target = Path(into or EXPORTS.format(name, to))
    check_target(target)
    test, answers = read_test_items(folder, name)
    model = load_model(folder, about)
    with atomic_write(target) as aside:
        aside.mkdir()
        path = aside / FILES[to]
        try:
            with silence_converters():
                write_model(complete_heads(model), to, path)
                predict = open_model(to, path)
                difference = largest_difference(predict, test, answers, about["heads"])
        except InputError as e:
            raise InputError(f"{name} as {to} does not answer as the run did: {e}") from None
        packages = ["tensorflow", "keras", *PACKAGES[to]]
        info: ExportInfo = {
            "run": name,
            "identity": about["identity"],
            "format": to,
            "file": FILES[to],
            "shape": list(test.X.shape[1:]),
            "input": about["input"],
            "heads": about["heads"],
            "test_items": len(test),
            "tolerance": TOLERANCE,
            "versions": {package: metadata.version(package) for package in packages},
        }
        write_json(aside / ABOUT_FILE, info)
    print(
        f"{target / FILES[to]}: answers as {name} did, {len(test)} test items; largest difference "
        f"of a probability {difference:.1e} (allowed {TOLERANCE:.0e})"
    )
