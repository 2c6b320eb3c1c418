"""Write metrics/report.html: the whole result on one page that needs no network.

Read from the metrics, DVC's data and lock, W&B's local records and what `make repro` noted of its
stages. Whatever of these is missing here is said to be missing; the figures alone must be there.
"""

import ast
import base64
import datetime
import io
import os
import platform
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from facet import comparisons
from facet.base.arrays import load_arrays
from facet.base.config import Dataset, find_embedded, flatten, merge, parse_run, run_names
from facet.base.names import (
    CHANCE,
    CURVES_TABLE,
    EVALUATION,
    HISTORY_FILE,
    LOCK_FILE,
    METRICS,
    NORMALISED,
    PACKAGES_FILE,
    PARAMS_FILE,
    PREDICTIONS_FILE,
    REPORT_FILE,
    RUN,
    SPLITS,
    TIMINGS_FILE,
)
from facet.base.prepared import StoredData, select_split
from facet.base.storage import atomic_write, md5, read_csv
from facet.evaluation.statistics import LEVEL
from facet.formats import ComparisonResult, StageTiming
from facet.report import charts
from facet.report.charts import Chart
from facet.report.content import (
    ComparisonCard,
    Confusion,
    CostRow,
    DatasetSection,
    Example,
    Examples,
    Gallery,
    Here,
    MetricRow,
    PipelineGraph,
    RunIdentity,
    StageBox,
    StageState,
    Tile,
    WarningCard,
)
from facet.report.diff import find_changes
from facet.report.dvc_page import vega_script
from facet.report.results import Results, load_if_present, mean, read_optional, training_seconds
from facet.report.words import explain_words
from facet.tracking import provenance

# What params.yaml says of how a network is trained, which a baseline does not heed.
OF_NETWORKS = ("batch", "epochs", "learning_rate", "network", "schedule")
SCRIPT_DATA = ("confusion", "gallery")  # of a data set, for the page's script
GALLERY = 9  # right and wrong answers of each head
# What a warning of facet/evaluation/warnings.py means, by its name.
WARNING_MEANINGS = {
    "below_chance": "The network is worse than guessing, which luck alone does not explain. Look "
    "for test items whose near copies were trained on with another label.",
    "below_chance by random": "The split is random, item by item. Where near copies of a test item "
    "were trained on with other labels, as other photos of a sitting are, the network "
    "recognises the sitting and picks an expression it was trained on, which the test photo cannot "
    "have: the better the network, the worse it scores. Split by group (for the faces split.by: "
    "sitting) to measure what was meant.",
    "test_above_training": "More test items are right than training items. A network is not better "
    "on what it has never seen: look for test items that were trained on, or a test part that is "
    "easier than the rest.",
    "absent_class": "A class is missing from a part. If from training, the network cannot know it; "
    "if from the test part, nothing is said of it.",
    "majority_class": "The network gives nearly the same answer to everything. Its accuracy is "
    "little more than the share of that class; the balanced accuracy says so.",
    "leakage": "The same group, or identical items, are in two splits. The test figures are then "
    "partly memory; normalise's split should have prevented it.",
    "not_applicable": "No class of the test part was trained on (as when whole persons are held "
    "out and the head names the person), so the head has no figures and no verdict.",
}


