"""What W&B records of a run, from its stored files alone: no server, no clock, no W&B.

`evaluate` and `compare` log it as they go; `make dashboard` logs what never was, because
DVC restored it.
"""

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from facet.base.arrays import load_arrays
from facet.base.config import parse_run
from facet.base.names import (
    AUGMENTED,
    COMPARISONS_FILE,
    COSTS,
    CURVES_TABLE,
    EVALUATION,
    HEAD_METRICS,
    HISTORY_FILE,
    METRICS,
    PREDICTIONS_FILE,
    RUN,
    RUNS_TABLE,
)
from facet.base.storage import file_sha256, md5, read_csv, read_json
from facet.base.unchanged import cache_object
from facet.errors import InputError
from facet.formats import ComparisonResult, RunMetrics
from facet.tracking import provenance
from facet.tracking.run_config import describe_config
from facet.tracking.wandb_run import Plot, RunRecord, Table, describe_run, epoch_metrics

if TYPE_CHECKING:
    from facet.base.prepared import StoredData

TABLE_ROWS = 60  # rows in a run's table of answers; each costs W&B a file


def find_run_id(run: str) -> str:
    """The id under which this machine trained a run last, or else the run's own."""
    id: str = read_json(Path(RUN.format(run)) / "model.json")["wandb"]["id"]
    try:
        last = str(read_json(COSTS.format(run))["wandb_id"])
    except (InputError, KeyError):
        return id
    return last if last.startswith(id) else id


def record_run(run: str, id: str | None = None, **where: Any) -> RunRecord:
    """A run's record; `id` is that of the W&B run, the run's own if None.

    `where` is what only the machine that ran knows, for its provenance.
    """
    # `compare`, which records no run, depends on nothing of this.
    from facet.base.prepared import load_prepared, select_split

    folder, metrics = Path(RUN.format(run)), read_json(METRICS.format(run))
    about, history = read_json(folder / "model.json"), read_csv(folder / HISTORY_FILE)
    path = Path(AUGMENTED.format(about["experiment"]))
    data = select_split(load_prepared(path), parse_run(run)[1])
    rows = [epoch_metrics({k: parse_number(v) for k, v in row.items()}) for row in history]
    pictures = sorted(Path(EVALUATION.format(run)).glob("*.png"))
    shown: dict[str, Path | Table | Plot] = {f"pictures/{p.stem}": p for p in pictures}
    shown["answers"] = prediction_table(
        data, load_arrays(folder / PREDICTIONS_FILE), list(metrics["heads"])
    )
    # Without the dots of the files' names: W&B takes a dot for a step into a nested key.
    hashes = {p.name.replace(".", "_"): file_sha256(p) for p in sorted(folder.iterdir())}
    hashes["metrics"] = file_sha256(METRICS.format(run))
    origin = provenance.make_provenance(run, about["dataset"], about["identity"], path)
    return RunRecord(
        id=id or about["wandb"]["id"],
        options=describe_run(run, about["dataset"]),
        # Apart from provenance: W&B keeps what it has of a key when a run is resumed.
        config=describe_config(run, about["declared"], about)
        | {k: about[k] for k in ("parameters", "multiply_adds")}
        | {"provenance": origin | where, "outputs": hashes},
        rows=rows,
        shown=shown,
        summary=summarise(rows, metrics),
        files={"model.keras": find_cached(folder / "model.keras")},
        alerts={f"{run}: {w.partition(':')[0]}": w for w in metrics["warnings"]},
    )


def parse_number(text: str) -> float:
    """A number as the history has it: an epoch whole."""
    return int(text) if text.isdigit() else float(text)


def summarise(rows: list[dict[str, float]], metrics: RunMetrics) -> dict[str, float | str]:
    """A run's last and best epochs and its metrics on the test split.

    Best is the lowest loss and the highest accuracy; `best_epoch` is that of the validation loss,
    or of the training loss where nothing was held out.
    """
    out: dict[str, float | str] = {f"final/{k}": v for k, v in rows[-1].items() if "/" in k}
    for name in rows[-1]:
        if "/" in name:
            values = [row[name] for row in rows]
            out[f"best/{name}"] = min(values) if name.endswith("loss") else max(values)
    loss = "val/loss" if "val/loss" in rows[-1] else "train/loss"
    out["best_epoch"] = min(rows, key=lambda row: row[loss])["epoch"]
    for head, m in metrics["heads"].items():
        numbers = {k: v for k, v in m.items() if isinstance(v, (int, float))}
        out |= {f"test/{head}/{k}": v for k, v in numbers.items() if k in HEAD_METRICS}
        out[f"test/{head}/verdict"] = m["verdict"]
        for key, interval in (("ci95", m["ci95"]), ("balanced_ci95", m["balanced_ci95"])):
            if interval:
                out[f"test/{head}/{key}_low"], out[f"test/{head}/{key}_high"] = interval
    return out | {
        "n_train": metrics["n_train"],
        "n_validation": metrics["n_validation"],
        "n_test": metrics["n_test"],
        "parameters": metrics["parameters"],
        "multiply_adds": metrics["multiply_adds"],
        "warnings": len(metrics["warnings"]),
    }


