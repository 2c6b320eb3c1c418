"""Bring all runs together: a row for each, their curves, a verdict on each comparison."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from facet.base.arrays import load_arrays
from facet.base.config import Comparison, check_params, read_params, suggest
from facet.base.names import METRICS, PARAMS_FILE, PREDICTIONS_FILE, RUN
from facet.base.storage import atomic_write, md5, read_json, remove
from facet.base.unchanged import lock_outputs
from facet.errors import InputError
from facet.evaluation import statistics
from facet.formats import ComparisonResult, CurveRow, HeadSummary, RunMetrics, RunRow, StoredMetrics


def find_leftovers(runs: list[str]) -> tuple[list[Path], list[Path]]:
    """What lies in the folders of runs and is of none of `runs`: DVC's outputs, and others."""
    folders = {Path(RUN.format("x")).parent: "", Path(METRICS.format("x")).parent: ".json"}
    found = [
        path
        for folder, ending in folders.items()
        if folder.exists()
        for path in sorted(folder.iterdir())
        if path.name.removesuffix(ending) not in runs
    ]
    known = lock_outputs()
    ours = [path for path in found if path.as_posix() in known]
    return ours, [path for path in found if path not in ours]


def remove_leftovers(runs: list[str]) -> None:
    """Remove the outputs of runs that params.yaml no longer names, and name what is no output."""
    ours, others = find_leftovers(runs)
    for path in ours:
        remove(path)
    if others:
        print(
            f"note: {', '.join(map(str, others))}: no run of {PARAMS_FILE}; it stays, but DVC "
            "counts it among the inputs of compare: move it elsewhere before you commit dvc.lock"
        )


def read_metrics(run: str) -> StoredMetrics:
    """A run's metrics, with the MD5 of their file under `md5`."""
    path = Path(METRICS.format(run))
    metrics: RunMetrics = read_json(path)
    return {**metrics, "run": run, "md5": md5(path)}


def summarise_metrics(metrics: list[StoredMetrics]) -> dict[str, dict[str, HeadSummary]]:
    """By run and head: what DVC shows of the metrics; a head without a figure is left out."""
    return {
        m["run"]: {
            head: {"balanced_accuracy": h["balanced_accuracy"], "chance": h["balanced_chance"]}
            for head, h in m["heads"].items()
            if h["balanced_accuracy"] is not None
        }
        for m in metrics
    }


def metric_rows(metrics: list[StoredMetrics]) -> list[RunRow]:
    """A row for each run and head, for metrics/runs.csv."""
    out: list[RunRow] = []
    for m in metrics:
        for head, h in m["heads"].items():
            low, high = h["ci95"] or (None, None)
            balanced_low, balanced_high = h["balanced_ci95"] or (None, None)
            out.append(
                {
                    "run": m["run"],
                    "dataset": m["dataset"],
                    "experiment": m["experiment"],
                    "seed": m["seed"],
                    "head": head,
                    "accuracy": h["accuracy"],
                    "balanced_accuracy": h["balanced_accuracy"],
                    "chance": h["chance"],
                    "balanced_chance": h["balanced_chance"],
                    "correct": h["correct"],
                    "wrong": h["wrong"],
                    "ci95_low": low,
                    "ci95_high": high,
                    "balanced_ci95_low": balanced_low,
                    "balanced_ci95_high": balanced_high,
                    "verdict": h["verdict"],
                    "n_test": m["n_test"],
                    "parameters": m["parameters"],
                    "epochs": m["epochs"],
                    "warnings": len(m["warnings"]),
                    "wandb_id": m["wandb"]["id"],
                    "md5": m["md5"],
                }
            )
    return out