def describe_comparison(name: str, c: ComparisonResult, results: Results) -> ComparisonCard:
    """A comparison as the page shows it: verdict, a plain sentence, remarks, its plot's chart."""
    a, b, head, metric = c["baseline"], c["candidate"], c["head"], c["metric"].replace("_", " ")
    card = ComparisonCard(name, c["verdict"], a, b, head, c["seeds"])
    if name in results.parameters.comparisons:
        card.why = results.parameters.comparisons[name].why
    if c["difference"] is None:
        card.sentence = f"No verdict on {b} against {a} at {head}: it covers {c['covers']}."
        return card
    rows = pd.concat([results.of(experiment=side, head=head) for side in (a, b)])
    chance = mean(rows[CHANCE[c["metric"]]])
    seeds = len(c["seeds"])
    figures = (
        f"{metric} {c['candidate_mean']:.3f} against {c['baseline_mean']:.3f}, where chance is "
        f"{chance:.3f}"
        if chance is not None
        else "chance not known"
    )
    if c["ci95"]:
        interval = f"{c['ci95'][0]:+.3f} to {c['ci95'][1]:+.3f}"
        found = f"a difference of {c['difference']:+.3f} (95 % interval {interval}, {seeds} seeds)"
        card.found = f"{b} against {a}, {c['difference']:+.3f} [{interval.replace(' to', ',')}]"
        card.covers = c["covers"]
    else:
        found = f"{c['difference']:+.3f}, with no interval"
    if c.get("warning"):
        card.verdict = "another split"
        card.sentence = (
            f"{b} is tested on other items than {a}, by another split: {head} {figures}, {found}."
        )
    elif c["verdict"] != "no difference shown":
        card.sentence = f"{b} is {c['verdict']} than {a} at {head}: {figures}, {found}."
    elif c["ci95"]:
        card.sentence = f"No difference shown between {b} and {a} at {head}: {figures}, {found}."
        needed = c.get("seeds_needed")
        card.remarks.append(
            f"Were the difference really of this size, {needed} seeds would show it four times in "
            "five."
            if needed
            else "More seeds alone (up to 1000) would not show a difference of this size; more "
            "or other test items might."
        )
    else:
        why = "one seed is not a result" if seeds == 1 else "there are too few groups of test items"
        card.verdict = "no claim"
        card.sentence = f"No claim about {b} against {a} at {head}: {why} ({figures}, {found})."
    if card.verdict in ("better", "worse") and c.get("holm", 0.0) >= LEVEL:
        card.remarks.append(
            "So it is by itself. Together with the other comparisons of this page it is no claim: "
            "p, the chance of a difference as large as this where there is none, is "
            f"{c['holm']:.2f} after Holm's correction, and not below {LEVEL:g}."
        )
    if words := c.get("warning"):
        card.leak = True
        card.remarks.append(f"Warning: {words.partition(': ')[2]}.")
    if not (rows["verdict"] == "above chance").any():
        card.remarks.append(
            "Not one of these runs is above chance: neither network has learnt this head, and "
            "a difference between them would mean little."
        )
    if stale := sorted(results.newer & {a, b}):
        card.remarks.append(
            f"Older than the results of {' and '.join(stale)} below: `make repro` judges again."
        )
    ratios = [
        f"{c['cost']['parameters']:.2f} times the parameters",
        f"{c['cost']['multiply_adds']:.2f} times the multiply-adds",
    ]
    seconds = [mean(training_seconds(results, e)) for e in (a, b)]
    if seconds[0] and seconds[1]:
        ratios.append(f"{seconds[1] / seconds[0]:.2f} times the seconds (as measured here)")
    card.remarks.append(f"{b} has {', '.join(ratios)} of {a}.")
    card.differs = find_changes(*(experiment_parameters(e, results) for e in (a, b)))
    title = f"{name}: paired differences of {b} and {a} in {metric}, a dot for each seed"
    card.chart = charts.difference_chart(title, c)
    return card


def experiment_parameters(experiment: str, results: Results) -> dict[str, Any]:
    """All that `params.yaml` says of an experiment, by dotted key: how it augments included."""
    own = merge(results.tree["defaults"], results.tree["experiments"][experiment])
    if results.parameters.experiments[experiment].is_baseline:
        own = {k: v for k, v in own.items() if k not in OF_NETWORKS}
    augment = results.parameters.datasets[own["dataset"]].augment.of_experiment(experiment)
    return flatten(own | {"augment": augment.model_dump(exclude={"experiments"})})


def find_unlearnt(results: Results) -> list[tuple[str, str]]:
    """Experiments and heads that no run has above or below chance."""
    heads = results.rows.groupby(["experiment", "head"], sort=False)["verdict"]
    return [(str(e), str(h)) for (e, h), verdicts in heads if set(verdicts) == {"at chance"}]


