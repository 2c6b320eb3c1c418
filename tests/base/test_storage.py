"""The files stages hand each other."""

from pathlib import Path

import pytest

from facet.base.arrays import load_array, load_arrays
from facet.base.storage import atomic_write, read_csv, read_json, write_json
from facet.errors import InputError


def test_a_file_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    for read in (load_arrays, load_array, read_json, read_csv):
        with pytest.raises(InputError, match=f"^{tmp_path / 'a'}: .*dvc pull"):
            read(tmp_path / "a")


def test_json_is_sorted_rounded_and_of_numbers_alone(tmp_path: Path) -> None:
    write_json(tmp_path / "a", {"b": [1 / 3], "a": {"z": 1, "y": (2, 0.1 + 0.2)}})
    write_json(tmp_path / "b", {"a": {"y": [2, 0.3], "z": 1}, "b": [0.33333333]})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "b", {"a": float("nan")})
    assert read_json(tmp_path / "b")["b"] == [0.33333333]


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
