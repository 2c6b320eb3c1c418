"""Disks that are full or read-only, for real: a line names the place, nothing is half written.

Linux's small file systems in memory are mounted, which takes root. `make test-all` has each stage
meet both faults, and the grid in all places.
"""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from facet.base.storage import md5
from tests.helpers import REPRO, Project, some_in_test

pytestmark = pytest.mark.root
FULL, READ_ONLY = "No space left on device", "Read-only file system"


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True, capture_output=True)


@contextlib.contextmanager
def small_disk(folder: Path, room: int) -> Iterator[None]:
    """Put a folder with what it holds on a disk of its own, with `room` bytes left."""
    folder.mkdir(parents=True, exist_ok=True)
    before = folder.with_name(f"{folder.name}.before")
    shutil.copytree(folder, before, symlinks=True)
    mount("-t", "tmpfs", "-o", "size=64m", "none", str(folder))
    try:
        shutil.copytree(before, folder, symlinks=True, dirs_exist_ok=True)
        shutil.rmtree(before)
        disk = os.statvfs(folder)
        used = (disk.f_blocks - disk.f_bfree) * disk.f_frsize
        mount("-o", f"remount,size={used + room}", str(folder))
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Make a folder one that nobody may write to, root neither."""
    folder.mkdir(parents=True, exist_ok=True)
    mount("--bind", str(folder), str(folder))
    try:
        mount("-o", "remount,bind,ro", str(folder))
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def give_room(folder: Path) -> None:
    mount("-o", "remount,size=64m", str(folder))


def read_hashes(project: Project) -> dict[str, str]:
    """The hashes of all outputs by dvc.lock, without what names W&B's runs."""
    stages = yaml.safe_load((project.folder / "dvc.lock").read_text())["stages"]
    outs = (o for stage in stages.values() for o in stage["outs"])
    return {o["path"]: o["md5"] for o in outs if not o["path"].endswith("runs.csv")}


def list_halves(project: Project) -> list[str]:
    """What is written and not yet renamed."""
    return [str(p) for p in project.folder.rglob("*.part") if ".ckpt" not in p.parts]


def check_line(done: subprocess.CompletedProcess[str], begin: str, place: str, why: str) -> None:
    assert done.returncode == 1, done.stdout + done.stderr
    # A training that takes more than a second draws a bar.
    lines = [line for line in done.stderr.splitlines() if line and "%|" not in line]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith(f"{begin}: ")
    assert place in lines[0]
    assert why in lines[0] or (why == FULL and "MB of disk" in lines[0])
    assert len(lines[0]) < 600
    assert "Traceback" not in done.stdout


STAGES = {
    "download faces": "data/faces/raw",
    "pickle faces": "data/faces/pickled",
    "normalise faces": "data/faces/normalised",
    "augment plain": "data/augmented/plain",
    "train plain-0": "data/runs/plain-0",
    "evaluate plain-0": "data/evaluations/plain-0",
    "compare": "metrics/summary.json",
}


@pytest.mark.parametrize("fault", [FULL, pytest.param(READ_ONLY, marks=pytest.mark.slow)])
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_whose_disk_is_full_or_read_only_names_its_output(
    made: Project, stage: str, fault: str
) -> None:
    name, output = stage.split()[0], made.folder / STAGES[stage]
    place = made.folder / STAGES[stage].split("/")[0]
    words = (sys.executable, "-m", "stages", *stage.split())
    expected = md5(output)
    shutil.rmtree(output) if output.is_dir() else output.unlink()
    shutil.rmtree(made.folder / ".ckpt", ignore_errors=True)
    disk = small_disk(place, 0) if fault == FULL else read_only(place)
    with disk:
        done = made.run(*words, check=False, WANDB_MODE="offline")
        check_line(done, name, STAGES[stage].split("/")[0], fault)
        assert not output.exists()
        assert list_halves(made) == []
        if fault == FULL:
            give_room(place)
            made.run(*words, WANDB_MODE="offline")
            assert md5(output) == expected
    if fault == READ_ONLY:
        made.run(*words, WANDB_MODE="offline")
        assert md5(output) == expected


# Where the grid writes, and the bytes that are left there.
PLACES = {
    "data": 200_000,
    ".dvc/cache": 100_000,
    ".dvc/tmp": 4096,
    ".workers": 100_000,
    ".ckpt": 4096,
    "metrics": 4096,
}


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_a_grid_whose_disk_is_full_names_the_place(made: Project, place: str) -> None:
    expected = read_hashes(made)
    made.forget()
    with small_disk(made.folder / place, PLACES[place]):
        done = made.run(*REPRO, check=False, WANDB_MODE="offline")
        check_line(done, "repro", place, FULL)
        assert list_halves(made) == []
        give_room(made.folder / place)
        made.run(*REPRO, WANDB_MODE="offline")
        assert read_hashes(made) == expected


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_a_grid_that_may_not_write_names_the_place(made: Project, place: str) -> None:
    expected = read_hashes(made)
    made.forget()
    with read_only(made.folder / place):
        done = made.run(*REPRO, check=False, WANDB_MODE="offline")
        check_line(done, "repro", place, READ_ONLY)
        assert list_halves(made) == []
    made.run(*REPRO, WANDB_MODE="offline")
    assert read_hashes(made) == expected


@pytest.mark.parametrize("fault", some_in_test([FULL, READ_ONLY], FULL))
def test_a_grid_of_one_stale_run_names_the_place(made: Project, fault: str) -> None:
    made.parameters["experiments"]["plain"]["epochs"] = 3
    made.write()
    place = made.folder / ("data" if fault == READ_ONLY else ".dvc/cache")
    disk = small_disk(place, 4096) if fault == FULL else read_only(place)
    with disk:
        done = made.run(*REPRO, check=False)
        check_line(done, "repro", str(place.relative_to(made.folder)), fault)
        assert list_halves(made) == []
    made.run(*REPRO)
    assert made.run("dvc", "status", "--json").stdout.strip() == "{}"


def test_records_that_find_no_room_fail_no_run(made: Project) -> None:
    made.parameters["experiments"]["plain"]["epochs"] = 3
    made.write()
    with small_disk(made.folder / "wandb", 4096):
        done = made.run(*REPRO, WANDB_MODE="offline")
        assert f"W&B's records are not whole: wandb: {FULL}" in done.stdout.splitlines()
        assert done.stderr == ""
    assert made.run("dvc", "status", "--json").stdout.strip() == "{}"