def group_warnings(results: Results) -> list[WarningCard]:
    """The runs' warnings, those that say the same thing of several runs together."""
    found: dict[tuple[str, ...], WarningCard] = {}
    for run, m in results.metrics.items():
        for warning in m["warnings"]:
            name, _, words = warning.partition(": ")
            head = words.partition(":")[0] if words.partition(":")[0] in m["heads"] else ""
            by = m["split"]["by"]
            key = (name, m["dataset"], by, head, "" if head else words)
            card = WarningCard(
                name=name.replace("_", " "),
                title=", ".join(filter(None, [m["dataset"], head and f"head {head}"])),
                split=by,
                meaning=WARNING_MEANINGS.get(f"{name} by {by}", WARNING_MEANINGS.get(name, "")),
                words=[],
            )
            of_run = (run, words.removeprefix(f"{head}: ") if head else words)
            found.setdefault(key, card).words.append(of_run)
    return list(found.values())


def describe_split_rule(spec: Dataset) -> str:
    """What a data set's split keeps together, in words."""
    by = spec.split.by
    if by == "own":
        return "the source says which items are its test part"
    if by == "random":
        return "each item goes to a part at random, equal ones to the same"
    return (
        f"items that are alike in {', '.join(spec.group[by])} go to the same part; split "
        f"one by one, a test item's {by} would be recognised and answered from the items of it "
        "that were trained on, which is better than deserved, or below chance where they differ"
    )


def describe_dataset(name: str, results: Results) -> DatasetSection:
    """A data set's part of the page: what it is, tables, charts, pictures."""
    spec = results.parameters.datasets[name]
    mine = results.of(dataset=name)
    experiments: list[str] = mine["experiment"].unique().tolist()
    heads: list[str] = mine["head"].unique().tolist()
    data = load_if_present(NORMALISED.format(name))
    first = parse_run(mine["run"].iloc[0])[1]
    one = select_split(data, first) if data else None
    of_heads = dict(list(mine.groupby(["experiment", "head"])))
    return DatasetSection(
        name=name,
        source=describe_source(spec.source),
        drawn=describe_embedded(find_embedded(name, spec.source) or ""),
        split=spec.split.by,
        rule=describe_split_rule(spec),
        several=isinstance(spec.split.seed, list),
        sizes={split: len(one.splits[split]) for split in SPLITS} if one else {},
        experiments=list(zip(experiments, charts.colours(experiments), strict=True)),
        one_seed=mine["seed"].nunique() == 1,
        figures=[
            metric_row(e, h, of_heads[e, h])
            for e in experiments
            for h in heads
            if (e, h) in of_heads
        ],
        costs=[cost_row(e, results) for e in experiments],
        figure_charts=[
            metric_chart(name, h, mine[mine["head"] == h], experiments)
            for h in heads
            if mine["accuracy"][mine["head"] == h].notna().any()
        ],
        curve_charts=curve_charts(name, results, experiments),
        usage_charts=usage_charts(name, results, experiments),
        balance_charts=[balance_chart(name, h, one) for h in heads] if one else [],
        confusion=confusion_counts(name, results),
        gallery=make_gallery(name, results, data) if data else None,
        pictures=read_pictures(experiments[0], results, name),
    )


def describe_source(source: str | list[str]) -> str:
    """A source in words."""
    if find_embedded("", source) is not None:
        return "made by the project itself (embedded)"
    return source if isinstance(source, str) else ", ".join(source)


def describe_embedded(name: str) -> str:
    """What the project's own data are, in their module's words."""
    try:
        tree = ast.parse(Path(f"facet/datasets/embedded/{name}.py").read_text())
    except (OSError, SyntaxError):
        return ""
    return " ".join((ast.get_docstring(tree) or "").split("\n\n")[0].split())


def metric_row(experiment: str, head: str, rows: pd.DataFrame) -> MetricRow:
    """Means over the `rows` of a head, a row a run, with chance and the mean of the intervals."""
    return MetricRow(
        experiment=experiment,
        head=head,
        runs=[(run, f"{seed:.0f}") for run, seed in zip(rows["run"], rows["seed"], strict=True)],
        verdicts=[(str(v), n) for v, n in rows["verdict"].value_counts(sort=False).items()],
        accuracy=mean(rows["accuracy"]),
        ci95_low=mean(rows["ci95_low"]),
        ci95_high=mean(rows["ci95_high"]),
        chance=mean(rows["chance"]),
        balanced_accuracy=mean(rows["balanced_accuracy"]),
        balanced_ci95_low=mean(rows["balanced_ci95_low"]),
        balanced_ci95_high=mean(rows["balanced_ci95_high"]),
        balanced_chance=mean(rows["balanced_chance"]),
    )


