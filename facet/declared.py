"""Whether a stage runs with the packages of requirements.lock and the code that it declares."""

import ast
import sysconfig
from pathlib import Path

import yaml
from packaging.utils import canonicalize_name

from facet.base.names import PACKAGES_FILE
from facet.base.unchanged import imported_files
from facet.errors import InputError
from facet.packages import find_other_versions, read_pins

GRAPH_FILE = Path("dvc.yaml")
# Modules that a stage may import without declaring them in dvc.yaml, and why they can change no
# byte of its outputs. tests/stages/test_dependencies.py compares dvc.yaml with them, and patches.
NEVER_HASHED = {
    "facet/__init__.py": "imports facet.base, as each stage does first",
    "facet/declared.py": "ends a stage that imports what it does not declare",
    "facet/environment.py": "which variables reach a stage; it ends where packages differ",
    "facet/formats.py": "types and words: nothing of it runs in a stage",
    "facet/errors.py": "an exception's name: it ends a stage, which then writes nothing",
    "facet/git.py": "the commit and the user, which no output holds",
    "facet/grid/stage_server.py": "the process that a stage is forked from",
    "facet/launch.py": "signals, the wording of errors, where a stage runs, its progress",
    "facet/memory.py": "refuses a training that is too large, before it begins",
    "facet/packages.py": "ends a stage where packages differ",
    "facet/tracking/": "W&B and manifests: written beside the outputs, after them",
    "stages/__init__.py": "nothing but its description",
    "stages/__main__.py": "starts the stage that it names",
}


def check_packages() -> None:
    """Raise InputError, by name, for a package of another version than requirements.lock has."""
    if not PACKAGES_FILE.exists():
        return
    pins = read_pins(PACKAGES_FILE.read_text())
    # By the names of their folders: metadata.distributions reads 200 files.
    folders = Path(sysconfig.get_path("purelib")).glob("*.dist-info")
    named = (p.name.removesuffix(".dist-info").rpartition("-") for p in folders)
    installed: dict[str, str] = {canonicalize_name(name): version for name, _, version in named}
    others = find_other_versions(installed, {n: v for n, v in pins.items() if n in installed})
    if others:
        found = [f"{name} {version}, not {pins[name]}" for name, version in others.items()]
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise InputError(
            f"{PACKAGES_FILE}: installed is {', '.join(found[:3])}{more}; `make env`, or `make "
            "lock` where the lock is to change"
        )


def is_docstring_only(text: str) -> bool:
    """Whether a module holds nothing that could change a result."""
    body = ast.parse(text).body
    return all(isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant) for s in body)


def check_imports(stage: str) -> None:
    """Raise InputError, by name, if this process imported a file that `stage` does not declare."""
    if not GRAPH_FILE.exists():
        return
    graph = yaml.safe_load(GRAPH_FILE.read_text())["stages"].get(stage, {})
    declared = graph.get("do", graph).get("deps", [])
    known = tuple(f"{path.rstrip('/')}/" for path in declared)
    others = [
        file
        for file in imported_files()
        if not f"{file}/".startswith(known)
        and not file.startswith(tuple(NEVER_HASHED))
        and not (file.endswith("/__init__.py") and is_docstring_only(Path(file).read_text()))
    ]
    if others:
        raise InputError(
            f"{', '.join(others[:3])}: imported, but not declared in {GRAPH_FILE}: a change of it "
            f"would go unnoticed; add it to the deps of {stage}"
        )
