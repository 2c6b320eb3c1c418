"""Ask a trained model about images, or the rows of a table: `python -m tools.predict RUN FILE...`.

A run's folder holds all it takes: the model, its classes and how its inputs are prepared.
"""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from stages import normalise, pickle
from stages.common import RUN, Refused, command
from stages.parameters import Read, nearest
from stages.train import AT_ONCE, configure_tensorflow, silence


def described(folder: Path) -> dict[str, Any]:
    """What a run's folder says of its model."""
    path = folder / "model.json"
    try:
        about = json.loads(path.read_text())
        return {k: about[k] for k in ("heads", "input")}
    except FileNotFoundError:
        known = [p.name for p in folder.parent.glob("*-*")] if folder.parent.is_dir() else []
        hint = nearest(folder.name, known) if known else ""
        raise Refused(f"{path}: not found; make it with `make repro` or `dvc pull`{hint}") from None
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise Refused(f"{path}: not a run's description ({e}); make the run again") from None


def image(path: Path, how: dict[str, Any]) -> np.ndarray:
    """One image as the model was trained on, 1 x height x width x channels float32 in 0-1."""
    pixels = pickle.decode(path)
    key = "x".join(map(str, pixels.shape))
    one = {"names": np.array([str(path)]), "pixels": {key: pixels[None]}, "rows": {key: [0]}}
    read = Read.model_validate({k: how[k] for k in ("mode", "alpha", "operations")})
    width, height = how["size"]
    return normalise.images(one, (width, height), read).astype("float32") / np.float32(255)


def rows(path: Path, how: dict[str, Any]) -> tuple[list[str], np.ndarray]:
    """A table's rows: their names, FILE:ROW, and readings, N x columns float32, standardised."""
    table = pickle.tables([path])
    readings = []
    for name in how["columns"]:
        if name not in table["columns"]:
            raise Refused(
                f"{path}: has no column {name}{nearest(name, table['columns'])}; "
                f"the model reads {', '.join(how['columns'])}"
            )
        column = table["columns"][name]
        if column.dtype.kind != "f" or not np.isfinite(column).all():
            raise Refused(f"{path}: column {name} holds more than finite numbers; repair it")
        readings.append(column)
    X = (np.stack(readings, 1) - np.array(how["mean"])) / np.array(how["spread"])
    return table["names"].tolist(), X.astype("float32")


def prepared(path: Path, how: dict[str, Any]) -> tuple[list[str], np.ndarray]:
    """The items of one file: their names and the model's inputs."""
    if not path.is_file():
        raise Refused(f"{path}: not found")
    if "columns" in how:
        return rows(path, how)
    return [str(path)], image(path, how)


def probabilities(model: Any, X: np.ndarray, heads: dict[str, list[str]]) -> dict[str, np.ndarray]:
    """Each head's class probabilities, N x classes float32."""
    outputs = [model(X[i : i + AT_ONCE], training=False) for i in range(0, len(X), AT_ONCE)]
    found = {h: np.concatenate([np.asarray(o[h]) for o in outputs]) for h in heads}
    return {h: np.hstack([1 - p, p]) if len(heads[h]) == 2 else p for h, p in found.items()}


def line(name: str, head: str, classes: list[str], p: np.ndarray) -> str:
    """An answer in words: the likeliest class, and the next ones."""
    order = np.argsort(-p, kind="stable")
    others = ", ".join(f"{classes[i]} {p[i]:.3f}" for i in order[1:5])
    more = f", {len(p) - 5} more" if len(p) > 5 else ""
    return f"{name}\t{head}\t{classes[order[0]]}\t{p[order[0]]:.3f}\t({others}{more})"


def main(
    run: Annotated[str, typer.Argument(help="a run, like faces_deep-0, or a copy of its folder")],
    files: Annotated[list[Path], typer.Argument(help="images, or CSV tables")],
    as_json: Annotated[bool, typer.Option("--json", help="all probabilities, a line each")] = False,
) -> None:
    """Print what RUN's model says of each image or row: head, answer, its probability, others.

    A file that cannot be used is reported and the rest answered; the exit status is then 1.
    """
    folder = Path(run) if Path(run).is_dir() else Path(RUN.format(run))
    about = described(folder)
    configure_tensorflow(1)
    import keras

    from stages import network

    try:
        with silence():
            saved = keras.saving.load_model(folder / "model.keras", compile=False)
            model = network.make_exact(saved)
    except (OSError, ValueError) as e:
        raise Refused(f"{folder}/model.keras: not a whole model ({e}); make the run again") from e
    bad = 0
    for path in files:
        try:
            names, X = prepared(path, about["input"])
        except Refused as e:
            print(f"predict: {e}", file=sys.stderr)
            bad += 1
            continue
        said = probabilities(model, X, about["heads"])
        for i, name in enumerate(names):
            for head, classes in about["heads"].items():
                p = said[head][i]
                if as_json:
                    told = {c: round(float(v), 6) for c, v in zip(classes, p, strict=True)}
                    print(json.dumps({"item": name, "head": head, "probabilities": told}))
                else:
                    print(line(name, head, classes, p))
    if bad:
        raise Refused(f"{bad} of {len(files)} files were not usable; the rest is answered above")


if __name__ == "__main__":
    command(main)
