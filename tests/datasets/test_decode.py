"""Raw files of each kind are decoded into plain arrays, broken ones named."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from facet.base.arrays import save_array
from facet.base.config import Read
from facet.datasets import decode, tables
from facet.datasets.array_files import read_arrays
from facet.datasets.depth import DepthError, Extremes
from facet.datasets.items import Items, load_items, save_items
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
        ("CMYK", (255, 0, 0, 0), (5, 4, 3), (0, 255, 255)),
    ],
)
def test_every_mode_becomes_eight_bits(
    tmp_path: Path, mode: str, colour: Any, shape: tuple[int, ...], value: Any
) -> None:
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
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


DEEP = np.array([[0, 1000, 2047], [2048, 4000, 4095]])


@pytest.mark.parametrize(
    ("ending", "pixels"),
    [
        ("png", DEEP.astype("uint16")),
        ("tif", DEEP.astype("uint16")),
        ("tif", DEEP.astype("int32")),
        ("tif", DEEP.astype("float32")),
    ],
)
def test_deep_images_need_a_scale_and_follow_it(
    tmp_path: Path, ending: str, pixels: np.ndarray
) -> None:
    Image.fromarray(pixels).save(tmp_path / f"a_x.{ending}")
    Image.new("L", (3, 2), 77).save(tmp_path / "b_x.png")
    with pytest.raises(DepthError) as e:
        decode_folder(tmp_path)
    assert {"0", "4095", "read.scale", "1", "2"} <= words_of(e.value)
    whole = pixels.dtype.kind != "f"
    assert e.value.proposal == [0, 4095]
    assert ("32-bit" if pixels.dtype == "int32" else "16-bit" if whole else "float32") in str(
        e.value
    )
    items = decode_folder(tmp_path, parts=["a", "b"], scale=[0, 4095])
    assert items.images
    assert items.images[0].tolist() == [[0, 62, 127], [128, 249, 255]]
    assert (items.images[1] == 77).all()  # 8 bits stay as they are
    narrow = decode_folder(tmp_path, parts=["a", "b"], scale=[1000, 2047])
    assert narrow.images
    assert narrow.images[0].tolist() == [[0, 0, 255], [255, 255, 255]]


def test_deep_colours_are_not_cut(tmp_path: Path) -> None:
    import cv2

    pixels = np.stack([DEEP, DEEP // 2, DEEP // 4], -1).astype("uint16")
    cv2.imwrite(str(tmp_path / "a.png"), pixels[..., ::-1])
    with pytest.raises(DepthError, match="4095"):
        decode_folder(tmp_path)
    items = decode_folder(tmp_path, parts=["a"], scale=[0, 4095])
    assert items.images
    assert items.images[0][1, 2].tolist() == [255, 127, 64]


def test_proposed_scales_hold_all_values() -> None:
    for values, dtype, proposal in (
        ([0, 0.9], "float32", [0, 1]),
        ([0, 250.5], "float64", [0, 255]),
        ([-1, 1], "float32", [-1, 1]),
        ([3, 60000], "uint16", [0, 65535]),
        ([-5, 300], "int16", [-5, 300]),
        ([7, 7], "int64", [0, 255]),
    ):
        found = Extremes()
        found.add(np.array(values, dtype))
        assert found.propose() == proposal


def npz(path: Path, **changes: np.ndarray | None) -> Path:
    arrays = {
        "x_train": np.zeros((3, 4, 4), "uint8"),
        "y_train": np.array([0, 1, 0], "uint8"),
        "x_test": np.ones((2, 4, 4), "uint8"),
        "y_test": np.array([1, 0], "uint8"),
    }
    np.savez(path, **{k: v for k, v in (arrays | changes).items() if v is not None})
    return path


def decode_arrays(path: Path, **read: Any) -> Items:
    how = Read.model_validate(read)
    return read_arrays(path, path.with_name("pixels.npy"), how.arrays, how.scale)


def test_arrays_keep_their_own_split(tmp_path: Path) -> None:
    items = decode_arrays(npz(tmp_path / "d.npz"))
    assert items.own is not None
    assert items.own.tolist() == ["train"] * 3 + ["test"] * 2
    assert items.images
    assert [int(items.images[row].sum()) for row in range(5)] == [0, 0, 0, 16, 16]
    assert items.columns["y"].tolist() == ["0", "1", "0", "1", "0"]


def test_arrays_have_any_names(tmp_path: Path) -> None:
    images = np.arange(4 * 6, dtype="uint8").reshape(4, 2, 3, 1)
    kinds, ages = np.array(["a", "b", "a", "b"]), np.array([[1], [2], [1], [2]])
    np.savez(tmp_path / "d.npz", images=images, kinds=kinds, ages=ages, more=images)
    both = {"kind": "kinds", "age": "ages"}
    items = decode_arrays(tmp_path / "d.npz", arrays={"x": "images", "y": both})
    assert items.own is None
    assert items.images
    np.testing.assert_array_equal(items.images[3], images[3, ..., 0])
    assert {c: v.tolist() for c, v in items.columns.items()} == {
        "kind": ["a", "b", "a", "b"],
        "age": ["1", "2", "1", "2"],
    }
    parts = {"train": {"x": "images", "y": "kinds"}, "test": {"x": "more", "y": "kinds"}}
    parts |= {"validation": parts["test"]}
    items = decode_arrays(tmp_path / "d.npz", arrays=parts)
    assert items.own is not None
    assert items.own.tolist() == ["train"] * 4 + ["validation"] * 4 + ["test"] * 4


def test_deep_arrays_follow_the_scale(tmp_path: Path) -> None:
    x = np.array([[[0.0, 0.5], [1.0, 2.0]]])
    path = npz(tmp_path / "d.npz", x_train=x.repeat(3, 0), x_test=x.repeat(2, 0).astype("float32"))
    with pytest.raises(DepthError) as e:
        decode_arrays(path)
    assert e.value.proposal == [0, 255]
    assert {"5", "0", "2", "float32", "float64", "read.scale"} <= words_of(e.value)
    items = decode_arrays(path, scale=[0, 1])
    assert items.images
    assert items.images[4].tolist() == [[0, 128], [255, 255]]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"y_test": None}, {"y_test", "x_train", "read.arrays"}),
        ({"y_train": np.zeros(2, "uint8")}, {"y_train", "x_train"}),
        ({"y_train": np.zeros((3, 10), "uint8")}, {"y_train", "10", "x_train"}),
        ({"x_train": np.zeros((3, 16), "uint8")}, {"x_train", "16", "channels"}),
        ({"x_train": np.zeros((3, 3, 9, 9), "uint8")}, {"x_train", "last"}),
        ({"x_train": np.asfortranarray(np.zeros((3, 4, 4), "uint8"))}, {"numpy.ascontiguousarray"}),
        ({"x_test": np.zeros((2, 5, 4), "uint8")}, {"x_train", "x_test"}),
        ({"y_test": np.array([{}, {}])}, set()),
    ],
)
def test_bad_arrays_are_refused(
    tmp_path: Path, changes: dict[str, np.ndarray | None], named: set[str]
) -> None:
    path = npz(tmp_path / "d.npz", **changes)
    with pytest.raises(InputError, match=f"^{path}: ") as e:
        decode_arrays(path)
    assert named <= words_of(e.value)


def test_tables_follow_each_other(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('"a b";c\n1;x\n2.5;y\n')
    (tmp_path / "b.csv").write_text("a b,c\n3,z\n")
    items = decode_folder(tmp_path)
    assert items.names.tolist() == ["a.csv:1", "a.csv:2", "b.csv:1"]
    assert items.columns["a_b"].tolist() == [1.0, 2.5, 3.0]
    assert items.columns["c"].tolist() == ["x", "y", "z"]


def test_a_column_keeps_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers where nothing is lost, else the texts; the same however long the file is."""
    columns = {
        "whole": (["1234567", "", "-3"], [1234567.0, None, -3.0]),
        "point": (["7.0", "0.1", "NA"], [7.0, 0.1, None]),
        "zeros": (["01", "1", "?"], ["01", "1", ""]),
        "long": (["12345678901234567", "2", "3"], ["12345678901234567", "2", "3"]),
        "both": (["7", "7.0", "1"], ["7", "7.0", "1"]),
        "under": (["1_0", "2", "3"], ["1_0", "2", "3"]),
        "text": ([" a ", "None", ""], ["a", "None", ""]),
    }
    rows = zip(*(texts for texts, _ in columns.values()), strict=True)
    (tmp_path / "t.csv").write_text("\n".join([",".join(columns), *map(",".join, rows)]) + "\n")
    for most in (50_000, 1):
        monkeypatch.setattr(tables, "CHUNK_ROWS", most)
        items = decode_folder(tmp_path)
        for name, (texts, expected) in columns.items():
            found = [None if v != v else v for v in items.columns[name].tolist()]
            if most == 50_000:
                assert found == expected, name
            shown = tables.as_text(items.columns[name]).tolist()
            usual = ["7", "0.1", ""] if name == "point" else [t.strip() for t in texts]
            assert shown == ["" if t in ("NA", "?") else t for t in usual], name


