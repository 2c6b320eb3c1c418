"""What W&B is told of a run, from its stored files alone: no server, no clock, no W&B.

`evaluate` and `compare` tell it as they go; `make dashboard` tells what was never told, because
DVC restored it.
"""

import configparser
import hashlib
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from stages import manifest
from stages.common import (
    AUGMENTED,
    COSTS,
    EVALUATION,
    METRICS,
    RUN,
    Refused,
    digest,
    load,
    read_csv,
    read_json,
    split_of,
)
from stages.parameters import parse_run
from stages.tracking import Plot, Story, Table, described, epoch

COMPARED = [Path("metrics") / f for f in ("comparisons.json", "runs.csv", "curves.csv")]
ANSWERS = 60  # rows in a run's table of answers; each costs W&B a file
JUDGED = ("accuracy", "balanced_accuracy", "chance", "balanced_chance", "correct", "wrong")


def id_of(run: str) -> str:
    """The id under which this machine trained a run last, or else the run's own."""
    id: str = read_json(Path(RUN.format(run)) / "model.json")["wandb"]["id"]
    try:
        last = str(read_json(COSTS.format(run))["wandb_id"])
    except (Refused, KeyError):
        return id
    return last if last.startswith(id) else id


def of_run(run: str, id: str | None = None, **where: Any) -> Story:
    """A run's story; `id` is that of the W&B run, the run's own if None.

    `where` is what only the machine that ran knows, for its provenance.
    """
    folder, metrics = Path(RUN.format(run)), read_json(METRICS.format(run))
    about, history = read_json(folder / "model.json"), read_csv(folder / "history.csv")
    data = Path(AUGMENTED.format(about["experiment"]))
    content = split_of(load(data), parse_run(run)[1])
    told = [epoch({k: number(v) for k, v in row.items()}) for row in history]
    pictures = sorted(Path(EVALUATION.format(run)).glob("*.png"))
    shown: dict[str, Path | Table | Plot] = {f"pictures/{p.stem}": p for p in pictures}
    shown["answers"] = answers(content, load(folder / "predictions.pkl"), list(metrics["heads"]))
    hashes = {p.name: digest(p) for p in [*sorted(folder.iterdir()), Path(METRICS.format(run))]}
    origin = manifest.provenance(run, about["dataset"], about["identity"], data)
    return Story(
        id=id or about["wandb"]["id"],
        options=described(run, about["dataset"]),
        # Apart from provenance: W&B keeps what it has of a key when a run is resumed.
        config=about["declared"] | {"provenance": origin | where, "outputs": hashes},
        rows=told,
        shown=shown,
        summary=summary(told, metrics),
        files={"model.keras": cached(folder / "model.keras")},
        alerts={f"{run}: {w.partition(':')[0]}": w for w in metrics["warnings"]},
    )


def number(text: str) -> float:
    """A number as the history has it: an epoch whole."""
    return int(text) if text.isdigit() else float(text)


def summary(told: list[dict[str, float]], metrics: dict[str, Any]) -> dict[str, Any]:
    """A run's last and best epochs and its figures on the test part.

    Best is the lowest loss and the highest accuracy; `best_epoch` is that of the validation loss,
    or of the training loss where nothing was held out.
    """
    out: dict[str, Any] = {f"final/{k}": v for k, v in told[-1].items() if "/" in k}
    for name in told[-1]:
        if "/" in name:
            values = [row[name] for row in told]
            out[f"best/{name}"] = min(values) if name.endswith("loss") else max(values)
    loss = "validation/loss" if "validation/loss" in told[-1] else "train/loss"
    out["best_epoch"] = min(told, key=lambda row: row[loss])["epoch"]
    for head, m in metrics["heads"].items():
        out |= {f"test/{head}/{k}": m[k] for k in JUDGED if m[k] is not None}
        out[f"test/{head}/verdict"] = m["verdict"]
        for key in ("ci95", "balanced_ci95"):
            if m[key]:
                out |= dict(zip((f"test/{head}/{key}_low", f"test/{head}/{key}_high"), m[key],
                                strict=True))  # fmt: skip
    keys = ("n_train", "n_validation", "n_test", "parameters", "multiply_adds")
    return out | {k: metrics[k] for k in keys} | {"warnings": len(metrics["warnings"])}