def curve_rows(m: RunMetrics, history: list[dict[str, str]]) -> list[CurveRow]:
    """A run's history, one value a row, for metrics/curves.csv."""
    out: list[CurveRow] = []
    for row in history:
        for name, value in row.items():
            if name in ("epoch", "learning_rate"):
                continue
            validation = name.startswith("val_")
            name = name.removeprefix("val_")
            head = "" if name == "loss" else name.removesuffix("_accuracy")
            out.append(
                {
                    "dataset": m["dataset"],
                    "experiment": m["experiment"],
                    "seed": m["seed"],
                    "panel": f"{m['dataset']}: {head or 'loss'}",
                    "part": "validation" if validation else "training",
                    "head": head,
                    "metric": "accuracy" if head else "loss",
                    "epoch": int(float(row["epoch"])),
                    "value": value,
                }
            )
    return out


def adjust_verdicts(verdicts: dict[str, ComparisonResult]) -> None:
    """Add to comparisons that are made together what each is worth among the others."""
    p_values = {n: v["p_value"] for n, v in verdicts.items() if v["p_value"] is not None}
    adjusted = statistics.adjust_p_values(list(p_values.values()))
    for name, holm, rate in zip(p_values, *adjusted, strict=True):
        verdicts[name]["holm"], verdicts[name]["benjamini_hochberg"] = holm, rate


