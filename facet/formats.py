"""What is in the files that the project writes: a type for each, every key with its meaning.

`facet formats` prints them as docs/formats.md has them. Types and words alone: nothing of this
runs in a stage.
"""

from dataclasses import dataclass, field, is_dataclass
from typing import Annotated, Any, Literal, NotRequired, get_args, get_origin, get_type_hints

import numpy as np
from typing_extensions import TypedDict  # pydantic checks those of `typing` from 3.12 on

from facet.base.names import Metric
from facet.base.prepared import AugmentInfo, DataInfo, InputInfo, SplitInfo

Interval = tuple[float, float]
RunVerdict = Literal["above chance", "at chance", "below chance", "not applicable"]
ComparisonVerdict = Literal["better", "worse", "no difference shown"]
ExportFormat = Literal["saved_model", "onnx", "tflite"]
ReviewVerdict = Literal["holds", "consistent", "does not hold", "refused", "checked"]

# --- data sets ---------------------------------------------------------------------------------


class RawFile(TypedDict):
    """A file that was downloaded."""

    name: Annotated[str, "path beneath the folder"]
    bytes: Annotated[int, "size"]
    sha256: Annotated[str, "SHA-256, hexadecimal"]


class RawManifest(TypedDict):
    """What `download` brought."""

    files: Annotated[list[RawFile], "the files, by name"]
    left_out: Annotated[list[str], "files of the source that are of no known kind"]


class ItemsInfo(TypedDict):
    """What the arrays of a data set's items are."""

    columns: Annotated[list[str], "names of the columns, in the order of column_0, column_1, ..."]


# --- runs --------------------------------------------------------------------------------------


class WandbReference(TypedDict):
    """Where W&B has a run."""

    id: Annotated[str, "the run's id: its name and a hash of all that it depends on"]


class ModelInfo(TypedDict):
    """What a stored model is: its classes, its inputs, its training."""

    dataset: Annotated[str, "name of the data set"]
    split: Annotated[SplitInfo, "how that was split"]
    input: Annotated[InputInfo, "how inputs are prepared"]
    augment: Annotated[AugmentInfo, "how its training images were changed"]
    heads: Annotated[dict[str, list[str]], "each head's classes, in the order of its output"]
    identity: Annotated[str, "hash of parameters, data, packages and code: 16 hexadecimal digits"]
    declared: Annotated[dict[str, Any], "the part of params.yaml that the training read"]
    experiment: Annotated[str, "name of the experiment"]
    seed: Annotated[int, "of weights, order and dropout"]
    epochs: Annotated[int, "epochs trained"]
    wandb: Annotated[WandbReference, "its W&B run"]
    parameters: Annotated[int, "trainable numbers"]
    multiply_adds: Annotated[int, "multiplications of one item's forward pass"]


class ExportInfo(TypedDict):
    """An exported model. Its input is N x shape, float32: images in 0-1, readings standardised."""

    run: Annotated[str, "EXPERIMENT-SEED"]
    identity: Annotated[str, "hash of all that the run depends on"]
    format: Annotated[ExportFormat, "the model's format"]
    file: Annotated[str, "the model, beside this file"]
    shape: Annotated[list[int], "an item's: height, width, channels; or the number of readings"]
    input: Annotated[InputInfo, "how inputs are prepared"]
    heads: Annotated[
        dict[str, list[str]],
        "each output's classes; it gives N x classes probabilities, in this order",
    ]
    test_items: Annotated[int, "items of the test part that it answered as the run did"]
    tolerance: Annotated[float, "by how much a probability may have differed"]
    versions: Annotated[dict[str, str], "the packages that wrote and ran it"]


class HeadMetrics(TypedDict):
    """A head on the test items; all but `classes` and `verdict` null where not applicable."""

    classes: Annotated[list[str], "its classes"]
    accuracy: Annotated[float | None, "share of items that are right"]
    ci95: Annotated[Interval | None, "95 % interval of it, Wilson"]
    balanced_accuracy: Annotated[float | None, "mean over classes of the share that is right"]
    balanced_ci95: Annotated[Interval | None, "95 % interval of it; null where a class is single"]
    chance: Annotated[float | None, "share of the commonest class"]
    balanced_chance: Annotated[float | None, "1 / classes"]
    correct: Annotated[int | None, "items that are right"]
    wrong: Annotated[int | None, "items that are wrong"]
    confusion: Annotated[list[list[int]] | None, "items, [true][predicted], in order of `classes`"]
    verdict: Annotated[RunVerdict, "balanced accuracy against chance"]


