"""A run that was trained: where it lies, what it says of itself, its model."""

import contextlib
import json
from pathlib import Path
from typing import Any

from facet.base.config import check_params, read_params, run_names, suggest
from facet.base.names import RUN
from facet.errors import InputError
from facet.formats import ModelInfo
from facet.models.runtime import configure_tensorflow, silence_native_output

ROOT = Path(__file__).parents[2]


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
    """What a run's folder says of its model.

    Raises InputError, with the nearest name if the run is unknown.
    """
    path = folder / "model.json"
    try:
        about: ModelInfo = json.loads(path.read_text())
        about["heads"], about["input"]  # KeyError here and not later
        return about
    except FileNotFoundError:
        raise InputError(f"{path}: not found; {suggest_run(folder)}") from None
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise InputError(f"{path}: not a run's description ({e}); make the run again") from None


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


def load_model(folder: Path) -> Any:
    """The Keras model of a run's folder, of Keras's own layers alone.

    Raises InputError where that is no whole model.
    """
    path = folder / "model.keras"
    if not path.exists():
        raise InputError(f"{path}: not found; {suggest_run(folder)}")
    configure_tensorflow(1)
    import keras

    try:
        with silence_native_output():
            return keras.saving.load_model(path, compile=False)
    except (OSError, ValueError) as e:
        raise InputError(f"{path}: not a whole model ({e}); make the run again") from e
