"""Figures stand beside chance, and what is suspicious has a name."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from facet.datasets.prepared import PreparedData, SplitData
from facet.evaluation import figures
from facet.evaluation.leakage import find_leakage
from facet.evaluation.metrics import compute_head_metrics, evaluate_run


def make_data(n: int = 60, classes: int = 3, image: bool = True) -> PreparedData:
    rng = np.random.default_rng(0)
    splits = {}
    for split, size in (("train", 2 * n), ("validation", n), ("test", n)):
        names = np.array([f"{split}{i}" for i in range(size)])
        X = rng.random((size, 6, 5, 1) if image else (size, 4)).astype("float32")
        copies = np.repeat([0, 1], n) if split == "train" else None
        splits[split] = SplitData(X, {"kind": np.arange(size) % classes}, names, names, copies)
    kinds = np.array([f"k{i}" for i in range(classes)])
    return PreparedData({"heads": ["kind"]}, {"kind": kinds}, splits)  # type: ignore[typeddict-item]


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
    train: np.ndarray, test: np.ndarray, data: PreparedData | None = None
) -> dict[str, Any]:
    predictions = {"kind_train": probabilities(train), "kind_test": probabilities(test)}
    return evaluate_run(data or make_data(), predictions, ABOUT)


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


@pytest.mark.parametrize(
    ("train", "test", "verdict", "name"),
    [
        (TRUE, (TRUE + 1) % 3, "below chance", "below_chance: kind: balanced accuracy 0.00"),
        ((TRUE + 1) % 3, TRUE, "above chance", "test_above_training: kind: 1.00 of test"),
        (TRUE, np.zeros(60, int), "at chance", "majority_class: kind: answers k0 to 100%"),
    ],
)
def test_what_is_suspicious_is_named(
    train: np.ndarray, test: np.ndarray, verdict: str, name: str
) -> None:
    m = evaluate_kind(train, test)
    assert m["heads"]["kind"]["verdict"] == verdict
    assert any(w.startswith(name) for w in m["warnings"]), m["warnings"]


def test_an_absent_class_and_a_meaningless_head_are_named() -> None:
    data = make_data()
    train, test = data.splits["train"], data.splits["test"]
    train.y["kind"] = train.y["kind"] % 2
    warnings = evaluate_kind(TRUE, TRUE, data)["warnings"]
    assert any(w.startswith("absent_class: kind: no k2 in the training") for w in warnings)
    test.y["kind"] = np.full(60, 2)
    m = evaluate_kind(TRUE, TRUE, data)
    assert m["heads"]["kind"]["verdict"] == "not applicable"
    assert m["heads"]["kind"]["accuracy"] is None
    assert m["warnings"][0].startswith("not_applicable: kind")


def test_what_is_in_two_splits_is_counted() -> None:
    splits = make_data().splits
    assert find_leakage(splits) == []
    splits["test"].X[0] = splits["train"].X[5]
    splits["validation"].groups[1] = splits["train"].groups[7]
    assert find_leakage(splits) == [
        "leakage: 1 groups are in train and in validation",
        "leakage: 1 identical items are in train and in test",
    ]


def test_chance_is_the_commonest_class() -> None:
    y = np.array([0] * 8 + [1] * 2)
    m = compute_head_metrics(y, np.zeros(10, int), ["a", "b"], np.arange(10).astype(str), y)
    assert m["chance"] == 0.8
    assert m["accuracy"] == 0.8
    assert m["balanced_accuracy"] == 0.5
    assert m["verdict"] == "at chance"


@pytest.mark.parametrize("image", [True, False])
def test_pictures_are_drawn_the_same_twice(tmp_path: Path, image: bool) -> None:
    data = make_data(image=image)
    wrong = TRUE.copy()
    wrong[:12] = 0
    predictions = {"kind_train": probabilities(TRUE), "kind_test": probabilities(wrong)}
    m = evaluate_run(data, predictions, ABOUT)
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
        figures.draw_run(tmp_path / name, "e-0", data, predictions, history, m)
    drawn = {p.name: p.read_bytes() for p in (tmp_path / "a").iterdir()}
    expected = {"values.png", "classes.png", "curves.png", "confusion.png", "answers_kind.png"}
    assert set(drawn) == expected | ({"samples.png"} if image else set())
    for name, content_ in drawn.items():
        assert (tmp_path / "b" / name).read_bytes() == content_
        pixels = np.asarray(Image.open(tmp_path / "a" / name).convert("L"))
        assert pixels.std() > 10, f"{name} is blank"
