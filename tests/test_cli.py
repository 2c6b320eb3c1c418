"""The program `facet`: help with examples, completion, errors in one line, and quick to start."""

import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from facet.cli import app
from tests.helpers import ROOT, run_program, words_of

COMMANDS = [c.callback.__name__.replace("_", "-") for c in app.registered_commands if c.callback]
HEAVY = ("tensorflow", "keras", "dvc", "matplotlib", "numpy", "pandas", "wandb", "rich.live")


def facet(*words: str, folder: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    return run_program(sys.executable, "-m", "facet", *words, folder=folder, **env)


def test_help_names_every_command() -> None:
    done = facet("--help")
    assert done.returncode == 0
    assert {"repro", "review", "report", "diff", "predict", "sync"} < set(COMMANDS)
    assert all(f"  {name} " in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_has_an_example(command: str) -> None:
    done = facet(command, "--help")
    assert done.returncode == 0
    assert f"facet {command}" in done.stdout.partition("Example:")[2]


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nsys.argv = ['facet', '--help']\nfrom facet.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        f"print([m for m in {HEAVY} if m in sys.modules], file=sys.stderr)"
    )
    done = run_program(sys.executable, "-c", code)
    assert done.stderr == "[]\n"


def test_the_version_is_the_projects_beside_those_of_what_computes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    words = words_of(facet("--version").stdout)
    assert project["version"] in words
    assert {metadata.version(name) for name in ("dvc", "keras", "wandb")} <= words


def test_an_error_is_one_line_that_names_the_command(tmp_path: Path) -> None:
    done = facet("setting", "nothing", folder=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("setting: params.yaml: ")
    assert done.stderr.count("\n") == 1
    assert facet("nothing").returncode == 2


def test_completion_knows_the_commands() -> None:
    words = {"_FACET_COMPLETE": "complete_bash", "COMP_WORDS": "facet re", "COMP_CWORD": "1"}
    assert facet(**words).stdout.split() == ["repro", "review", "report"]
