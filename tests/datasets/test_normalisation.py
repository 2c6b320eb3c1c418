"""Labels, groups and splits hold what they promise, for any data."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from facet.base.config import Dataset, Head, Operation, Read, Split
from facet.base.names import SPLITS
from facet.datasets import normalisation
from facet.datasets.inputs import apply_operation, convert_mode, middle_size, prepare_image
from facet.datasets.items import Items
from facet.datasets.labels import make_labels
from facet.datasets.splits import connected_groups, make_splits, stratified_group_split
from facet.errors import InputError
from tests.helpers import (
    as_arrays,
    decode_folder,
    draw_faces,
    make_items,
    small_parameters,
    words_of,
)


def spec(**changes: Any) -> Dataset:
    return Dataset.model_validate(small_parameters("embedded")["datasets"]["faces"] | changes)


def normalise(items: Items, name: str, how: Dataset) -> dict[str, Any]:
    (only,) = normalise_often(items, name, how)
    return only


def normalise_often(items: Items, name: str, how: Dataset) -> list[dict[str, Any]]:
    return [as_arrays(one) for one in normalisation.normalise(items, name, how)]


@pytest.fixture
def faces(tmp_path: Path) -> Items:
    draw_faces(tmp_path)
    return decode_folder(tmp_path)


@pytest.mark.parametrize(("by", "off"), [("random", 2), ("sitting", 2), ("person", 0)])
def test_parts_are_whole_typed_disjoint_and_as_large_as_asked(
    faces: Items, by: str, off: int
) -> None:
    content = normalise(faces, "faces", spec(split={"by": by, "test": 0.25, "validation": 0.25}))
    names = [set(content[f"names_{p}"].tolist()) for p in SPLITS]
    assert sum(map(len, names)) == 64 == len(set.union(*names))
    groups = [set(content[f"groups_{p}"].tolist()) for p in SPLITS]
    assert sum(map(len, groups)) == len(set.union(*groups))
    for p in SPLITS:
        X = content[f"X_{p}"]
        assert X.dtype == np.uint8
        assert X.shape[1:] == (8, 8, 1)
        assert content[f"y_{p}_pose"].dtype == np.int64
        for name, pose in zip(content[f"names_{p}"], content[f"y_{p}_pose"], strict=True):
            assert content["classes_pose"][pose] == name.split("_")[1]
    # A quarter each: 16 photos of 64, which are 8 sittings or one person.
    counts = [len(content[f"X_{p}"]) for p in SPLITS]
    assert counts == pytest.approx([32, 16, 16], abs=off)
    assert content["about"]["split"]["by"] == by


def test_the_split_is_stratified_and_has_its_own_luck(faces: Items) -> None:
    splits = [normalise(faces, "faces", spec(split={"by": "random", "seed": s})) for s in (0, 0, 1)]
    assert (splits[0]["names_test"] == splits[1]["names_test"]).all()
    assert splits[0]["names_test"].tolist() != splits[2]["names_test"].tolist()
    for content in splits:
        assert np.abs(np.bincount(content["y_test_pose"]) - 4).max() <= 2


def test_a_list_of_split_seeds_gives_a_split_each(faces: Items) -> None:
    several = normalise_often(faces, "faces", spec(split={"by": "sitting", "seed": [4, 7]}))
    single = normalise(faces, "faces", spec(split={"by": "sitting", "seed": 7}))
    assert several[1]["names_test"].tolist() == single["names_test"].tolist()
    assert several[0]["names_test"].tolist() != single["names_test"].tolist()


def test_the_order_of_files_does_not_matter(faces: Items) -> None:
    order = np.random.default_rng(0).permutation(64)
    assert faces.images
    turned = make_items([faces.images[row] for row in order], names=faces.names[order])
    content = normalise(turned, "faces", spec())
    for p in SPLITS:
        for name, x in zip(content[f"names_{p}"], content[f"X_{p}"], strict=True):
            assert (x[..., 0] == faces.images[faces.names.tolist().index(name)]).all()


def test_equal_images_are_one_group_whatever_their_names(faces: Items) -> None:
    assert faces.images
    images = [faces.images[row if row % 2 else 0] for row in range(64)]
    content = normalise(
        make_items(images, names=faces.names),
        "faces",
        spec(split={"by": "random", "test": 0.25, "validation": 0.1}),
    )
    sets = [{x.tobytes() for x in content[f"X_{p}"]} for p in SPLITS]
    assert sum(map(len, sets)) == len(set.union(*sets))


TWO_SCALES = {"parts": ["userid", "pose", "expression", "eyes"], "optional_parts": ["scale"]}


def draw_two_scales(tmp_path: Path) -> list[str]:
    """Faces, each again at a smaller scale; the names of the large ones."""
    names = draw_faces(tmp_path)
    for name in names:
        path = tmp_path / "images" / name
        Image.open(path).resize((4, 4)).save(path.with_name(f"{path.stem}_2.png"))
    return names


def test_scales_of_one_photo_stay_together_even_at_random(tmp_path: Path) -> None:
    draw_two_scales(tmp_path)
    changes = {
        "read": TWO_SCALES,
        "split": {"by": "random"},
    }
    content = normalise(decode_folder(tmp_path), "faces", spec(**changes))
    photo = [
        {n.removesuffix(".png").removesuffix("_2") for n in content[f"names_{p}"].tolist()}
        for p in SPLITS
    ]
    assert sum(map(len, photo)) == len(set.union(*photo)) == 64


def test_only_the_items_named_by_their_parts_are_used(tmp_path: Path) -> None:
    names = draw_two_scales(tmp_path)
    items = decode_folder(tmp_path)
    only = {"scale": [""], "pose": ["left", "right"]}
    content = normalise(items, "faces", spec(read=TWO_SCALES | {"only": only}))
    kept = np.concatenate([content[f"names_{p}"] for p in SPLITS]).tolist()
    assert sorted(kept) == sorted(n for n in names if "_left_" in n or "_right_" in n)
    assert content["classes_pose"].tolist() == ["left", "right"]
    for wrong, named in (
        ({"pse": ["left"]}, {"read.only", "pse", "pose"}),
        ({"pose": ["lift"]}, {"read.only.pose", "lift", "left"}),
        ({"pose": ["left"], "scale": ["4"]}, {"read.only.scale", "4"}),
    ):
        with pytest.raises(InputError) as e:
            normalise(items, "faces", spec(read=TWO_SCALES | {"only": wrong}))
        assert named <= words_of(e.value)


@pytest.mark.parametrize("name", ["a_b_c.png", "a_b_c_d_e.png", "a__c_d.png"])
def test_a_name_without_its_parts_is_refused(tmp_path: Path, name: str) -> None:
    draw_faces(tmp_path)
    Image.new("L", (8, 8)).save(tmp_path / "images" / name)
    with pytest.raises(InputError) as e:
        normalise(decode_folder(tmp_path), "faces", spec())
    assert {name, "read.parts"} <= words_of(e.value)


def test_bins_take_numbers_or_their_own_names() -> None:
    head = Head(column="q", bins={"bad": (3, 4), "ok": (5, 6)})
    classes, y = make_labels("h", head, {"q": np.array([3.0, 6, 5])})
    assert classes.tolist() == ["bad", "ok"]
    assert y.tolist() == [0, 1, 1]
    assert make_labels("h", head, {"q": np.array(["ok", "bad"])})[1].tolist() == [1, 0]
    plain = Head(column="q")
    for how, found, named in (
        (head, {"q": np.array([9.0, 3])}, {"heads.h.bins", "9"}),
        (head, {"q": np.array(["good", "bad"])}, {"heads.h.bins", "good"}),
        (head, {"qq": np.array([3.0])}, {"heads.h", "q", "qq"}),
        (plain, {"q": np.array(["a", "a"])}, {"heads.h", "a"}),
    ):
        with pytest.raises(InputError) as e:
            make_labels("h", how, found)
        assert named <= words_of(e.value)


def test_classes_that_are_numbers_are_in_their_order() -> None:
    assert make_labels("h", Head(column="y"), {"y": np.array(["10", "9", "2"])})[0].tolist() == [
        "2",
        "9",
        "10",
    ]


def wine(n: int = 60) -> Items:
    rng = np.random.default_rng(0)
    columns = {"acid": rng.normal(5, 3, n), "sugar": rng.normal(100, 20, n)}
    columns["acid"][n // 2 :] = columns["acid"][: n - n // 2]  # each wine twice
    columns["sugar"][n // 2 :] = columns["sugar"][: n - n // 2]
    color = np.array(["red", "white"])[(columns["acid"] > 5).astype(int)]
    names = np.array([f"w.csv:{i}" for i in range(n)])
    return Items(names, columns | {"color": color})


TABLE = {
    "size": None,
    "read": {},
    "heads": {"color": {"column": "color"}},
    "group": {},
    "split": {"by": "random", "test": 0.3, "validation": 0.2},
    "augment": {},
}


def test_a_table_is_standardised_on_its_training_part_and_repeats_stay_on_one_side() -> None:
    content = normalise(wine(), "wine", spec(**TABLE))
    np.testing.assert_allclose(content["X_train"].mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(content["X_train"].std(0), 1, atol=1e-6)
    assert abs(content["X_test"].mean()) > 1e-6
    rows = [{x.tobytes() for x in content[f"X_{p}"]} for p in SPLITS]
    assert sum(map(len, rows)) == len(set.union(*rows))
    assert content["about"]["input"]["columns"] == ["acid", "sugar"]


def test_a_reading_that_is_always_the_same_is_nothing() -> None:
    items = wine()
    items.columns["water"] = np.full(60, 3.5)
    content = normalise(items, "wine", spec(**TABLE))
    assert content["about"]["input"]["columns"] == ["acid", "sugar", "water"]
    assert (content["X_test"][:, 2] == 0).all()


def test_text_in_a_table_must_be_told_what_it_is() -> None:
    items = wine()
    items.columns["taster"] = np.array(["x"] * 60)
    with pytest.raises(InputError) as e:
        normalise(items, "wine", spec(**TABLE))
    assert {"taster", "x", "read.ignore", "read.one_hot", "read.ordinal"} <= words_of(e.value)
    normalise(items, "wine", spec(**TABLE | {"read": {"ignore": ["taster"]}}))


def test_constants_come_from_the_files_name() -> None:
    items = wine()
    del items.columns["color"]
    items = replace(items, names=np.array([f"{'rw'[i % 2]}.csv:{i}" for i in range(60)]))
    read = {"constants": {"r.csv": {"color": "red"}, "w.csv": {"color": "white"}, "x.csv": {}}}
    content = normalise(items, "wine", spec(**TABLE | {"read": read}))
    assert content["classes_color"].tolist() == ["red", "white"]
    del read["constants"]["w.csv"]
    with pytest.raises(InputError) as e:
        normalise(items, "wine", spec(**TABLE | {"read": read}))
    assert {"read.constants", "w.csv", "color"} <= words_of(e.value)


def test_the_datas_own_test_part_stays(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (50, 4, 4)).astype("uint8")
    items = make_items(
        list(pixels),
        columns={"y": np.array([str(i % 2) for i in range(50)])},
        own=np.array(["train"] * 40 + ["test"] * 10),
    )
    own = {
        "size": [4, 4],
        "read": {},
        "heads": {"digit": {"column": "y"}},
        "group": {},
        "split": {"by": "own", "validation": 0.2},
        "augment": {},
    }
    content = normalise(items, "digits", spec(**own))
    assert content["names_test"].tolist() == [f"n{i}" for i in range(40, 50)]
    assert len(content["X_validation"]) == 10
    with pytest.raises(InputError, match=r"split\.by"):
        normalise(replace(items, own=None), "digits", spec(**own))


def test_the_datas_own_training_part_is_dealt_in_the_wanted_shares_whatever_its_classes() -> None:
    y = np.arange(500) % 3
    y[:400][y[:400] == 1] = 0
    names = np.arange(500).astype(str)
    own = np.repeat(["train", "test"], [400, 100])
    how = Split(by="own", validation=0.1)
    splits, _ = make_splits({}, names, own, y[:, None], names, [], {}, how, 0)
    assert abs((splits == "validation").sum() - 50) <= 4


KINDS = ("circle", "square", "star")


def in_folders(*levels: tuple[str, ...], each: int = 6, above: str = "") -> Items:
    """Images named 000.png, ... in each of the folders that the levels make."""
    folders = ["/".join(place) for place in itertools.product(*levels)]
    names = [f"{above}{folder}/{i:03d}.png" for folder in folders for i in range(each)]
    pixels = np.random.default_rng(0).integers(0, 255, (len(names), 4, 4)).astype("uint8")
    return make_items(list(pixels), names=np.array(names))


FOLDERS = {
    "size": [4, 4],
    "read": {"folders": ["part", "kind"], "own": {"field": "part"}},
    "heads": {"kind": {"part": "kind"}},
    "group": {},
    "split": {"by": "own", "validation": 0.1},
    "augment": {},
}


@pytest.mark.parametrize("above", ["", "shapes/", "data/shapes v1/"])
@pytest.mark.parametrize("parts", [("train", "test"), ("Training", "VAL", "testing")])
def test_folders_are_labels_and_parts(above: str, parts: tuple[str, ...]) -> None:
    content = normalise(in_folders(parts, KINDS, above=above), "shapes", spec(**FOLDERS))
    assert content["classes_kind"].tolist() == list(KINDS)
    validation = parts[1] if len(parts) == 3 else parts[0]  # cut from training
    for split, folder in (("train", parts[0]), ("test", parts[-1]), ("validation", validation)):
        names = content[f"names_{split}"].tolist()
        assert {n.removeprefix(above).split("/")[0] for n in names} == {folder}
        for name, y in zip(names, content[f"y_{split}_kind"], strict=True):
            assert name.split("/")[-2] == KINDS[y]
    assert len(content["names_test"]) == 18
    assert abs(len(content["names_validation"]) - (18 if len(parts) == 3 else 4)) <= 3


def test_one_level_of_folders_is_enough() -> None:
    one = FOLDERS | {"read": {"folders": ["kind"]}, "split": {"by": "random"}}
    content = normalise(in_folders(KINDS, above="a/"), "shapes", spec(**one))
    assert content["classes_kind"].tolist() == list(KINDS)
    # Of two that are asked for, one may be the same for all.
    two = FOLDERS | {"split": {"by": "random"}}
    content = normalise(in_folders(("train",), KINDS), "shapes", spec(**two))
    assert content["classes_kind"].tolist() == list(KINDS)


@pytest.mark.parametrize(
    ("parts", "read", "named"),
    [
        (
            ("train", "test"),
            {"parts": ["kind"]},
            {"train/circle/000.png", "read.folders", "circle"},
        ),
        (
            ("train", "test"),
            {"folders": ["kind"], "own": {"field": "kind"}},
            {"train/circle/000.png", "2", "1"},
        ),
        (("train", "sealed"), {}, {"part", "sealed", "read.own.test"}),
        (("train", "val"), {}, {"part", "val", "read.own.test"}),
        (("train", "test"), {"own": {"field": "prat"}}, {"read.own.field", "prat", "part"}),
    ],
)
def test_folders_that_do_not_fit_are_refused(
    parts: tuple[str, ...], read: dict[str, Any], named: set[str]
) -> None:
    declared = (FOLDERS["read"] if "parts" not in read else {}) | read
    with pytest.raises(InputError) as e:
        normalise(in_folders(parts, KINDS), "shapes", spec(**FOLDERS | {"read": declared}))
    assert named <= words_of(e.value)


def test_files_in_other_depths_are_named() -> None:
    items = in_folders(("train", "test"), KINDS)
    names = items.names.tolist()
    names[4] = "train/circle/more/4.png"
    items = replace(items, names=np.array(names))
    with pytest.raises(InputError, match=r"^train/circle/more/4\.png: .*read\.folders"):
        normalise(items, "shapes", spec(**FOLDERS))


def test_own_values_may_be_declared(faces: Items) -> None:
    own = {"field": "pose", "train": ["left", "right"], "validation": ["up"], "test": ["straight"]}
    read = {"parts": ["userid", "pose", "expression", "eyes"], "own": own}
    content = normalise(faces, "faces", spec(read=read, split={"by": "own"}))
    for split, poses in (
        ("train", {"left", "right"}),
        ("validation", {"up"}),
        ("test", {"straight"}),
    ):
        assert {n.split("_")[1] for n in content[f"names_{split}"].tolist()} == poses


def test_a_class_for_each_item_is_refused() -> None:
    items = in_folders(KINDS, above="x/")
    by_number = {"read": {"folders": ["kind"], "parts": ["n"]}, "heads": {"n": {"part": "n"}}}
    items.names[:] = [f"x/{'abc'[i % 3]}/{i:03d}.png" for i in range(len(items))]
    with pytest.raises(InputError) as e:
        normalise(items, "shapes", spec(**FOLDERS | by_number | {"split": {"by": "random"}}))
    assert {"heads.n", "18", "000"} <= words_of(e.value)


def test_labels_stay_the_text_they_were(tmp_path: Path) -> None:
    kinds = ["1234567", "1234568", "01", "1", "0.10"]
    rows = [f"{i / 7:.4f},{kinds[i % 5]},{1234567 + i % 2}" for i in range(50)]
    (tmp_path / "t.csv").write_text("\n".join(["x,kind,big", *rows]) + "\n")
    heads = {"kind": {"column": "kind"}, "big": {"column": "big"}}
    content = normalise(decode_folder(tmp_path), "t", spec(**TABLE | {"heads": heads}))
    assert sorted(content["classes_kind"].tolist()) == sorted(kinds)
    assert content["classes_big"].tolist() == ["1234567", "1234568"]


def patients(n: int = 40) -> Items:
    """A table with all that tables have: an id, text, order in text, gaps, a number as text."""
    rng = np.random.default_rng(0)
    age = rng.integers(20, 80, n).astype(float)
    age[[3, 7]] = np.nan
    town = rng.choice(["Bern", "Chur", "Genf"], n)
    town[[5, 7]] = ""
    return Items(
        np.array([f"p.csv:{i + 1}" for i in range(n)]),
        {
            "id": rng.permutation(n).astype(float),
            "row": np.arange(1.0, n + 1),
            "name": np.array([f"somebody {i}" for i in range(n)]),
            "age": age,
            "town": town,
            "stage": rng.choice(["early", "late", "middle"], n),
            "dose": rng.choice(["0.50", "1.5"], n),
            "ill": np.array(["no", "yes"])[(np.arange(n) % 2)],
        },
    )


PATIENTS = TABLE | {
    "heads": {"ill": {"column": "ill"}},
    "read": {
        "ignore": ["id", "row", "name"],
        "one_hot": ["town"],
        "ordinal": {"stage": ["early", "middle", "late"]},
        "missing": "median",
    },
}


def test_text_becomes_readings_and_gaps_are_filled_from_the_training_part() -> None:
    items = patients()
    content = normalise(items, "patients", spec(**PATIENTS))
    how = content["about"]["input"]
    assert how["columns"] == ["age", "dose", "stage", "town"]
    assert how["one_hot"] == {"town": ["Bern", "Chur", "Genf"]}
    assert how["ordinal"] == {"stage": ["early", "middle", "late"]}
    train = [items.names.tolist().index(n) for n in content["names_train"]]
    towns = items.columns["town"][train]
    commonest = max(("Bern", "Chur", "Genf"), key=lambda t: (towns == t).sum())
    age = float(np.nanmedian(items.columns["age"][train]))
    assert how["fill"][:1] == [age]
    assert how["fill"][3:] == [float(t == commonest) for t in ("Bern", "Chur", "Genf")]
    for split in SPLITS:
        X = content[f"X_{split}"] * np.array(how["spread"]) + np.array(how["mean"])
        for name, x in zip(content[f"names_{split}"].tolist(), X, strict=True):
            row = items.names.tolist().index(name)
            value = {c: v[row] for c, v in items.columns.items()}
            town = value["town"] or commonest
            expected = [
                age if np.isnan(value["age"]) else value["age"],
                float(value["dose"]),
                ["early", "middle", "late"].index(value["stage"]),
                *(float(t == town) for t in ("Bern", "Chur", "Genf")),
            ]
            np.testing.assert_allclose(x, expected, atol=1e-4)


def test_incomplete_rows_are_left_out_if_that_is_declared() -> None:
    read = PATIENTS["read"] | {"missing": "drop"}
    content = normalise(patients(), "patients", spec(**PATIENTS | {"read": read}))
    names = [n for s in SPLITS for n in content[f"names_{s}"].tolist()]
    assert sorted(set(patients().names.tolist()) - set(names)) == ["p.csv:4", "p.csv:6", "p.csv:8"]
    assert "fill" not in content["about"]["input"]


@pytest.mark.parametrize(
    ("read", "named"),
    [
        ({"missing": "refuse"}, {"p.csv:4", "age", "3", "40", "read.missing", "drop", "median"}),
        ({"ignore": []}, {"id", "row", "name", "read.ignore", "read.keep", "read.one_hot"}),
        ({"one_hot": []}, {"town", "Bern", "read.ordinal"}),
        ({"one_hot": ["twon"]}, {"twon", "town"}),
        ({"ordinal": {"stage": ["early", "late"]}}, {"stage", "middle", "early", "late"}),
    ],
)
def test_columns_that_are_no_readings_are_all_named(read: dict[str, Any], named: set[str]) -> None:
    with pytest.raises(InputError) as e:
        normalise(patients(), "patients", spec(**PATIENTS | {"read": PATIENTS["read"] | read}))
    assert named <= words_of(e.value)
    assert "\n" not in str(e.value)


def test_an_id_may_be_a_reading_and_a_label_without_value_is_refused() -> None:
    read = PATIENTS["read"] | {"ignore": ["name"], "keep": ["id", "row"]}
    content = normalise(patients(), "patients", spec(**PATIENTS | {"read": read}))
    assert content["about"]["input"]["columns"] == ["age", "dose", "id", "row", "stage", "town"]
    items = patients()
    items.columns["ill"][2] = ""
    with pytest.raises(InputError, match=r"^p\.csv:3: .*ill.*drop$"):
        normalise(items, "patients", spec(**PATIENTS))
    dropped = PATIENTS["read"] | {"missing": "drop"}
    normalise(items, "patients", spec(**PATIENTS | {"read": dropped}))


@st.composite
def dealt(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Groups of at most three of 120 to 200 items, and the labels of one to three heads."""
    n = draw(st.integers(120, 200))
    sizes = draw(st.lists(st.integers(1, 3), min_size=n, max_size=n))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    groups = rng.permutation(np.repeat(np.arange(n), sizes)[:n])
    heads = []
    for _ in range(draw(st.integers(1, 3))):
        shares = rng.dirichlet(np.full(draw(st.integers(1, 4)), draw(st.sampled_from([0.4, 9.0]))))
        of = rng.integers(0, n, n) if draw(st.booleans()) else groups  # or alike in a group
        heads.append(rng.choice(len(shares), n, p=shares)[of])
    return groups, np.stack([np.unique(y, return_inverse=True)[1] for y in heads], 1)