def cost_row(experiment: str, results: Results) -> CostRow:
    """What an experiment costs: parameters, multiply-adds, epochs, seconds, bytes of memory."""
    rows = results.of(experiment=experiment)
    seconds = training_seconds(results, experiment)
    costs = [results.costs[run] for run in rows["run"].unique()]
    metrics = [results.metrics[r] for r in rows["run"].unique() if r in results.metrics]
    own = dict(results.tree["experiments"][experiment])
    augment = results.parameters.datasets[own.pop("dataset")].augment.experiments
    if experiment in augment:
        own["augment"] = augment[experiment].model_dump(exclude_unset=True)
    return CostRow(
        experiment=experiment,
        parameters=mean(rows["parameters"]),
        multiply_adds=mean(m["multiply_adds"] for m in metrics),
        epochs=mean(rows["epochs"]),
        seconds=(sum(seconds) / len(seconds), min(seconds), max(seconds)) if seconds else None,
        memory=max((m for c in costs if c and (m := c.get("peak_memory_bytes"))), default=None),
        threads=results.parameters.experiments[experiment].threads,
        own=flatten(own),
    )


def metric_chart(name: str, head: str, rows: pd.DataFrame, experiments: list[str]) -> Chart:
    """A head's metrics by experiment: each seed, means, intervals, chance."""
    points: list[charts.MetricPoint] = []
    for experiment in experiments:
        for key, prefix in (("balanced_accuracy", "balanced_"), ("accuracy", "")):
            runs = rows[(rows["experiment"] == experiment) & rows[key].notna()]
            if runs.empty:
                continue
            metric = key.replace("_", " ")
            points += [
                {"experiment": experiment, "metric": metric, "seed": f"{s:.0f}", "value": v}
                for s, v in zip(runs["seed"], runs[key], strict=True)
            ]
            points.append(
                {
                    "experiment": experiment,
                    "metric": metric,
                    "mean": mean(runs[key]),
                    "low": mean(runs[f"{prefix}ci95_low"]),
                    "high": mean(runs[f"{prefix}ci95_high"]),
                    "chance": mean(runs[f"{prefix}chance"]),
                }
            )
    return charts.metric_chart(f"{name}: {head}", points, experiments)


def curve_charts(name: str, results: Results, experiments: list[str]) -> list[Chart]:
    """A chart for loss and for each head: mean and range over seeds by epoch."""
    drawn: list[Any] = []
    elsewhere = []
    for run in results.of(dataset=name)["run"].unique():
        history = Path(RUN.format(run)) / HISTORY_FILE
        if run in results.metrics and history.exists():
            drawn += comparisons.curve_rows(results.metrics[run], read_csv(history))
        else:
            elsewhere.append(run)
    if elsewhere and CURVES_TABLE.exists():
        stored = read_csv(CURVES_TABLE)
        drawn += [r for r in stored if f"{r['experiment']}-{r['seed']}" in elsewhere]
    if not drawn:
        return []
    values = pd.DataFrame(drawn).astype({"epoch": int, "value": float})
    seeds = values.groupby(["head", "experiment", "part", "epoch"], sort=False)["value"]
    # A loss that is no number any more makes a gap: it must not be left out of the mean, nor can
    # JSON hold it.
    over_seeds = pd.DataFrame(
        {
            "mean": seeds.mean(skipna=False),
            "low": seeds.min(skipna=False),
            "high": seeds.max(skipna=False),
        }
    ).map(lambda value: round(value, 5))
    over_seeds = over_seeds.astype(object).where(over_seeds.notna(), None).reset_index()
    found = []
    for head in over_seeds["head"].unique():
        points: list[Any] = (
            over_seeds[over_seeds["head"] == head].drop(columns="head").to_dict("records")
        )
        found.append(charts.curve_chart(f"{name}: {head or 'loss'}", points, experiments))
    return found


