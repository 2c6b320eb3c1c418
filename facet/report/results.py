"""Read what the report shows: metrics, costs, W&B's records, dvc.lock."""

import os
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from facet import comparisons
from facet.base.config import Parameters, check_params, parse_run, read_params, run_names
from facet.base.names import (
    CHANCE,
    COMPARISONS_FILE,
    COSTS,
    LOCK_FILE,
    METRIC_NAMES,
    METRICS,
    RUNS_TABLE,
)
from facet.base.prepared import StoredData, load_prepared
from facet.base.processor import usable_cores
from facet.base.storage import read_json
from facet.errors import InputError
from facet.formats import ComparisonResult, Provenance, RunCosts
from facet.tracking import offline_records, wandb_run

WORDS = ["run", "dataset", "experiment", "head", "verdict", "wandb_id", "md5"]
SAMPLES = 60  # of a run's system samples, at most, in a plot


def read_rows(file: Path) -> pd.DataFrame:
    """The rows of metrics/runs.csv, which facet.formats.RunRow describes; none if it is not here.

    Numbers are floats, those that are empty NaN.
    """
    needed = [*WORDS, "seed", *METRIC_NAMES, *CHANCE.values()]
    if not file.exists():
        return pd.DataFrame(columns=needed)
    try:
        # Nothing but an empty cell is missing: an experiment may be called NA.
        rows = pd.read_csv(
            file, dtype=dict.fromkeys(WORDS, str), keep_default_na=False, na_values=[""]
        )
        rows = tidy_rows(rows)
    except ValueError as e:
        raise InputError(f"{file}: {e}; make it with `dvc repro compare`") from None
    if missing := set(needed) - set(rows):
        raise InputError(f"{file}: no column {min(missing)}; make it with `dvc repro compare`")
    return rows


def tidy_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of runs with numbers as floats, and no word missing. Raises ValueError."""
    numbers = rows.columns.difference(WORDS)
    return rows.astype(dict.fromkeys(numbers, float)).fillna(dict.fromkeys(WORDS, ""))


def read_optional(path: Path) -> dict[str, Any]:
    """A JSON file of a dict that may be missing here; empty also where it cannot be read."""
    try:
        found = read_json(path)
    except InputError:
        return {}
    return found if isinstance(found, dict) else {}


def load_if_present(path: str) -> list[StoredData]:
    """A data set, once for each split of it; none where DVC has not brought the file yet."""
    return load_prepared(path) if Path(path).exists() else []


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of the values that are there, None if none is."""
    known = pd.Series(values, dtype=float).dropna()
    return float(known.mean()) if len(known) else None


