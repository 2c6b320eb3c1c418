"""A run's pictures, of data sets of all shapes; none of them can fail a run."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from facet.base.prepared import SplitData, StoredData
from facet.evaluation import plots


def table(features: int, classes: list[str], heads: int = 1) -> tuple[StoredData, dict[str, Any]]:
    """A table of as many features, classes and heads, and what a run predicts for it."""
    rng, n = np.random.default_rng(0), max(24, 2 * len(classes))
    names = [f"head{i}" for i in range(heads)]
    splits = {
        split: SplitData(
            X=rng.normal(size=(n, features)).astype("float32"),
            y={h: np.arange(n) % len(classes) for h in names},
            names=np.array([f"i{i}" for i in range(n)]),
            groups=np.arange(n),
            copies=np.zeros(n, "int64") if split == "train" else None,
        )
        for split in ("train", "validation", "test")
    }
    data = StoredData({}, {h: np.array(classes) for h in names}, splits)
    p = rng.dirichlet(np.ones(len(classes)), n)
    counts = np.zeros((len(classes), len(classes)), int)
    np.add.at(counts, (np.arange(n) % len(classes), p.argmax(1)), 1)
    one = {"accuracy": 0.5, "chance": 0.4, "classes": classes, "confusion": counts.tolist()}
    metrics = {"heads": dict.fromkeys(names, one)}
    return data, {"predictions": {f"{h}_test": p for h in names}, "metrics": metrics}


def draw(
    folder: Path, features: int, classes: list[str], heads: int = 1
) -> dict[str, tuple[int, int]]:
    """The sizes of the pictures that are drawn, by their names."""
    data, made = table(features, classes, heads)
    names = [f"head{i}" for i in range(heads)]
    row = {"loss": "1", "val_loss": "1", **{f"{h}_accuracy": "0.5" for h in names}}
    row |= {f"val_{h}_accuracy": "0.5" for h in names}
    history = [row | {"epoch": str(e)} for e in (1, 2)]
    plots.draw_run(folder, "x-0", data, made["predictions"], history, made["metrics"])
    return {p.stem: Image.open(p).size for p in folder.glob("*.png")}


@pytest.mark.parametrize(
    ("features", "classes", "heads"),
    [
        (2, ["a", "b"], 1),
        (55, ["a", "b", "c"], 1),
        (2000, ["a", "b"], 1),
        (3, [f"class {i}" for i in range(300)], 1),
        (3, [f"${{x_{i}" + "long " * 80 for i in range(3)], 1),
        (3, ["a", "b"], 12),
    ],
    ids=["few", "55 features", "2000 features", "300 classes", "long names, dollars", "heads"],
)
def test_a_picture_of_each_kind_is_drawn(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    features: int,
    classes: list[str],
    heads: int,
) -> None:
    sizes = draw(tmp_path, features, classes, heads)
    answers = {f"answers_head{i}" for i in range(heads)}
    assert set(sizes) == {"values", "classes", "curves", "confusion"} | answers
    assert max(max(size) for size in sizes.values()) < 6000
    assert capsys.readouterr().out == ""


def test_an_axis_says_which_classes_it_names() -> None:
    data, made = table(3, [f"class {i}" for i in range(300)])
    for figure in (
        plots.draw_class_balance(data, ["head0"]),
        plots.draw_confusions(made["metrics"]["heads"], "x-0"),
    ):
        (axis,) = figure.axes
        named = [text.get_text() for text in axis.get_yticklabels()]
        assert len(named) <= plots.MOST_NAMED
        assert set(named) <= set(data.classes["head0"])
        assert "300 classes" in axis.get_title()


def test_a_picture_that_cannot_be_drawn_is_left_out_with_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("y1 must be greater")

    monkeypatch.setattr(plots, "draw_tile", fail)
    assert set(draw(tmp_path, 3, ["a", "b"])) == {"values", "classes", "curves", "confusion"}
    (line,) = capsys.readouterr().out.splitlines()
    assert {"answers_head0.png", "ValueError"} <= {word.strip(":") for word in line.split()}