def usage_charts(name: str, results: Results, experiments: list[str]) -> list[Chart]:
    """A chart each for CPU, memory, GPU and its memory, where W&B sampled them here."""
    out = []
    for key, title, unit in (
        ("cpu", "CPU of the training process", "% of all cores"),
        ("memory", "memory of the training process", "MiB resident"),
        ("gpu", "GPU", "% busy, mean of all GPUs"),
        ("gpu_memory", "GPU memory", "% used, mean of all GPUs"),
    ):
        points: list[charts.UsagePoint] = []
        table: list[charts.UsageRow] = []
        for run in results.of(dataset=name)["run"].unique():
            seen = results.samples[run].dropna(subset=key)
            if seen.empty:
                continue
            experiment, _ = parse_run(run)
            points += [
                {"experiment": experiment, "run": run, "second": second, "value": round(value, 1)}
                for second, value in zip(seen["second"], seen[key], strict=True)
            ]
            average, greatest = round(seen[key].mean(), 1), round(seen[key].max(), 1)
            table.append({"run": run, "samples": len(seen), "mean": average, "greatest": greatest})
        if points:
            out.append(charts.usage_chart(f"{name}: {title}", unit, points, table, experiments))
    return out


def balance_chart(name: str, head: str, data: StoredData) -> Chart:
    """The share of each class of a head in each split."""
    classes = data.classes[head].tolist()
    rows: list[charts.ClassShare] = []
    for split in SPLITS:
        y = data.splits[split].y[head]
        counts = np.bincount(y, minlength=len(classes)).tolist() if len(y) else []
        rows += [
            {"class": c, "part": split, "items": n, "share": n / len(y)}
            for c, n in zip(classes, counts, strict=False)
        ]
    return charts.balance_chart(f"{name}: {head}", rows, classes)


def confusion_counts(name: str, results: Results) -> dict[str, dict[str, Confusion]]:
    """The confusion matrices of a data set's runs, by experiment and head."""
    out: dict[str, dict[str, Confusion]] = defaultdict(dict)
    for run, m in results.metrics.items():
        for head, h in m["heads"].items() if m["dataset"] == name else []:
            if h["confusion"] is not None:
                place = out[m["experiment"]].setdefault(
                    head, {"classes": h["classes"], "seeds": {}}
                )
                place["seeds"][str(parse_run(run)[1])] = h["confusion"]
    return dict(out)


def image_uri(image: Image.Image) -> str:
    """An image as a small data: URI."""
    aside = io.BytesIO()
    image.save(aside, "WEBP", quality=82, method=6)
    return "data:image/webp;base64," + base64.b64encode(aside.getvalue()).decode()


def make_tile(x: np.ndarray) -> Tile:
    """An image, height x width x channels uint8, as a data: URI; a table's row as its readings."""
    if x.ndim != 3:
        return [round(float(v), 2) for v in x]
    image = Image.fromarray(x[..., 0] if x.shape[-1] == 1 else x)
    image.thumbnail((64, 64))
    return image_uri(image)


def make_gallery(name: str, results: Results, data: list[StoredData]) -> Gallery:
    """The surest right and wrong answers of each experiment's first run here."""
    tiles: dict[str, Tile] = {}
    examples: dict[str, Examples] = {}
    is_table = data[0].splits["test"].X.ndim != 4
    for run, m in results.metrics.items():
        path = Path(RUN.format(run)) / PREDICTIONS_FILE
        experiment, seed = parse_run(run)
        if m["dataset"] != name or experiment in examples or not path.exists():
            continue
        predictions = load_arrays(path)
        test = select_split(data, seed).splits["test"]
        if not np.array_equal(predictions["names_test"], test.names):
            continue  # of data prepared otherwise than those that stand here now
        of_run: Examples = {"run": run, "heads": {}}
        for head, h in m["heads"].items():
            if h["confusion"] is None:
                continue
            p, y = predictions[f"{head}_test"], predictions[f"{head}_truth"]
            predicted, sure = p.argmax(1), p.max(1)
            of_run["heads"][head] = {}
            for side, right in (("right", True), ("wrong", False)):
                chosen = np.flatnonzero((predicted == y) == right)
                chosen = chosen[np.argsort(-sure[chosen], kind="stable")][:GALLERY]
                of_run["heads"][head][side] = [
                    Example(
                        test.names[i].item(),
                        h["classes"][y[i]],
                        h["classes"][predicted[i]],
                        round(float(np.nan_to_num(sure[i])) * 100),
                    )
                    for i in chosen
                ]
                for i in chosen:
                    tiles.setdefault(test.names[i].item(), make_tile(test.X[i]))
        examples[experiment] = of_run
    return {"tiles": tiles, "answers": examples, "table": is_table}


