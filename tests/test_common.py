"""The wrapper every stage enters by, and the files stages hand each other."""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stages.common import Refused, load, save, split_of, writing
from tests.conftest import ROOT

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8", exclude_characters="\0")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
arrays = hnp.arrays(
    st.sampled_from(["float32", "int64", "uint8", "bool", "<U5"]), hnp.array_shapes(max_dims=3)
)


@given(content=st.dictionaries(st.text(), plain | arrays, max_size=4))
def test_what_is_saved_comes_back_and_equal_content_gives_equal_bytes(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, Any]
) -> None:
    folder = tmp_path_factory.mktemp("files")
    save(folder / "a", content)
    back = load(folder / "a")
    assert list(back) == sorted(content)
    for key, value in content.items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(back[key], value)
        else:
            assert back[key] == value
    save(folder / "b", dict(reversed(list(back.items()))))
    assert (folder / "a").read_bytes() == (folder / "b").read_bytes()


def test_bytes_do_not_depend_on_memory_order_or_sharing(tmp_path: Path) -> None:
    x, text = np.arange(6, dtype="float32").reshape(2, 3), "shared"
    save(tmp_path / "a", {"x": np.asfortranarray(x), "t": [text, text], "u": np.array(["a"], "U9")})
    save(tmp_path / "b", {"u": np.array(["a"]), "t": ["sha" + "red"[:], "shared"], "x": x.copy()})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_plain_file_can_be_read_by_pickle_itself(tmp_path: Path) -> None:
    save(tmp_path / "a", {"x": np.ones(3)})
    with (tmp_path / "a").open("rb") as file:
        assert pickle.load(file)["x"].sum() == 3


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch /tmp/facet-was-here",)


@pytest.mark.parametrize("content", [{"a": Evil()}, {"a": Path()}, [1], 3])
def test_a_strangers_pickle_is_refused_before_it_runs(tmp_path: Path, content: Any) -> None:
    (tmp_path / "a").write_bytes(pickle.dumps(content))
    with pytest.raises(Refused, match="not a file this project wrote"):
        load(tmp_path / "a")
    assert not Path("/tmp/facet-was-here").exists()


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "a", {"x": np.ones(100)})
    whole = (tmp_path / "a").read_bytes()
    for end in (0, 1, len(whole) // 2, len(whole) - 1):
        (tmp_path / "b").write_bytes(whole[:end])
        with pytest.raises(Refused, match="not a file this project wrote"):
            load(tmp_path / "b")


def test_only_plain_things_are_saved(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="not a plain thing"):
        save(tmp_path / "a", {"x": np.array([object()])})
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("before")
    with pytest.raises(ValueError, match="x"), writing(tmp_path / "a") as aside:
        aside.write_text("half")
        raise ValueError("x")
    assert (tmp_path / "a").read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_seed_picks_its_split() -> None:
    assert split_of({"x": 1}, 5) == {"x": 1}
    assert split_of({"splits": [{"x": 1}, {"x": 2}]}, 3) == {"x": 2}


# --- the wrapper, as a process ---------------------------------------------------------------

STAGE = """
import os, sys, time
from pathlib import Path
from stages.common import Refused, enter
def main(what: str) -> None:
    Path("pid").write_text(str(os.getpid()))
    if what == "refuse": raise Refused("file.csv: is\\nwrong")
    if what == "missing": open("nowhere/file")
    if what == "wait": time.sleep(60)
enter(main)
"""


@pytest.fixture
def stage(tmp_path: Path) -> list[str]:
    (tmp_path / "stage.py").write_text(STAGE)
    return [sys.executable, str(tmp_path / "stage.py")]


def run(stage: list[str], what: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*stage, what],
        cwd=folder,
        text=True,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        # A shell without job control has its background jobs, and all below them, ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.parametrize(
    ("what", "status", "said"),
    [
        ("go", 0, ""),
        ("refuse", 1, "stage: file.csv: is wrong\n"),
        ("missing", 1, "stage: nowhere/file: No such file or directory\n"),
    ],
)
def test_errors_are_one_line(
    stage: list[str], tmp_path: Path, what: str, status: int, said: str
) -> None:
    process = run(stage, what, tmp_path)
    assert process.communicate()[1] == said
    assert process.returncode == status


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def started(folder: Path, seconds: int = 10) -> int:
    for _ in range(20 * seconds):
        if (folder / "pid").exists() and (text := (folder / "pid").read_text()):
            return int(text)
        time.sleep(0.05)
    raise AssertionError("did not start")


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)],
)
def test_the_stage_ends_with_the_process_that_waits_for_it(
    stage: list[str], tmp_path: Path, number: int, status: int
) -> None:
    process = run(stage, "wait", tmp_path)
    pid = started(tmp_path)
    assert pid != process.pid
    assert os.getpgid(pid) == pid
    process.send_signal(number)
    process.communicate()
    assert process.returncode == status
    for _ in range(100):
        if not alive(pid):
            break
        time.sleep(0.05)
    assert not alive(pid)


def test_the_stage_ends_when_its_parent_is_killed(stage: list[str], tmp_path: Path) -> None:
    command = f"{stage[0]} {stage[1]} wait; true"
    parent = subprocess.Popen(
        ["sh", "-c", command], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    pid = started(tmp_path)
    parent.kill()
    parent.wait()
    for _ in range(100):
        if not alive(pid):
            break
        time.sleep(0.05)
    assert not alive(pid)
