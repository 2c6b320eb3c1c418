"""Lay a named setting over params.yaml: `make setting NAME=class`."""

from pathlib import Path
from typing import Any

import yaml
from ruamel.yaml import YAML

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


def lay_over(tree: dict[str, Any], change: dict[str, Any]) -> None:
    """Put the values of `change` into `tree`, mapping by mapping, where comments stay."""
    for key, value in change.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            lay_over(tree[key], value)
        else:
            tree[key] = value


def apply_setting(names: str) -> None:
    """Write settings/NAME.yaml into params.yaml, key by key; several NAMES with commas.

    `git checkout params.yaml` undoes it.
    """
    tree, written = read_params(), YAML()
    written.width = 10**6  # what does not change stays as it is written
    written.indent(mapping=2, sequence=4, offset=2)
    written.brace_single_entry_mapping_in_flow_sequence = True
    written.representer.add_representer(
        type(None),
        lambda representer, _: representer.represent_scalar("tag:yaml.org,2002:null", "null"),
    )
    with PARAMS_FILE.open(encoding="utf-8") as file:
        commented = written.load(file)
    for setting in find_settings(names):
        tree = merge(tree, read_params(setting))
        lay_over(commented, written.load(setting))
    check_params(tree)
    with atomic_write(PARAMS_FILE) as aside:
        with aside.open("w", encoding="utf-8") as file:
            written.dump(commented, file)
        if read_params(aside) != tree:  # one mapping under two names, of which one changes
            aside.write_text(yaml.safe_dump(tree, sort_keys=False, default_flow_style=None))
    print(f"{PARAMS_FILE} holds the setting {names}; `git diff {PARAMS_FILE}` shows it")
