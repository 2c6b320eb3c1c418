"""Lay a named setting over params.yaml: `make setting NAME=class`."""

from pathlib import Path

import yaml

from stages.common import Refused, command, writing
from stages.parameters import FILE, check, merged, nearest, raw

FOLDER = Path("settings")


def main(names: str) -> None:
    """Write settings/NAME.yaml into params.yaml, key by key; several NAMES with commas.

    `git checkout params.yaml` undoes it.
    """
    tree = raw()
    for name in names.split(","):
        file = FOLDER / f"{name}.yaml"
        if not file.exists():
            known = [p.stem for p in FOLDER.glob("*.yaml")]
            raise Refused(f"{file}: no setting of that name{nearest(name, known)}")
        tree = merged(tree, raw(file))
    check(tree)
    with writing(FILE) as aside:
        aside.write_text(yaml.safe_dump(tree, sort_keys=False, default_flow_style=None))
    print(f"{FILE} holds the setting {names}; `git diff {FILE}` shows it")


if __name__ == "__main__":
    command(main)
