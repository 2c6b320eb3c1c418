"""Augmentation changes images and, where it declares so, labels; nothing else."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from facet.config import Augment
from facet.datasets.augmentation import augment, uniform_draws, warp_images
from facet.datasets.prepared import PreparedData, SplitData
from facet.errors import InputError
from facet.names import SPLITS


def make_data(n: int = 12) -> PreparedData:
    rng = np.random.default_rng(0)
    splits = {}
    for split in SPLITS:
        names = np.array([f"{split}{i}" for i in range(n)])
        X = rng.random((n, 6, 5, 1)).astype("float32")
        y = {"pose": np.arange(n) % 3, "eyes": np.arange(n) % 2}
        splits[split] = SplitData(X, y, names, names)
    classes = {"pose": np.array(["left", "right", "up"]), "eyes": np.array(["open", "shut"])}
    return PreparedData({"heads": ["pose", "eyes"]}, classes, splits)  # type: ignore[typeddict-item]


def with_train(data: PreparedData, **changes: Any) -> PreparedData:
    train = replace(data.splits["train"], **changes)
    return replace(data, splits=data.splits | {"train": train})


ALL = {"copies": 3, "rotate": 10, "translate": 0.1, "zoom": 0.1}
FLIP = {"probability": 1.0, "swap": {"pose": ["left", "right"]}}


def test_a_flip_mirrors_and_swaps_left_and_right() -> None:
    before = make_data()
    after = augment(before, Augment.model_validate({"copies": 2, "flip": FLIP}))
    np.testing.assert_allclose(
        after.splits["train"].X[12:], before.splits["train"].X[:, :, ::-1], atol=1e-6
    )
    assert after.splits["train"].y["pose"][12:].tolist() == [
        [1, 0, 2][y] for y in before.splits["train"].y["pose"]
    ]
    assert (
        after.splits["train"].y["eyes"][12:].tolist() == before.splits["train"].y["eyes"].tolist()
    )


def test_half_are_flipped_image_and_label_alike() -> None:
    before = make_data(200)
    how = Augment.model_validate({"copies": 2, "flip": FLIP | {"probability": 0.5}})
    after = augment(before, how)
    mirrored = (
        np.abs(after.splits["train"].X[200:] - before.splits["train"].X[:, :, ::-1]).max((1, 2, 3))
        < 1e-5
    )
    assert 70 < mirrored.sum() < 130
    swapped = after.splits["train"].y["pose"][200:] != before.splits["train"].y["pose"]
    assert (swapped == (mirrored & (before.splits["train"].y["pose"] < 2))).all()


def test_training_alone_grows_and_the_untouched_come_first() -> None:
    before = make_data()
    after = augment(before, Augment.model_validate(ALL))
    assert (after.splits["train"].X[:12] == before.splits["train"].X).all()
    assert after.splits["train"].copies.tolist() == [0] * 12 + [1] * 12 + [2] * 12
    for split in ("validation", "test"):
        assert after.splits[split] is before.splits[split]
    assert after.splits["train"].X.dtype == np.float32
    assert 0 <= after.splits["train"].X.min() <= after.splits["train"].X.max() <= 1
    assert not np.allclose(after.splits["train"].X[12:24], after.splits["train"].X[24:])


def test_an_image_is_changed_the_same_whatever_the_order_or_batch() -> None:
    before, how = make_data(300), Augment.model_validate(ALL | {"flip": FLIP})
    whole = augment(before, how)
    order = np.random.default_rng(1).permutation(300)[:77]
    train = before.splits["train"]
    chosen = with_train(
        before,
        X=train.X[order],
        y={h: y[order] for h, y in train.y.items()},
        names=train.names[order],
        groups=train.groups[order],
    )
    few = augment(chosen, how)
    for copy in range(3):
        np.testing.assert_array_equal(
            few.splits["train"].X[copy * 77 : copy * 77 + 77],
            whole.splits["train"].X[copy * 300 + order],
        )


def test_another_seed_changes_otherwise() -> None:
    a, b = (uniform_draws(["x", "y"], seed, 1) for seed in (0, 1))
    assert (a != b).all()
    assert ((a >= 0) & (a < 1)).all()


def test_warps_go_where_they_should() -> None:
    X = np.zeros((1, 5, 5, 1), "float32")
    X[0, 1, 2] = 1
    still, none, one = np.zeros((1, 2)), np.zeros(1), np.ones(1)
    assert warp_images(X, none, np.array([[2.0, 1.0]]), one)[0, 3, 3, 0] == pytest.approx(1)
    np.testing.assert_allclose(warp_images(X, none, still, one), X)
    turned = warp_images(X, np.array([np.pi / 2]), still, one)[0, ..., 0]
    assert turned[2, 1] == pytest.approx(1)
    bigger = warp_images(X, none, still, 2 * one)[0, ..., 0]
    assert bigger[0, 2] == pytest.approx(1)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match="lft is not a class"):
        augment(
            make_data(),
            Augment.model_validate({"copies": 2, "flip": {"swap": {"pose": ["lft", "right"]}}}),
        )
    table = with_train(make_data(), X=np.zeros((12, 3), "float32"))
    with pytest.raises(InputError, match="only images can be augmented"):
        augment(table, Augment(copies=2))
