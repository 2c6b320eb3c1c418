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

from facet.errors import InputError
from facet.storage import atomic_write, load_pickle, save_pickle

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


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch /tmp/facet-was-here",)


@pytest.mark.parametrize("content", [{"a": Evil()}, {"a": Path()}, [1], 3])
def test_a_strangers_pickle_is_refused_before_it_runs(tmp_path: Path, content: Any) -> None:
    (tmp_path / "a").write_bytes(pickle.dumps(content))
    with pytest.raises(InputError, match="not a file this project wrote"):
        load_pickle(tmp_path / "a")
    assert not Path("/tmp/facet-was-here").exists()


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    save_pickle(tmp_path / "a", {"x": np.ones(100)})
    whole = (tmp_path / "a").read_bytes()
    for end in (0, 1, len(whole) // 2, len(whole) - 1):
        (tmp_path / "b").write_bytes(whole[:end])
        with pytest.raises(InputError, match="not a file this project wrote"):
            load_pickle(tmp_path / "b")


def test_only_plain_things_are_saved(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="not a plain thing"):
        save_pickle(tmp_path / "a", {"x": np.array([object()])})
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("before")
    with pytest.raises(ValueError, match="x"), atomic_write(tmp_path / "a") as aside:
        aside.write_text("half")
        raise ValueError("x")
    assert (tmp_path / "a").read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
