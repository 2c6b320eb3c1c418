"""Three small runs come out as they always have, on each processor of the promise."""

import json
import shutil
from pathlib import Path

import pytest

from devtools.same_outputs import find_differences, read_members
from tests.helpers import ROOT, Project

GOLDEN = ROOT / "tests/data/golden.json"
FILES = ("history.csv", "model.keras", "predictions.npz")


def digests(project: Project, run: str) -> dict[str, str]:
    """A digest of each member of a run's files; of the figures the values."""
    files = [project.folder / "data/runs" / run / name for name in FILES]
    files.append(project.folder / f"metrics/runs/{run}.json")
    return {f"{file.name}{k}": v for file in files for k, v in read_members(file).items()}


@pytest.mark.avx2
def test_three_small_runs_have_their_golden_bytes(
    made_once: Project, new_data_project: Project
) -> None:
    """Where results change on purpose, the file is made anew: `json.dump` of `found`."""
    found = {run: digests(made_once, run) for run in ("plain-0", "dropped-0")}
    found["leaves-0"] = digests(new_data_project, "leaves-0")
    golden = json.loads(GOLDEN.read_text())
    different = [
        f"{run} {member}"
        for run, members in found.items()
        for member in sorted(members.keys() | golden[run].keys())
        if members.get(member) != golden[run].get(member)
    ]
    assert different == []


def test_what_two_checkouts_have_made_is_compared_by_members(made: Project, tmp_path: Path) -> None:
    other = made.copy_to(tmp_path / "other")
    assert find_differences(made.folder, other.folder) == []
    plain, dropped = (other.folder / "data/runs" / run for run in ("plain-0", "dropped-0"))
    (plain / "history.csv").unlink()
    (plain / "predictions.npz").unlink()
    shutil.copy(dropped / "predictions.npz", plain)
    metrics = other.folder / "metrics/runs/plain-0.json"
    tree = json.loads(metrics.read_text())
    tree |= {"epochs": 77, "wandb": {"id": "other"}}
    metrics.unlink()
    metrics.write_text(json.dumps(tree))
    found = find_differences(made.folder, other.folder)
    named = {line.split(": ")[0] for line in found}
    assert "data/runs/plain-0/history.csv" in named
    assert "data/runs/plain-0/predictions.npz[pose_test.npy]" in named
    assert [n for n in named if "plain-0.json" in n] == ["metrics/runs/plain-0.json.epochs"]
    assert all("plain-0" in name for name in named)
