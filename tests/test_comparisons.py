"""Runs come together: a row each, curves, and verdicts that pair by seed and item."""

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facet import comparisons
from facet.base.arrays import save_arrays
from facet.base.config import Comparison, check_params
from facet.base.names import METRICS, RUN
from facet.base.storage import read_json, write_json
from facet.errors import InputError
from stages import compare
from tests.helpers import small_parameters

N = 120
C = Comparison(baseline="plain", candidate="dropped", head="pose", metric="accuracy")


def draw_answers(run: str, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Labels of four classes, and answers of which `share` are right."""
    rng = np.random.default_rng([int(run.partition("-")[2]), int(share * 100)])
    y = np.arange(N) % 4
    return y, np.where(rng.random(N) < share, y, (y + 1) % 4)


def curve(run: str) -> dict[tuple[str, str], float]:
    """A value of each curve of a run, as no other run has it."""
    experiment, seed = run.split("-")
    own = 1 + int(seed) + 10 * (experiment == "dropped")
    return {
        ("training", "loss"): own + 0.5,
        ("training", "accuracy"): own / 100,
        ("validation", "loss"): own + 0.25,
        ("validation", "accuracy"): own / 200,
    }


def write(run: str, share: float, names: str = "n", verdict: str = "above chance") -> None:
    """A run's files, with `share` of the answers right."""
    write_answers(run, *draw_answers(run, share), names, verdict)


def write_answers(
    run: str,
    y: np.ndarray,
    predicted: np.ndarray,
    names: str = "n",
    verdict: str = "above chance",
) -> None:
    """A run's files, with these labels and answers."""
    experiment, seed = run.split("-")
    items = np.array([f"{names}{i:03d}" for i in range(N)])
    Path(RUN.format(run)).mkdir(parents=True)
    save_arrays(
        Path(RUN.format(run)) / "predictions.npz",
        {
            "pose_test": np.eye(4, dtype="float32")[predicted],
            "pose_truth": y,
            "names_test": items,
            "groups_test": items,
        },
    )
    Path(f"{RUN.format(run)}/history.csv").write_text(
        "epoch,learning_rate,loss,pose_accuracy,val_loss,val_pose_accuracy\n"
        f"1,0.1,{','.join(map(str, curve(run).values()))}\n"
    )
    right = int((predicted == y).sum())
    head = {
        "classes": list("abcd"),
        "accuracy": right / N,
        "ci95": [0.1, 0.9],
        "balanced_accuracy": right / N,
        "balanced_ci95": [0.1, 0.9],
        "chance": 0.25,
        "balanced_chance": 0.25,
        "correct": right,
        "wrong": N - right,
        "confusion": [],
        "verdict": verdict,
    }
    write_json(
        METRICS.format(run),
        {
            "experiment": experiment,
            "dataset": "faces",
            "seed": int(seed),
            "n_train": 360,
            "n_test": N,
            "parameters": 10 * (2 if experiment == "dropped" else 1),
            "epochs": 1,
            "multiply_adds": 5,
            "warnings": [],
            "wandb": {"id": run},
            "heads": {"pose": head},
        },
    )


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    parameters = small_parameters("embedded") | {"seeds": [0, 1, 2]}
    (tmp_path / "params.yaml").write_text(json.dumps(parameters))
    return tmp_path


def compared(runs: dict[str, Any]) -> dict[str, Any]:
    return comparisons.compare_experiments(
        C, "dropout", [0, 1, 2], {r: comparisons.read_metrics(r) for r in runs}
    )


def test_all_runs_come_together(project: Path) -> None:
    runs = {f"{e}-{s}": share for e, share in (("plain", 0.5), ("dropped", 0.95)) for s in range(3)}
    for run, share in runs.items():
        write(run, share)
    write("gone-0", 0.5)
    outs = [{"path": name, "md5": "0"} for name in ("data/runs/gone-0", "metrics/runs/gone-0.json")]
    Path("dvc.lock").write_text(json.dumps({"stages": {"train@gone-0": {"outs": outs}}}))
    write("mine-0", 0.5)
    compare.main()
    assert not list(project.glob("*/runs/gone*"))
    assert len(list(project.glob("*/runs/mine*"))) == 2
    with open("metrics/runs.csv") as file:
        rows = list(csv.DictReader(file))
    assert [r["run"] for r in rows] == list(runs)
    assert float(rows[0]["accuracy"]) == pytest.approx(int(rows[0]["correct"]) / N)
    with open("metrics/curves.csv") as file:
        curves = list(csv.DictReader(file))
    assert len(curves) == 6 * 4
    for run in runs:
        of_run = [c for c in curves if f"{c['experiment']}-{c['seed']}" == run]
        drawn = {(c["part"], c["metric"]): float(c["value"]) for c in of_run}
        assert drawn == pytest.approx(curve(run))
        assert {c["epoch"] for c in of_run} == {"1"}
        assert {c["head"] for c in of_run if c["metric"] == "accuracy"} == {"pose"}
    found = json.loads(Path("metrics/comparisons.json").read_text())["dropout"]
    assert found["verdict"] == "better"
    assert found["difference"] == pytest.approx(found["candidate_mean"] - found["baseline_mean"])
    assert found["ci95"][0] > 0
    assert found["p_value"] < 0.05
    assert found["cost"] == {"parameters": 2.0, "multiply_adds": 1.0}
    assert found["covers"]


def test_the_metric_that_was_asked_for_is_compared(project: Path) -> None:
    """One that names the commonest class alone, and one that finds the rare one."""
    y = np.repeat([0, 1], [100, 20])
    finds = np.where(np.arange(N) < 30, 1, y)
    for seed in range(3):
        write_answers(f"plain-{seed}", y, np.zeros(N, int))
        write_answers(f"dropped-{seed}", y, finds)
    runs = {
        r: comparisons.read_metrics(r)
        for r in [f"{e}-{s}" for e in ("plain", "dropped") for s in (0, 1, 2)]
    }
    for metric, means, verdict in (
        ("accuracy", (100 / 120, 90 / 120), "no difference shown"),
        ("balanced_accuracy", (0.5, 0.85), "better"),
    ):
        c = C.model_copy(update={"metric": metric})
        found = comparisons.compare_experiments(c, "x", [0, 1, 2], runs)
        assert (found["baseline_mean"], found["candidate_mean"]) == pytest.approx(means)
        assert found["verdict"] == verdict


def test_equal_shares_are_no_difference_and_worse_is_worse(project: Path) -> None:
    runs = [f"{e}-{s}" for e in ("plain", "dropped") for s in range(3)]
    for run in runs:
        write(run, 0.7)
    assert compared(dict.fromkeys(runs))["verdict"] == "no difference shown"
    swapped = C.model_copy(update={"baseline": "dropped", "candidate": "low"})
    for s in range(3):
        write(f"low-{s}", 0.2)
    runs += [f"low-{s}" for s in range(3)]
    found = comparisons.compare_experiments(
        swapped, "x", [0, 1, 2], {r: comparisons.read_metrics(r) for r in runs}
    )
    assert found["verdict"] == "worse"


def test_one_seed_shows_nothing(project: Path) -> None:
    write("plain-0", 0.2)
    write("dropped-0", 0.9)
    found = comparisons.compare_experiments(
        C, "x", [0], {r: comparisons.read_metrics(r) for r in ("plain-0", "dropped-0")}
    )
    assert found["verdict"] == "no difference shown"
    assert found["ci95"] is found["p_value"] is found["seeds_needed"] is None
    assert found["difference"] > 0.5


def test_a_head_not_applicable_is_no_verdict(project: Path) -> None:
    runs = [f"{e}-{s}" for e in ("plain", "dropped") for s in range(3)]
    for run in runs:
        write(run, 0.7, verdict="not applicable")
    found = compared(dict.fromkeys(runs))
    assert found["verdict"] == "no difference shown"
    assert found["difference"] is None


def test_runs_on_different_items_are_refused(project: Path) -> None:
    runs = [f"{e}-{s}" for e in ("plain", "dropped") for s in range(3)]
    for run in runs:
        write(run, 0.7, names="m" if run == "dropped-1" else "n")
    with pytest.raises(InputError, match=r"^comparisons\.dropout: plain-1 .*dropped-1"):
        compared(dict.fromkeys(runs))


def test_a_missing_run_is_refused(project: Path) -> None:
    with pytest.raises(InputError, match=r"^metrics/runs/plain-0\.json: "):
        compare.main()


def test_comparisons_that_are_made_together_say_what_holds_together() -> None:
    def verdict(p_value: float | None) -> Any:
        return {"p_value": p_value, "verdict": "better"}

    verdicts = {"a": verdict(0.001), "b": verdict(0.03), "c": verdict(0.045), "d": verdict(None)}
    comparisons.adjust_verdicts(verdicts)
    assert verdicts["a"]["holm"] == pytest.approx(0.003)
    assert "holm" not in verdicts["d"]
    words = comparisons.describe_together(verdicts)
    assert words.startswith("3 comparisons have 3 occasions to be lucky.")
    assert words.endswith(
        "(Holm) one may claim: a. If 5 % of the claims may be false on average "
        "(Benjamini-Hochberg): a, b, c."
    )
    assert comparisons.describe_together({"a": verdict(0.01), "d": verdict(None)}) == ""


def test_a_plan_says_how_many_seeds_a_difference_needs(project: Path) -> None:
    with pytest.raises(InputError, match="0 pairs of runs are here"):
        comparisons.plan_comparison("dropout", 0.1)
    for seed, (ours, theirs) in enumerate(((0.5, 0.55), (0.6, 0.55), (0.5, 0.52))):
        write(f"plain-{seed}", ours)
        write(f"dropped-{seed}", theirs)
    large, small = (comparisons.plan_comparison("dropout", d) for d in (0.9, 0.001))
    seeds = int(re.search(r"0.9: (\d+) seeds show it", large)[1])  # type: ignore[index]
    assert 2 <= seeds <= 3
    assert "no number of seeds" in small
    shown = re.search(r"3 seeds at hand show (0.\d+) or more", large)
    assert shown
    # That is what these very seeds are needed for.
    words = comparisons.plan_comparison("dropout", float(shown[1]) + 0.001)
    assert int(re.search(r": (\d+) seeds show it", words)[1]) <= 3  # type: ignore[index]
    for difference in (0.0, 1.5):
        with pytest.raises(InputError, match="--difference"):
            comparisons.plan_comparison("dropout", difference)
    with pytest.raises(InputError, match="did you mean dropout"):
        comparisons.plan_comparison("dropot", 0.1)


def test_an_ensemble_answers_by_mean_probability(project: Path) -> None:
    with pytest.raises(InputError, match="0 of its runs are here"):
        comparisons.describe_ensemble("plain")
    with pytest.raises(InputError, match="did you mean plain"):
        comparisons.describe_ensemble("plane")
    y = np.arange(N) % 4
    for seed in range(3):  # each is wrong in a third of the items, never two in the same
        wrong = np.arange(N) % 3 == seed
        write_answers(f"plain-{seed}", y, np.where(wrong, (y + 1) % 4, y))
    words = comparisons.describe_ensemble("plain")
    assert f"pose: {N / 3:.1f} and 0 wrong of {N}; together accuracy 1.0000" in words
    write("dropped-0", 0.5)
    write("dropped-1", 0.5, names="other")
    with pytest.raises(InputError, match="a test part of its own"):
        comparisons.describe_ensemble("dropped")
    # Those of one split answer together: seeds 0 and 2 have the first of two.
    write_answers("dropped-2", y, y, names="n")
    words = comparisons.describe_ensemble("dropped")
    assert words.startswith("dropped: 2 runs, alone (mean) and together\n")


def test_an_ensemble_on_several_splits_is_one_for_each_and_their_mean(project: Path) -> None:
    y = np.arange(N) % 4
    parameters = small_parameters("embedded") | {"seeds": [0, 1, 2, 3]}
    Path("params.yaml").write_text(json.dumps(parameters))
    for seed in range(4):  # all of the first split's answers are right, half of the second's
        wrong = (np.arange(N) // 4 % 2 == 0) & (seed % 2 == 1)
        write_answers(f"plain-{seed}", y, np.where(wrong, (y + 1) % 4, y), names=f"s{seed % 2}_")
    lines = comparisons.describe_ensemble("plain").splitlines()
    assert [line for line in lines if "2 runs" in line] == [
        f"plain: 2 runs, alone (mean) and together; split {n} of 2" for n in (1, 2)
    ]
    assert lines[-1] == "together, balanced, mean of 2 splits: pose 0.750"


def test_two_splits_of_the_same_items_are_compared_unpaired_and_with_a_warning(
    project: Path,
) -> None:
    tree = json.loads(Path("params.yaml").read_text())
    tree["datasets"]["leaky"] = tree["datasets"]["faces"] | {
        "source": "embedded:faces",
        "split": {"by": "random", "seed": 0, "test": 0.25, "validation": 0.15},
    }
    tree["datasets"]["faces"]["source"] = "embedded:faces"
    tree["experiments"]["leak"] = {"dataset": "leaky"}
    c = {"baseline": "plain", "candidate": "leak", "head": "pose", "metric": "accuracy"}
    tree["comparisons"] = {"split": c}
    Path("params.yaml").write_text(json.dumps(tree))
    check_params(tree)
    for seed in range(3):
        write(f"plain-{seed}", 0.6)
        write(f"leak-{seed}", 0.95, names="other")
        for run, dataset, by in (
            (f"plain-{seed}", "faces", "sitting"),
            (f"leak-{seed}", "leaky", "random"),
        ):
            path = Path(METRICS.format(run))
            write_json(path, read_json(path) | {"dataset": dataset, "split": {"by": by}})
    runs = {
        r: comparisons.read_metrics(r)
        for r in [f"{e}-{s}" for e in ("plain", "leak") for s in (0, 1, 2)]
    }
    found = comparisons.compare_experiments(Comparison(**c), "split", [0, 1, 2], runs)
    assert found["verdict"] == "better"
    assert "unpaired" in found["covers"]
    assert found["warning"].startswith("split: plain is split by sitting and leak by random")
    assert "seeds" in comparisons.plan_comparison("split", 0.2)
    # Split alike, both have the same test items.
    for seed in range(3):
        shutil.rmtree(RUN.format(f"leak-{seed}"))
        metrics = Path(METRICS.format(f"leak-{seed}")).read_text()
        write(f"leak-{seed}", 0.95)
        Path(METRICS.format(f"leak-{seed}")).write_text(metrics)
    found = comparisons.compare_experiments(Comparison(**c), "split", [0, 1, 2], runs)
    assert "unpaired" not in found["covers"]
    assert "warning" not in found
    tree["datasets"]["leaky"]["size"] = [9, 9]
    with pytest.raises(InputError, match="differ in more than their split"):
        check_params(tree)
