"""A forest is scikit-learn's extremely randomised trees, stored as a plain Keras model."""

import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.ensemble import ExtraTreesClassifier

from facet.base.arrays import load_arrays
from facet.base.config import Experiment, ExtraTrees
from facet.base.names import PREDICTIONS_FILE
from facet.base.storage import file_sha256, read_csv, read_json
from facet.errors import InputError
from facet.models import forest
from facet.models.checkpoint import load_checkpoint, save_checkpoint, save_model
from facet.models.forest import build_model, grow_forest
from facet.models.kinds import make_training
from facet.portability.steps import make_noise
from facet.prediction.trained_run import check_layers, check_model, read_description
from tests.helpers import Project, small_parameters


@pytest.mark.parametrize(
    ("classes", "there", "leaf", "balanced"),
    [
        (3, [0, 1, 2], 1, False),
        (3, [0, 1, 2], 3, True),
        (4, [1, 3], 2, True),  # two classes have no training item
        (2, [0, 1], 2, True),
        (2, [1], 1, False),  # no tree has more than a root
        (3, [0, 1, 2], 99, False),
    ],
)
def test_a_forest_says_what_scikit_learns_trees_say(
    classes: int, there: list[int], leaf: int, balanced: bool
) -> None:
    rng = np.random.default_rng(classes)
    X = rng.integers(0, 5, (80, 6)).astype("float32") / np.float32(3)
    y = np.array(there)[rng.integers(0, len(there), 80) * rng.integers(0, 2, 80)]
    how = ExtraTrees(trees=7, leaf=leaf)
    model = build_model((6,), {"h": grow_forest(X, y, classes, how, balanced, 7)})
    found = np.asarray(model(X)["h"])
    if classes == 2:
        found = np.hstack([1 - found, found])
    fitted = ExtraTreesClassifier(7, min_samples_leaf=leaf, random_state=7).fit(X, y)
    expected = np.zeros((80, classes))
    expected[:, fitted.classes_] = fitted.predict_proba(X)
    if balanced:
        expected /= np.bincount(y, minlength=classes).clip(1)
        expected /= expected.sum(1, keepdims=True)
    assert found == pytest.approx(expected, abs=1e-5)


def test_numbers_that_differ_by_their_last_bit_are_told_apart() -> None:
    """A threshold between them is no float32."""
    X = np.array([[4], [np.nextafter(np.float32(4), np.float32(5))]] * 10, "float32")
    y = np.array([0, 1] * 10)
    grown = grow_forest(X, y, 2, ExtraTrees(trees=20), False, 0)
    assert np.asarray(build_model((1,), {"h": grown})(X)["h"])[:, 0].tolist() == y.tolist()


def test_a_forest_goes_through_the_stages_like_a_network(prepared: Project) -> None:
    prepared.parameters["experiments"]["trees"] = {
        "dataset": "faces",
        "extra_trees": {"trees": 6, "leaf": 2},
    }
    prepared.write()
    prepared.stage("augment trees", "train trees-0", "train trees-1")
    out = prepared.run(sys.executable, "-m", "stages", "evaluate", "trees-0").stdout
    folder = prepared.folder / "data/runs/trees-0"
    (row,) = read_csv(folder / "history.csv")
    assert float(row["pose_accuracy"]) > 0.9
    about = read_description(folder)
    assert about["epochs"] == 1
    metrics = read_json(prepared.folder / "metrics/runs/trees-0.json")
    assert f"{metrics['heads']['pose']['accuracy']:.2f}" in out
    # Trees are drawn: another seed has others, the same seed the same file.
    files = [prepared.folder / f"data/runs/trees-{seed}/model.keras" for seed in (0, 1)]
    first, second = map(file_sha256, files)
    assert first != second
    prepared.stage("train trees-0")
    assert file_sha256(files[0]) == first
    # It is of Keras's own things alone.
    check_layers(files[0])
    import keras  # with TensorFlow: not in each worker of the tests

    model = keras.saving.load_model(files[0], compile=False)
    check_model(model, about)
    X = np.load(prepared.folder / "data/augmented/trees/X_test.npy").astype("float32") / 255
    stored = load_arrays(folder / PREDICTIONS_FILE)["pose_test"]
    assert np.asarray(model(X)["pose"]) == pytest.approx(stored, abs=1e-6)


def test_a_forest_that_was_cut_off_grows_anew(tmp_path: Path) -> None:
    spec = Experiment.model_validate(
        {
            **small_parameters("embedded")["defaults"],
            "dataset": "noise",
            "extra_trees": {"trees": 3},
        }
    )
    grown, fresh = (make_training(spec, make_noise((4,)), 0) for _ in range(2))
    row = grown.epoch()
    save_checkpoint(grown, tmp_path / "state.npz")
    assert not load_checkpoint(fresh, tmp_path / "state.npz")
    assert fresh.epoch() == row
    # The same model makes the same file whatever was built before it in this process.
    for training, name in ((grown, "a.keras"), (fresh, "b.keras")):
        save_model(training.model, tmp_path / name)
    assert (tmp_path / "a.keras").read_bytes() == (tmp_path / "b.keras").read_bytes()


def test_what_no_table_can_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forest, "MOST_NODES", 10)
    X = np.arange(20, dtype="float32")[:, None]
    with pytest.raises(InputError, match=r"^extra_trees: .* 10 is the most"):
        grow_forest(X, np.arange(20) % 2, 2, ExtraTrees(trees=2), False, 0)