def read_pictures(experiment: str, results: Results, name: str) -> list[tuple[str, str]]:
    """(words, data: URI) of the sample grid and the histogram of inputs, where they are here."""
    found = []
    runs_of = [r for r in results.runs if parse_run(r)[0] == experiment]
    for file, words in (
        ("samples.png", f"Training images of {name} with their labels; in blue augmented copies"),
        ("values.png", f"How often each input value occurs in {name}, training and test part"),
    ):
        path = next((p for r in runs_of if (p := Path(EVALUATION.format(r)) / file).exists()), None)
        if path:
            with Image.open(path) as image:
                found.append((words, image_uri(image.convert("RGB"))))
    return found


def draw_pipeline(results: Results, changed: set[str]) -> PipelineGraph:
    """The graph as boxes and lines in pixels, each box with how its stages came about."""
    graph = yaml.safe_load(Path("dvc.yaml").read_text())["stages"]
    noted = read_optional(TIMINGS_FILE)
    done: dict[str, StageTiming] = noted.get("stages") or {}
    by_data: dict[str, list[str]] = defaultdict(list)
    for e, spec in results.parameters.experiments.items():
        by_data[spec.dataset].append(e)
    order = [(d, e) for d, several in by_data.items() for e in several]
    seeds = results.parameters.seeds
    width, height, gap, top = 156, 40, 22, 26
    boxes: list[StageBox] = []
    for column, (stage, body) in enumerate(graph.items()):
        over = str(body.get("foreach") or ("runs" if "matrix" in body else "all"))
        groups: dict[str, tuple[list[int], list[str]]] = {}
        for line, (d, e) in enumerate(order):
            key, names = {
                "${datasets}": (d, [f"{stage}@{d}"]),
                "${experiments}": (e, [f"{stage}@{e}"]),
                "runs": (e, [f"{stage}@{e}-{s}" for s in seeds]),
            }.get(over, ("", [stage]))
            groups.setdefault(key, ([], names))[0].append(line)
        for key, (lines, names) in groups.items():
            boxes.append(
                StageBox(
                    stage=stage,
                    of=key,
                    column=column,
                    lines=set(lines),
                    x=column * (width + gap) + 1,
                    y=top + round(sum(lines) / len(lines) * 52),
                    made=stage_state(names, done, changed),
                )
            )
    edges: list[tuple[float, float, float, float]] = [
        (a.x + width, a.y + height / 2, b.x, b.y + height / 2)
        for a in boxes
        for b in boxes
        if b.column == a.column + 1 and a.lines & b.lines
    ]
    return PipelineGraph(
        boxes=boxes,
        edges=edges,
        columns=[(n * (width + gap) + 1, stage) for n, stage in enumerate(graph)],
        box=(width, height),
        size=(len(graph) * (width + gap) - gap + 2, top + len(order) * 52 - 10),
        finished=noted.get("finished"),
        noted=bool(done),
    )


def stage_state(names: list[str], done: dict[str, StageTiming], changed: set[str]) -> StageState:
    """How the stages of one box came about."""
    known = [done[n] for n in names if n in done]
    ran = sum(bool(d.get("ran")) for d in known)
    seconds = sum(d.get("seconds") or 0 for d in known)
    took = f", {seconds:.0f} s" if seconds >= 0.5 else ""
    many = f"{len(names)} " if len(names) > 1 else ""
    if changed & set(names):
        return StageState("stale", f"{many}out of date", seconds)
    if ran:
        words = f"{many if ran == len(names) else f'{ran} of {many}'}ran{took}"
        return StageState("ran", words, seconds)
    words = f"{many}cached{took and f', once{took[1:]}'}" if known else f"{many}up to date"
    return StageState("cached", words, seconds)