@settings(max_examples=100)
@given(dealt(), st.integers(0, 9))
def test_groups_are_dealt_whole_in_the_wanted_shares(
    case: tuple[np.ndarray, np.ndarray], seed: int
) -> None:
    groups, labels = np.unique(case[0], return_inverse=True)[1], case[1]
    n, largest = len(groups), np.bincount(groups).max()
    shares = {"train": 0.6, "validation": 0.15, "test": 0.25}
    wanted = {s: share * n for s, share in shares.items()}
    split = stratified_group_split(groups, labels, wanted, seed)
    for g in set(groups.tolist()):
        assert len(set(split[groups == g].tolist())) == 1
    # Of 6,000 such cases the furthest was 3.4 groups off.
    tolerance = 4 * largest
    assert tolerance < min(wanted.values())  # a split that is left out is noticed
    for s, w in wanted.items():
        assert abs((split == s).sum() - w) <= tolerance
        for y in labels.T:
            of_class = np.bincount(y)
            there = np.bincount(y[split == s], minlength=len(of_class))
            assert (np.abs(there - shares[s] * of_class) <= tolerance).all()
    assert (split == stratified_group_split(groups, labels, wanted, seed)).all()


def test_another_seed_deals_otherwise() -> None:
    groups, labels = np.arange(100), (np.arange(100) % 2)[:, None]
    wanted = {"train": 60.0, "validation": 15.0, "test": 25.0}
    made = {seed: tuple(stratified_group_split(groups, labels, wanted, seed)) for seed in range(5)}
    assert len(set(made.values())) == 5


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


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_images_come_as_wide_and_as_high_as_asked(mode: str) -> None:
    """White above, black below, red on the right where there is colour."""
    pixels = np.zeros((20, 40, 3), "uint8")
    pixels[:10] = 255
    pixels[:, 20:] = (255, 0, 0)
    x = prepare_image(pixels, (8, 6), Read(mode=mode), "a.png")
    assert x.shape == (6, 8, 3 if mode == "RGB" else 1)
    assert (x[:2, :3] > 200).all()
    assert (x[-2:, :3] < 50).all()
    right = x[:, -3:].reshape(-1, x.shape[2])
    red = (255, 0, 0) if mode == "RGB" else (76,)
    assert np.abs(right - np.array(red)).max() < 30


