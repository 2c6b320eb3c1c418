"""Augmentation changes images and, where it declares so, labels; nothing else."""

import json
from typing import Any

import numpy as np
import pytest

from facet.base.config import Augment, Augmentation, Flip
from facet.datasets import augmentation
from facet.datasets.augmentation import (
    affine_matrices,
    elastic_nodes,
    uniform_draws,
    warp_images,
)
from facet.errors import InputError
from tests.helpers import as_arrays, as_data


def content(n: int = 12) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    out: dict[str, Any] = {
        "classes_pose": np.array(["left", "right", "up"]),
        "classes_eyes": np.array(["open", "shut"]),
        "about": {"heads": ["pose", "eyes"]},
    }
    for split in ("train", "validation", "test"):
        out[f"X_{split}"] = rng.integers(0, 256, (n, 6, 5, 1), dtype="uint8")
        out[f"names_{split}"] = np.array([f"{split}{i}" for i in range(n)])
        out[f"groups_{split}"] = out[f"names_{split}"]
        out[f"y_{split}_pose"] = np.arange(n) % 3
        out[f"y_{split}_eyes"] = np.arange(n) % 2
    return out


def augment(arrays: dict[str, Any], config: Augment) -> dict[str, Any]:
    return as_arrays(augmentation.augment(as_data(arrays), config))


