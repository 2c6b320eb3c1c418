"""Raw files of each kind are decoded into plain arrays, broken ones named."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from facet.base.arrays import save_array
from facet.datasets import decode
from facet.datasets.items import load_items, save_items
from facet.errors import InputError
from tests.helpers import decode_folder, draw_faces, words_of


def test_images_of_all_sizes_are_decoded_and_come_back(tmp_path: Path) -> None:
    names = draw_faces(tmp_path)
    Image.new("L", (4, 6)).save(tmp_path / "images/q_a_b_c.png")
    Image.new("RGB", (3, 2), (1, 2, 3)).save(tmp_path / "images/q_a_b_d.png")
    items = decode_folder(tmp_path)
    assert items.images
    assert sorted(items.names) == sorted([*names, "q_a_b_c.png", "q_a_b_d.png"])
    assert len(items.images) == len(items) == len(names) + 2
    for row, name in enumerate(items.names):
        x = np.asarray(Image.open(tmp_path / "images" / name))
        np.testing.assert_array_equal(items.images[row], x)
    save_items(tmp_path, items)
    save_array(tmp_path / "pixels.npy", items.images.pixels)
    back = load_items(tmp_path)
    assert back.images
    assert (back.names == items.names).all()
    np.testing.assert_array_equal(back.images[3], items.images[3])


@pytest.mark.parametrize(
    ("mode", "colour", "shape", "value"),
    [
        ("1", 1, (5, 4), 255),
        ("L", 7, (5, 4), 7),
        ("LA", (7, 9), (5, 4, 2), (7, 9)),
        ("P", 1, (5, 4, 3), (10, 20, 30)),
        ("RGB", (1, 2, 3), (5, 4, 3), (1, 2, 3)),
        ("RGBA", (1, 2, 3, 4), (5, 4, 4), (1, 2, 3, 4)),
        ("I;16", 0x1234, (5, 4), 0x12),
        ("CMYK", (255, 0, 0, 0), (5, 4, 3), (0, 255, 255)),
    ],
)
def test_every_mode_becomes_eight_bits(
    tmp_path: Path, mode: str, colour: Any, shape: tuple[int, ...], value: Any
) -> None:
    path = tmp_path / ("a.tif" if mode in ("CMYK", "I;16") else "a.png")
    image = Image.new(mode, (4, 5), colour)
    if mode == "P":
        image.putpalette([0, 0, 0, 10, 20, 30])
    image.save(path)
    pixels = decode.decode_image(path)
    assert pixels.shape == shape
    assert pixels.dtype == np.uint8
    assert (pixels == np.array(value)).all()


@pytest.mark.parametrize(
    ("orientation", "turns"),
    [(1, 0), (8, 1), (3, 2), (6, 3)],  # quarters against the clock
)
def test_a_photo_turned_by_its_camera_is_turned_back(
    tmp_path: Path, orientation: int, turns: int
) -> None:
    pixels = np.zeros((16, 24), "uint8")
    pixels[:8, :8] = 255
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.jpg", exif=exif, quality=95)
    decoded = decode.decode_image(tmp_path / "a.jpg")
    expected = np.rot90(pixels, turns)
    assert decoded.shape == expected.shape
    assert np.abs(decoded.astype(int) - expected).max() < 20


def test_broken_images_are_refused_by_name(tmp_path: Path) -> None:
    draw_faces(tmp_path)
    victim = sorted((tmp_path / "images").iterdir())[2]
    whole = victim.read_bytes()
    for content in (b"not an image", whole[: len(whole) // 2], b""):
        victim.write_bytes(content)
        with pytest.raises(InputError, match=f"^{victim}: "):
            decode_folder(tmp_path)


def npz(path: Path, **changes: np.ndarray | None) -> Path:
    arrays = {
        "x_train": np.zeros((3, 4, 4), "uint8"),
        "y_train": np.array([0, 1, 0], "uint8"),
        "x_test": np.ones((2, 4, 4), "uint8"),
        "y_test": np.array([1, 0], "uint8"),
    }
    np.savez(path, **{k: v for k, v in (arrays | changes).items() if v is not None})
    return path


def test_arrays_keep_their_own_split(tmp_path: Path) -> None:
    items = decode.read_arrays(npz(tmp_path / "d.npz"), tmp_path / "pixels.npy")
    assert items.own is not None
    assert items.own.tolist() == ["train"] * 3 + ["test"] * 2
    assert items.images
    assert [int(items.images[row].sum()) for row in range(5)] == [0, 0, 0, 16, 16]
    assert items.columns["y"].tolist() == ["0", "1", "0", "1", "0"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"y_test": None}, {"y_test"}),
        ({"y_train": np.zeros(2, "uint8")}, {"y_train", "x_train"}),
        ({"x_train": np.zeros((3, 4, 4))}, {"x_train", "uint8"}),
        ({"x_test": np.zeros((2, 5, 4), "uint8")}, {"x_train", "x_test"}),
        ({"y_test": np.array([{}, {}])}, set()),
    ],
)
def test_bad_arrays_are_refused(
    tmp_path: Path, changes: dict[str, np.ndarray | None], named: set[str]
) -> None:
    path = npz(tmp_path / "d.npz", **changes)
    with pytest.raises(InputError, match=f"^{path}: ") as e:
        decode.read_arrays(path, tmp_path / "pixels.npy")
    assert named <= words_of(e.value)


def test_tables_follow_each_other(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('"a b";c\n1;x\n2.5;y\n')
    (tmp_path / "b.csv").write_text("a b,c\n3,z\n")
    items = decode_folder(tmp_path)
    assert items.names.tolist() == ["a.csv:1", "a.csv:2", "b.csv:1"]
    assert items.columns["a_b"].tolist() == [1.0, 2.5, 3.0]
    assert items.columns["c"].tolist() == ["x", "y", "z"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("a,b\n", {"rows"}),
        ("", set()),
        ("a,b\n1,\n", {"1", "b"}),
        ("a,b\n1,2\n3\n", {"2", "b"}),
    ],
)
def test_bad_tables_are_refused(tmp_path: Path, text: str, named: set[str]) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=f"^{tmp_path / 't.csv'}: ") as e:
        decode_folder(tmp_path)
    assert named <= words_of(e.value)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"^{tmp_path}: "):
        decode_folder(tmp_path)
