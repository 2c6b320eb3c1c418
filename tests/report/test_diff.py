"""What two commits differ in, on a small repository of its own."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import run_program, write_results


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A repository with a commit without results, one with, and newer results uncommitted."""

    def git(*words: str) -> None:
        subprocess.run(
            ["git", "-c", "user.name=t", "-c", "user.email=t@t", *words],
            cwd=tmp_path,
            check=True,
            capture_output=True,
        )

    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "start")
    git("tag", "empty")
    write_results(tmp_path, 10, 0.55, "no difference shown")
    git("add", "-A")
    git("commit", "-q", "-m", "results")
    git("tag", "old")
    write_results(tmp_path, 20, 0.61, "better")
    return tmp_path


def diff(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return run_program(sys.executable, "-m", "facet", "diff", *words, folder=folder)


def sections(output: str) -> list[tuple[list[str], list[str]]]:
    """The numbers in the heading of each section (parameters, figures, verdicts), and its lines."""
    _, *blocks = output.rstrip().split("\n\n")
    found = []
    for block in blocks:
        heading, *lines = block.split("\n")
        found.append((re.findall(r"\d+", heading.partition("]: ")[2] or heading), lines))
    return found


def test_it_says_what_differs_from_the_working_tree(folder: Path) -> None:
    done = diff(folder, "--a", "old")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == "old"
    parameters, figures, verdicts = sections(done.stdout)
    assert parameters[0] == ["2"]
    assert [line.strip() for line in parameters[1]] == [
        "defaults.epochs: 10 -> 20",
        "experiments.deep.dropout: - -> 0.2",
    ]
    # Means over two seeds, then and now, with their intervals and chances; of what is the same
    # only the count.
    assert figures[0] == ["2", "4"]
    assert [re.findall(r"[\w.]+", line)[:8] for line in figures[1]] == [
        ["deep", "pose", "balanced_accuracy"],
        ["0.560", "0.360", "0.760", "chance", "0.250", "2", "seeds"],
        ["0.620", "0.420", "0.820", "chance", "0.250", "2", "seeds"],
        ["deep", "pose", "accuracy"],
        ["0.560", "0.460", "0.660", "chance", "0.300", "2", "seeds"],
        ["0.620", "0.520", "0.720", "chance", "0.300", "2", "seeds"],
    ]
    assert verdicts[0] == ["1", "1"]
    assert [line.strip() for line in verdicts[1]] == [
        "depth",
        "no difference shown +0.050 [+0.010, +0.200]",
        "-> better +0.110 [+0.010, +0.200]",
    ]


def test_an_experiment_may_be_called_na(folder: Path) -> None:
    table = folder / "metrics/runs.csv"
    table.write_text(table.read_text().replace("plain", "NA"))
    assert "  NA pose accuracy\n    -\n    -> 0.510" in diff(folder, "--a", "old").stdout


def test_two_commits_and_no_difference(folder: Path) -> None:
    done = diff(folder, "--a", "old", "--b", "old")
    assert [(numbers[0], lines) for numbers, lines in sections(done.stdout)] == [("0", [])] * 3


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--a", ""], "A: "),
        (["--a", "nothing"], "A=nothing: "),
        (["--a", "old", "--b", "--all"], "B=--all: "),
        (["--a", "empty"], "empty: .*params.yaml"),
        (["--a", "old", "--b", "empty"], "empty: .*params.yaml"),
    ],
)
def test_what_it_refuses(folder: Path, words: list[str], named: str) -> None:
    done = diff(folder, *words)
    assert done.returncode == 1
    assert re.match(f"diff: {named}", done.stderr)
    assert done.stderr.count("\n") == 1


def test_broken_results_are_refused_by_name(folder: Path) -> None:
    (folder / "metrics/comparisons.json").write_text("[1]")
    assert diff(folder, "--a", "old").stderr.startswith("diff: metrics/comparisons.json: ")
    (folder / "metrics/runs.csv").write_text("run,experiment\na,b\n")
    assert diff(folder, "--a", "old").stderr.startswith("diff: metrics/runs.csv: ")
    (folder / "metrics/runs.csv").unlink()
    assert diff(folder, "--a", "old").stderr.startswith("diff: metrics/runs.csv: ")