class RunMetrics(TypedDict):
    """A run on its test items; fractions are 0-1."""

    experiment: Annotated[str, "name of the experiment"]
    dataset: Annotated[str, "name of the data set"]
    seed: Annotated[int, "the run's seed"]
    split: Annotated[SplitInfo, "how the data set was split"]
    n_train: Annotated[int, "training items, copies not counted"]
    n_validation: Annotated[int, "validation items"]
    n_test: Annotated[int, "test items"]
    epochs: Annotated[int, "epochs trained"]
    parameters: Annotated[int, "trainable numbers"]
    multiply_adds: Annotated[int, "multiplications of one item's forward pass"]
    warnings: Annotated[list[str], "what is suspicious, each as `name: words`"]
    wandb: Annotated[WandbReference, "its W&B run"]
    heads: Annotated[dict[str, HeadMetrics], "by head"]


class HeadSummary(TypedDict):
    """A head's metric on the test part, for DVC's views."""

    balanced_accuracy: Annotated[float, "mean over classes of the share that was right"]
    chance: Annotated[float | None, "what guessing would get of it"]


class StoredMetrics(RunMetrics):
    """A run's metrics as they were read from their file."""

    run: Annotated[str, "EXPERIMENT-SEED"]
    md5: Annotated[str, "MD5 of the file"]


class RunRow(TypedDict):
    """A run's head, in one row; empty where not applicable."""

    run: Annotated[str, "EXPERIMENT-SEED"]
    dataset: Annotated[str, "name of the data set"]
    experiment: Annotated[str, "name of the experiment"]
    seed: Annotated[int, "the run's seed"]
    head: Annotated[str, "name of the head"]
    accuracy: Annotated[float | None, "share of test items that are right"]
    balanced_accuracy: Annotated[float | None, "mean over classes of the share that is right"]
    chance: Annotated[float | None, "share of the commonest class"]
    balanced_chance: Annotated[float | None, "1 / classes"]
    correct: Annotated[int | None, "items that are right"]
    wrong: Annotated[int | None, "items that are wrong"]
    ci95_low: Annotated[float | None, "95 % interval of the accuracy, lower end"]
    ci95_high: Annotated[float | None, "upper end"]
    balanced_ci95_low: Annotated[float | None, "95 % interval of the balanced accuracy, lower end"]
    balanced_ci95_high: Annotated[float | None, "upper end"]
    verdict: Annotated[RunVerdict, "balanced accuracy against chance"]
    n_test: Annotated[int, "test items"]
    parameters: Annotated[int, "trainable numbers"]
    epochs: Annotated[int, "epochs trained"]
    warnings: Annotated[int, "warnings of the run"]
    wandb_id: Annotated[str, "its W&B run"]
    md5: Annotated[str, "MD5 of the metrics/runs/RUN.json that this was read from"]


class CurveRow(TypedDict):
    """One value of a run's history."""

    dataset: Annotated[str, "name of the data set"]
    experiment: Annotated[str, "name of the experiment"]
    seed: Annotated[int, "the run's seed"]
    panel: Annotated[str, "the plot it belongs to: DATASET: HEAD, or DATASET: loss"]
    part: Annotated[Literal["training", "validation"], "the items it was measured on"]
    head: Annotated[str, "name of the head; empty for the loss"]
    metric: Annotated[Literal["accuracy", "loss"], "what was measured"]
    epoch: Annotated[int, "from 1"]
    value: Annotated[str, "the number, as the history has it"]


class CostRatios(TypedDict):
    """What the candidate takes, over what the baseline takes."""

    parameters: Annotated[float, "of trainable numbers"]
    multiply_adds: Annotated[float, "of multiplications of a forward pass"]


