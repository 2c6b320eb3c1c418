"""The terminal viewer lists one record a run, named by it, and opens on a training."""

import fcntl
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from facet.errors import InputError
from facet.tracking.offline_records import read_records, record_files
from facet.tracking.watch import link_records, name_records
from tests.helpers import Project, words_of
from tests.tracking.helpers import PATIENCE, clean_environment, track


def look(folder: Path, shown: list[str], *words: str) -> str:
    """What `facet watch` writes on a terminal of 120 columns, until all of `shown` is there."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "facet", "watch", *words],
        cwd=folder,
        env=clean_environment(TERM="xterm-256color"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    text, end = "", time.monotonic() + PATIENCE
    try:
        while not all(word in text for word in shown) and time.monotonic() < end:
            if select.select([ours], [], [], 0.2)[0]:
                text += os.read(ours, 65536).decode(errors="replace")
                text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
        os.write(ours, b"q")
        process.wait(PATIENCE)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert process.returncode == 0, text
    return text


def test_the_viewer_opens_on_the_newest_training_and_names_runs(
    made_once: Project, made: Project
) -> None:
    older = sorted((made.folder / "wandb").glob("*-plain-0-*"))  # a grid trains both at once
    for number, folder in enumerate(older):
        folder.rename(re.sub(r"\d{8}_\d{6}", f"20200101_00000{number}", str(folder)))
    text = look(made.folder, ["-plain-0", "-dropped-0", "val/loss"])
    assert re.findall(r"run-\d{8}_\d{6}-(\S+)", text)[:2] == ["dropped-0", "plain-0"]
    assert "comparisons" not in text
    text = look(made.folder, ["Name: plain-0", "train/loss"], "--run", "plain-0")
    assert "dropped-0" not in text
    assert list((made_once.folder.parent / "home").rglob("*")) == []


def test_each_run_has_one_record_its_training(made: Project) -> None:
    shown = name_records(made.folder / "wandb", [])
    assert {name.partition("-")[2] for name in shown} == {"plain-0", "dropped-0"}
    assert len(shown) == 2
    for file in shown.values():
        assert "stats" in read_records(file)
    (plain,) = name_records(made.folder / "wandb", ["plain"])
    assert plain.endswith("-plain-0")
    (dropped,) = set(shown) - {plain}  # perhaps of the same second
    with pytest.raises(InputError) as e:
        name_records(made.folder / "wandb", ["plian-0"])
    assert {"plian-0", "plain-0"} <= words_of(e.value)
    with pytest.raises(InputError, match="make repro"):
        name_records(made.folder / "elsewhere", [])
    # Of a run that DVC restored there is what `make dashboard` recorded.
    shutil.rmtree(shown[dropped].parent)
    restored = name_records(made.folder / "wandb", ["dropped"])
    assert ["stats" in read_records(file) for file in restored.values()] == [False]


def test_links_follow_what_is_recorded(tmp_path: Path) -> None:
    for how in ("new", "new"):
        track(tmp_path, how)
    # `track` names no experiment and no hash; these are the names that a training has.
    for file in record_files(tmp_path / "wandb"):
        id = file.stem.removeprefix("run-").replace("abc", "0123abcd")
        file.rename(file.with_name(f"run-{id}.wandb"))
    shown = name_records(tmp_path / "wandb", [])
    assert {name.partition("-")[2] for name in shown} == {"plain-0", "plain-0-r1"}
    link_records(shown, tmp_path / "watch")
    link_records(shown, tmp_path / "watch")
    links = {p.parent.name: p.resolve() for p in (tmp_path / "watch").glob("*/run-*.wandb")}
    assert links == {f"run-{name}": file.resolve() for name, file in shown.items()}
    link_records({}, tmp_path / "watch")
    assert not list((tmp_path / "watch").iterdir())
    assert all(file.exists() for file in shown.values())
