"""Names and paths that several modules share, each written once."""

from pathlib import Path
from typing import Literal, get_args

STAGES = ("download", "pickle", "normalise", "augment", "train", "evaluate", "compare")
SPLITS = ("train", "validation", "test")

# --- metrics ----------------------------------------------------------------------------------

Metric = Literal["accuracy", "balanced_accuracy"]
MAIN_METRIC: Metric = "balanced_accuracy"  # the one judged against chance
METRIC_NAMES: tuple[Metric, ...] = get_args(Metric)
# The metric that guessing would get, beside each metric.
CHANCE: dict[Metric, str] = {"accuracy": "chance", "balanced_accuracy": "balanced_chance"}
# A head's numbers in metrics/runs.csv and in W&B's summary.
HEAD_METRICS = (*METRIC_NAMES, *CHANCE.values(), "correct", "wrong")

# --- files of the project ---------------------------------------------------------------------

PARAMS_FILE = Path("params.yaml")
LOCK_FILE = Path("dvc.lock")
PACKAGES_FILE = Path("requirements.lock")

# --- outputs of stages; {} is a data set, an experiment or a run -------------------------------

RAW, PICKLED, NORMALISED = "data/{}/raw", "data/{}/pickled", "data/{}/normalised"
AUGMENTED, RUN, EVALUATION = "data/augmented/{}", "data/runs/{}", "data/evaluations/{}"
PREDICTIONS_FILE, HISTORY_FILE = "predictions.npz", "history.csv"  # in a run's folder
METRICS, COSTS = "metrics/runs/{}.json", "metrics/costs/{}.json"
MANIFESTS = "metrics/manifests/{}.json"
METRICS_FOLDER = Path("metrics")
RUNS_TABLE, CURVES_TABLE = METRICS_FOLDER / "runs.csv", METRICS_FOLDER / "curves.csv"
COMPARISONS_FILE = METRICS_FOLDER / "comparisons.json"
SUMMARY_FILE = METRICS_FOLDER / "summary.json"
REPORT_FILE = METRICS_FOLDER / "report.html"
TIMINGS_FILE = METRICS_FOLDER / "costs/stages.json"  # what the last run of the grid did

# --- in a folder of raw files -----------------------------------------------------------------

RAW_INDEX, RAW_INDEX_COLUMN, RAW_MANIFEST = "files_list.csv", "files", "manifest.json"
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".pgm", ".ppm", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
TABLE_SUFFIXES, ARRAY_SUFFIXES = {".csv"}, {".npz"}
