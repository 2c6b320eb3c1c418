"""Judge a run on its test split: metrics with chance beside them."""

import numpy as np

from facet.base.prepared import StoredData
from facet.evaluation import statistics
from facet.evaluation.warnings import find_leakage, find_warnings
from facet.formats import HeadMetrics, ModelInfo, RunMetrics


def compute_head_metrics(
    y: np.ndarray,
    predicted: np.ndarray,
    classes: list[str],
    groups: np.ndarray,
    train_labels: np.ndarray,
) -> HeadMetrics:
    """A head's metrics on the test split, fractions 0-1.

    `y`, `predicted` (n,) int64; `groups` (n,) strings; `trained` the labels trained on. A head of
    which no test class was trained on is `not applicable`, its figures None.
    """
    if not np.isin(y, train_labels).any():
        return {
            "classes": classes,
            "accuracy": None,
            "ci95": None,
            "balanced_accuracy": None,
            "balanced_ci95": None,
            "chance": None,
            "balanced_chance": None,
            "correct": None,
            "wrong": None,
            "confusion": None,
            "verdict": "not applicable",
        }
    correct = int((y == predicted).sum())
    balanced, balanced_ci = statistics.balanced_accuracy(y, predicted, len(classes), groups)
    confusion = np.zeros((len(classes), len(classes)), int)
    np.add.at(confusion, (y, predicted), 1)
    return {
        "classes": classes,
        "accuracy": correct / len(y),
        "ci95": statistics.wilson_interval(correct, len(y)),
        "balanced_accuracy": balanced,
        "balanced_ci95": balanced_ci,
        "chance": float(np.bincount(y).max() / len(y)),
        "balanced_chance": 1 / len(classes),
        "correct": correct,
        "wrong": len(y) - correct,
        "confusion": confusion.tolist(),
        "verdict": statistics.judge_against_chance(y, predicted, len(classes), groups),
    }


def evaluate_run(
    data: StoredData, predictions: dict[str, np.ndarray], about: ModelInfo
) -> RunMetrics:
    """A run's metrics, all but its name."""
    heads, warnings = {}, find_leakage(data.splits)
    train, test = data.splits["train"], data.splits["test"]
    for head, classes in about["heads"].items():
        y, train_labels = test.y[head], train.y[head][train.originals]
        predicted = predictions[f"{head}_test"].argmax(1)
        right = int((predictions[f"{head}_train"].argmax(1) == train_labels).sum())
        heads[head] = compute_head_metrics(y, predicted, classes, test.groups, train_labels)
        warnings += find_warnings(head, heads[head], y, predicted, train_labels, right)
    return {
        "experiment": about["experiment"],
        "dataset": about["dataset"],
        "seed": about["seed"],
        "split": about["split"],
        "n_train": len(train.originals),
        "n_validation": len(data.splits["validation"]),
        "n_test": len(test),
        "epochs": about["epochs"],
        "parameters": about["parameters"],
        "multiply_adds": about["multiply_adds"],
        "warnings": warnings,
        "wandb": about["wandb"],
        "heads": heads,
    }