def prediction_table(
    data: "StoredData", predictions: dict[str, np.ndarray], heads: list[str]
) -> Table:
    """Test items with picture, true and predicted classes; the worst first, TABLE_ROWS at most.

    Worst is the least probability for the truth, of whichever head gave it.
    """
    test = data.splits["test"]
    truth, n = test.y, np.arange(len(test))
    p = {h: predictions[f"{h}_test"] for h in heads}
    sure = np.min([p[h][n, truth[h]] for h in heads], axis=0)
    chosen = np.argsort(sure, kind="stable")[:TABLE_ROWS]
    image = test.X.ndim == 4
    columns = ["name", *(["image"] if image else [])]
    columns += [f"{h}_{what}" for h in heads for what in ("true", "predicted", "probability")]
    out = []
    for i in chosen:
        row: list[Any] = [str(test.names[i])]
        if image:
            row.append(test.X[i])
        for h in heads:
            classes, best = data.classes[h], int(p[h][i].argmax())
            row += [str(classes[truth[h][i]]), str(classes[best]), float(p[h][i, best])]
        out.append(row)
    return Table(columns, out)


def comparisons_id() -> str:
    """The id of the W&B run that shows what metrics/comparisons.json says."""
    return "comparisons-" + file_sha256(COMPARISONS_FILE)[:8]


def record_comparisons() -> RunRecord:
    """The record of all comparisons together, from what `compare` wrote into metrics/."""
    files = (COMPARISONS_FILE, RUNS_TABLE, CURVES_TABLE)
    verdicts = read_json(COMPARISONS_FILE)
    runs, curves = read_csv(RUNS_TABLE), read_csv(CURVES_TABLE)
    keys = (
        "baseline",
        "candidate",
        "head",
        "metric",
        "baseline_mean",
        "candidate_mean",
        "difference",
        "ci95",
        "p_value",
        "holm",
        "benjamini_hochberg",
        "verdict",
        "seeds_needed",
        "covers",
    )
    cells = [
        [name, *(c.get(k) if k != "ci95" else format_interval(c[k]) for k in keys)]
        for name, c in verdicts.items()
    ]
    table = [[parse_cell(v) for v in row.values()] for row in runs]
    plots = {f"curves/{name}": plot_comparison(name, c, curves) for name, c in verdicts.items()}
    return RunRecord(
        id=comparisons_id(),
        options={"name": "comparisons", "job_type": "compare", "tags": ["comparisons"]},
        config={"outputs": {p.name.replace(".", "_"): file_sha256(p) for p in files}},
        shown={
            "comparisons": Table(["comparison", *keys], cells),
            "runs": Table(list(runs[0]) if runs else [], table),
            **plots,
        },
        summary={
            f"{name}/{k}": c[k]
            for name, c in verdicts.items()
            for k in ("difference", "verdict", "p_value", "holm", "seeds_needed")
            if c.get(k) is not None
        },
    )


def format_interval(ends: list[float] | None) -> str:
    """An interval's ends in words, empty where there is none."""
    return f"[{ends[0]:+.3f}, {ends[1]:+.3f}]" if ends else ""


def parse_cell(text: str) -> Any:
    """A CSV cell as a number where it is one."""
    try:
        return float(text)
    except ValueError:
        return text


def plot_comparison(name: str, comparison: ComparisonResult, curves: list[dict[str, str]]) -> Plot:
    """Both experiments' accuracy on a comparison's head by epoch, a mean over seeds."""
    head, lines = comparison["head"], {}
    for split in ("training", "validation"):
        for experiment in (comparison["baseline"], comparison["candidate"]):
            found: dict[float, list[float]] = defaultdict(list)
            for row in curves:
                if (row["experiment"], row["head"], row["part"]) == (experiment, head, split):
                    found[float(row["epoch"])].append(float(row["value"]))
            if found:
                means = [float(np.mean(v)) for v in found.values()]
                lines[f"{experiment}, {split}"] = (list(found), means)
    return Plot(f"{name}: accuracy on {head}, mean over seeds", "epoch", lines)


def find_cached(file: Path) -> Path:
    """DVC's own copy of a file, which no later run overwrites; the file itself if there is none."""
    return (cache_object(md5(file)) or file).resolve()
