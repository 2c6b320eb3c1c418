"""Warnings of a run: what is suspicious about its figures or its data, each as `name: words`."""

import hashlib

import numpy as np

from facet.base.names import SPLITS
from facet.base.prepared import SplitData
from facet.evaluation import statistics
from facet.formats import HeadMetrics


def find_leakage(splits: dict[str, SplitData]) -> list[str]:
    """A warning for each kind of thing found in more than one split: groups, identical items."""
    keys = {
        "group": {s: set(splits[s].groups.tolist()) for s in SPLITS},
        "identical item": {
            s: {hashlib.sha256(splits[s].X[row].tobytes()).digest() for row in splits[s].originals}
            for s in SPLITS
        },
    }
    found = []
    for what, by_split in keys.items():
        for i, first in enumerate(SPLITS):
            for second in SPLITS[i + 1 :]:
                if shared := by_split[first] & by_split[second]:
                    found.append(f"leakage: {len(shared)} {what}s are in {first} and in {second}")
    return found


def find_warnings(
    head: str,
    m: HeadMetrics,
    y: np.ndarray,
    predicted: np.ndarray,
    train_labels: np.ndarray,
    train_correct: int,
) -> list[str]:
    """What is suspicious about a head's figures, each as `name: words`."""
    if m["verdict"] == "not applicable":
        return [f"not_applicable: {head}: no class of the test split was trained on"]
    classes, found = m["classes"], []
    if m["verdict"] == "below chance":
        found.append(
            f"below_chance: {head}: balanced accuracy {m['balanced_accuracy']:.2f} is below "
            f"{m['balanced_chance']:.2f}; look for test items whose twins were trained on with "
            "another label"
        )
    if statistics.exceeds_training(train_correct, len(train_labels), m["correct"] or 0, len(y)):
        found.append(
            f"test_above_training: {head}: {m['accuracy']:.2f} of test items right, "
            f"{train_correct / len(train_labels):.2f} of training items"
        )
    for split, labels in (("training", train_labels), ("test", y)):
        if absent := sorted(set(range(len(classes))) - set(labels.tolist())):
            found.append(
                f"absent_class: {head}: no {', '.join(classes[i] for i in absent[:5])} "
                f"in the {split} split"
            )
    share = np.bincount(predicted).max() / len(predicted)
    if share >= 0.98:
        answer = classes[int(np.bincount(predicted).argmax())]
        found.append(
            f"majority_class: {head}: answers {answer} to {share:.0%} of items; accuracy "
            f"{m['accuracy']:.2f} is little but that class's share"
        )
    return found