def describe_together(verdicts: Mapping[str, ComparisonResult]) -> str:
    """What may be claimed of all comparisons at once, in words; empty for fewer than two."""
    adjusted = {n: v for n, v in verdicts.items() if "holm" in v}
    if len(adjusted) < 2:
        return ""

    def names(key: Literal["holm", "benjamini_hochberg"]) -> str:
        kept = [name for name, v in adjusted.items() if v[key] < statistics.LEVEL]
        return ", ".join(kept) or "none"

    n = len(adjusted)
    return (
        f"{n} comparisons have {n} occasions to be lucky. With a chance of at most "
        f"5 % that any claim is false (Holm) one may claim: {names('holm')}. If 5 % of the "
        f"claims may be false on average (Benjamini-Hochberg): {names('benjamini_hochberg')}."
    )


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows with equal keys as a CSV file, whole; floats with eight digits."""
    with atomic_write(path) as aside:
        pd.DataFrame(rows).to_csv(aside, index=False, float_format="%.8g", lineterminator="\n")


def read_predictions(run: str, head: str) -> dict[str, np.ndarray]:
    """What a run said of a head: true and predicted labels, names and groups of test items."""
    p = load_arrays(Path(RUN.format(run)) / PREDICTIONS_FILE)
    return {
        "predicted": p[f"{head}_test"].argmax(1),
        "true": p[f"{head}_truth"],
        "names": p["names_test"],
        "groups": p["groups_test"],
    }


def read_sides(
    c: Comparison, name: str, seeds: list[int], metrics: list[StoredMetrics]
) -> statistics.RunPairs | statistics.SplitRuns:
    """Both sides' runs, as pairs if those of a seed have the same test items; `metrics` are one of
    each side's.

    Raises InputError where they have not, on one data set.
    """
    a, b = (
        [read_predictions(f"{e}-{s}", c.head) for s in seeds] for e in (c.baseline, c.candidate)
    )
    others = [
        seed
        for seed, ours, theirs in zip(seeds, a, b, strict=True)
        if not np.array_equal(ours["names"], theirs["names"])
    ]
    if others and metrics[0]["dataset"] == metrics[1]["dataset"]:
        runs = f"{c.baseline}-{others[0]} and {c.candidate}-{others[0]}"
        raise InputError(
            f"comparisons.{name}: {runs} were tested on different items; run `dvc repro`"
        )

    def column(side: list[dict[str, np.ndarray]], key: str) -> list[np.ndarray]:
        return [one[key] for one in side]

    if not others:
        answers = column(a, "predicted"), column(b, "predicted")
        return statistics.RunPairs(*answers, column(a, "true"), column(a, "groups"))
    sides = (
        statistics.Runs(*(column(side, k) for k in ("predicted", "true", "groups")))
        for side in (a, b)
    )
    return statistics.SplitRuns(*sides)


def plan_comparison(name: str, difference: float) -> str:
    """How many seeds a comparison needs to show a difference, in words, from the runs made so far.

    Raises InputError where params.yaml has no such comparison, or its runs are not here.
    """
    parameters = check_params(read_params())
    if name not in parameters.comparisons:
        hint = suggest(name, parameters.comparisons)
        raise InputError(f"{PARAMS_FILE}: no comparison named {name}{hint}")
    if not 0 < difference <= 1:
        raise InputError(f"--difference {difference:g}: give more than 0 and at most 1")
    c = parameters.comparisons[name]
    runs = [(s, [f"{e}-{s}" for e in (c.baseline, c.candidate)]) for s in parameters.seeds]
    files = (METRICS, f"{RUN}/{PREDICTIONS_FILE}")
    seeds = [s for s, pair in runs if all(Path(f.format(r)).exists() for r in pair for f in files)]
    if len(seeds) < 2:
        raise InputError(
            f"comparisons.{name}: {len(seeds)} pairs of runs are here, and two tell how much luck "
            f"there is: make repro RUN={c.baseline},{c.candidate}, or dvc pull"
        )
    metrics = [read_metrics(f"{e}-{seeds[0]}") for e in (c.baseline, c.candidate)]
    if any(m["heads"][c.head]["verdict"] == "not applicable" for m in metrics):
        raise InputError(f"comparisons.{name}: {c.head} is not applicable on this split")
    sides = read_sides(c, name, seeds, metrics)
    plan = statistics.plan_seeds(sides, c.metric, metrics[0]["n_train"], difference)
    if plan is None:
        raise InputError(
            f"comparisons.{name}: the test part is a single group, which tells nothing"
        )
    own = "" if "one split" in plan.covers else ", each with a split of its own,"
    needed = (
        f"{plan.seeds} seeds{own} show it four times in five"
        if plan.seeds
        else f"no number of seeds up to {statistics.MOST_SEEDS} shows it four times in five: the "
        "luck of the test items is larger; use more items, or several splits "
        "(split.seed: [0, 1, 2])"
    )
    return (
        f"{name}: {c.candidate} against {c.baseline}, {c.head} {c.metric}\n"
        f"a true difference of {difference:g}: {needed}\n"
        f"the {len(seeds)} seeds at hand show {plan.smallest:.3f} or more four times in five\n"
        f"covers {plan.covers}"
    )


def describe_ensemble(experiment: str) -> str:
    """How an experiment's runs do together, in words: each class's probability is their mean.

    Of the runs that are here, those of one split together. Raises InputError where they are fewer
    than two, params.yaml has no such experiment, or each has a test part of its own.
    """
    parameters = check_params(read_params())
    if experiment not in parameters.experiments:
        hint = suggest(experiment, parameters.experiments)
        raise InputError(f"{PARAMS_FILE}: no experiment named {experiment}{hint}")
    folders = [Path(RUN.format(f"{experiment}-{seed}")) for seed in parameters.seeds]
    stored = [load_arrays(f / PREDICTIONS_FILE) for f in folders if (f / PREDICTIONS_FILE).exists()]
    if len(stored) < 2:
        raise InputError(
            f"{experiment}: {len(stored)} of its runs are here, an ensemble takes two: make repro "
            f"RUN={experiment}, or dvc pull"
        )
    by_split: dict[bytes, list[dict[str, np.ndarray]]] = {}
    for one in stored:
        by_split.setdefault(one["names_test"].tobytes(), []).append(one)
    shared = [runs for runs in by_split.values() if len(runs) > 1]
    if not shared:
        raise InputError(
            f"{experiment}: each run has a test part of its own; nothing is shared. Of several "
            "splits run SEED has number SEED modulo their count: add seeds"
        )
    lines, balanced = [], []
    for number, runs in enumerate(shared, 1):
        split = f"; split {number} of {len(shared)}" if len(shared) > 1 else ""
        lines.append(f"{experiment}: {len(runs)} runs, alone (mean) and together{split}")
        words, found = _answer_together(runs)
        lines += words
        balanced.append(found)
    if len(shared) > 1:
        means = (f"{h} {np.mean([b[h] for b in balanced]):.3f}" for h in balanced[0])
        lines.append(f"together, balanced, mean of {len(shared)} splits: {', '.join(means)}")
    return "\n".join(lines)


def _answer_together(runs: list[dict[str, np.ndarray]]) -> tuple[list[str], dict[str, float]]:
    """How stored runs on one test part do together: a line and the balanced accuracy by head."""
    first, lines, found = runs[0], [], {}
    groups = first["groups_test"]
    for head in (key.removesuffix("_truth") for key in first if key.endswith("_truth")):
        true, probabilities = first[f"{head}_truth"], [one[f"{head}_test"] for one in runs]
        together, classes = np.mean(probabilities, axis=0).argmax(1), probabilities[0].shape[1]
        wrong = [int((p.argmax(1) != true).sum()) for p in probabilities]
        right = int((together == true).sum())
        low, high = statistics.wilson_interval(right, len(true))
        found[head], ends = statistics.balanced_accuracy(true, together, classes, groups)
        interval = f" [{ends[0]:.3f}, {ends[1]:.3f}]" if ends else ""
        lines.append(
            f"{head}: {sum(wrong) / len(wrong):.1f} and {len(true) - right} wrong of {len(true)}; "
            f"together accuracy {right / len(true):.4f} [{low:.4f}, {high:.4f}], balanced "
            f"{found[head]:.3f}{interval}"
        )
    return lines, found


def compare_experiments(
    c: Comparison, name: str, seeds: list[int], metrics: dict[str, StoredMetrics]
) -> ComparisonResult:
    """One comparison over all seeds, pairing runs by seed and by test item.

    Two data sets that differ in their split have different test items and are not paired.
    """
    pairs = {s: (f"{c.baseline}-{s}", f"{c.candidate}-{s}") for s in seeds}
    first = [metrics[run] for run in pairs[seeds[0]]]
    a, b = first
    result: ComparisonResult = {
        "baseline": c.baseline,
        "candidate": c.candidate,
        "head": c.head,
        "metric": c.metric,
        "seeds": seeds,
        "cost": {
            "parameters": b["parameters"] / a["parameters"],
            "multiply_adds": b["multiply_adds"] / a["multiply_adds"],
        },
        "baseline_mean": None,
        "candidate_mean": None,
        "difference": None,
        "ci95": None,
        "p_value": None,
        "seeds_needed": None,
        "verdict": "no difference shown",
        "covers": f"nothing: {c.head} is not applicable on this split",
    }
    if any(
        metrics[r]["heads"][c.head]["verdict"] == "not applicable"
        for pair in pairs.values()
        for r in pair
    ):
        return result
    sides = read_sides(c, name, seeds, first)
    if isinstance(sides, statistics.RunPairs):
        found = statistics.compare_runs(*sides, c.metric, a["n_train"])
    else:
        found = statistics.compare_splits(sides, c.metric, a["n_train"])
        by = [m["split"]["by"] for m in first]
        result["warning"] = (
            f"split: {c.baseline} is split by {by[0]} and {c.candidate} by {by[1]}, so that each "
            "is tested on items of its own: a difference says what the split does, not that one "
            "is the better network"
        )
    return {
        **result,
        "baseline_mean": found.baseline_mean,
        "candidate_mean": found.candidate_mean,
        "difference": found.difference,
        "ci95": found.ci95,
        "p_value": found.p_value,
        "verdict": found.verdict,
        "seeds_needed": found.seeds_needed,
        "covers": found.covers,
        "differences": found.per_seed,
    }