def answers(content: dict[str, Any], said: dict[str, Any], heads: list[str]) -> Table:
    """Test items with their picture, true and predicted classes; the worst first, ANSWERS at most.

    Worst is the least probability for the truth, of whichever head gave it.
    """
    X, names = content["X_test"], content["names_test"]
    n = np.arange(len(X))
    truth = {h: content[f"y_test_{h}"] for h in heads}
    p = {h: said[f"{h}_test"] for h in heads}
    sure = np.min([p[h][n, truth[h]] for h in heads], axis=0)
    chosen = np.argsort(sure, kind="stable")[:ANSWERS]
    image = X.ndim == 4
    columns = ["name", *(["image"] if image else [])]
    columns += [f"{h}_{what}" for h in heads for what in ("true", "said", "probability")]
    out = []
    for i in chosen:
        row: list[Any] = [str(names[i])]
        if image:
            row.append(np.rint(X[i] * 255).astype("uint8"))
        for h in heads:
            classes, best = content[f"classes_{h}"], int(p[h][i].argmax())
            row += [str(classes[truth[h][i]]), str(classes[best]), float(p[h][i, best])]
        out.append(row)
    return Table(columns, out)


def comparisons_id() -> str:
    """The id of the W&B run that shows what metrics/comparisons.json says."""
    return "comparisons-" + digest(COMPARED[0])[:8]


def of_comparisons() -> Story:
    """The story of all comparisons together, from what `compare` wrote into metrics/."""
    verdicts = read_json(COMPARED[0])
    runs, curves = read_csv(COMPARED[1]), read_csv(COMPARED[2])
    keys = ("baseline", "candidate", "head", "metric", "baseline_mean", "candidate_mean",
            "difference", "ci95", "p_value", "verdict", "seeds_needed", "covers")  # fmt: skip
    cells = [[name, *(c[k] if k != "ci95" else interval(c[k]) for k in keys)]
             for name, c in verdicts.items()]  # fmt: skip
    table = [[typed(v) for v in row.values()] for row in runs]
    plots = {f"curves/{name}": plot(name, c, curves) for name, c in verdicts.items()}
    return Story(
        id=comparisons_id(),
        options={"name": "comparisons", "job_type": "compare", "tags": ["comparisons"]},
        config={"outputs": {p.name: digest(p) for p in COMPARED}},
        shown={
            "comparisons": Table(["comparison", *keys], cells),
            "runs": Table(list(runs[0]) if runs else [], table),
            **plots,
        },
        summary={
            f"{name}/{k}": c[k]
            for name, c in verdicts.items()
            for k in ("difference", "verdict", "p_value", "seeds_needed")
            if c[k] is not None
        },
    )


def interval(ends: list[float] | None) -> str:
    return f"[{ends[0]:+.3f}, {ends[1]:+.3f}]" if ends else ""


def typed(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


def plot(name: str, comparison: dict[str, Any], curves: list[dict[str, str]]) -> Plot:
    """Both experiments' accuracy on a comparison's head by epoch, a mean over seeds."""
    head, lines = comparison["head"], {}
    for part in ("training", "validation"):
        for experiment in (comparison["baseline"], comparison["candidate"]):
            found: dict[float, list[float]] = defaultdict(list)
            for row in curves:
                if (row["experiment"], row["head"], row["part"]) == (experiment, head, part):
                    found[float(row["epoch"])].append(float(row["value"]))
            if found:
                means = [float(np.mean(v)) for v in found.values()]
                lines[f"{experiment}, {part}"] = (list(found), means)
    return Plot(f"{name}: accuracy on {head}, mean over seeds", "epoch", lines)


def cached(file: Path) -> Path:
    """DVC's own copy of a file, which no later run overwrites; the file itself if there is none."""
    where = Path(".dvc/cache")
    for name in ("config", "config.local"):
        said = configparser.ConfigParser(interpolation=None)
        try:
            said.read(Path(".dvc") / name)
            where = Path(".dvc") / said["cache"]["dir"]
        except (configparser.Error, KeyError):
            continue
    md5 = hashlib.md5(file.read_bytes()).hexdigest()
    held = (where / "files/md5" / md5[:2] / md5[2:]).resolve()
    return held if held.is_file() else file.resolve()
