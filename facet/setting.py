"""Lay a named setting over params.yaml: `make setting NAME=class`."""

from pathlib import Path

import yaml

from facet.base.config import check_params, merge, read_params, suggest
from facet.base.names import PARAMS_FILE
from facet.base.storage import atomic_write
from facet.errors import InputError

SETTINGS_FOLDER = Path("settings")


def find_settings(names: str) -> list[Path]:
    """The files of settings, NAMES with commas. Raises InputError for one that is not there."""
    files = [SETTINGS_FOLDER / f"{name}.yaml" for name in names.split(",")]
    for file in files:
        if not file.exists():
            known = [p.stem for p in SETTINGS_FOLDER.glob("*.yaml")]
            raise InputError(f"{file}: no setting of that name{suggest(file.stem, known)}")
    return files


def apply_setting(names: str) -> None:
    """Write settings/NAME.yaml into params.yaml, key by key; several NAMES with commas.

    `git checkout params.yaml` undoes it.
    """
    tree = read_params()
    for file in find_settings(names):
        tree = merge(tree, read_params(file))
    check_params(tree)
    with atomic_write(PARAMS_FILE) as aside:
        aside.write_text(yaml.safe_dump(tree, sort_keys=False, default_flow_style=None))
    print(f"{PARAMS_FILE} holds the setting {names}; `git diff {PARAMS_FILE}` shows it")
