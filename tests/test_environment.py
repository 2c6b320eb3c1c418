"""`make env`: which Python the environment is made with, and when it is made anew."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.helpers import ROOT, words_of

# In the place of Python: it tells its version, makes a folder for `-m venv` and notes each call.
FAKE = """#!/bin/sh
echo "$0 $*" >> {calls}
case "$1 $2" in
    "-m venv") mkdir -p "$4/bin"; touch "$4/pyvenv.cfg"; cp "$0" "$4/bin/python";;
    "-c import sys; print"*) echo {version};;
    "-c import sys; sys.exit"*) exit {refused};;
esac
"""


class Folder:
    """A folder with the Makefile, and a path on which there are fake Pythons alone."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bin, self.calls = folder, folder / "bin", folder / "calls"
        self.bin.mkdir()
        for name in ("make", "bash", "sh", "mkdir", "touch", "cp", "chmod", "ls"):
            (self.bin / name).symlink_to(str(shutil.which(name)))
        shutil.copy(ROOT / "Makefile", folder)
        for lock in ROOT.glob("requirements*.lock"):
            (folder / lock.name).touch()
        (folder / "facet/report").mkdir(parents=True)
        (folder / "facet/report/dvc_page.py").touch()

    def add(self, name: str, version: str) -> Path:
        """Put a Python of `version` on the path."""
        path = self.bin / name
        refused = int(version not in ("3.11", "3.12", "3.13"))
        path.write_text(FAKE.format(calls=self.calls, version=version, refused=refused))
        path.chmod(0o755)
        return path

    def make(self, *words: str) -> tuple[int, str, list[str]]:
        """`make env`: its status, stderr and the fake Pythons' calls."""
        self.calls.write_text("")
        environment = {k: v for k, v in os.environ.items() if k not in ("PYTHON", "MAKEFLAGS")}
        done = subprocess.run(
            [self.bin / "make", "env", *words],
            cwd=self.folder,
            env=environment | {"PATH": str(self.bin)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.returncode, done.stderr, self.calls.read_text().splitlines()

    def made_with(self, *words: str) -> list[str]:
        """The names of the Pythons that `make env` has made an environment with."""
        status, output, calls = self.make(*words)
        assert status == 0, output
        return [Path(c.split()[0]).name for c in calls if " -m venv " in c]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_the_oldest_supported_python_is_taken_and_kept(folder: Folder) -> None:
    for name, version in (("python3.12", "3.12"), ("python3.13", "3.13"), ("python3", "3.10")):
        folder.add(name, version)
    assert folder.made_with() == ["python3.12"]
    assert folder.made_with() == []
    assert folder.make()[2] == []  # nothing to do, and nothing is started
    assert folder.made_with("PYTHON=python3.12") == []
    assert folder.made_with("VENV=.venv-3.13", "PYTHON=python3.13") == ["python3.13"]
    assert (folder.folder / ".venv-3.13/.complete").exists()

    (folder.folder / "requirements.lock").touch()  # other packages: the same Python
    _, _, calls = folder.make()
    assert any(" -m uv pip sync " in c for c in calls)
    assert not any(" -m venv " in c for c in calls)
    (folder.folder / ".venv/bin/python").unlink()  # as after an upgrade of the system
    assert folder.made_with() == ["python3.12"]


def test_a_folder_that_is_no_environment_is_not_emptied(folder: Folder) -> None:
    folder.add("python3.12", "3.12")
    (folder.folder / "mine").mkdir()
    (folder.folder / "mine/notes.txt").touch()
    status, output, calls = folder.make("VENV=mine")
    assert status == 2
    assert "mine" in words_of(output.splitlines()[0])
    assert not any(" -m venv " in c for c in calls)
    (folder.folder / "empty").mkdir()
    assert folder.made_with("VENV=empty") == ["python3.12"]


def test_another_version_is_refused_in_a_line_that_says_what_to_do(folder: Folder) -> None:
    def refusal(*words: str) -> set[str]:
        status, output, calls = folder.make(*words)
        assert status == 2
        assert not any(" -m venv " in c or " -m pip " in c for c in calls)
        (line, _) = output.splitlines()  # the second is make's own
        return words_of(line)

    assert {"uv", "python", "install", "3.13"} <= refusal()
    folder.add("python3", "3.14")
    assert {"uv", "3.11", "3.12", "3.13"} <= refusal()
    assert {"PYTHON=python3", "uv"} <= refusal("PYTHON=python3")
    assert {"PYTHON=absent", "uv"} <= refusal("PYTHON=absent")

    folder.add("python3.11", "3.11")
    folder.add("python3.13", "3.13")
    assert folder.made_with("PYTHON=python3.13") == ["python3.13"]
    words = refusal("PYTHON=python3.11")
    assert {"venv", "3.13", "PYTHON=python3.11", "3.11", "VENV=.venv-3.11", "rm"} <= words
    folder.add("python3", "3.10").rename(folder.folder / ".venv/bin/python")
    (folder.folder / "requirements.lock").touch()
    assert {"venv", "3.10", "rm"} <= refusal()