def list_identities(results: Results) -> list[RunIdentity]:
    """For each run its W&B id, the MD5 of its metrics and of its outputs, and where it was made."""
    out = []
    md5s = dict(zip(results.rows["run"], results.rows["md5"], strict=True))
    for run in results.runs:
        locked, made = results.lock.get(METRICS.format(run)), results.provenance[run]
        folders = [folder.format(run) for folder in (RUN, EVALUATION)]
        out.append(
            RunIdentity(
                run=run,
                wandb=results.ids[run],
                md5=md5s[run],
                agrees=None if locked is None else locked == md5s[run],
                outputs=[(folder, results.lock.get(folder)) for folder in folders],
                commit=made.get("commit") if made else None,
                uncommitted=bool(made and made.get("uncommitted")),
                processor=provenance.name_processor(made.get("processor")) if made else "",
                warnings=len(results.metrics[run]["warnings"]) if run in results.metrics else 0,
            )
        )
    return out


def describe_here() -> Here:
    """Commit, hashes, versions and processor of where the page is written."""
    files = (str(PARAMS_FILE), "dvc.yaml", str(LOCK_FILE), str(PACKAGES_FILE))
    status = provenance.ask_git("status", "--porcelain")
    return Here(
        commit=provenance.ask_git("rev-parse", "HEAD") or "no commit",
        subject=provenance.ask_git("log", "-1", "--format=%s"),
        uncommitted=[line.strip() for line in status.splitlines()],
        written=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        files={f: md5(Path(f)) for f in files if Path(f).exists()},
        versions=provenance.package_versions(),
        system=platform.platform(),
        processor=provenance.name_processor(provenance.describe_processor()),
        cores=os.cpu_count(),
    )


def read_attribution() -> str:
    """README's section on licence and data, as plain words."""
    try:
        text = Path("README.md").read_text()
    except OSError:
        return ""
    section = re.search(r"^## Licence and data\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    return re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", " ".join(section[1].split())) if section else ""


def render_page(changed: set[str]) -> str:
    """The page as HTML; `changed` are the stages that are not up to date."""
    results = Results()
    verdicts = [describe_comparison(name, c, results) for name, c in results.comparisons.items()]
    datasets = [describe_dataset(d, results) for d in results.rows["dataset"].unique()]
    drawn: dict[str, Chart] = {}

    def number(chart: Chart) -> str:
        """Hand a chart to the page's script; the template places it by its number."""
        drawn[f"plot-{len(drawn) + 1}"] = chart
        return f"plot-{len(drawn)}"

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["page_data"] = lambda d: (d.name, {k: getattr(d, k) for k in SCRIPT_DATA})
    # A chart is told to the script by its fields.
    environment.policies["json.dumps_kwargs"] = {"sort_keys": True, "default": vars}
    environment.filters["figure"] = lambda v, form=".3f": "–" if v is None else format(v, form)
    template = environment.get_template("report.html.j2")
    return template.render(
        script=vega_script(),
        plot=number,
        charts=drawn,
        verdicts=verdicts,
        together=comparisons.describe_together(results.comparisons),
        words=explain_words(results, verdicts),
        unlearnt=find_unlearnt(results),
        unjudged=[c for c in results.parameters.comparisons if c not in results.comparisons],
        warnings=group_warnings(results),
        meanings=WARNING_MEANINGS,
        datasets=datasets,
        confusion=charts.confusion_chart(),
        pipeline=draw_pipeline(results, changed),
        identities=list_identities(results),
        here=describe_here(),
        attribution=read_attribution(),
        absent=[r for r in run_names(results.parameters) if r not in results.runs],
        unpulled=[r for r in results.runs if r not in results.metrics],
        seeds=results.rows["seed"].nunique(),
        counts=(len(results.runs), len(results.experiments)),
        changed=sorted(changed),
    )


def write_report(changed: set[str]) -> Path:
    """Write the page; `changed` are the stages that are not up to date."""
    text = render_page(changed)
    with atomic_write(REPORT_FILE) as aside:
        aside.write_text(text, encoding="utf-8")
    return REPORT_FILE
