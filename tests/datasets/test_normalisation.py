"""Labels, groups and splits hold what they promise, for any data."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from facet.config import Dataset, Head, Operation
from facet.datasets import decode
from facet.datasets.inputs import apply_operation, convert_mode, middle_size
from facet.datasets.labels import make_labels
from facet.datasets.normalisation import normalise
from facet.datasets.splits import connected_groups, stratified_group_split
from facet.errors import InputError
from facet.names import SPLITS
from tests.helpers import draw_faces, small_parameters


def spec(**changes: Any) -> Dataset:
    return Dataset.model_validate(small_parameters("embedded")["datasets"]["faces"] | changes)


@pytest.fixture
def faces(tmp_path: Path) -> dict[str, Any]:
    draw_faces(tmp_path)
    return decode.decode_items(tmp_path)


@pytest.mark.parametrize("by", ["random", "sitting", "person"])
def test_parts_are_whole_typed_and_disjoint(faces: dict[str, Any], by: str) -> None:
    (data,) = normalise(faces, "faces", spec(split={"by": by, "test": 0.25, "validation": 0.25}))
    names = [set(data.splits[p].names.tolist()) for p in SPLITS]
    assert sum(map(len, names)) == 64 == len(set.union(*names))
    groups = [set(data.splits[p].groups.tolist()) for p in SPLITS]
    assert sum(map(len, groups)) == len(set.union(*groups))
    for p in SPLITS:
        X = data.splits[p].X
        assert X.dtype == np.float32
        assert X.shape[1:] == (8, 8, 1)
        assert 0 <= X.min() <= X.max() <= 1
        assert data.splits[p].y["pose"].dtype == np.int64
        for name, pose in zip(data.splits[p].names, data.splits[p].y["pose"], strict=True):
            assert data.classes["pose"][pose] == name.split("_")[1]
    assert abs(len(data.splits["test"].X) - 16) <= (16 if by == "person" else 2)


def test_the_split_is_stratified_and_has_its_own_luck(faces: dict[str, Any]) -> None:
    splits = [
        normalise(faces, "faces", spec(split={"by": "random", "seed": s}))[0] for s in (0, 0, 1)
    ]
    assert (splits[0].splits["test"].names == splits[1].splits["test"].names).all()
    assert splits[0].splits["test"].names.tolist() != splits[2].splits["test"].names.tolist()
    for data in splits:
        assert np.abs(np.bincount(data.splits["test"].y["pose"]) - 4).max() <= 2


def test_a_list_of_split_seeds_gives_a_split_each(faces: dict[str, Any]) -> None:
    several = normalise(faces, "faces", spec(split={"by": "sitting", "seed": [4, 7]}))
    (single,) = normalise(faces, "faces", spec(split={"by": "sitting", "seed": 7}))
    assert several[1].splits["test"].names.tolist() == single.splits["test"].names.tolist()
    assert several[0].splits["test"].names.tolist() != single.splits["test"].names.tolist()


def test_the_order_of_files_does_not_matter(faces: dict[str, Any]) -> None:
    order = np.random.default_rng(0).permutation(64)
    turned = faces | {
        "names": faces["names"][order],
        "rows": {"8x8": np.arange(64)},
        "pixels": {"8x8": faces["pixels"]["8x8"][order]},
    }
    (data,) = normalise(turned, "faces", spec())
    for p in SPLITS:
        for name, x in zip(data.splits[p].names, data.splits[p].X, strict=True):
            at = faces["names"].tolist().index(name)
            assert (x[..., 0] == faces["pixels"]["8x8"][at].astype("float32") / 255).all()


def test_equal_images_are_one_group_whatever_their_names(faces: dict[str, Any]) -> None:
    pixels = faces["pixels"]["8x8"].copy()
    pixels[::2] = pixels[0]
    (data,) = normalise(
        faces | {"pixels": {"8x8": pixels}},
        "faces",
        spec(split={"by": "random", "test": 0.25, "validation": 0.1}),
    )
    sets = [{x.tobytes() for x in data.splits[p].X} for p in SPLITS]
    assert sum(map(len, sets)) == len(set.union(*sets))


def test_scales_of_one_photo_stay_together_even_at_random(tmp_path: Path) -> None:
    names = draw_faces(tmp_path)
    for name in names:
        path = tmp_path / "images" / name
        image = Image.open(path)
        image.resize((4, 4)).save(path.with_name(f"{path.stem}_2.png"))
    changes = {
        "read": {"parts": ["userid", "pose", "expression", "eyes"], "optional_parts": ["scale"]},
        "split": {"by": "random"},
    }
    (data,) = normalise(decode.decode_items(tmp_path), "faces", spec(**changes))
    photo = [
        {n.removesuffix(".png").removesuffix("_2") for n in data.splits[p].names.tolist()}
        for p in SPLITS
    ]
    assert sum(map(len, photo)) == len(set.union(*photo)) == 64


@pytest.mark.parametrize("name", ["a_b_c.png", "a_b_c_d_e.png", "a__c_d.png"])
def test_a_name_without_its_parts_is_refused(tmp_path: Path, name: str) -> None:
    draw_faces(tmp_path)
    Image.new("L", (8, 8)).save(tmp_path / "images" / name)
    with pytest.raises(InputError, match=rf"{name}: has \d parts between `_`, not 4"):
        normalise(decode.decode_items(tmp_path), "faces", spec())


def test_bins_take_numbers_or_their_own_names() -> None:
    head = Head(column="q", bins={"bad": (3, 4), "ok": (5, 6)})
    classes, y = make_labels("h", head, {"q": np.array([3.0, 6, 5])})
    assert classes.tolist() == ["bad", "ok"]
    assert y.tolist() == [0, 1, 1]
    assert make_labels("h", head, {"q": np.array(["ok", "bad"])})[1].tolist() == [1, 0]
    for values, message in (([9.0, 3], "9 falls into none"), (["good", "bad"], "good is neither")):
        with pytest.raises(InputError, match=message):
            make_labels("h", head, {"q": np.array(values)})
    with pytest.raises(InputError, match=r"no column q.*did you mean qq"):
        make_labels("h", head, {"qq": np.array([3.0])})
    with pytest.raises(InputError, match="all items are a"):
        make_labels("h", Head(column="q"), {"q": np.array(["a", "a"])})


def test_classes_that_are_numbers_are_in_their_order() -> None:
    assert make_labels("h", Head(column="y"), {"y": np.array(["10", "9", "2"])})[0].tolist() == [
        "2",
        "9",
        "10",
    ]


def wine(n: int = 60) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    columns = {"acid": rng.normal(5, 3, n), "sugar": rng.normal(100, 20, n)}
    columns["acid"][n // 2 :] = columns["acid"][: n - n // 2]  # each wine twice
    columns["sugar"][n // 2 :] = columns["sugar"][: n - n // 2]
    color = np.array(["red", "white"])[(columns["acid"] > 5).astype(int)]
    names = np.array([f"w.csv:{i}" for i in range(n)])
    return {"names": names, "columns": columns | {"color": color}}


TABLE = {
    "size": None,
    "read": {},
    "heads": {"color": {"column": "color"}},
    "group": {},
    "split": {"by": "random", "test": 0.3, "validation": 0.2},
    "augment": {},
}


def test_a_table_is_standardised_on_its_training_part_and_repeats_stay_on_one_side() -> None:
    (data,) = normalise(wine(), "wine", spec(**TABLE))
    np.testing.assert_allclose(data.splits["train"].X.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(data.splits["train"].X.std(0), 1, atol=1e-6)
    assert abs(data.splits["test"].X.mean()) > 1e-6
    rows = [{x.tobytes() for x in data.splits[p].X} for p in SPLITS]
    assert sum(map(len, rows)) == len(set.union(*rows))
    assert data.about["input"]["columns"] == ["acid", "sugar"]


def test_text_in_a_table_must_be_told_what_it_is() -> None:
    items = wine()
    items["columns"]["taster"] = np.array(["x"] * 60)
    with pytest.raises(InputError, match="column taster holds text"):
        normalise(items, "wine", spec(**TABLE))
    normalise(items, "wine", spec(**TABLE | {"read": {"ignore": ["taster"]}}))


def test_constants_come_from_the_files_name() -> None:
    items = wine()
    del items["columns"]["color"]
    items["names"] = np.array([f"{'rw'[i % 2]}.csv:{i}" for i in range(60)])
    read = {"constants": {"r.csv": {"color": "red"}, "w.csv": {"color": "white"}, "x.csv": {}}}
    (data,) = normalise(items, "wine", spec(**TABLE | {"read": read}))
    assert data.classes["color"].tolist() == ["red", "white"]
    del read["constants"]["w.csv"]
    with pytest.raises(InputError, match=r"w.csv is given no color"):
        normalise(items, "wine", spec(**TABLE | {"read": read}))


def test_the_datas_own_test_part_stays(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (50, 4, 4)).astype("uint8")
    items = {
        "names": np.array([f"n{i:02d}" for i in range(50)]),
        "columns": {"y": np.array([str(i % 2) for i in range(50)])},
        "own": np.array(["train"] * 40 + ["test"] * 10),
        "pixels": {"4x4": pixels},
        "rows": {"4x4": np.arange(50)},
    }
    own = {
        "size": [4, 4],
        "read": {},
        "heads": {"digit": {"column": "y"}},
        "group": {},
        "split": {"by": "own", "validation": 0.2},
        "augment": {},
    }
    (data,) = normalise(items, "digits", spec(**own))
    assert data.splits["test"].names.tolist() == [f"n{i}" for i in range(40, 50)]
    assert len(data.splits["validation"].X) == 10
    with pytest.raises(InputError, match="no split of its own"):
        normalise({k: v for k, v in items.items() if k != "own"}, "digits", spec(**own))


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    n=st.integers(8, 60),
    heads=st.integers(1, 3),
    seed=st.integers(0, 9),
)
def test_groups_are_dealt_whole_and_about_in_the_wanted_shares(
    data: st.DataObject, n: int, heads: int, seed: int
) -> None:
    keys = np.array(data.draw(st.lists(st.integers(0, n), min_size=n, max_size=n)))
    labels = np.array(
        data.draw(st.lists(st.tuples(*[st.integers(0, 3)] * heads), min_size=n, max_size=n))
    )
    groups = connected_groups(keys)
    wanted = {"train": 0.6 * n, "validation": 0.15 * n, "test": 0.25 * n}
    split = stratified_group_split(groups, labels, wanted, seed)
    for g in set(groups.tolist()):
        assert len(set(split[groups == g].tolist())) == 1
    largest = np.bincount(groups).max()
    for p, w in wanted.items():
        assert abs((split == p).sum() - w) <= 4 * heads * largest + 4
    assert (split == stratified_group_split(groups, labels, wanted, seed)).all()


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=30))
def test_items_that_share_a_key_are_joined_and_no_others(pairs: list[tuple[int, int]]) -> None:
    a, b = (np.array(column) for column in zip(*pairs, strict=True))
    groups = connected_groups(a, b)
    for i in range(len(pairs)):
        for j in range(len(pairs)):
            if a[i] == a[j] or b[i] == b[j]:
                assert groups[i] == groups[j]
    # Joined no further: within a group, one can walk from item to item over shared keys.
    for g in set(groups.tolist()):
        inside = np.flatnonzero(groups == g)
        reached, edge = {inside[0]}, [inside[0]]
        while edge:
            i = edge.pop()
            near = set(np.flatnonzero((a == a[i]) | (b == b[i]))) - reached
            reached |= near
            edge += near
        assert reached == set(inside)


def test_the_middle_size_is_by_area() -> None:
    sizes = {"120x128": 0, "30x32": 0, "60x64": 0}
    assert middle_size({"pixels": sizes}) == (64, 60)


@pytest.mark.parametrize(
    ("rule", "value"), [("black", 0), ("white", 255), ("drop", 200), ("refuse", None)]
)
def test_transparency_has_an_explicit_rule(rule: str, value: int | None) -> None:
    image = Image.new("RGBA", (2, 2), (200, 200, 200, 0))
    if value is None:
        with pytest.raises(InputError, match=r"a.png: has an alpha channel"):
            convert_mode(image, "L", rule, "a.png")
    else:
        assert np.asarray(convert_mode(image, "L", rule, "a.png")).tolist() == [[value] * 2] * 2


@pytest.mark.parametrize(
    "operation",
    [
        {"crop": [1, 1, 7, 8]},
        {"rotate": 90.0},
        {"transpose": "flip_left_right"},
        {"filter": "blur"},
        {"spread": 2},
    ],
)
def test_operations_do_what_pillow_does(operation: dict[str, Any]) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (8, 8)).astype("uint8")
    image = Image.fromarray(pixels)
    done = apply_operation(image, Operation.model_validate(operation), "a.png")
    again = apply_operation(image, Operation.model_validate(operation), "a.png")
    assert np.asarray(done).tolist() == np.asarray(again).tolist() != pixels.tolist()
    assert done.size == ((6, 7) if "crop" in operation else (8, 8))


def test_a_crop_outside_is_refused() -> None:
    with pytest.raises(InputError, match=r"a.png: crop .* is not inside 8x8"):
        apply_operation(Image.new("L", (8, 8)), Operation(crop=(0, 0, 9, 8)), "a.png")


def test_too_few_groups_are_refused(faces: dict[str, Any]) -> None:
    one = {"split": {"by": "person", "test": 0.0, "validation": 0.0}}
    with pytest.raises(InputError, match="no items fall into the test split"):
        normalise(faces, "faces", spec(**one))