@pytest.mark.parametrize(
    ("text", "named"),
    [("a,b\n", {"rows"}), ("", set()), ("a\n\xff", set()), ("a,b\n1,2,3\n", {"cells"})],
)
def test_bad_tables_are_refused(tmp_path: Path, text: str, named: set[str]) -> None:
    (tmp_path / "t.csv").write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=f"^{tmp_path / 't.csv'}: ") as e:
        decode_folder(tmp_path)
    assert named <= words_of(e.value)


INDEX = {"index": {"file": "labels.csv", "column": "image"}}


@pytest.fixture
def indexed(tmp_path: Path) -> Path:
    """Four images in two folders and an index, which names each in another way."""
    for name in ("x/a.png", "x/b.png", "y/c.png", "y/d.v2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (2, 2), ord(name[2])).save(tmp_path / name)
    rows = ["kind,image,age", "2,d.v2,1", "01,b.png,3", "1,photos/x/a.png,5", "x,y/c,7"]
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def test_an_index_says_more_of_the_images(indexed: Path) -> None:
    items = decode_folder(indexed, **INDEX)
    assert items.names.tolist() == ["x/a.png", "x/b.png", "y/c.png", "y/d.v2.png"]
    assert items.columns["kind"].tolist() == ["1", "01", "x", "2"]
    assert items.columns["age"].tolist() == [5, 3, 7, 1]
    (indexed / "labels.csv").rename(indexed / "files_list.csv")
    text = (indexed / "files_list.csv").read_text().replace("image", "files")
    (indexed / "files_list.csv").write_text(text)
    assert decode_folder(indexed).columns["kind"].tolist() == ["1", "01", "x", "2"]


@pytest.mark.parametrize(
    ("old", "new", "named", "left"),
    [
        ("d.v2,", "e,", {"labels.csv", "e", "y/d.v2.png", "read.index.unmatched"}, "abc"),
        ("y/c,", "x/c,", {"x/c", "y/c.png", "read.index.unmatched"}, "abd"),
        ("2,d.v2,1\n", "", {"y/d.v2.png", "read.index.unmatched"}, "abc"),
        ("y/c,", "a.png,", {"y/c.png"}, ""),
        ("image", "imag", {"read.index.column", "image", "imag"}, ""),
    ],
)
def test_what_an_index_lacks_is_named_or_left_out(
    indexed: Path, old: str, new: str, named: set[str], left: str
) -> None:
    file = indexed / "labels.csv"
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(InputError) as e:
        decode_folder(indexed, **INDEX)
    assert named <= words_of(e.value)
    drop = {"index": INDEX["index"] | {"unmatched": "drop"}}
    if left:
        items = decode_folder(indexed, **drop)
        assert "".join(n.split("/")[1][0] for n in items.names.tolist()) == left
        assert items.images
        assert [chr(items.images[row][0, 0]) for row in range(3)] == list(left)
    else:
        with pytest.raises(InputError):
            decode_folder(indexed, **drop)


def test_a_table_beside_images_is_not_passed_over(indexed: Path) -> None:
    with pytest.raises(InputError, match=r"labels\.csv.*read\.index"):
        decode_folder(indexed, mode="L")
    raw, declared = decode.list_raw_files(indexed), Read(folders=["kind"])
    assert decode.find_index(raw, declared) is None
    assert "labels.csv" in decode.describe_unread(raw, declared)
    assert decode.describe_unread(raw, Read.model_validate(INDEX)) == ""
    with pytest.raises(InputError, match=r"lables\.csv.*labels\.csv"):
        decode_folder(indexed, index={"file": "lables.csv", "column": "image"})


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"^{tmp_path}: "):
        decode_folder(tmp_path)
