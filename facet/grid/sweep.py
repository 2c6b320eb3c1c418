"""Train an experiment with other values, beside the working tree: `facet trial`.

docs/sweep.yaml has W&B's agent call it. The runs are trained in a git worktree of their own and
recorded in W&B as all trainings are. (`dvc exp run --temp` stashes the working tree for a moment,
and takes edits made in that moment with it.) The sweep's own run is told the validation metrics
alone, as means over the seeds: what a sweep chooses by must not be the test part.
"""

import json
import os
import secrets
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from facet.base.config import check_params, read_params, run_names, suggest
from facet.base.names import HISTORY_FILE, PARAMS_FILE, RUN
from facet.base.storage import read_csv
from facet.errors import InputError
from facet.git import call_git
from facet.grid.worktree import WORKERS, sync_worktree
from facet.tracking import wandb_run


def parse_values(words: list[str]) -> dict[str, Any]:
    """`KEY=VALUE` words as the values of an experiment's keys; numbers where they are such."""
    values = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not (key and equals):
            raise InputError(f"{word}: say KEY=VALUE, like batch=64")
        try:
            values[key] = json.loads(text)
        except ValueError:
            values[key] = text
    return values


def plan_trial(
    tree: dict[str, Any], experiment: str, values: dict[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """params.yaml's `tree` with other `values` of `experiment`, and that one's runs.

    Raises InputError for what cannot be one.
    """
    experiments = check_params(tree).experiments
    if experiment not in experiments:
        hint = suggest(experiment, experiments)
        raise InputError(f"{experiment}: no experiment of that name{hint}")
    changed = tree["experiments"] | {experiment: tree["experiments"][experiment] | values}
    tree = tree | {"experiments": changed}
    runs = run_names(check_params(tree))
    return tree, [run for run in runs if run.rpartition("-")[0] == experiment]


def train_trial(tree: dict[str, Any], runs: list[str], root: Path, folder: Path) -> None:
    """Train `runs` of the parameters `tree` in the worktree `folder`; `root` stays as it is."""
    sync_worktree(folder, root)
    for name in ("metrics/costs", "metrics/manifests"):  # those of the runs that `root` has
        (folder / name).unlink()
    (folder / PARAMS_FILE).write_text(yaml.safe_dump(tree, sort_keys=False))
    words = [sys.executable, "-m", "dvc", "repro", *(f"train@{run}" for run in runs)]
    if subprocess.run(words, cwd=folder).returncode:
        raise InputError(f"{runs[0]}: its training failed; see above")


def read_validation(runs: list[str], folder: Path) -> list[dict[str, float]]:
    """A row an epoch: the validation metrics of the runs in `folder`, their means."""
    histories = []
    for run in runs:
        rows = read_csv(folder / RUN.format(run) / HISTORY_FILE)
        numbers = [{k: float(v) for k, v in row.items()} for row in rows]
        histories.append([wandb_run.epoch_metrics(row) for row in numbers])
    keys = [key for key in histories[0][0] if key.startswith("val/")]
    if not keys:
        raise InputError("split.validation is 0: there is nothing to choose by")
    return [
        {"epoch": int(rows[0]["epoch"])} | {k: float(np.mean([r[k] for r in rows])) for k in keys}
        for rows in zip(*histories, strict=True)
    ]


def log_trial(id: str, experiment: str, rows: list[dict[str, float]]) -> None:
    """Log the trial's `rows` to run `id` of the sweep that asked for it."""
    os.environ["WANDB_MODE"] = "online"  # this run, which the agent waits for; trainings as ever
    wandb_run.clear_offline_marker()
    run = wandb_run.Run(id, config={"experiment": experiment}, job_type="trial")
    run.define_axis("epoch")
    for row in rows:
        run.log(row, int(row["epoch"]))
    run.finish()


def run_trial(experiment: str, words: list[str]) -> None:
    """Train `experiment` with other values; tell the sweep, if one asks, and print the result."""
    tree, runs = plan_trial(read_params(), experiment, parse_values(words))
    root, id = Path.cwd(), os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4)
    folder = root / WORKERS / f"trial-{id}"
    os.environ.setdefault("WANDB_DIR", str(root))
    os.environ.setdefault("WANDB_DATA_DIR", str(root / ".wandb-data"))
    os.environ.setdefault("WANDB_CACHE_DIR", str(root / ".wandb-cache"))
    try:
        train_trial(tree, runs, root, folder)
        rows = read_validation(runs, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        call_git("worktree", "prune")
    if os.environ.get("WANDB_SWEEP_ID"):
        log_trial(id, experiment, rows)
    figures = ", ".join(f"{k} {v:.4g}" for k, v in rows[-1].items() if k != "epoch")
    print(f"{experiment} {' '.join(words)}: {figures}, mean of {len(runs)} runs")