class ComparisonResult(TypedDict):
    """Two experiments compared; the figures are null where nothing can be said."""

    baseline: Annotated[str, "name of an experiment"]
    candidate: Annotated[str, "name of another"]
    head: Annotated[str, "the head compared"]
    metric: Annotated[Metric, "the metric compared"]
    seeds: Annotated[list[int], "the runs' seeds, which pair them"]
    cost: Annotated[CostRatios, "candidate over baseline"]
    baseline_mean: Annotated[float | None, "mean of the metric over seeds"]
    candidate_mean: Annotated[float | None, "mean of the metric over seeds"]
    difference: Annotated[float | None, "candidate minus baseline"]
    ci95: Annotated[Interval | None, "95 % interval of the difference"]
    p_value: Annotated[float | None, "of no difference"]
    verdict: Annotated[ComparisonVerdict, "what may be claimed"]
    seeds_needed: Annotated[int | None, "seeds that would show a difference of this size"]
    covers: Annotated[str, "which luck the interval covers, in words"]
    differences: Annotated[NotRequired[list[float]], "the difference of each seed"]
    warning: Annotated[NotRequired[str], "why it says nothing of the networks"]
    holm: Annotated[NotRequired[float], "p_value among all comparisons (Holm)"]
    benjamini_hochberg: Annotated[
        NotRequired[float], "the same, as a rate of false claims (Benjamini and Hochberg)"
    ]


# --- what was measured, by whom; neither in git nor outputs of DVC -----------------------------


class RunCosts(TypedDict):
    """What a training took on this machine."""

    train_seconds: Annotated[float, "epochs trained by the process that ended it"]
    epochs_timed: Annotated[int, "how many those are"]
    resumed: Annotated[bool, "whether it went on from a checkpoint"]
    peak_memory_bytes: Annotated[int, "largest resident size"]
    threads: Annotated[int, "threads it was given"]
    wall_seconds: Annotated[float, "the stage as a whole"]
    wandb_id: Annotated[str, "the W&B run it was"]


class StageTiming(TypedDict):
    """What the last `make repro` did with a stage."""

    ran: Annotated[bool, "false: taken from the cache"]
    seconds: Annotated[float, "what it took when it ran last"]


class Timings(TypedDict):
    """What the last `make repro` did."""

    finished: Annotated[str, "when, UTC"]
    stages: Annotated[dict[str, StageTiming], "by stage"]


class Identity(TypedDict):
    """Somebody as git knows them."""

    name: Annotated[str | None, "user.name; null where git has none"]
    email: Annotated[str | None, "user.email"]


class Machine(TypedDict):
    """A machine."""

    host: Annotated[str, "its name"]
    system: Annotated[str, "operating system and kernel"]
    cores: Annotated[int, "those the process might use"]


class Processor(TypedDict):
    """What the bytes of a result may depend on; "" or [] where the kernel tells nothing."""

    architecture: Annotated[str, "x86_64, aarch64, ..."]
    name: Annotated[str, "model name; several processors share one"]
    vendor: Annotated[str, "GenuineIntel, AuthenticAMD, ..."]
    family: Annotated[str, "number of the family"]
    model: Annotated[str, "number of the model"]
    stepping: Annotated[str, "number of the revision"]
    flags: Annotated[list[str], "instruction sets that can change a byte"]
    caches: Annotated[dict[str, str], "a core's caches, like L1 Data: 32K"]
    libc: Annotated[str, "C library and its version"]
    limits: Annotated[dict[str, str], "environment variables that hold libraries to AVX2"]
    gpus: Annotated[list[str], "types of the GPUs used"]
    same_bytes: Annotated[bool, "whether results have the bytes that they have elsewhere"]


class Provenance(TypedDict):
    """What a run is and comes from."""

    run: Annotated[str, "EXPERIMENT-SEED"]
    experiment: Annotated[str, "name of the experiment"]
    dataset: Annotated[str, "name of the data set"]
    seed: Annotated[int, "the run's seed"]
    identity: Annotated[str, "hash of parameters, data, packages and code"]
    commit: Annotated[str, "git commit"]
    uncommitted: Annotated[bool, "whether files differed from it"]
    data_sha256: Annotated[str, "SHA-256 of the augmented data set"]
    lock_sha256: Annotated[str, "SHA-256 of requirements.lock"]
    processor: Annotated[NotRequired[Processor], "the processor that trained it"]


class Manifest(Provenance):
    """Who made a run, when, where and from what."""

    who: Annotated[Identity, "who ran it"]
    when: Annotated[str, "when it ended, UTC, ISO 8601"]
    machine: Annotated[Machine, "where"]
    versions: Annotated[dict[str, str], "Python and the packages that compute"]
    inputs: Annotated[dict[str, str], "MD5 of each file it read"]
    outputs: Annotated[dict[str, str], "MD5 of each file it wrote, and of their folder"]
    wandb_id: Annotated[str, "the W&B run it was"]


