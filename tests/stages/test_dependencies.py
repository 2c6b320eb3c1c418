"""dvc.yaml declares for each stage what can change a byte of its outputs, and nothing else."""

import ast
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from facet.base.names import STAGES
from facet.declared import NEVER_HASHED, is_docstring_only
from facet.models import checkpoint
from tests.helpers import ROOT, Project

GRAPH = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
# What any import of the library runs first.
FIRST = {"facet/base/__init__.py", "facet/base/processor.py"}


def body(stage: str) -> dict[str, Any]:
    return GRAPH[stage].get("do", GRAPH[stage])


def imported(file: str) -> set[str]:
    """The project's files that a file imports itself, wherever in it."""
    names: list[str] = []
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
        elif isinstance(node, ast.Import):
            names += [a.name for a in node.names]
    paths = [n.replace(".", "/") for n in names if n.partition(".")[0] in ("facet", "stages")]
    files = {f"{p}.py" for p in paths} | {f"{p}/__init__.py" for p in paths}
    return {f for f in files if (ROOT / f).is_file()}


def needed(stage: str) -> set[str]:
    """The files that can change a stage's outputs: what it imports, at whatever depth, but those
    that are known to change none.
    """
    found: set[str] = set()
    rest = [f"stages/{stage}.py"]
    while rest:
        file = rest.pop()
        if file not in found and not file.startswith(tuple(NEVER_HASHED)):
            found.add(file)
            rest += imported(file)
    return {f for f in found if not is_docstring_only((ROOT / f).read_text())} | FIRST


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_declares_its_modules_and_parameters(stage: str) -> None:
    declared_stage = body(stage)
    assert declared_stage["cmd"].startswith(f"python -m stages {stage}")
    modules = {d for d in declared_stage["deps"] if d.startswith(("stages/", "facet/"))}
    folders = {m for m in modules if (ROOT / m).is_dir()}
    files = {f for f in needed(stage) if not f.startswith(tuple(f"{d}/" for d in folders))}
    assert modules - folders == files
    for folder in folders - {"facet/datasets/embedded"}:  # whose modules are imported by name
        assert any(f.startswith(f"{folder}/") for f in needed(stage)), folder
    assert ("facet/datasets/embedded" in folders) == (stage == "download")
    assert "requirements.lock" in declared_stage["deps"]


def test_a_stage_declares_the_parameters_that_it_reads(project: Project, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    project.parameters["experiments"].pop("dropped")
    project.parameters["comparisons"] = {}
    project.write()
    project.run("dvc", "repro", FACET_TRACE=str(notes))
    lock = yaml.safe_load((project.folder / "dvc.lock").read_text())["stages"]
    assert {stage.partition("@")[0] for stage in lock} == set(STAGES)
    for stage, entry in lock.items():
        lines = [n.split("\t") for n in (notes / stage).read_text().splitlines()]
        read = {what for kind, what in lines if kind == "ask"}
        declared = set(entry.get("params", {}).get("params.yaml", {}))
        # An experiment is read with the defaults filled in.
        filled = {"defaults"} if stage == "compare" else set()
        assert declared == read | filled, stage
        assert not [what for kind, what in lines if kind == "around"], stage


def test_dvc_yaml_has_the_stages_in_their_order() -> None:
    assert tuple(GRAPH) == STAGES


def test_a_runs_fingerprint_counts_the_code_that_train_declares() -> None:
    declared = [d for d in body("train")["deps"] if d.startswith(("facet/", "stages/"))]
    assert list(checkpoint.CODE) == sorted(declared)


def test_what_is_not_declared_is_there() -> None:
    for path in NEVER_HASHED:
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_imports_nothing_before_the_library(stage: str) -> None:
    """numpy and TensorFlow choose their instructions when they are imported."""
    found = []
    for node in ast.parse((ROOT / f"stages/{stage}.py").read_text()).body:
        modules = (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [a.name for a in node.names]
            if isinstance(node, ast.Import)
            else []
        )
        for module in modules:
            assert module.partition(".")[0] in {*sys.stdlib_module_names, "facet"}
        found += [m for m in modules if m.startswith("facet")]
    assert found[0].startswith("facet.base.")


def outputs(folder: Path) -> dict[str, str]:
    """The MD5 of each output of the stages in `folder`."""
    return {
        str(p.relative_to(folder)): hashlib.md5(p.read_bytes()).hexdigest()
        for name in ("data", "metrics/runs")
        for p in (folder / name).rglob("*")
        if p.is_file()
    }


# Changes of what no stage declares: other words, other limits, a tracker that always fails.
PATCHES = {
    "facet/__init__.py": ("import facet.base  # noqa: F401\n", ""),
    "facet/launch.py": ("def run_stage(", "WORDS = 1\n\n\ndef run_stage("),
    "facet/formats.py": ("What `download` brought.", "Files"),
    "facet/errors.py": ("class InputError", "MORE = 1\n\n\nclass InputError"),
    "facet/tracking/wandb_run.py": (
        "        mode = configure_wandb()\n",
        "        raise OSError\n",
    ),
    "facet/tracking/provenance.py": ('"commit": ask_git("rev-parse", "HEAD")', '"commit": "none"'),
    "facet/tracking/run_record.py": ("TABLE_ROWS = 60", "TABLE_ROWS = 3"),
}


def test_a_changed_module_that_is_not_declared_changes_no_byte(prepared: Project) -> None:
    def run(**env: str) -> dict[str, str]:
        for name in ("data/augmented", "data/runs", "data/evaluations", "metrics/runs"):
            shutil.rmtree(prepared.folder / name, ignore_errors=True)
        prepared.stage("augment plain", "train plain-0", "evaluate plain-0", **env)
        return outputs(prepared.folder)

    first = run()
    assert len(first) > 8
    for file, (old, new) in PATCHES.items():
        path = prepared.folder / file
        text = path.read_text()
        assert old in text, file
        path.write_text(text.replace(old, new, 1))
    assert run(WANDB_MODE="offline") == first
    status = subprocess.run(
        ["git", "status", "--porcelain", "--", "facet"],
        cwd=prepared.folder,
        capture_output=True,
        text=True,
    )
    assert len(status.stdout.splitlines()) == len(PATCHES)
