"""Arrays come back from disk as they were, and memory does not grow with them."""

import io
import os
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from facet.base.arrays import (
    Chunks,
    PixelFile,
    load_array,
    load_arrays,
    map_ahead,
    save_array,
    save_arrays,
)
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


@given(
    content=st.dictionaries(
        st.text("abc_", min_size=1, max_size=4),
        plain | arrays.arrays(st.sampled_from(["int64", "float32", "<U3"]), ()),
        max_size=4,
    )
)
def test_arrays_in_one_file_come_back_and_equal_content_gives_equal_bytes(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, np.ndarray]
) -> None:
    folder = tmp_path_factory.mktemp("files")
    save_arrays(folder / "a", content)
    back = load_arrays(folder / "a")
    assert list(back) == sorted(content)
    for key, value in content.items():
        np.testing.assert_array_equal(back[key], value)
        assert back[key].shape == value.shape
    other = {k: np.array(back[k], order="F") for k in reversed(back)}
    save_arrays(folder / "b", other)
    assert (folder / "a").read_bytes() == (folder / "b").read_bytes()
    with np.load(folder / "a") as opened:  # anybody's numpy reads it
        assert set(opened) == set(content)


def write_members(path: Path, members: dict[str, bytes], packed: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", packed) as file:
        for name, member in members.items():
            file.writestr(name, member)


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


HEADER = b"\x93NUMPY\x01\x00"


def header(text: str, content: bytes = b"") -> bytes:
    line = text.encode().ljust(117) + b"\n"
    return HEADER + len(line).to_bytes(2, "little") + line + content


@pytest.mark.parametrize(
    "member",
    {
        "objects": npy(np.array([{"a": 1}], "O")),
        "pointers": header("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", b"A" * 8),
        "records": npy(np.zeros(2, "i4,f4")),
        "dates": npy(np.zeros(2, "M8[s]")),
        "a shape beyond the file": header(
            "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,)}", b"A" * 8
        ),
        "negative": header("{'descr': '|u1', 'fortran_order': False, 'shape': (-2, -4)}", b"A" * 8),
        "too long": header("{'descr': '|u1', 'fortran_order': False, 'shape': (4,)}", b"A" * 8),
        "column by column": npy(np.asfortranarray(np.ones((2, 3)))),
        "code": header("{'descr': __import__('os').abort(), 'shape': (1,)}", b"A" * 8),
        "deep": header("(" * 100 + ")" * 10, b"A" * 8),
        "no header": b"\x93NUMPY",
        "nothing": b"",
    }.values(),
)
def test_what_was_not_written_here_is_refused_by_name(tmp_path: Path, member: bytes) -> None:
    write_members(tmp_path / "a.npz", {"x.npy": member})
    (tmp_path / "b.npy").write_bytes(member)
    with pytest.raises(InputError, match=f"^{tmp_path / 'a.npz'}: not a file this project wrote"):
        load_arrays(tmp_path / "a.npz")
    if b"'shape': (4,)" not in member and b"fortran_order': True" not in member:
        with pytest.raises(InputError, match=f"^{tmp_path / 'b.npy'}: not a file"):
            load_array(tmp_path / "b.npy")


def test_a_member_larger_than_its_file_is_refused_unread(tmp_path: Path) -> None:
    content = npy(np.zeros(10_000_000, "uint8"))
    write_members(tmp_path / "a.npz", {"x.npy": content}, zipfile.ZIP_DEFLATED)
    assert (tmp_path / "a.npz").stat().st_size < 20_000
    with pytest.raises(InputError, match="larger"):
        load_arrays(tmp_path / "a.npz")


def test_a_flipped_bit_or_a_cut_is_found(tmp_path: Path) -> None:
    content = {"x": np.arange(6.0), "names": np.array(["a", "bc"])}
    save_arrays(tmp_path / "a", content)
    whole = (tmp_path / "a").read_bytes()
    accepted = 0
    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        for damaged in (bytes(flipped), whole[:place]):
            (tmp_path / "b").write_bytes(damaged)
            try:
                back = load_arrays(tmp_path / "b")
            except InputError:
                continue
            accepted += 1
            for key, value in back.items():
                np.testing.assert_array_equal(value, content[key])
    assert accepted < len(whole)  # fields of the zip that say nothing of the arrays, like its dates


def test_only_plain_arrays_are_saved_together(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="object"):
        save_arrays(tmp_path / "a", {"x": np.array([object()])})
    assert list(tmp_path.iterdir()) == []


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
    linux = hasattr(os, "sched_getaffinity")
    assert usable_cores() == (len(os.sched_getaffinity(0)) if linux else os.cpu_count())
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


@pytest.mark.linux
def test_memory_does_not_grow_with_an_array(tmp_path: Path) -> None:
    words = [sys.executable, "-c", LARGE, str(tmp_path / "large.npy")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
    assert int(done.stdout) < 150