class RunReference(TypedDict):
    """Where else a reviewed run is recorded."""

    wandb_id: Annotated[str | None, "its W&B run"]
    manifest: Annotated[Manifest | None, "its manifest, if it is here and of these outputs"]


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be; one that refuses makes the review fail."""

    check: Annotated[str, "what was looked at: graph, lock, figures, cache, environment, ..."]
    where: Annotated[str, "the file, stage or package"]
    what: Annotated[str, "what is wrong, and what to do"]
    severity: Annotated[Literal["refuse", "flag"], "a flag proves nothing wrong"] = "refuse"


@dataclass(frozen=True)
class Judgement:
    """A head's metric made again, in fractions; null where nothing shows the luck of training."""

    experiment: Annotated[str, "name of the experiment"]
    head: Annotated[str, "name of the head"]
    metric: Annotated[Metric, "the metric judged"]
    differences: Annotated[dict[int, float], "here minus committed, by seed"]
    spread: Annotated[float | None, "standard deviation of a run's metric over trainings"]
    limit: Annotated[float | None, "largest consistent mean difference"]
    run_limits: Annotated[dict[int, float], "largest consistent difference of a run, by seed"]
    smallest: Annotated[float | None, "smallest true change of the mean that 9 of 10 reviews find"]
    verdict: Annotated[Literal["consistent", "differs", "not judged"], "what the tests say"]

    @property
    def mean(self) -> float:
        """The mean difference over seeds."""
        return float(np.mean(list(self.differences.values())))


@dataclass
class StageVerdict:
    """How a stage came out."""

    verdict: Annotated[
        Literal["identical", "consistent", "departs", "follows", "not made"],
        "departs: with equal inputs, outputs are not; follows: its inputs differ already",
    ]
    outs: Annotated[dict[str, tuple[str | None, str | None]], "MD5 in dvc.lock and here, by path"]
    why: Annotated[str, "why they differ"] = ""
    metrics: Annotated[
        dict[str, tuple[Any, Any]], "values that differ, then and now, by dotted key"
    ] = field(default_factory=dict)


@dataclass(frozen=True)
class Review:
    """What a review found."""

    commit: Annotated[str, "the commit reviewed"]
    verdict: Annotated[ReviewVerdict, "checked: nothing was run, and nothing speaks against it"]
    reason: Annotated[str, "why, in a sentence"]
    reviewer: Annotated[Identity, "who reviewed"]
    when: Annotated[str, "when, UTC, ISO 8601"]
    machine: Annotated[Machine, "where"]
    processor: Annotated[Processor, "where runs were made again"]
    versions: Annotated[dict[str, str], "Python and the packages that compute, there"]
    scope: Annotated[str, "what was reviewed"]
    ran: Annotated[bool, "whether stages were run"]
    bytes: Annotated[str, "whether equal bytes are promised there"]
    judgements: Annotated[list[Judgement], "figures judged by statistics"]
    findings: Annotated[list[Finding], "what is not as it should be"]
    stages: Annotated[dict[str, StageVerdict], "by stage"]
    runs: Annotated[dict[str, RunReference], "by run"]


# Where each lies, and in what form.
FILES: dict[str, tuple[str, Any]] = {
    "data/DATASET/raw/manifest.json": ("JSON", RawManifest),
    "data/DATASET/pickled/about.json": ("JSON", ItemsInfo),
    "about.json in data/DATASET/normalised/ and data/augmented/EXPERIMENT/": ("JSON", DataInfo),
    "data/runs/RUN/model.json": ("JSON", ModelInfo),
    "metrics/runs/RUN.json": ("JSON", RunMetrics),
    "metrics/summary.json": ("JSON, by run and head", HeadSummary),
    "metrics/runs.csv": ("CSV, a row for each run and head", RunRow),
    "metrics/curves.csv": ("CSV, a row for each value", CurveRow),
    "metrics/comparisons.json": ("JSON, by comparison", ComparisonResult),
    "metrics/costs/RUN.json": ("JSON, not in git", RunCosts),
    "metrics/costs/stages.json": ("JSON, not in git", Timings),
    "metrics/manifests/RUN.json": ("JSON, not in git", Manifest),
    "review.json": ("JSON, not in git", Review),
    "exports/RUN/FORMAT/export.json": ("JSON, not in git", ExportInfo),
}


