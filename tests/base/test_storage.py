"""The files stages hand each other."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from facet.base.storage import (
    atomic_write,
    load_pickle,
    read_csv,
    read_json,
    save_pickle,
    write_json,
)
from facet.errors import InputError

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
    save_pickle(folder / "a", content)
    back = load_pickle(folder / "a")
    assert list(back) == sorted(content)
    for key, value in content.items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(back[key], value)
        else:
            assert back[key] == value
    save_pickle(folder / "b", dict(reversed(list(back.items()))))
    assert (folder / "a").read_bytes() == (folder / "b").read_bytes()


def test_bytes_do_not_depend_on_memory_order_or_sharing(tmp_path: Path) -> None:
    x, text = np.arange(6, dtype="float32").reshape(2, 3), "shared"
    save_pickle(
        tmp_path / "a", {"x": np.asfortranarray(x), "t": [text, text], "u": np.array(["a"], "U9")}
    )
    save_pickle(
        tmp_path / "b", {"u": np.array(["a"]), "t": ["sha" + "red"[:], "shared"], "x": x.copy()}
    )
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_plain_file_can_be_read_by_pickle_itself(tmp_path: Path) -> None:
    save_pickle(tmp_path / "a", {"x": np.ones(3)})
    with (tmp_path / "a").open("rb") as file:
        assert pickle.load(file)["x"].sum() == 3


class Touch:
    """Unpickled, it makes a file: the code of a stranger."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch '{self.path}'",)


def test_a_strangers_pickle_is_refused_before_it_runs(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    content = pickle.dumps({"a": Touch(mark)})
    pickle.loads(content)
    assert mark.exists()  # it would run
    mark.unlink()
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(InputError, match=f"^{tmp_path / 'a'}: "):
        load_pickle(tmp_path / "a")
    assert not mark.exists()


@pytest.mark.parametrize("content", [{"a": Path()}, [1], 3])
def test_a_pickle_of_other_things_is_refused(tmp_path: Path, content: Any) -> None:
    (tmp_path / "a").write_bytes(pickle.dumps(content))
    with pytest.raises(InputError, match=f"^{tmp_path / 'a'}: "):
        load_pickle(tmp_path / "a")


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    save_pickle(tmp_path / "a", {"x": np.ones(100)})
    whole = (tmp_path / "a").read_bytes()
    for end in (0, 1, len(whole) // 2, len(whole) - 1):
        (tmp_path / "b").write_bytes(whole[:end])
        with pytest.raises(InputError, match=f"^{tmp_path / 'b'}: "):
            load_pickle(tmp_path / "b")


def test_a_file_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    for read in (load_pickle, read_json, read_csv):
        with pytest.raises(InputError, match=f"^{tmp_path / 'a'}: .*dvc pull"):
            read(tmp_path / "a")


def test_json_is_sorted_rounded_and_of_numbers_alone(tmp_path: Path) -> None:
    write_json(tmp_path / "a", {"b": [1 / 3], "a": {"z": 1, "y": (2, 0.1 + 0.2)}})
    write_json(tmp_path / "b", {"a": {"y": [2, 0.3], "z": 1}, "b": [0.33333333]})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "b", {"a": float("nan")})
    assert read_json(tmp_path / "b")["b"] == [0.33333333]


def test_only_plain_things_are_saved(tmp_path: Path) -> None:
    for value in (np.array([object()]), {1, 2}, b"bytes", np.float64(1)):
        with pytest.raises(TypeError, match=type(value).__name__):
            save_pickle(tmp_path / "a", {"x": value})
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("before")
    with pytest.raises(ValueError, match="x"), atomic_write(tmp_path / "a") as aside:
        aside.write_text("half")
        raise ValueError("x")
    assert (tmp_path / "a").read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_failed_folder_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/file").write_text("before")
    with pytest.raises(ValueError, match="x"), atomic_write(tmp_path / "a") as aside:
        aside.mkdir()
        (aside / "file").write_text("half")
        raise ValueError("x")
    assert [(p.name, p.read_text()) for p in tmp_path.rglob("*") if p.is_file()] == [
        ("file", "before")
    ]
