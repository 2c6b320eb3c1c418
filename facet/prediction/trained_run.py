"""A run that was trained: where it lies, what it says of itself, its model."""

import contextlib
import json
import math
import zipfile
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from facet.base.config import Read, check_params, read_params, run_names, suggest
from facet.base.names import RUN
from facet.base.prepared import InputInfo
from facet.base.terminal import silence_native_output
from facet.errors import InputError
from facet.formats import ModelInfo
from facet.models.runtime import configure_tensorflow

ROOT = Path(__file__).parents[2]
# What facet.models.network and facet.models.forest build, and what Keras writes of these.
KERAS_CLASSES = {
    "Activation",
    "BatchNormalization",
    "Cast",
    "Conv2D",
    "DTypePolicy",
    "Dense",
    "Dropout",
    "Embedding",
    "Flatten",
    "Functional",
    "GlobalAveragePooling1D",
    "GlobalAveragePooling2D",
    "GlorotUniform",
    "Greater",
    "InputLayer",
    "MaxPooling2D",
    "Ones",
    "RandomUniform",
    "ReLU",
    "Sum",
    "Take",
    "TakeAlongAxis",
    "TrueDivide",
    "Where",
    "Zeros",
}


def find_path(stored: str) -> Path:
    """A path of the project in the folder we are in, or else in Facet's own."""
    return next((p for p in (Path(stored), ROOT / stored) if p.exists()), Path(stored))


def find_folder(run: str) -> Path:
    """The folder of RUN: itself a folder, or a run of the project here, or of Facet's own.

    Raises InputError where no RUN is given; a folder that is not there is for its reader to tell.
    """
    if not run:
        raise InputError("RUN: not given; name a run, like RUN=faces_deep-0")
    return Path(run) if Path(run).is_dir() else find_path(RUN.format(run))


def read_description(folder: Path) -> ModelInfo:
    """What a run's folder says of its model, checked.

    Raises InputError, with the nearest name if the run is unknown.
    """
    path = folder / "model.json"
    try:
        about = TypeAdapter(ModelInfo).validate_python(json.loads(path.read_bytes()), strict=True)
        check_description(about)
        return about
    except FileNotFoundError:
        raise InputError(f"{path}: not found; {suggest_run(folder)}") from None
    except ValidationError as e:
        first = e.errors()[0]
        reason = f"{'.'.join(map(str, first['loc']))}: {first['msg'].lower()}"
    except (ValueError, RecursionError) as e:
        reason = str(e)[:200]
    raise InputError(f"{path}: not a run's description ({reason}); make the run again")


def check_description(about: ModelInfo) -> None:
    """Raise ValueError where a description does not fit itself."""
    how = about["input"]
    for head, classes in about["heads"].items():
        if len(set(classes)) < max(2, len(classes)):
            raise ValueError(f"heads.{head}: needs two classes or more, each once")
    if not about["heads"]:
        raise ValueError("heads: there is none")
    if "columns" not in how:
        if "size" not in how:
            raise ValueError("input: neither columns nor size")
        # As params.yaml has them.
        Read.model_validate({k: v for k, v in how.items() if k != "size"})
        if len(how["size"]) != 2 or not all(1 <= n <= 20_000 for n in how["size"]):
            raise ValueError(f"input.size: {how['size']} is not [width, height]")
        return
    count = count_readings(how)
    numbers = {"mean": how.get("mean", []), "spread": how.get("spread", [])}
    if "fill" in how:
        numbers["fill"] = how["fill"]
    for key, values in numbers.items():
        if len(values) != count or not all(map(math.isfinite, values)):
            raise ValueError(f"input.{key}: not {count} finite numbers")
    if min(numbers["spread"], default=0) <= 0:
        raise ValueError("input.spread: not above 0")


def count_readings(how: InputInfo) -> int:
    """How many numbers a network is given of a row."""
    one_hot = how.get("one_hot", {})
    return sum(len(one_hot.get(column, [column])) for column in how.get("columns", []))


def suggest_run(folder: Path) -> str:
    """What to do about the folder of a run that is not there: make the run, or mean another."""
    declared: list[str] = []
    with contextlib.suppress(InputError):  # away from any project
        declared = run_names(check_params(read_params()))
    if folder.name in declared:
        return f"make it with `make repro RUN={folder.name}` or `dvc pull`"
    known = {*declared, *(p.name for p in folder.parent.glob("*-*"))}
    hint = suggest(folder.name, sorted(known)) if known else ""
    return f"make it with `make repro` or `dvc pull`{hint}"


def load_model(folder: Path, about: ModelInfo | None = None) -> Any:
    """The Keras model of a run's folder, of Keras's own layers alone.

    Raises InputError where that is no whole model, or not the one that `about` describes.
    """
    path = folder / "model.keras"
    if not path.exists():
        raise InputError(f"{path}: not found; {suggest_run(folder)}")
    try:
        check_layers(path)
        configure_tensorflow(1)
        import keras

        with silence_native_output():
            model = keras.saving.load_model(path, compile=False, safe_mode=True)
        if about:
            check_model(model, about)
        return model
    except MemoryError:
        raise
    except Exception as e:  # Keras, HDF5 and zipfile raise whatever they meet
        if isinstance(e, OSError) and e.filename and e.errno:
            raise
        reason = " ".join(str(e).split())[:200]
        raise InputError(f"{path}: not a whole model ({reason}); make the run again") from None


def check_layers(path: Path) -> None:
    """Raise ValueError for a model of other things than networks are built of here.

    Before Keras reads it, which looks the names up that a file gives.
    """
    with zipfile.ZipFile(path) as members:
        if sum(m.file_size for m in members.infolist()) > path.stat().st_size:
            raise ValueError("its members are larger than it is")
        waiting = [json.loads(members.read("config.json"))]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            kind, module = one.get("class_name"), one.get("module")
            known = kind == "__keras_tensor__" or (
                kind in KERAS_CLASSES and str(module).partition(".")[0] == "keras"
            )
            if "class_name" in one and not known:
                raise ValueError(f"{module}.{kind} is no part of a network made here")
        waiting += one.values() if isinstance(one, dict) else one if isinstance(one, list) else []


def check_model(model: Any, about: ModelInfo) -> None:
    """Raise ValueError where a model takes or gives something else than `about` says."""
    how = about["input"]
    wanted: tuple[int, ...] = (count_readings(how),)
    if "size" in how:
        wanted = (how["size"][1], how["size"][0], len(how.get("mode", "L")))
    shape = tuple(model.inputs[0].shape[1:])
    if shape != wanted:
        raise ValueError(f"it takes {shape}, model.json says {wanted}")
    units = {h: len(c) if len(c) > 2 else 1 for h, c in about["heads"].items()}
    gives = {head: output.shape[-1] for head, output in model.output.items()}
    if gives != units:
        raise ValueError(f"it gives {gives}, model.json says {units}")
