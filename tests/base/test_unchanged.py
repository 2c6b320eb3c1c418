"""The hashes of inputs: computed once, and again whenever a file may be another."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from facet.base import unchanged
from facet.base.storage import file_md5, md5

SIZE = unchanged.LARGE + 1


@pytest.fixture
def computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are hashed, in a folder of the test's own; what is written is old enough."""
    hashed: list[Path] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(unchanged, "RECENT", 0)
    monkeypatch.setattr(unchanged, "file_md5", lambda p: hashed.append(p) or file_md5(p))
    Path("large").write_bytes(bytes(SIZE))
    return hashed


def alter(path: Path) -> None:
    """Other bytes in the same file, as long, at the same time of writing."""
    before = path.stat()
    with path.open("r+b") as file:
        file.write(b"x")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_ino == before.st_ino
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def replace(path: Path) -> None:
    path.unlink()
    path.write_bytes(bytes(SIZE - 1) + b"y")


def test_a_large_file_is_hashed_once(computed: list[Path]) -> None:
    for _ in range(3):
        assert unchanged.known_md5(Path("large")) == file_md5(Path("large"))
    assert len(computed) == 1


@pytest.mark.parametrize("change", [alter, replace])
def test_a_file_that_may_be_another_is_hashed_again(
    computed: list[Path], change: Callable[[Path], None]
) -> None:
    before = unchanged.known_md5(Path("large"))
    time.sleep(0.05)
    change(Path("large"))
    assert unchanged.known_md5(Path("large")) == file_md5(Path("large")) != before
    assert len(computed) == 2


def test_what_was_written_just_now_is_not_noted(
    computed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unchanged, "RECENT", 60 * 10**9)
    for _ in range(2):
        unchanged.known_md5(Path("large"))
    assert len(computed) == 2


@pytest.mark.parametrize("content", [b"", b"no data base", b"SQLite format 3\0" + bytes(84)])
def test_a_broken_file_of_hashes_is_no_matter(computed: list[Path], content: bytes) -> None:
    Path(".ckpt").mkdir()
    unchanged.HASHES.write_bytes(content)
    assert unchanged.known_md5(Path("large")) == file_md5(Path("large"))


def test_no_place_for_hashes_is_no_matter(computed: list[Path]) -> None:
    Path(".ckpt").write_text("a file")
    for _ in range(2):
        assert unchanged.known_md5(Path("large")) == file_md5(Path("large"))
    assert len(computed) == 2


def test_small_files_are_hashed_each_time(computed: list[Path]) -> None:
    Path("small").write_bytes(b"1")
    for _ in range(2):
        assert md5(Path("small"), unchanged.known_md5) == file_md5(Path("small"))
    assert not unchanged.HASHES.exists()


def hash_many(folder: Path) -> list[str]:
    os.chdir(folder)
    unchanged.RECENT = 0
    return [unchanged.known_md5(Path(str(number))) for number in range(20)]


def test_many_processes_note_hashes_at_once(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / str(number)).write_bytes(bytes([number]) * SIZE)
    expected = [file_md5(tmp_path / str(number)) for number in range(20)]
    with ProcessPoolExecutor(8, get_context("spawn")) as pool:
        assert list(pool.map(hash_many, [tmp_path] * 8)) == [expected] * 8