def farthest(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The largest difference of any pixel, image by image."""
    return np.abs(a.astype(int) - b).max((1, 2, 3))


ALL = {"copies": 3, "rotate": 10, "shear": 0.1, "translate": 0.1, "zoom": 0.1, "elastic": 0.1}
FLIP = {"probability": 1.0, "swap": {"pose": ["left", "right"]}}


def test_a_flip_mirrors_and_swaps_left_and_right() -> None:
    before = content()
    after = augment(before, Augment.model_validate({"copies": 2, "flip": FLIP}))
    np.testing.assert_array_equal(after["X_train"][12:], before["X_train"][:, :, ::-1])
    assert after["y_train_pose"][12:].tolist() == [[1, 0, 2][y] for y in before["y_train_pose"]]
    assert after["y_train_eyes"][12:].tolist() == before["y_train_eyes"].tolist()


def test_half_are_flipped_image_and_label_alike() -> None:
    before = content(200)
    how = Augment.model_validate({"copies": 2, "flip": FLIP | {"probability": 0.5}})
    after = augment(before, how)
    mirrored = farthest(after["X_train"][200:], before["X_train"][:, :, ::-1]) == 0
    assert 70 < mirrored.sum() < 130
    swapped = after["y_train_pose"][200:] != before["y_train_pose"]
    assert (swapped == (mirrored & (before["y_train_pose"] < 2))).all()


def test_training_alone_grows_and_the_untouched_come_first() -> None:
    before = content()
    after = augment(before, Augment.model_validate(ALL))
    assert (after["X_train"][:12] == before["X_train"]).all()
    assert after["copy_train"].tolist() == [0] * 12 + [1] * 12 + [2] * 12
    assert after.pop("about")["heads"] == before.pop("about")["heads"]
    for key in before:
        if "train" not in key:
            assert np.array_equal(after[key], before[key])
    assert after["X_train"].dtype == np.uint8
    assert (farthest(after["X_train"][12:24], after["X_train"][24:]) > 0).all()


def test_an_image_is_changed_the_same_whatever_the_order_or_batch() -> None:
    before, how = content(300), Augment.model_validate(ALL | {"flip": FLIP})
    whole = augment(before, how)
    order = np.random.default_rng(1).permutation(300)[:77]
    split = {
        k: v[order] if k.endswith(("_train", "train_pose", "train_eyes")) else v
        for k, v in before.items()
    }
    few = augment(split, how)
    for copy in range(3):
        np.testing.assert_array_equal(
            few["X_train"][copy * 77 : copy * 77 + 77], whole["X_train"][copy * 300 + order]
        )


def test_another_seed_changes_otherwise() -> None:
    a, b = (uniform_draws(["x", "y"], seed, 1) for seed in (0, 1))
    assert (a != b).all()
    assert ((a >= 0) & (a < 1)).all()
    first, second = (
        augment(content(), Augment.model_validate(ALL | {"seed": seed}))["X_train"]
        for seed in (0, 1)
    )
    assert (farthest(first[12:], second[12:]) > 0).all()


def moved_spots(n: int = 300, **how: float) -> np.ndarray:
    """Where a spot 10 pixels right of the middle of images 61 high and 41 wide comes to lie.

    Returns pixels down and right of the middle, n x 2, of a changed copy of each image.
    """
    before = content(n)
    spots = np.zeros((n, 61, 41, 1), "uint8")
    spots[:, 29:32, 29:32] = 255
    after = augment(before | {"X_train": spots}, Augment.model_validate({"copies": 2} | how))
    copies = after["X_train"][n:, ..., 0].astype(float)
    y, x = np.indices((61, 41))
    mass = copies.sum((1, 2))
    return np.stack([(copies * y).sum((1, 2)) / mass - 30, (copies * x).sum((1, 2)) / mass - 20], 1)


def test_turns_are_of_so_many_degrees_at_most_and_either_way() -> None:
    down, right = moved_spots(rotate=30).T
    degrees = np.rad2deg(np.arctan2(down, right))
    assert np.hypot(down, right) == pytest.approx(np.full(300, 10), abs=0.3)
    assert (degrees.min(), degrees.max()) == pytest.approx((-30, 30), abs=2)
    assert np.median(degrees) == pytest.approx(0, abs=5)


def test_shifts_are_a_share_of_height_and_width() -> None:
    down, right = moved_spots(translate=0.1).T
    assert (down.min(), down.max()) == pytest.approx((-6.1, 6.1), abs=0.4)
    assert (right.min() - 10, right.max() - 10) == pytest.approx((-4.1, 4.1), abs=0.4)
    assert abs(np.corrcoef(down, right)[0, 1]) < 0.2


def test_bends_are_within_their_share_and_of_each_place_by_itself() -> None:
    down, right = moved_spots(elastic=0.2).T
    for moved in (down, right - 10):  # a fifth of the height, most of it evened out between nodes
        assert 2 < np.abs(moved).max() < 12.2
        assert np.median(moved) == pytest.approx(0, abs=1)
    assert abs(np.corrcoef(down, right)[0, 1]) < 0.2


def test_zooms_enlarge_and_shrink_by_the_same_factor() -> None:
    down, right = moved_spots(zoom=0.25).T
    assert np.abs(down).max() < 0.1
    factors = right / 10
    assert (factors.min(), factors.max()) == pytest.approx((1 / 1.25, 1.25), abs=0.03)
    assert np.median(factors) == pytest.approx(1, abs=0.05)


def test_the_data_say_how_they_were_augmented_and_no_more() -> None:
    how = Augment.model_validate(ALL | {"flip": FLIP, "experiments": {"other": {}}})
    assert augment(content(), how)["about"]["augment"] == {"seed": 0, **ALL, "flip": FLIP}
    # What is set beside `copies: 1` changes nothing, so it makes no other data set.
    untouched = augment(content(), Augment.model_validate(ALL | {"copies": 1, "seed": 7}))
    assert untouched["about"] == augment(content(), Augment())["about"]
    assert untouched["about"]["augment"]["rotate"] == 0
    # As numbers of params.yaml, 0 and 0.0 are one.
    typed = Augment.model_validate({"copies": 2, "rotate": 0})
    texts = [json.dumps(augment(content(), one)["about"]) for one in (typed, Augment(copies=2))]
    assert texts[0] == texts[1]


def test_a_copy_of_which_nothing_is_to_change_is_the_same() -> None:
    after = augment(content(), Augment(copies=2))
    np.testing.assert_array_equal(after["X_train"][12:], after["X_train"][:12])


# A copy's draws: turn, shift down, shift right, zoom, flip, shear; the middle of each leaves it be.
@pytest.mark.parametrize(
    ("draws", "place"),
    [
        ([0.5, 0.5, 0.5, 0.5, 1, 0.5], (1, 3)),
        ([1, 0.5, 0.5, 0.5, 1, 0.5], (1, 1)),  # 90 degrees against the clock
        ([0.5, 1, 0.5, 0.5, 1, 0.5], (3, 3)),  # two of five pixels down
        ([0.5, 0.5, 0, 0.5, 1, 0.5], (1, 1)),  # two of five pixels left
        ([0.5, 0.5, 0.5, 1, 1, 0.5], (0, 4)),  # twice as large
        ([0.5, 0.5, 0.5, 0.5, 0, 0.5], (1, 1)),  # mirrored
        ([1, 0.5, 0.5, 0.5, 0, 0.5], (3, 1)),  # mirrored, then turned
        ([0.5, 0.5, 0.5, 0.5, 1, 1], (1, 2)),  # above the centre to the left, below to the right
        ([1, 0.5, 0.5, 0.5, 1, 1], (2, 1)),  # sheared, then turned
    ],
)
def test_warps_go_where_they_should(draws: list[float], place: tuple[int, int]) -> None:
    X = np.zeros((1, 5, 5, 1), "uint8")
    X[0, 1, 3] = 255
    how = Augmentation.model_construct(rotate=90, shear=1, translate=0.4, zoom=1, flip=Flip())
    warped = warp_images(X, affine_matrices(np.array([draws]), how, 5, 5), None)
    assert np.unravel_index(warped[0, ..., 0].argmax(), (5, 5)) == place
    assert warped.max() >= 250


UNMOVED = np.array([[[1.0, 0, 0], [0, 1, 0]]])


def test_nodes_that_move_alike_shift_the_image_and_others_bend_it() -> None:
    X = np.random.default_rng(0).integers(0, 256, (1, 24, 20, 3), dtype="uint8")
    nodes = np.zeros((1, 2, 7, 7))
    np.testing.assert_array_equal(warp_images(X, UNMOVED, nodes), X)
    nodes[:, 0], nodes[:, 1] = 3, -2  # a pixel is taken from 3 to its right and 2 above
    moved = warp_images(X, UNMOVED, nodes)
    np.testing.assert_array_equal(moved[:, 2:, :-3], X[:, :-2, 3:])
    # On top of a warp: mirrored, then the same shift, which the mirror turns round.
    mirror = np.array([[[-1.0, 0, 19], [0, 1, 0]]])
    mirrored = warp_images(X, mirror, nodes)
    np.testing.assert_array_equal(mirrored, warp_images(X[:, :, ::-1], UNMOVED, nodes))
    # One corner's nodes reach as far as their splines, the far half of the image stays.
    nodes[:] = 0
    nodes[:, :, :2, :2] = 4
    bent = warp_images(X, UNMOVED, nodes)
    assert (bent[:, :6, :5] != X[:, :6, :5]).any()
    np.testing.assert_array_equal(bent[:, 12:], X[:, 12:])
    np.testing.assert_array_equal(bent[:, :, 10:], X[:, :, 10:])


def test_an_images_nodes_are_its_own_and_stay_within_their_share() -> None:
    how = Augmentation(copies=3, elastic=0.1)
    nodes = elastic_nodes(["a", "b", "c"], how, 1, 40)
    assert nodes is not None
    assert nodes.shape == (3, 2, 7, 7)
    assert 3.6 < np.abs(nodes).max() <= 4
    assert len(np.unique(nodes)) == nodes.size
    alone = elastic_nodes(["b"], how, 1, 40)
    np.testing.assert_array_equal(alone, nodes[1:2])
    for other in (Augmentation(elastic=0.1, seed=1), how):
        assert (elastic_nodes(["a"], other, 1 + (other is how), 40) != nodes[:1]).all()


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match=r"^augment\.flip\.swap\.pose: lft .*left.*right"):
        augment(
            content(),
            Augment.model_validate({"copies": 2, "flip": {"swap": {"pose": ["lft", "right"]}}}),
        )
    table = content() | {"X_train": np.zeros((12, 3), "float32")}
    with pytest.raises(InputError, match=r"^augment\.copies: "):
        augment(table, Augment(copies=2))
