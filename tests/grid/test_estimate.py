"""What the grid needs of the machine, against what it then takes."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from facet.base.config import check_params
from facet.base.storage import write_json
from facet.errors import InputError
from facet.grid import runner
from facet.grid.estimate import (
    check_disk,
    choose_jobs,
    estimate_disk,
    estimate_memory,
    measure_dataset,
)
from facet.grid.plan import plan_targets, stages_to_make
from facet.memory import GIB
from tests.helpers import Project, small_parameters

STAGES = [
    *(f"{stage}@faces" for stage in ("download", "pickle", "normalise")),
    "augment@plain",
    "augment@dropped",
    "train@plain-0",
]


def disk_used(folder: Path) -> int:
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())


def test_as_many_runs_go_at_once_as_fit() -> None:
    assert choose_jobs([GIB] * 5, 4, 100 * GIB) == 4
    assert choose_jobs([GIB] * 5, 4, 3 * GIB) == 3
    assert choose_jobs([GIB, 4 * GIB, GIB], 3, 5 * GIB) == 2  # the largest may meet any other
    assert choose_jobs([4 * GIB], 2, GIB) == 1  # by itself, with what others leave it
    assert choose_jobs([], 2, GIB) == 2


def test_a_plans_stages_are_those_that_will_run() -> None:
    parameters = check_params(small_parameters("embedded"))

    def made(changed: set[str]) -> set[str]:
        plan = plan_targets(parameters, ["plain-0", "dropped-0"], changed)
        return {s for several in stages_to_make(plan, changed).values() for s in several}

    every = {*STAGES, "train@dropped-0", "evaluate@plain-0", "evaluate@dropped-0"}
    assert made({"download@faces"}) == every
    assert made({"normalise@faces"}) == every - {"download@faces", "pickle@faces"}
    assert made({"train@plain-0"}) == {"train@plain-0", "evaluate@plain-0"}
    assert made({"evaluate@plain-0"}) == {"evaluate@plain-0"}
    assert made(set()) == set()


def test_disk_is_estimated_from_what_is_there(
    prepared: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(prepared.folder)
    parameters = check_params(prepared.parameters)
    data = Path("data/faces")
    taken = {name: disk_used(data / name) for name in ("pickled", "normalised")}

    def estimated(stage: str, *changed: str) -> int:
        sizes = {"faces": measure_dataset("faces", parameters.datasets["faces"], changed)}
        return estimate_disk(parameters, sizes, [stage]) // 2  # cache and working tree

    # Names and labels, which weigh next to nothing beside real images, are not counted.
    pixels = (data / "pickled/pixels.npy").stat().st_size - 128
    assert pixels <= estimated("pickle@faces") <= taken["pickled"]
    assert estimated("pickle@faces", "pickle@faces") == pixels  # from the images' headers
    assert pixels == estimated("normalise@faces") <= taken["normalised"]
    augmented = disk_used(Path("data/augmented/plain"))
    assert pixels <= estimated("augment@plain") <= augmented
    assert estimated("augment@plain", "download@faces") == 0  # as yet unknown


def test_equal_augmentations_and_splits_are_counted_as_they_are_stored(
    prepared: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(prepared.folder)

    def estimated(stages: list[str], tree: dict[str, Any]) -> int:
        parameters = check_params(tree)
        sizes = {"faces": measure_dataset("faces", parameters.datasets["faces"], ())}
        return estimate_disk(parameters, sizes, stages)

    tree = prepared.parameters
    one = estimated(["augment@plain"], tree)
    assert estimated(["augment@plain", "augment@dropped"], tree) == one
    tree["datasets"]["faces"]["augment"]["experiments"] = {"dropped": {"copies": 8}}
    assert estimated(["augment@plain", "augment@dropped"], tree) == 5 * one
    tree["datasets"]["faces"]["split"]["seed"] = [0, 1, 2]
    assert estimated(["augment@plain"], tree) == 3 * one


@pytest.mark.parametrize("kind", ["npz", "named.npz", "csv"])
def test_items_are_counted_in_arrays_and_tables(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    raw = Path("data/faces/raw")
    raw.mkdir(parents=True)
    read: dict[str, Any] = {}
    if kind == "npz":
        X, y = np.zeros((300, 8, 8), "uint8"), np.zeros(300, "uint8")
        np.savez_compressed(raw / "a.npz", x_train=X, y_train=y, x_test=X, y_test=y)
    elif kind == "named.npz":
        X, y = np.zeros((600, 8, 8), "uint16"), np.zeros(600, "int64")
        np.savez_compressed(raw / "a.npz", pictures=X, kinds=y)
        kind, read = "npz", {"arrays": {"x": "pictures", "y": "kinds"}}
    else:
        rows = "\n".join(f"{i},{i / 7:.6f},good" for i in range(600))
        (raw / "a.csv").write_text(f"a,b,y\n{rows}\n")
    entry = {"name": f"a.{kind}", "bytes": disk_used(raw)}
    write_json(raw / "manifest.json", {"files": [entry]})
    tree = small_parameters("embedded")
    tree["datasets"]["faces"]["read"] |= read
    size = measure_dataset("faces", check_params(tree).datasets["faces"], ())
    assert size.items is not None
    assert size.decoded is not None
    assert 600 <= size.items <= 1500
    assert 600 * 2 * 8 <= size.decoded <= 600 * 8 * 8 * 1.1


def test_the_middle_size_is_known_once_images_are_prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tree = small_parameters("embedded")
    tree["datasets"]["faces"]["size"] = "middle"
    parameters = check_params(tree)
    size = measure_dataset("faces", parameters.datasets["faces"], ())
    assert size.shape is None
    assert estimate_memory(parameters, {"faces": size}, ["plain"]) == {}
    write_json("data/faces/normalised/0/about.json", {"input": {"size": [12, 10]}})
    assert measure_dataset("faces", parameters.datasets["faces"], ()).shape == (10, 12, 1)


def test_a_broken_image_is_left_to_the_stage_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    raw = Path("data/faces/raw")
    raw.mkdir(parents=True)
    Image.new("L", (10, 20)).save(raw / "whole.png")
    (raw / "broken.png").write_bytes(b"no image")
    names = ["broken.png", "whole.png"]
    write_json(raw / "manifest.json", {"files": [{"name": n, "bytes": 9} for n in names]})
    spec = check_params(small_parameters("embedded")).datasets["faces"]
    size = measure_dataset("faces", spec, ())
    assert (size.items, size.decoded) == (2, 200)


def test_too_little_disk_is_said_before_anything_runs() -> None:
    check_disk(10**9, 10**9)
    with pytest.raises(InputError, match=r"4\.0 GB.*1\.0 GB"):
        check_disk(4 * 10**9, 10**9)


def test_too_little_memory_is_said_before_anything_runs(project: Project) -> None:
    """A batch of pictures that no machine holds; the other experiment would fit."""
    project.parameters["datasets"]["faces"]["size"] = [4000, 4000]
    project.parameters["experiments"]["dropped"] |= {
        "batch": 4096,
        "network": {"trunk": [{"conv": 64, "pool": 2}, {"average": True}]},
    }
    project.write()
    done = project.run(sys.executable, "-m", "facet", "repro", check=False)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "experiments.dropped" in done.stderr
    assert "set experiments.dropped.batch to" in done.stderr
    assert not (project.folder / "data/faces/normalised").exists()
    assert not (project.folder / ".workers/0").exists()


def test_jobs_follow_memory_unless_they_are_given(
    prepared: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(prepared.folder)
    parameters = check_params(prepared.parameters)
    changed = {"train@plain-0", "train@dropped-0"}
    plan = plan_targets(parameters, ["plain-0", "dropped-0"], changed)
    sizes = {"faces": measure_dataset("faces", parameters.datasets["faces"], changed)}
    need = max(estimate_memory(parameters, sizes, ["plain", "dropped"]).values())
    monkeypatch.setattr(runner, "usable_cores", lambda: 2)
    monkeypatch.setattr(runner, "machine_memory", lambda: 2 * need)
    assert runner.choose_resources(parameters, plan, changed, 0) == 2
    monkeypatch.setattr(runner, "machine_memory", lambda: 2 * need - 1)
    assert runner.choose_resources(parameters, plan, changed, 0) == 1
    assert "note" not in capsys.readouterr().out
    assert runner.choose_resources(parameters, plan, changed, 2) == 2
    assert "note" in capsys.readouterr().out
    # One run more than cores goes along; it would be a round by itself.
    more = prepared.parameters | {"seeds": [0, 1, 2]}
    wanted = [f"plain-{seed}" for seed in (0, 1, 2)]
    trains = {f"train@{run}" for run in wanted}
    three = plan_targets(check_params(more), wanted, trains)
    monkeypatch.setattr(runner, "machine_memory", lambda: 4 * need)
    assert runner.choose_resources(check_params(more), three, trains, 0) == 3
    assert runner.choose_resources(check_params(more), three, trains, 2) == 2
    monkeypatch.setattr(runner, "machine_memory", lambda: need // 2)
    with pytest.raises(InputError, match="memory"):
        runner.choose_resources(parameters, plan, changed, 0)
