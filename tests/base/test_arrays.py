"""Arrays come back from disk as they were, and memory does not grow with them."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from facet.base.arrays import Chunks, PixelFile, load_array, map_ahead, save_array
from facet.base.processor import usable_cores
from facet.errors import InputError
from tests.helpers import ROOT

plain = arrays.arrays(
    dtype=st.sampled_from(["uint8", "int64", "float32", "float64", "bool", "<U5"]),
    shape=arrays.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5),
)


@given(array=plain)
def test_what_is_saved_is_loaded_whatever_way_it_lay_in_memory(
    tmp_path_factory: pytest.TempPathFactory, array: np.ndarray
) -> None:
    folder = tmp_path_factory.mktemp("arrays")
    save_array(folder / "a.npy", array)
    save_array(folder / "b.npy", np.asfortranarray(array))
    pieces = Chunks(array.shape, array.dtype, lambda: (array[i : i + 2] for i in range(0, 6, 2)))
    save_array(folder / "c.npy", array if array.dtype.kind == "U" else pieces)
    assert (folder / "a.npy").read_bytes() == (folder / "b.npy").read_bytes()
    assert (folder / "a.npy").read_bytes() == (folder / "c.npy").read_bytes()
    for back in (load_array(folder / "a.npy"), np.load(folder / "a.npy")):
        np.testing.assert_array_equal(back, array)
        assert back.dtype.kind == array.dtype.kind
    np.testing.assert_array_equal(np.asarray(pieces), array)


def test_strings_have_the_bytes_of_their_content(tmp_path: Path) -> None:
    save_array(tmp_path / "a.npy", np.array(["ab", "c"], "<U9"))
    save_array(tmp_path / "b.npy", np.array(["ab", "c"]))
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()


def test_what_is_loaded_cannot_be_changed(tmp_path: Path) -> None:
    save_array(tmp_path / "a.npy", np.arange(3))
    with pytest.raises(ValueError, match="read-only"):
        load_array(tmp_path / "a.npy")[0] = 5


def test_objects_are_neither_written_nor_read(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        save_array(tmp_path / "a.npy", np.array([object()]))
    np.save(tmp_path / "b.npy", np.array([{"a": 1}]), allow_pickle=True)
    (tmp_path / "c.npy").write_bytes(b"something else")
    save_array(tmp_path / "d.npy", np.arange(1000))
    with (tmp_path / "d.npy").open("r+b") as file:
        file.truncate(500)
    for name in "bcde":
        with pytest.raises(InputError, match=f"{name}.npy"):
            load_array(tmp_path / f"{name}.npy")


def test_chunks_that_are_not_all_there_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="2 items"):
        save_array(tmp_path / "a.npy", Chunks((3,), "int64", lambda: [np.zeros(2, "int64")]))


@given(sizes=st.lists(st.integers(0, 40), max_size=6))
def test_a_file_of_pixels_grows(tmp_path_factory: pytest.TempPathFactory, sizes: list[int]) -> None:
    path = tmp_path_factory.mktemp("pixels") / "pixels.npy"
    file = PixelFile(path)
    parts = [np.arange(size, dtype="uint8") for size in sizes]
    for part in parts:
        file.append(part)
    file.close()
    whole = np.concatenate([np.zeros(0, "uint8"), *parts])
    np.testing.assert_array_equal(load_array(path), whole)
    save_array(path.with_name("whole.npy"), whole)
    assert path.read_bytes() == path.with_name("whole.npy").read_bytes()


@pytest.mark.parametrize("threads", [1, 3])
def test_work_ahead_is_in_order_and_bounded(threads: int) -> None:
    begun, lock = [], threading.Lock()

    def make(n: int) -> int:
        with lock:
            begun.append(n)
        time.sleep(0.001 * (n % 3))
        return n * n

    done = []
    for value in map_ahead(make, range(40), threads):
        done.append(value)
        assert len(begun) <= len(done) + 2 * threads + 1
    assert done == [n * n for n in range(40)]


def test_a_stage_uses_the_cores_that_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FACET_CORES", raising=False)
    assert usable_cores() == len(os.sched_getaffinity(0))
    monkeypatch.setenv("FACET_CORES", "7")
    assert usable_cores() == 7


def test_an_error_ends_the_work_ahead() -> None:
    begun = []

    def make(n: int) -> int:
        begun.append(n)
        if n == 3:
            raise InputError("three")
        return n

    with pytest.raises(InputError, match="three"):
        list(map_ahead(make, range(1000), 2))
    assert len(begun) < 20


# A gigabyte of images, of which a process may hold 150 MiB in memory of its own.
LARGE = """
import re, sys
from pathlib import Path
import numpy as np
from facet.base.arrays import Chunks, load_array, save_array

def anonymous():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) >> 10

before = anonymous()
seen = []
def make():
    for start in range(0, 20000, 250):
        yield np.full((250, 128, 128, 3), start % 256, "uint8")
        seen.append(anonymous())
save_array(Path(sys.argv[1]), Chunks((20000, 128, 128, 3), "uint8", make))
X = load_array(Path(sys.argv[1]))
for start in range(0, 20000, 250):
    X[start : start + 250].sum()
    seen.append(anonymous())
print(max(seen) - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_memory_does_not_grow_with_an_array(tmp_path: Path) -> None:
    words = [sys.executable, "-c", LARGE, str(tmp_path / "large.npy")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
    assert int(done.stdout) < 150
