"""Raw files of each kind are decoded into plain arrays, broken ones named."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facet.datasets import decode
from facet.errors import InputError
from tests.helpers import draw_faces


def test_images_of_one_shape_are_stacked(tmp_path: Path) -> None:
    names = draw_faces(tmp_path)
    Image.new("L", (4, 6)).save(tmp_path / "images/q_a_b_c.png")
    items = decode.decode_items(tmp_path)
    assert {k: v.shape for k, v in items["pixels"].items()} == {
        "8x8": (len(names), 8, 8),
        "6x4": (1, 6, 4),
    }
    row = items["rows"]["6x4"][0]
    assert items["names"][row] == "q_a_b_c.png"
    x = np.asarray(Image.open(tmp_path / "images" / names[0]))
    place = list(items["names"][items["rows"]["8x8"]]).index(names[0])
    assert (items["pixels"]["8x8"][place] == x).all()


@pytest.mark.parametrize(
    ("mode", "shape"),
    [
        ("1", (5, 4)),
        ("L", (5, 4)),
        ("LA", (5, 4, 2)),
        ("P", (5, 4, 3)),
        ("RGB", (5, 4, 3)),
        ("RGBA", (5, 4, 4)),
        ("I;16", (5, 4)),
        ("CMYK", (5, 4, 3)),
    ],
)
def test_every_mode_becomes_eight_bits(tmp_path: Path, mode: str, shape: tuple[int, ...]) -> None:
    path = tmp_path / ("a.tif" if mode in ("CMYK", "I;16") else "a.png")
    Image.new(mode, (4, 5), 1).save(path)
    pixels = decode.decode_image(path)
    assert pixels.shape == shape
    assert pixels.dtype == np.uint8


def test_a_photo_turned_by_its_camera_is_turned_back(tmp_path: Path) -> None:
    image = Image.new("L", (4, 5))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.jpg", exif=exif)
    assert decode.decode_image(tmp_path / "a.jpg").shape == (4, 5)


def test_broken_images_are_refused_by_name(tmp_path: Path) -> None:
    draw_faces(tmp_path)
    victim = sorted((tmp_path / "images").iterdir())[2]
    whole = victim.read_bytes()
    for content, message in (
        (b"not an image", "not an image"),
        (whole[: len(whole) // 2], victim.name),
        (b"", "not an image"),
    ):
        victim.write_bytes(content)
        with pytest.raises(InputError, match=f"{victim.name}: .*{message}|{message}"):
            decode.decode_items(tmp_path)


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
    items = decode.read_arrays(npz(tmp_path / "d.npz"))
    assert items["own"].tolist() == ["train"] * 3 + ["test"] * 2
    assert items["columns"]["y"].tolist() == ["0", "1", "0", "1", "0"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_test": None}, "y_test"),
        ({"y_train": np.zeros(2, "uint8")}, "not one label for each"),
        ({"x_train": np.zeros((3, 4, 4))}, "must be uint8"),
        ({"x_test": np.zeros((2, 5, 4), "uint8")}, "differ in shape"),
        ({"y_test": np.array([{}, {}])}, "not a whole .npz"),
    ],
)
def test_bad_arrays_are_refused(
    tmp_path: Path, changes: dict[str, np.ndarray | None], message: str
) -> None:
    with pytest.raises(InputError, match=f"d.npz: .*{message}"):
        decode.read_arrays(npz(tmp_path / "d.npz", **changes))


def test_tables_follow_each_other(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('"a b";c\n1;x\n2.5;y\n')
    (tmp_path / "b.csv").write_text("a b,c\n3,z\n")
    items = decode.decode_items(tmp_path)
    assert items["names"].tolist() == ["a.csv:1", "a.csv:2", "b.csv:1"]
    assert items["columns"]["a_b"].tolist() == [1.0, 2.5, 3.0]
    assert items["columns"]["c"].tolist() == ["x", "y", "z"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n", "has no rows"),
        ("", "not a CSV table"),
        ("a,b\n1,\n", "row 1 has no b"),
        ("a,b\n1,2\n3\n", "row 2 has no b"),
    ],
)
def test_bad_tables_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=f"t.csv: .*{message}"):
        decode.decode_items(tmp_path)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds neither"):
        decode.decode_items(tmp_path)