INTRODUCTION = """# Files

What is in each file that the project writes. Written by `facet formats` from the types in
`facet/formats.py`; `tests/test_formats.py` compares it with them, and them with files.

Data sets are folders of `.npy` files without Python objects, one for each array. In a notebook,
one line opens such a folder as a mapping of memory maps, `{"X_train": ..., ...}`:

```
{p.stem: numpy.load(p, mmap_mode="r") for p in Path("data/faces/normalised").glob("*.npy")}
```

- `data/DATASET/pickled/`: `names` (N,) strings, the file's path, or FILE:ROW for a table;
  `column_0`, `column_1`, ... (N,) float64, or strings where a number could not be had back as it
  was written, NaN or "" where a value is missing; for images `shapes` (N, 3) int64, height, width
  and channels, and `pixels` (bytes,) uint8, all images one after the other; `own` (N,) strings,
  train, validation or test, where an `.npz` has a split of its own.
- `data/DATASET/normalised/`, `data/augmented/EXPERIMENT/`: `X_SPLIT` (SPLIT is train, validation or
  test), images as uint8, N x height x width x channels, or readings as float32, N x columns,
  standardised; `y_SPLIT_HEAD` (N,) int64, an index into `classes_HEAD`, strings; `names_SPLIT`,
  `groups_SPLIT` (N,) strings. The augmented one has `copy_train`, (N,) int64, 0 for the untouched
  items. With a list as split.seed there is such a folder for each seed: `0/`, `1/`, ...

Smaller arrays lie together in a `.npz`, which `numpy.load` opens too. No file of the project is a
pickle, which could name code to run:

- `data/runs/RUN/predictions.npz`: `HEAD_SPLIT` float32, N x classes, probabilities; `HEAD_truth`
  (N,) int64, `names_test`, `groups_test` (N,) strings, of the test items.
- `.ckpt/IDENTITY/state.npz`: the state between two epochs. `variable_0000`, ... are weights and
  optimiser; `history` (epochs, columns) float64, the rows so far; `columns` their names.

`data/runs/RUN/model.keras` is a plain Keras model; `data/runs/RUN/history.csv` has a row for each
epoch: epoch, learning_rate, loss, HEAD_accuracy, and with val_ before them those of validation.
`data/evaluations/RUN/` holds pictures, `metrics/report.html` the whole result.
"""


def describe_formats() -> str:
    """All files and their keys, as Markdown."""
    named: list[Any] = []
    lines = [INTRODUCTION]
    for path, (form, kind) in FILES.items():
        title = path if " " in path else f"`{path}`"
        lines += [f"### {title}", "", f"{form}. {kind.__doc__}", "", *_describe_keys(kind, named)]
    for kind in named:  # grows meanwhile
        lines += [f"### {kind.__name__}", "", kind.__doc__, "", *_describe_keys(kind, named)]
    return "\n".join(lines)


def _describe_keys(kind: Any, named: list[Any]) -> list[str]:
    lines = ["| key | type | meaning |", "| --- | --- | --- |"]
    for key, annotated in get_type_hints(kind, include_extras=True).items():
        inner, words = get_args(annotated)[:2]
        optional = get_origin(inner) is NotRequired
        text = _describe_type(get_args(inner)[0] if optional else inner, named)
        lines.append(f"| `{key}`{' (optional)' if optional else ''} | {text} | {words} |")
    return [*lines, ""]


def _describe_type(kind: Any, named: list[Any]) -> str:
    """A type in a few words; types of this module are added to `named`."""
    origin, inner = get_origin(kind), get_args(kind)
    if hasattr(kind, "__required_keys__") or is_dataclass(kind):
        named += [kind] if kind not in named else []
        return f"[{kind.__name__}](#{kind.__name__.lower()})"
    if kind == Interval:
        return "[low, high]"
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin is list:
        return f"list of {_describe_type(inner[0], named)}"
    if origin is dict:
        return f"mapping to {_describe_type(inner[1], named)}"
    if origin is tuple:
        return f"[{', '.join(_describe_type(k, named) for k in inner)}]"
    if inner:
        words = [_describe_type(k, named) for k in inner]
        return " or ".join(words)
    names = {
        np.ndarray: "array",
        str: "string",
        bool: "true or false",
        int: "integer",
        float: "number",
        type(None): "null",
        Any: "any",
    }
    return names[kind]
