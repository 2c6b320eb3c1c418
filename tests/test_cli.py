"""The program `facet`: help with examples, completion, errors in one line, and quick to start."""

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from unittest import mock

import pytest
import yaml

from facet.base.names import STAGES
from facet.cli import command_names, main
from tests.helpers import ROOT, run_program, small_parameters, words_of

COMMANDS = command_names()
HEAVY = ("tensorflow", "keras", "dvc", "matplotlib", "numpy", "pandas", "wandb", "rich.live")


def facet(*words: str, folder: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    return run_program(sys.executable, "-m", "facet", *words, folder=folder, **env)


def test_help_names_every_command() -> None:
    done = facet("--help")
    assert done.returncode == 0
    assert {"repro", "review", "report", "diff", "predict", "sync"} < set(COMMANDS)
    assert all(f"  {name} " in done.stdout for name in COMMANDS)


# Calls a program for the help of each of the names that follow, all in one process, and says which
# heavy modules were imported by each.
WATCHED = f"""
import contextlib, io, json, runpy, sys
sys.path.insert(0, {str(ROOT)!r})
program, *names = sys.argv[1:]
found = {{}}
for name in names:
    module = f"{{program}}.{{name}}" if program == "stages" and name else program
    sys.argv = [module, *[name] * (program == "facet" and bool(name)), "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as output, contextlib.suppress(SystemExit):
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    found[name] = output.getvalue(), [m for m in {HEAVY} if m in sys.modules]
print(json.dumps(found))
"""


def look_at_help(program: str, names: Sequence[str], folder: Path) -> dict[str, tuple[str, list]]:
    """By name: its help, and the heavy modules that are imported when it was printed."""
    words = [sys.executable, "-c", WATCHED, program, *names]
    done = run_program(*words, folder=folder, cold=True, PYTHONPATH="")
    assert (done.returncode, done.stderr) == (0, "")
    assert list(folder.iterdir()) == []
    found: dict[str, tuple[str, list]] = json.loads(done.stdout)
    return found


def test_help_has_an_example_and_does_no_work(tmp_path: Path) -> None:
    found = look_at_help("facet", ["", *COMMANDS], tmp_path)
    assert list(found) == ["", *COMMANDS]
    for command, (text, imported) in found.items():
        assert not command or f"facet {command}" in text.partition("Example:")[2]
        assert imported == [], command


def test_help_of_a_stage_has_an_example_and_does_no_work(tmp_path: Path) -> None:
    found = look_at_help("stages", ["", *STAGES], tmp_path)
    for stage, (text, imported) in found.items():
        assert f"python -m stages {stage}" in text.partition("Example:")[2], stage
        # What a stage computes with is imported with it; TensorFlow, W&B and DVC are not.
        assert not {"tensorflow", "keras", "wandb", "dvc"} & set(imported), stage


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


def run_here(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[object, str]:
    """The exit status of the program in this process, and what it says on stderr."""
    with mock.patch.object(sys, "argv", ["facet", *words]), pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("repor", "report"),
        ("repro --jobs many", "--jobs"),
        ("repro --job 1", "--job"),
        ("predict", "RUN"),
        ("export plain-0 --to onx", "onnx"),
        ("export plain-0", "--to"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_status_2(
    line: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, message = run_here(capsys, *line.split())
    assert status == 2
    assert message.count("\n") == 1
    command = line.split()[0]
    assert message.startswith(f"{command if command in COMMANDS else 'facet'}: ")
    assert named in words_of(message)


@pytest.mark.parametrize(
    "line",
    [
        "predict plan-0 x.png",
        "export plan-0 --to onnx",
        "demo plan-0",
        "pictures plan-0",
        "repro --run plan-0",
    ],
)
def test_a_misspelt_run_is_one_line_with_the_nearest_name(
    line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(yaml.safe_dump(small_parameters("embedded")))
    status, message = run_here(capsys, *line.split())
    assert status == 1
    assert message.count("\n") == 1
    assert message.startswith(f"{line.split()[0]}: ")
    assert {"plain-0", "plain"} & words_of(message)


def test_a_misspelt_stage_or_item_is_one_line_with_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(small_parameters("embedded")))
    for words, status, nearest in (
        ("trian plain-0", 2, "train"),
        ("train plan-0", 1, "plain-0"),
        ("pickle fces", 1, "faces"),
        ("augment plan", 1, "plain"),
        ("pickle", 2, "DATASET"),
    ):
        done = run_program(sys.executable, "-m", "stages", *words.split(), folder=tmp_path)
        assert done.returncode == status
        assert done.stderr.count("\n") == 1
        assert nearest in words_of(done.stderr)


def test_what_it_starts_is_of_its_own_environment(capsys: pytest.CaptureFixture[str]) -> None:
    with mock.patch.dict(os.environ, PATH="/usr/bin:/bin"):
        run_here(capsys, "--version")
        words = ["python", "-c", "import sys; print(sys.prefix)"]
        assert subprocess.check_output(words, text=True).strip() == sys.prefix


def complete(line: str, folder: Path) -> list[str]:
    """What bash would be offered for the last word of a line."""
    words = line.split(" ")
    variables = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    done = facet(folder=folder, _FACET_COMPLETE="complete_bash", **variables)
    return done.stdout.split()


def test_completion_knows_commands_and_names(tmp_path: Path) -> None:
    assert complete("facet re", tmp_path) == ["repro", "review", "report"]
    assert complete("facet repro --run pl", tmp_path) == []  # no project there
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(small_parameters("embedded")))
    (tmp_path / "data/runs/plain-0").mkdir(parents=True)
    (tmp_path / "data/runs/plain-0/model.json").touch()
    (tmp_path / "settings").mkdir()
    (tmp_path / "settings/class.yaml").touch()
    assert complete("facet predict ", tmp_path) == ["plain-0"]
    assert complete("facet repro --run pl", tmp_path) == ["plain", "plain-0"]
    assert complete("facet review --run plain,dr", tmp_path) == ["plain,dropped", "plain,dropped-0"]
    assert complete("facet portable --run dr", tmp_path) == ["dropped"]
    assert complete("facet setting cl", tmp_path) == ["class"]


def test_completion_is_installed_by_the_program(tmp_path: Path) -> None:
    # By a shell, which the program looks for among those that started it; `true` keeps it there.
    words = f"{sys.executable} -m facet --install-completion && true"
    done = run_program("bash", "-c", words, HOME=str(tmp_path))
    assert done.returncode == 0, done.stdout
    assert "_FACET_COMPLETE" in (tmp_path / ".bash_completions/facet.sh").read_text()