def test_the_middle_size_is_by_area() -> None:
    shapes = np.array([[120, 128, 1], [30, 32, 3], [60, 64, 1], [30, 32, 1], [30, 32, 1]])
    assert middle_size(shapes) == (64, 60)


@pytest.mark.parametrize(
    ("rule", "value"), [("black", 0), ("white", 255), ("drop", 200), ("refuse", None)]
)
def test_transparency_has_an_explicit_rule(rule: str, value: int | None) -> None:
    image = Image.new("RGBA", (2, 2), (200, 200, 200, 0))
    if value is None:
        with pytest.raises(InputError, match=r"^a\.png: .*read\.alpha"):
            convert_mode(image, "L", rule, "a.png")
    else:
        assert np.asarray(convert_mode(image, "L", rule, "a.png")).tolist() == [[value] * 2] * 2


PIXELS = np.random.default_rng(0).integers(0, 255, (6, 8)).astype("uint8")


def operate(pixels: np.ndarray, name: str = "a.png", **operation: Any) -> np.ndarray:
    image = apply_operation(Image.fromarray(pixels), Operation.model_validate(operation), name)
    return np.asarray(image)


def test_a_crop_is_left_top_right_bottom() -> None:
    np.testing.assert_array_equal(operate(PIXELS, crop=[1, 2, 7, 5]), PIXELS[2:5, 1:7])


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("flip_left_right", PIXELS[:, ::-1]),
        ("flip_top_bottom", PIXELS[::-1]),
        ("rotate_90", np.rot90(PIXELS)),  # against the clock
        ("rotate_180", PIXELS[::-1, ::-1]),
        ("rotate_270", np.rot90(PIXELS, 3)),
        ("transpose", PIXELS.T),
        ("transverse", PIXELS[::-1, ::-1].T),
    ],
)
def test_a_transposition_is_what_its_name_says(how: str, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(operate(PIXELS, transpose=how), expected)


@pytest.mark.parametrize("degrees", [90.0, -90.0, 30.0, 10.0, -45.0])
def test_a_rotation_is_in_degrees_against_the_clock(degrees: float) -> None:
    """A spot to the right of the middle goes up, to where the angle says."""
    spot = np.zeros((41, 41), "uint8")
    spot[19:22, 33:36] = 255  # 14 to the right
    turned = operate(spot, rotate=degrees).astype(float)
    y, x = (np.average(axis, weights=turned) - 20 for axis in np.indices(turned.shape))
    radians = np.deg2rad(degrees)
    assert (x, y) == pytest.approx((14 * np.cos(radians), -14 * np.sin(radians)), abs=0.2)


@pytest.mark.parametrize("name", ["blur", "contour", "detail", "edge_enhance", "sharpen", "smooth"])
def test_a_filter_is_the_one_of_its_name(name: str) -> None:
    expected = Image.fromarray(PIXELS).filter(getattr(ImageFilter, name.upper()))
    np.testing.assert_array_equal(operate(PIXELS, filter=name), np.asarray(expected))
    assert (operate(PIXELS, filter=name) != PIXELS).any()


def test_a_spread_takes_each_pixel_from_near_by_and_the_same_way_for_a_name() -> None:
    """Where a pixel came from is seen where no two are equal."""
    y, x = np.indices((12, 20))
    pixels = (y * 20 + x).astype("uint8")
    done = operate(pixels, spread=2)
    from_y, from_x = done // 20, done % 20
    far = np.maximum(np.abs(from_y.astype(int) - y), np.abs(from_x.astype(int) - x))
    assert far.max() == 2
    np.testing.assert_array_equal(done, operate(pixels, spread=2))
    assert (done != operate(pixels, "b.png", spread=2)).any()


def test_a_crop_outside_is_refused() -> None:
    with pytest.raises(InputError, match=r"^a\.png: .*\[0, 0, 9, 8\]"):
        apply_operation(Image.new("L", (8, 8)), Operation(crop=(0, 0, 9, 8)), "a.png")


def test_too_few_groups_are_refused(faces: Items) -> None:
    one = {"split": {"by": "person", "test": 0.0, "validation": 0.0}}
    with pytest.raises(InputError, match=r"^split: .*test"):
        normalise(faces, "faces", spec(**one))
