"""Figures stand beside chance, and what is suspicious has a name."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from facet.evaluation import plots
from facet.evaluation.metrics import compute_head_metrics, evaluate_run
from facet.evaluation.warnings import find_leakage, find_warnings
from tests.helpers import as_data, words_of


def content(n: int = 60, classes: int = 3, image: bool = True) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    out: dict[str, Any] = {
        "classes_kind": np.array([f"k{i}" for i in range(classes)]),
        "about": {"heads": ["kind"]},
        "copy_train": np.repeat([0, 1], n),
    }
    for part, size in (("train", 2 * n), ("validation", n), ("test", n)):
        shape = (size, 6, 5, 1) if image else (size, 4)
        pixels = rng.integers(0, 256, shape, dtype="uint8")
        out[f"X_{part}"] = pixels if image else rng.normal(size=shape).astype("float32")
        out[f"y_{part}_kind"] = np.arange(size) % classes
        out[f"names_{part}"] = np.array([f"{part}{i}" for i in range(size)])
        out[f"groups_{part}"] = out[f"names_{part}"]
    return out


def probabilities(y: np.ndarray, classes: int = 3) -> np.ndarray:
    return np.eye(classes, dtype="float32")[y] * 0.8 + 0.2 / classes


ABOUT = {
    "experiment": "e",
    "dataset": "d",
    "seed": 0,
    "split": {"by": "random"},
    "epochs": 2,
    "parameters": 7,
    "multiply_adds": 9,
    "wandb": {"id": "x"},
    "heads": {"kind": ["k0", "k1", "k2"]},
}


def evaluate_kind(
    train: np.ndarray, test: np.ndarray, c: dict[str, Any] | None = None
) -> dict[str, Any]:
    predictions = {"kind_train": probabilities(train), "kind_test": probabilities(test)}
    return evaluate_run(as_data(c or content()), predictions, ABOUT)


TRUE = np.arange(60) % 3


def test_figures_are_what_they_say() -> None:
    wrong = TRUE.copy()
    wrong[:6] = 0
    m = evaluate_kind(TRUE, wrong)
    kind = m["heads"]["kind"]
    assert (m["n_train"], m["n_validation"], m["n_test"]) == (60, 60, 60)
    assert kind["correct"] == 56
    assert kind["wrong"] == 4
    assert kind["accuracy"] == pytest.approx(56 / 60)
    assert kind["confusion"] == [[20, 0, 0], [2, 18, 0], [2, 0, 18]]
    assert kind["balanced_accuracy"] == pytest.approx((1 + 0.9 + 0.9) / 3)
    assert kind["chance"] == kind["balanced_chance"] == pytest.approx(1 / 3)
    assert kind["ci95"][0] < kind["accuracy"] < kind["ci95"][1]
    assert kind["balanced_ci95"][0] < kind["balanced_accuracy"] < kind["balanced_ci95"][1]
    assert kind["verdict"] == "above chance"
    assert m["warnings"] == []
    json.dumps(m)


def named(warnings: list[str]) -> dict[str, str]:
    """What each warning says, by its name and head."""
    return {": ".join(w.split(": ")[:2]): w for w in warnings}


@pytest.mark.parametrize(
    ("train", "test", "verdict", "name", "numbers"),
    [
        (TRUE, (TRUE + 1) % 3, "below chance", "below_chance: kind", {"0.00", "0.33"}),
        ((TRUE + 1) % 3, TRUE, "above chance", "test_above_training: kind", {"1.00", "0.00"}),
        (TRUE, np.zeros(60, int), "at chance", "majority_class: kind", {"k0", "100%", "0.33"}),
    ],
)
def test_what_is_suspicious_is_named(
    train: np.ndarray, test: np.ndarray, verdict: str, name: str, numbers: set[str]
) -> None:
    m = evaluate_kind(train, test)
    assert m["heads"]["kind"]["verdict"] == verdict
    assert numbers <= words_of(named(m["warnings"])[name])


@pytest.mark.parametrize(("others", "warned"), [(2, True), (3, False)])
def test_nearly_one_answer_to_everything_is_named(others: int, warned: bool) -> None:
    """98 of 100 are, 97 are not."""
    y = np.arange(100) % 2
    predicted = np.zeros(100, int)
    predicted[:others] = 1
    m = compute_head_metrics(y, predicted, ["a", "b"], np.arange(100).astype(str), y)
    warnings = find_warnings("kind", m, y, predicted, y, 50)
    assert ("majority_class: kind" in named(warnings)) == warned


def test_an_absent_class_and_a_meaningless_head_are_named() -> None:
    c = content()
    c["y_train_kind"] = c["y_train_kind"] % 2
    warnings = named(evaluate_kind(TRUE, TRUE, c)["warnings"])
    assert {"k2", "training"} <= words_of(warnings["absent_class: kind"])
    c["y_test_kind"] = np.full(60, 2)
    m = evaluate_kind(TRUE, TRUE, c)
    assert m["heads"]["kind"]["verdict"] == "not applicable"
    assert m["heads"]["kind"]["accuracy"] is None
    assert list(named(m["warnings"])) == ["not_applicable: kind"]


def test_what_is_in_two_splits_is_counted() -> None:
    c = content()
    assert find_leakage(as_data(c).splits) == []
    c["X_test"][:2] = c["X_train"][5:7]
    c["groups_validation"][1] = c["groups_train"][7]
    # A changed copy of a training item is none of its items.
    c["X_validation"][3] = c["X_train"][60]
    groups, items = find_leakage(as_data(c).splits)
    assert {"leakage", "1", "groups", "train", "validation"} <= words_of(groups)
    assert {"leakage", "2", "items", "train", "test"} <= words_of(items)
    assert {"leakage"} == {w.partition(":")[0] for w in evaluate_kind(TRUE, TRUE, c)["warnings"]}


def test_chance_is_the_commonest_class() -> None:
    """Of the test part, whatever was common in training."""
    y, trained = np.array([0] * 8 + [1] * 2), np.array([0] * 5 + [1] * 95)
    m = compute_head_metrics(y, np.zeros(10, int), ["a", "b"], np.arange(10).astype(str), trained)
    assert m["chance"] == 0.8
    assert m["accuracy"] == 0.8
    assert m["balanced_accuracy"] == 0.5
    assert m["balanced_chance"] == 0.5
    assert m["verdict"] == "at chance"


def test_the_confusion_matrix_has_true_rows_and_predicted_columns() -> None:
    wrong = TRUE.copy()
    wrong[1] = 2  # one that is k1, said to be k2
    (axis, *_) = plots.draw_confusions(evaluate_kind(TRUE, wrong)["heads"], "e-0").axes
    shares = np.asarray(axis.images[0].get_array())
    assert shares == pytest.approx(np.array([[1, 0, 0], [0, 0.95, 0.05], [0, 0, 1]]))
    assert {(t.get_position(), t.get_text()) for t in axis.texts} == {
        ((0, 0), "20"),
        ((1, 1), "19"),
        ((2, 1), "1"),  # x the predicted, y the true class
        ((2, 2), "20"),
    }
    assert [t.get_text() for t in axis.get_xticklabels()] == ["k0", "k1", "k2"]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("predicted", "true")


def test_the_curves_are_the_historys() -> None:
    history = [
        {
            "epoch": str(e),
            "loss": str(1 / e),
            "val_loss": str(2 / e),
            "kind_accuracy": str(e / 10),
            "val_kind_accuracy": str(e / 20),
        }
        for e in (1, 2, 3)
    ]
    axes = plots.draw_curves(history, ["kind"], "e-0").axes
    for axis, name in zip(axes, ("loss", "kind_accuracy"), strict=True):
        assert name.split("_")[0] in axis.get_title()
        for line, key in zip(axis.lines, (name, f"val_{name}"), strict=True):
            assert line.get_label().startswith("validation" if "val_" in key else "training")
            assert list(line.get_xdata()) == [1, 2, 3]
            assert list(line.get_ydata()) == [float(row[key]) for row in history]


def test_the_balance_of_classes_is_each_splits_share() -> None:
    c = content()
    c["y_test_kind"] = np.repeat([0, 1, 2], [30, 20, 10])
    (axis,) = plots.draw_class_balance(as_data(c), ["kind"]).axes
    drawn = {bars.get_label(): [bar.get_width() for bar in bars] for bars in axis.containers}
    thirds = [1 / 3] * 3
    assert drawn == {
        "train": pytest.approx(thirds),
        "validation": pytest.approx(thirds),
        "test": pytest.approx([1 / 2, 1 / 3, 1 / 6]),
    }


@pytest.mark.parametrize("image", [True, False])
def test_pictures_are_drawn_the_same_twice(tmp_path: Path, image: bool) -> None:
    c = content(image=image)
    wrong = TRUE.copy()
    wrong[:12] = 0
    predictions = {"kind_train": probabilities(TRUE), "kind_test": probabilities(wrong)}
    m = evaluate_run(as_data(c), predictions, ABOUT)
    history = [
        {
            "epoch": str(e),
            "loss": "1",
            "val_loss": "2",
            "kind_accuracy": "0.5",
            "val_kind_accuracy": "0.4",
        }
        for e in (1, 2)
    ]
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        plots.draw_run(tmp_path / name, "e-0", as_data(c), predictions, history, m)
    drawn = {p.name: p.read_bytes() for p in (tmp_path / "a").iterdir()}
    expected = {"values.png", "classes.png", "curves.png", "confusion.png", "answers_kind.png"}
    assert set(drawn) == expected | ({"samples.png"} if image else set())
    for name, content_ in drawn.items():
        assert (tmp_path / "b" / name).read_bytes() == content_
        pixels = np.asarray(Image.open(tmp_path / "a" / name).convert("L"))
        assert pixels.std() > 10, f"{name} is blank"
