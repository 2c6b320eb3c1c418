"""Augmentation changes images and, where it declares so, labels; nothing else."""

from typing import Any

import numpy as np
import pytest

from facet.config import Augment
from facet.datasets.augmentation import augment, uniform_draws, warp_images
from facet.errors import InputError


def content(n: int = 12) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    out: dict[str, Any] = {
        "classes_pose": np.array(["left", "right", "up"]),
        "classes_eyes": np.array(["open", "shut"]),
        "about": {"heads": ["pose", "eyes"]},
    }
    for split in ("train", "validation", "test"):
        out[f"X_{split}"] = rng.random((n, 6, 5, 1)).astype("float32")
        out[f"names_{split}"] = np.array([f"{split}{i}" for i in range(n)])
        out[f"groups_{split}"] = out[f"names_{split}"]
        out[f"y_{split}_pose"] = np.arange(n) % 3
        out[f"y_{split}_eyes"] = np.arange(n) % 2
    return out


ALL = {"copies": 3, "rotate": 10, "translate": 0.1, "zoom": 0.1}
FLIP = {"probability": 1.0, "swap": {"pose": ["left", "right"]}}


def test_a_flip_mirrors_and_swaps_left_and_right() -> None:
    before = content()
    after = augment(before, Augment.model_validate({"copies": 2, "flip": FLIP}))
    np.testing.assert_allclose(after["X_train"][12:], before["X_train"][:, :, ::-1], atol=1e-6)
    assert after["y_train_pose"][12:].tolist() == [[1, 0, 2][y] for y in before["y_train_pose"]]
    assert after["y_train_eyes"][12:].tolist() == before["y_train_eyes"].tolist()


def test_half_are_flipped_image_and_label_alike() -> None:
    before = content(200)
    how = Augment.model_validate({"copies": 2, "flip": FLIP | {"probability": 0.5}})
    after = augment(before, how)
    mirrored = np.abs(after["X_train"][200:] - before["X_train"][:, :, ::-1]).max((1, 2, 3)) < 1e-5
    assert 70 < mirrored.sum() < 130
    swapped = after["y_train_pose"][200:] != before["y_train_pose"]
    assert (swapped == (mirrored & (before["y_train_pose"] < 2))).all()


def test_training_alone_grows_and_the_untouched_come_first() -> None:
    before = content()
    after = augment(before, Augment.model_validate(ALL))
    assert (after["X_train"][:12] == before["X_train"]).all()
    assert after["copy_train"].tolist() == [0] * 12 + [1] * 12 + [2] * 12
    for key in before:
        if "train" not in key:
            assert after[key] is before[key]
    assert after["X_train"].dtype == np.float32
    assert 0 <= after["X_train"].min() <= after["X_train"].max() <= 1
    assert not np.allclose(after["X_train"][12:24], after["X_train"][24:])


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
            content(),
            Augment.model_validate({"copies": 2, "flip": {"swap": {"pose": ["lft", "right"]}}}),
        )
    table = content() | {"X_train": np.zeros((12, 3), "float32")}
    with pytest.raises(InputError, match="only images can be augmented"):
        augment(table, Augment(copies=2))