class Results:
    """All that the page is made of, read once; what is not on this machine is None or empty."""

    def __init__(self) -> None:
        self.tree = read_params()
        self.parameters: Parameters = check_params(self.tree)
        named = run_names(self.parameters)
        self.metrics = {
            r: comparisons.read_metrics(r) for r in named if Path(METRICS.format(r)).exists()
        }
        # What the comparisons were made from.
        compared = read_rows(RUNS_TABLE)
        self.rows = self._rows(compared, named)
        self.runs: list[str] = self.rows["run"].unique().tolist()
        self.experiments: list[str] = self.rows["experiment"].unique().tolist()
        verdicts = read_optional(COMPARISONS_FILE)
        self.comparisons: dict[str, ComparisonResult] = {
            n: verdicts[n] for n in self.parameters.comparisons if n in verdicts
        }
        # Experiments whose results are no longer those.
        was = self.rows["run"].map(dict(zip(compared["run"], compared["md5"], strict=True)))
        self.newer = set(self.rows["experiment"][was.notna() & (was != self.rows["md5"])])
        self.ids: dict[str, str] = dict(zip(self.rows["run"], self.rows["wandb_id"], strict=True))
        self.costs = {r: self._cost(r) for r in self.runs}
        self.samples: dict[str, pd.DataFrame] = {}
        self.provenance: dict[str, Provenance | None] = {}
        # Each is a process of W&B's own.
        with ThreadPoolExecutor(usable_cores()) as pool:
            for run, found in zip(self.runs, pool.map(self._records, self.runs), strict=True):
                self.samples[run], self.provenance[run] = found
        self.lock = self._lock()

    def _rows(self, compared: pd.DataFrame, named: list[str]) -> pd.DataFrame:
        """A row for each head of each of the `named` runs, in their order.

        From the runs' metrics, or where those are not here from the table `compared`.
        """
        here = pd.DataFrame(comparisons.metric_rows(list(self.metrics.values())))
        others = compared[compared["run"].isin(set(named) - set(self.metrics))]
        tables = [tidy_rows(table) for table in (here, others) if len(table)]
        if not tables:
            raise InputError(
                f"{RUNS_TABLE}: no results of params.yaml's experiments; make them with "
                "`make repro` or fetch them with `dvc pull`"
            )
        return pd.concat(tables).sort_values(
            "run", key=lambda runs: runs.map(named.index), kind="stable", ignore_index=True
        )

    def _cost(self, run: str) -> RunCosts | None:
        """Seconds and bytes measured here for the training that made the result, or nothing."""
        found: Any = read_optional(Path(COSTS.format(run)))
        same = str(found.get("wandb_id", "")).startswith(self.ids[run])
        return found if found and same and self.ids[run] else None

    def _records(self, run: str) -> tuple[pd.DataFrame, Provenance | None]:
        """W&B's samples of the machine and the noted origin of a run, if this machine has them."""
        cost = self.costs[run]
        id = cost["wandb_id"] if cost else self.ids[run]
        folder = Path(os.environ.get("WANDB_DIR") or ".") / "wandb"
        found: dict[str, list[dict[str, Any]]] = defaultdict(list)
        files = offline_records.record_files(folder, re.sub(r"([*?[])", r"[\1]", id)) if id else []
        # What evaluating added to a run trained here says nothing new.
        trained = [f for f in files if not (f.parent / wandb_run.JOINED).exists()]
        for file in trained or files:
            try:
                for kind, several in offline_records.read_records(file).items():
                    found[kind] += several
            except (OSError, ValueError, subprocess.CalledProcessError):
                continue  # a record that W&B's reader refuses costs the plot its line
        update = found["run"][0]["run"].get("config", {}).get("update") if found["run"] else {}
        return read_usage(found["stats"]), (update or {}).get("provenance")

    def _lock(self) -> dict[str, str]:
        """The MD5 of each output in dvc.lock, by its path."""
        try:
            tree = yaml.load(LOCK_FILE.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
            outs = [o for s in tree["stages"].values() for o in s.get("outs", [])]
            return {o["path"]: o["md5"] for o in outs}
        except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError):
            return {}

    def of(self, **wanted: str) -> pd.DataFrame:
        """The rows whose columns have the wanted values."""
        return self.rows[(self.rows[list(wanted)] == pd.Series(wanted)).all(axis=1)]


def read_usage(stats: list[dict[str, Any]]) -> pd.DataFrame:
    """W&B's samples of the machine: second, cpu (%), memory (MiB), gpu and gpu_memory (%).

    NaN where W&B did not measure; of GPUs the mean.
    """
    times = [s["stats"].get("timestamp") for s in stats]
    when = pd.Series(pd.to_datetime(times, format="ISO8601", utc=True, errors="coerce"))
    measured = pd.DataFrame([s["stats"].get("item", {}) for s in stats], index=when.index)
    columns = {
        "second": (when - when.min()).dt.total_seconds().round(1),
        "cpu": measured.get("cpu"),
        "memory": measured.get("proc.memory.rssMB"),
        "gpu": measured.filter(regex=r"^gpu\.\d+\.gpu$").mean(axis=1),
        "gpu_memory": measured.filter(regex=r"^gpu\.\d+\.memoryAllocated$").mean(axis=1),
    }
    found = pd.DataFrame(columns, index=when.index, dtype=float).dropna(subset="second")
    return found.iloc[:: max(1, -(-len(found) // SAMPLES))]


def training_seconds(results: Results, experiment: str) -> list[float]:
    """Training seconds measured here, of runs trained in one go."""
    costs = [c for run, c in results.costs.items() if c and parse_run(run)[0] == experiment]
    return [c["train_seconds"] for c in costs if "train_seconds" in c and not c.get("resumed")]
