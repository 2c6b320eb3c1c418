"""Read what the report shows: metrics, costs, W&B's records, dvc.lock."""

import csv
import datetime
import io
import os
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from facet.config import Parameters, check_params, parse_run, read_params, run_names
from facet.datasets.prepared import PreparedData, load_prepared
from facet.errors import InputError
from facet.evaluation import comparisons
from facet.names import CHANCE, COSTS, LOCK_FILE, METRIC_NAMES, METRICS, METRICS_FOLDER, RUNS_TABLE
from facet.storage import read_json
from facet.tracking import records

# A RunRow, whose columns the page goes through by name.
Row = Mapping[str, Any]
SAMPLES = 60  # of a run's system samples, at most, in a plot


def parse_rows(text: str) -> list[Row]:
    """The rows of metrics/runs.csv, numbers as numbers and what is empty as None."""
    words = {"run", "dataset", "experiment", "head", "verdict", "wandb_id", "md5"}

    def value(key: str, word: str | None) -> Any:
        if key in words:
            return word or ""
        return float(word) if word else None

    try:
        rows = csv.DictReader(io.StringIO(text))
        found: list[Row] = [{str(k): value(str(k), v) for k, v in r.items()} for r in rows]
    except ValueError as e:
        raise InputError(f"metrics/runs.csv: {e}; make it with `dvc repro compare`") from None
    needed = {*words, "seed", *METRIC_NAMES, *CHANCE.values()}
    if found and (missing := needed - set(found[0])):
        raise InputError(
            f"metrics/runs.csv: no column {min(missing)}; make it with `dvc repro compare`"
        )
    return found


def read_optional(path: Path) -> dict[str, Any]:
    """A JSON file of a dict that may be missing here; empty also where it cannot be read."""
    try:
        found = read_json(path)
    except InputError:
        return {}
    return found if isinstance(found, dict) else {}


def load_if_present(path: str) -> list[PreparedData]:
    """A data set, once for each split of it; none where DVC has not brought the file yet."""
    return load_prepared(path) if Path(path).exists() else []


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of the values that are there, None if none is."""
    kept = [v for v in values if v is not None]
    return sum(kept) / len(kept) if kept else None


class Results:
    """All that the page is made of, read once; what is not on this machine is None or empty."""

    def __init__(self) -> None:
        self.tree = read_params()
        self.parameters: Parameters = check_params(self.tree)
        named = run_names(self.parameters)
        self.metrics = {
            r: comparisons.read_metrics(r) for r in named if Path(METRICS.format(r)).exists()
        }
        stored = RUNS_TABLE
        old = (
            [r for r in parse_rows(stored.read_text()) if r["run"] in named]
            if stored.exists()
            else []
        )
        self.rows: list[Row] = list(comparisons.metric_rows(list(self.metrics.values())))
        self.rows += [r for r in old if r["run"] not in self.metrics]
        place = {run: i for i, run in enumerate(named)}
        self.rows.sort(key=lambda r: place[r["run"]])
        if not self.rows:
            raise InputError(
                "metrics/runs.csv: no results of params.yaml's experiments; make them with "
                "`make repro` or fetch them with `dvc pull`"
            )
        self.runs = list(dict.fromkeys(r["run"] for r in self.rows))
        self.experiments = list(dict.fromkeys(r["experiment"] for r in self.rows))
        verdicts = read_optional(METRICS_FOLDER / "comparisons.json")
        self.comparisons = {n: verdicts[n] for n in self.parameters.comparisons if n in verdicts}
        # What the comparisons were made from, to tell when it is no longer what stands here.
        compared = {r["run"]: r["md5"] for r in old}
        self.newer = {
            r["experiment"] for r in self.rows if compared.get(r["run"], r["md5"]) != r["md5"]
        }
        self.ids = {r["run"]: r["wandb_id"] for r in self.rows}
        self.costs = {r: self._cost(r) for r in self.runs}
        self.samples, self.provenance = self._records()
        self.lock = self._lock()

    def _cost(self, run: str) -> dict[str, Any]:
        """Seconds and bytes measured here for the training that made the result, or nothing."""
        found = read_optional(Path(COSTS.format(run)))
        same = str(found.get("wandb_id", "")).startswith(self.ids[run])
        return found if same and self.ids[run] else {}

    def _records(self) -> tuple[dict[str, list[dict[str, Any]]], dict[str, dict[str, Any]]]:
        """W&B's system samples and the noted origin of each run that this machine has."""
        samples, origin = {}, {}
        folder = Path(os.environ.get("WANDB_DIR") or ".") / "wandb"
        for run in self.runs:
            id = self.costs[run].get("wandb_id") or self.ids[run]
            found: dict[str, list[dict[str, Any]]] = defaultdict(list)
            for file in records.record_files(folder, re.sub(r"([*?[])", r"[\1]", id)) if id else []:
                try:
                    for kind, several in records.read_records(file).items():
                        found[kind] += several
                except (OSError, ValueError, subprocess.CalledProcessError):
                    continue  # a record that W&B's reader refuses costs the plot its line
            samples[run] = read_usage(found["stats"])
            update = found["run"][0]["run"].get("config", {}).get("update") if found["run"] else {}
            origin[run] = (update or {}).get("provenance") or {}
        return samples, origin

    def _lock(self) -> dict[str, str]:
        """The MD5 of each output in dvc.lock, by its path."""
        try:
            tree = yaml.load(LOCK_FILE.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
            outs = [o for s in tree["stages"].values() for o in s.get("outs", [])]
            return {o["path"]: o["md5"] for o in outs}
        except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError):
            return {}

    def of(self, **wanted: str) -> list[Row]:
        """The rows whose columns have the wanted values."""
        return [r for r in self.rows if all(r[k] == v for k, v in wanted.items())]


def read_usage(stats: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """W&B's system samples as rows: second, cpu (%), memory (MiB), gpu and gpu_memory (%)."""
    found: list[dict[str, Any]] = []
    begun = None
    for record in stats:
        item = record["stats"].get("item", {})
        stamp = record["stats"].get("timestamp", "")[:26].rstrip("Z")
        try:
            now = datetime.datetime.fromisoformat(stamp).timestamp()
        except ValueError:
            continue
        begun = now if begun is None else begun
        row = {
            "second": round(now - begun, 1),
            "cpu": item.get("cpu"),
            "memory": item.get("proc.memory.rssMB"),
            "gpu": mean(v for k, v in item.items() if re.fullmatch(r"gpu\.\d+\.gpu", k)),
            "gpu_memory": mean(
                v for k, v in item.items() if re.fullmatch(r"gpu\.\d+\.memoryAllocated", k)
            ),
        }
        found.append({k: v for k, v in row.items() if v is not None})
    return found[:: -(-len(found) // SAMPLES)] if found else []


def training_seconds(results: Results, experiment: str) -> list[float]:
    """Training seconds measured here, of runs trained in one go."""
    costs = [c for run, c in results.costs.items() if parse_run(run)[0] == experiment]
    return [c["train_seconds"] for c in costs if "train_seconds" in c and not c.get("resumed")]
