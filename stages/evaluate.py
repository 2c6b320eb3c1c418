"""Judge one run on its test part: figures with chance beside them, warnings, pictures."""

from pathlib import Path
from typing import Any

import numpy as np

from stages import figures, stats, story, tracking
from stages.common import (
    AUGMENTED,
    EVALUATION,
    METRICS,
    PARTS,
    RUN,
    dump,
    enter,
    load,
    read_csv,
    read_json,
    split_of,
    writing,
)
from stages.manifest import describe_processor
from stages.parameters import parse_run


def head_metrics(
    y: np.ndarray,
    predicted: np.ndarray,
    classes: list[str],
    groups: np.ndarray,
    trained: np.ndarray,
) -> dict[str, Any]:
    """A head's figures on the test part, fractions 0-1, in the form design and README describe.

    `y`, `predicted` (n,) int64; `groups` (n,) strings; `trained` the labels trained on. A head of
    which no test class was trained on is `not applicable`, its figures None.
    """
    keys = (
        "accuracy",
        "ci95",
        "balanced_accuracy",
        "balanced_ci95",
        "chance",
        "balanced_chance",
        "correct",
        "wrong",
        "confusion",
    )
    if not np.isin(y, trained).any():
        return {"classes": classes} | dict.fromkeys(keys) | {"verdict": "not applicable"}
    correct = int((y == predicted).sum())
    balanced, balanced_ci = stats.balanced(y, predicted, len(classes), groups)
    confusion = np.zeros((len(classes), len(classes)), int)
    np.add.at(confusion, (y, predicted), 1)
    return {
        "classes": classes,
        "accuracy": correct / len(y),
        "ci95": list(stats.wilson(correct, len(y))),
        "balanced_accuracy": balanced,
        "balanced_ci95": None if balanced_ci is None else list(balanced_ci),
        "chance": float(np.bincount(y).max() / len(y)),
        "balanced_chance": 1 / len(classes),
        "correct": correct,
        "wrong": len(y) - correct,
        "confusion": confusion.tolist(),
        "verdict": stats.against_chance(y, predicted, len(classes), groups),
    }


def straddling(content: dict[str, Any]) -> list[str]:
    """A warning for each kind of thing found in more than one part: groups, identical items."""
    keys = {
        "group": {p: set(content[f"groups_{p}"].tolist()) for p in PARTS},
        "identical item": {p: {x.tobytes() for x in untouched(content, p)} for p in PARTS},
    }
    found = []
    for what, by_part in keys.items():
        for i, first in enumerate(PARTS):
            for second in PARTS[i + 1 :]:
                if both := by_part[first] & by_part[second]:
                    found.append(f"straddle: {len(both)} {what}s are in {first} and in {second}")
    return found


def untouched(content: dict[str, Any], part: str) -> np.ndarray:
    """A part's inputs without augmented copies."""
    X = content[f"X_{part}"]
    return X[content["copy_train"] == 0] if part == "train" else X


def warn(
    head: str,
    m: dict[str, Any],
    y: np.ndarray,
    predicted: np.ndarray,
    trained: np.ndarray,
    train_correct: int,
) -> list[str]:
    """What is suspicious about a head's figures, each as `name: words`."""
    if m["verdict"] == "not applicable":
        return [f"not_applicable: {head}: no class of the test part was trained on"]
    classes, found = m["classes"], []
    if m["verdict"] == "below chance":
        found.append(
            f"below_chance: {head}: balanced accuracy {m['balanced_accuracy']:.2f} is below "
            f"{m['balanced_chance']:.2f}; look for test items whose twins were trained on with "
            "another label"
        )
    if stats.suspicious(train_correct, len(trained), m["correct"], len(y)):
        found.append(
            f"test_above_training: {head}: {m['accuracy']:.2f} of test items right, "
            f"{train_correct / len(trained):.2f} of training items"
        )
    for part, labels in (("training", trained), ("test", y)):
        if absent := sorted(set(range(len(classes))) - set(labels.tolist())):
            found.append(
                f"absent_class: {head}: no {', '.join(classes[i] for i in absent[:5])} "
                f"in the {part} part"
            )
    share = np.bincount(predicted).max() / len(predicted)
    if share >= 0.98:
        answer = classes[int(np.bincount(predicted).argmax())]
        found.append(
            f"majority_class: {head}: answers {answer} to {share:.0%} of items; accuracy "
            f"{m['accuracy']:.2f} is little but that class's share"
        )
    return found


def evaluate(
    content: dict[str, Any], predictions: dict[str, Any], about: dict[str, Any]
) -> dict[str, Any]:
    """A run's metrics, all but its name, in the form design and README describe."""
    heads, warnings = {}, straddling(content)
    originals = content["copy_train"] == 0
    for head, classes in about["heads"].items():
        y, trained = content[f"y_test_{head}"], content[f"y_train_{head}"][originals]
        predicted = predictions[f"{head}_test"].argmax(1)
        right = int((predictions[f"{head}_train"].argmax(1) == trained).sum())
        heads[head] = head_metrics(y, predicted, classes, content["groups_test"], trained)
        warnings += warn(head, heads[head], y, predicted, trained, right)
    return {
        "experiment": about["experiment"],
        "dataset": about["dataset"],
        "seed": about["seed"],
        "split": about["split"],
        "n_train": int(originals.sum()),
        "n_validation": len(content["X_validation"]),
        "n_test": len(content["X_test"]),
        "epochs": about["epochs"],
        "parameters": about["parameters"],
        "multiply_adds": about["multiply_adds"],
        "warnings": warnings,
        "wandb": about["wandb"],
        "heads": heads,
    }


def main(run: str) -> None:
    """Judge RUN: metrics/runs/RUN.json and the pictures in data/evaluations/RUN."""
    experiment, seed = parse_run(run)
    folder = Path(RUN.format(run))
    about, history = read_json(folder / "model.json"), read_csv(folder / "history.csv")
    content = split_of(load(AUGMENTED.format(experiment)), seed)
    predictions = load(folder / "predictions.pkl")
    metrics = evaluate(content, predictions, about)
    with writing(EVALUATION.format(run)) as aside:
        aside.mkdir()
        figures.draw(aside, run, content, predictions, history, metrics)
    dump(Path(METRICS.format(run)), metrics)
    here = describe_processor()
    tracking.join(story.id_of(run), lambda id: story.of_run(run, id, processor=here))
    told = ", ".join(
        f"{h} {m['accuracy']:.2f} (chance {m['chance']:.2f})"
        if m["accuracy"] is not None
        else f"{h} not applicable"
        for h, m in metrics["heads"].items()
    )
    print(f"{run}: {told}")
    for warning in metrics["warnings"]:
        print(f"{run}: warning: {warning}")


if __name__ == "__main__":
    enter(main)
