"""What the report's page shows: page.py fills it in, report.html.j2 lays it out."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypedDict

from facet.report.charts import Chart
from facet.report.diff import Change

# A picture: an image as a data: URI, or a table's row as its readings.
Tile = str | list[float]


@dataclass
class ComparisonCard:
    """Two experiments compared: the verdict, and what it rests on."""

    name: str
    verdict: str  # `no claim` where there is no interval
    baseline: str
    candidate: str
    head: str
    seeds: list[int]
    sentence: str = ""
    why: str = ""  # the reason, in params.yaml's words
    leak: bool = False  # whether it compares splits and not networks
    found: str = ""  # the difference with its interval, in a few words; empty without one
    remarks: list[str] = field(default_factory=list)
    covers: str = ""  # the luck that the interval covers
    differs: list[Change] = field(default_factory=list)  # in parameters
    chart: Chart | None = None  # None where no difference could be computed


@dataclass
class WarningCard:
    """The runs' warnings that say the same thing."""

    name: str
    title: str  # data set and head
    split: str  # what the data set was split by
    meaning: str
    words: list[tuple[str, str]]  # run, and its words


@dataclass
class MetricRow:
    """An experiment's head: means over seeds, and of the ends of the runs' own intervals."""

    experiment: str
    head: str
    runs: list[tuple[str, str]]  # name, seed
    verdicts: list[tuple[str, int]]  # and of how many runs
    accuracy: float | None
    ci95_low: float | None
    ci95_high: float | None
    chance: float | None
    balanced_accuracy: float | None
    balanced_ci95_low: float | None
    balanced_ci95_high: float | None
    balanced_chance: float | None


@dataclass
class CostRow:
    """What an experiment costs; None where it was not measured here."""

    experiment: str
    parameters: float | None  # trainable numbers
    multiply_adds: float | None  # of one item
    epochs: float | None  # mean over seeds
    seconds: tuple[float, float, float] | None  # of training: mean, least, most
    memory: int | None  # bytes, of the largest run
    threads: int
    own: dict[str, Any]  # by dotted key, what params.yaml says of it besides the defaults


class Confusion(TypedDict):
    """A head's matrices, `seeds[SEED][true][predicted]` test items, in the order of `classes`."""

    classes: list[str]
    seeds: dict[str, list[list[int]]]


class Example(NamedTuple):
    """An answer to a test item."""

    item: str
    true: str
    predicted: str
    sure: int  # percent


class Examples(TypedDict):
    """The surest answers of a run, by head and then `right` and `wrong`."""

    run: str
    heads: dict[str, dict[str, list[Example]]]


class Gallery(TypedDict):
    """Examples of a data set's experiments, with the pictures of their items."""

    tiles: dict[str, Tile]  # by item
    answers: dict[str, Examples]  # by experiment
    table: bool  # whether items are rows of a table


@dataclass
class DatasetSection:
    """A data set's part of the page."""

    name: str
    source: str  # in words, without secrets
    drawn: str  # how the project drew it; empty for others
    split: str  # split.by
    rule: str  # what the split keeps together, in words
    several: bool  # whether there are several splits
    sizes: dict[str, int]  # items by split; empty where the data are not here
    experiments: list[tuple[str, str]]  # name, colour
    one_seed: bool
    figures: list[MetricRow]
    costs: list[CostRow]
    figure_charts: list[Chart]
    curve_charts: list[Chart]
    usage_charts: list[Chart]
    balance_charts: list[Chart]
    confusion: dict[str, dict[str, Confusion]]  # by experiment and head
    gallery: Gallery | None
    pictures: list[tuple[str, str]]  # words, data: URI


@dataclass
class StageState:
    """How the stages of one box came about."""

    state: str  # stale, ran or cached: a class of report.css
    words: str
    seconds: float  # of all its stages


@dataclass
class StageBox:
    """A stage of the graph: of a data set, of an experiment (all its seeds) or of all."""

    stage: str
    of: str  # the data set or experiment; empty for all
    column: int
    lines: set[int]  # the experiments' lines that it stands for
    x: int  # pixels, from the left
    y: int  # pixels, from the top
    made: StageState


@dataclass
class PipelineGraph:
    """The graph, in pixels."""

    boxes: list[StageBox]
    edges: list[tuple[float, float, float, float]]  # x, y of both ends
    columns: list[tuple[int, str]]  # x, stage
    box: tuple[int, int]  # width, height
    size: tuple[int, int]
    finished: str | None  # when `make repro` was last done
    noted: bool  # whether it noted anything here


@dataclass
class RunIdentity:
    """Where a run's numbers come from."""

    run: str
    wandb: str  # its W&B run; may be empty
    md5: str  # of its metrics
    agrees: bool | None  # whether that is the one in dvc.lock; None if that has none
    outputs: list[tuple[str, str | None]]  # path, MD5 in dvc.lock
    commit: str | None  # that it was trained at, where this machine has W&B's record of it
    uncommitted: bool
    processor: str
    warnings: int


@dataclass
class Here:
    """Where and when the page is written."""

    commit: str
    subject: str
    uncommitted: list[str]  # as `git status --porcelain` lists them
    written: str
    files: dict[str, str]  # MD5 by name
    versions: dict[str, str]
    system: str
    processor: str
    cores: int | None
