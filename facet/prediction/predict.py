"""Ask a trained model about images, or the rows of tables: `facet predict RUN FILE...`.

A run's folder holds all it takes: the model, its classes and how its inputs are prepared.
"""

import glob
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from facet.base.config import Read, suggest
from facet.base.names import IMAGE_SUFFIXES, TABLE_SUFFIXES
from facet.base.prepared import InputInfo
from facet.datasets import decode, inputs
from facet.datasets.depth import DepthError
from facet.datasets.readings import encode_readings, fill_missing
from facet.datasets.tables import is_missing, read_tables
from facet.errors import InputError
from facet.formats import ModelInfo
from facet.models.training import predict_batch
from facet.prediction.trained_run import find_folder, load_model, read_description


def list_files(words: list[str], suffixes: set[str], stdin: Path) -> dict[str, Path]:
    """The files that `words` name, by name: files, folders of files with these suffixes, patterns.

    `-` is standard input, which is copied into the file `stdin`. A name that is nothing of these
    stays, to be reported as not found. Raises InputError for a folder without such files.
    """
    found: dict[str, Path] = {}
    for word in words:
        paths = [Path(word)]
        if word == "-":
            stdin.write_bytes(sys.stdin.buffer.read())
            found[stdin.name] = stdin
            continue
        if Path(word).is_dir():
            paths = sorted(p for p in Path(word).rglob("*") if p.suffix.lower() in suffixes)
            if not paths:
                raise InputError(f"{word}: holds no files of {', '.join(sorted(suffixes))}")
        elif not Path(word).exists():
            paths = sorted(map(Path, glob.glob(word))) or paths
        found |= {str(p): p for p in paths}
    return found


def load_exact_model(folder: Path, about: ModelInfo) -> Any:
    """The model of a run's folder as it was trained. Raises InputError if it is not whole."""
    model = load_model(folder, about)
    from facet.models import network  # imports Keras, which `load_model` did in silence

    return network.make_exact(model)


def prepare_image(path: Path, how: InputInfo) -> np.ndarray:
    """One image as the model was trained on, 1 x height x width x channels float32 in 0-1."""
    read = Read.model_validate({k: v for k, v in how.items() if k != "size"})
    width, height = how["size"]
    try:
        decoded = decode.decode_eight_bits(path, read.scale)
    except DepthError as e:
        raise InputError(f"{path}: {e.found}; the model was trained on 8 bits") from None
    pixels = inputs.prepare_image(decoded, (width, height), read, str(path))
    return pixels[None].astype("float32") / np.float32(255)


def prepare_rows(path: Path, how: InputInfo) -> tuple[list[str], np.ndarray]:
    """A table's rows: their names, FILE:ROW, and readings, N x columns float32, standardised."""
    table = read_tables([path])
    for name in how["columns"]:
        if name not in table.columns:
            raise InputError(
                f"{path}: has no column {name}{suggest(name, table.columns)}; "
                f"the model reads {', '.join(how['columns'])}"
            )
    try:
        readings = encode_readings(table.columns, table.names, how)
    except InputError as e:
        raise InputError(f"{path}: {e}") from None
    if "fill" in how:
        readings = fill_missing(readings, np.array(how["fill"]))
    elif (gaps := np.isnan(readings).any(1)).any():
        row = int(gaps.argmax())
        column = next(c for c in how["columns"] if is_missing(table.columns[c])[row])
        raise InputError(
            f"{path}: {table.names[row]}: has no {column}; the model was trained on whole rows"
        )
    with np.errstate(over="ignore"):
        X = ((readings - np.array(how["mean"])) / np.array(how["spread"])).astype("float32")
    if (extreme := ~np.isfinite(X).all(1)).any():
        raise InputError(f"{path}: {table.names[extreme.argmax()]}: a value is too large")
    return table.names.tolist(), X


def prepare_inputs(name: str, path: Path, how: InputInfo) -> tuple[list[str], np.ndarray]:
    """The items of one file, `name` to the user: their names and the model's inputs."""
    if not path.is_file():
        raise InputError(f"{path}: not found")
    if "columns" in how:
        return prepare_rows(path, how)
    return [name], prepare_image(path, how)


def predict_probabilities(
    model: Any, X: np.ndarray, heads: dict[str, list[str]]
) -> dict[str, np.ndarray]:
    """Each head's class probabilities, N x classes float32."""
    many = predict_batch(X.shape[1:])
    outputs = [model(X[i : i + many], training=False) for i in range(0, len(X), many)]
    found = {h: np.concatenate([np.asarray(o[h]) for o in outputs]) for h in heads}
    return {h: np.hstack([1 - p, p]) if len(heads[h]) == 2 else p for h, p in found.items()}


def format_prediction(name: str, head: str, classes: list[str], p: np.ndarray) -> str:
    """An answer in words: the likeliest class, and the next ones."""
    order = np.argsort(-p, kind="stable")
    others = ", ".join(f"{classes[i]} {p[i]:.3f}" for i in order[1:5])
    more = f", {len(p) - 5} more" if len(p) > 5 else ""
    return f"{name}\t{head}\t{classes[order[0]]}\t{p[order[0]]:.3f}\t({others}{more})"


def predict_files(run: str, words: list[str], as_json: bool = False) -> None:
    """Print what RUN's model says of each image or row: head, answer, its probability, others.

    `words` are files, folders, patterns, `-` for standard input. A file that cannot be used is
    reported and the rest answered; the exit status is then 1.
    """
    folder = find_folder(run)
    about = read_description(folder)
    suffixes = TABLE_SUFFIXES if "columns" in about["input"] else IMAGE_SUFFIXES
    with tempfile.TemporaryDirectory() as aside:
        files = list_files(words, suffixes, Path(aside) / "stdin")
        answer_files(folder, about, files, as_json)


def answer_files(folder: Path, about: ModelInfo, files: dict[str, Path], as_json: bool) -> None:
    """Print the answers of the model in `folder` for each file, by the name the user knows.

    Raises InputError where that is no whole model, or some files could not be used.
    """
    model = load_exact_model(folder, about)
    bad = 0
    for file, path in files.items():
        try:
            names, X = prepare_inputs(file, path, about["input"])
        except InputError as e:
            print(f"predict: {str(e).replace(str(path), file)}", file=sys.stderr)
            bad += 1
            continue
        predictions = predict_probabilities(model, X, about["heads"])
        for i, name in enumerate(names):
            for head, classes in about["heads"].items():
                p = predictions[head][i]
                if as_json:
                    rounded = {c: round(float(v), 6) for c, v in zip(classes, p, strict=True)}
                    print(json.dumps({"item": name, "head": head, "probabilities": rounded}))
                else:
                    print(format_prediction(name, head, classes, p))
    if bad:
        raise InputError(f"{bad} of {len(files)} files were not usable; the rest is answered above")
