"""A baseline is scikit-learn's logistic regression, stored as a network without layers."""

import sys
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression as Model

from facet.base.arrays import load_arrays
from facet.base.config import LogisticRegression
from facet.base.names import PREDICTIONS_FILE
from facet.base.prepared import load_prepared
from facet.base.storage import file_sha256, read_csv, read_json
from facet.models.logistic import fit_head
from tests.helpers import Project


@given(st.integers(0, 10**6), st.integers(2, 4), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_coefficients_are_scikit_learns_whatever_classes_are_there(
    seed: int, classes: int, present: int
) -> None:
    rng = np.random.default_rng(seed)
    there = np.sort(rng.choice(classes, min(present, classes), replace=False))
    X = rng.normal(size=(60, 5)).astype("float32")
    y = there[np.arange(60) % len(there)]
    weights = rng.uniform(0.5, 2, 60).astype("float32")
    found = fit_head(X, y, weights, classes, LogisticRegression(C=0.5))
    assert found.kernel.shape == (5, 1 if classes == 2 else classes)
    logits = X @ found.kernel + found.bias
    if classes == 2:
        logits = np.hstack([np.zeros_like(logits), logits])
    p = np.exp(logits - np.logaddexp.reduce(logits, axis=1)[:, None])
    expected = np.zeros((60, classes))
    if len(there) == 1:
        expected[:, there] = 1
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = Model(C=0.5, max_iter=200).fit(X, y, sample_weight=weights)
        expected[:, there] = model.predict_proba(X)
    assert p == pytest.approx(expected, abs=1e-4)


def test_a_baseline_goes_through_the_stages_like_a_network(prepared: Project) -> None:
    prepared.parameters["experiments"]["linear"] = {
        "dataset": "faces",
        "logistic_regression": {"C": 0.1},
    }
    prepared.parameters["comparisons"]["baseline"] = {
        "baseline": "linear",
        "candidate": "plain",
        "head": "eyes",
        "metric": "accuracy",
    }
    del prepared.parameters["experiments"]["dropped"], prepared.parameters["comparisons"]["dropout"]
    prepared.write()
    prepared.stage("augment linear", "train linear-1", "train plain-0", "evaluate plain-0")
    out = prepared.run(sys.executable, "-m", "stages", "train", "linear-0").stdout
    assert "linear-0: logistic regression (pose" in out
    folders = [prepared.folder / f"data/runs/linear-{seed}" for seed in (0, 1)]
    assert len(read_csv(folders[0] / "history.csv")) == 1
    about = read_json(folders[0] / "model.json")
    assert about["epochs"] == 1
    # A weight for each pixel and class, a bias for each class; eyes are one unit.
    assert about["parameters"] == (64 + 1) * (4 + 1)
    # No luck in it: each seed says the same.
    models = [file_sha256(folder / PREDICTIONS_FILE) for folder in folders]
    assert models[0] == models[1]
    stored = load_arrays(folders[0] / PREDICTIONS_FILE)
    (data,) = load_prepared(prepared.folder / "data/augmented/linear")
    train = data.splits["train"]
    X = train.scale(np.arange(len(train))).reshape(len(train), -1)
    centred = X - X.mean(0)
    model = Model(C=0.1, max_iter=200).fit(centred, train.y["pose"])
    test = data.splits["test"].scale(np.arange(len(data.splits["test"])))
    expected = model.predict_proba(test.reshape(len(test), -1) - X.mean(0))
    assert stored["pose_test"] == pytest.approx(expected, abs=1e-3)
    prepared.stage("evaluate linear-0", "compare")
    verdict = read_json(prepared.folder / "metrics/comparisons.json")["baseline"]
    assert verdict["cost"]["parameters"] > 1
    words = [sys.executable, "-m", "facet", "predict", "linear-0", "data/faces/raw/images"]
    assert "pose" in prepared.run(*words).stdout
