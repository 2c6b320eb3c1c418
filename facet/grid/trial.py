"""Try other values of params.yaml and leave every file as it is: `facet repro --set KEY=VALUE`.

The runs are made in the workers' own trees. What they make is in DVC's cache, so that the same edit
of params.yaml, made later, finds it there.
"""

from collections import defaultdict
from pathlib import Path
from typing import Any

import yaml
from dvc.repo import Repo

from facet.base.config import (
    Parameters,
    check_params,
    flatten,
    get_nested,
    parse_run,
    parse_yaml,
    read_params,
)
from facet.base.names import HISTORY_FILE, LOCK_FILE, METRICS, PARAMS_FILE, RUN
from facet.base.storage import read_csv, read_json
from facet.errors import InputError
from facet.grid.dvc_session import changed_stages, read_lock
from facet.grid.plan import plan_targets, stage_names
from facet.grid.pool import prepare_workers
from facet.grid.runner import check_results, choose_runs, make_plan, prepare_tracking
from facet.grid.worktree import WORKERS
from facet.tracking import wandb_run

NOTES = WORKERS / "trial"  # costs and manifests of runs that are tried


def set_values(tree: dict[str, Any], words: list[str]) -> dict[str, Any]:
    """A copy of params.yaml's `tree` with these KEY=VALUE in it, values written as in YAML."""

    def inside(place: Any, steps: list[str], key: str, value: Any) -> dict[str, Any]:
        if not isinstance(place, dict):
            raise InputError(f"--set {key}: {steps[0]} stands below a value that is no mapping")
        if steps[1:]:
            value = inside(place.get(steps[0], {}), steps[1:], key, value)
        return place | {steps[0]: value}

    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise InputError(f"--set {word}: say KEY=VALUE, like experiments.wine_deep.epochs=3")
        try:
            tree = inside(tree, key.split("."), key, parse_yaml(text))
        except yaml.YAMLError as e:
            raise InputError(f"--set {word}: no YAML value: {' '.join(str(e).split())}") from None
    return tree


def stages_of_other_values(tree: dict[str, Any], parameters: Parameters) -> set[str]:
    """The stages that dvc.lock lacks, or whose parameters there are not those of `tree`."""
    locked = read_lock(LOCK_FILE)
    found = set()
    for stage in stage_names(parameters):
        read = locked.get(stage, {}).get("params", {}).get(str(PARAMS_FILE), {})
        if stage not in locked or any(get_nested(tree, k, None) != v for k, v in read.items()):
            found.add(stage)
    return found


def try_values(words: list[str], run: str, jobs: int) -> None:
    """Make the runs that other values of params.yaml concern, and print what comes of them.

    `words` are KEY=VALUE; `run` and `jobs` are as `repro` takes them. Nothing of the working tree
    changes. Raises InputError where a value is refused or a run failed.
    """
    present = read_params()
    tree = set_values(present, words)
    parameters = check_params(tree)
    wanted = choose_runs(parameters, run)
    prepare_tracking()
    other = stages_of_other_values(tree, parameters)
    plan = plan_targets(parameters, wanted, other)
    tried = [r for r in wanted if f"evaluate@{r}" in plan]
    if not tried:
        print("nothing to do: no run depends on these values, or dvc.lock has them already")
        return
    prepare_workers()
    # What is not up to date by itself is made along.
    changed = changed_stages() | other
    plan = plan_targets(parameters, tried, changed)
    text = yaml.safe_dump(tree, sort_keys=False, default_flow_style=None)
    results, _ = make_plan(parameters, plan, changed, jobs, text, Path.cwd() / NOTES)
    entries = {k: v for r in results if r.status == 0 for k, v in r.entries.items()}
    print(format_trial(find_set(present, tree), {r: read_trial(r, entries) for r in tried}))
    check_results(results)


def find_set(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What differs of `new`, as `key: old -> new`."""
    was, now = flatten(old), flatten(new)
    return [f"{k}: {was.get(k, '-')} -> {v}" for k, v in now.items() if was.get(k, "-") != v]


def read_trial(run: str, entries: dict[str, Any]) -> list[dict[str, str]] | None:
    """The history of a run that was tried, out of DVC's cache; None where it was not made.

    `entries` are its stages in dvc.lock.
    """
    outs = entries.get(f"train@{run}", {}).get("outs", [])
    folder = next((o["md5"] for o in outs if o["path"] == RUN.format(run)), None)
    if folder is None:
        return None
    with Repo() as repo:
        cache = repo.cache.local
        members = {m["relpath"]: m["md5"] for m in read_json(cache.oid_to_path(folder))}
        return read_csv(cache.oid_to_path(members[HISTORY_FILE]))


def validation_accuracy(history: list[dict[str, str]] | None) -> dict[str, float]:
    """The validation accuracy after the last epoch, by head; nothing without validation items."""
    last = wandb_run.epoch_metrics({k: float(v) for k, v in history[-1].items()} if history else {})
    names = [key.split("/") for key in last]
    return {name[1]: last["/".join(name)] for name in names if name[0] == "val" and name[2:]}


def format_trial(changes: list[str], tried: dict[str, list[dict[str, str]] | None]) -> str:
    """A row for each experiment and head: means over seeds, as tried and as they stand.

    Of the validation part: what a value is chosen by must not be the test part, whose figures
    would then be too good.
    """
    rows: dict[tuple[str, str], list[tuple[float, float | None]]] = defaultdict(list)
    chance: dict[tuple[str, str], float | None] = {}
    for run, history in tried.items():
        folder, metrics = Path(RUN.format(run)), Path(METRICS.format(run))
        standing = folder / HISTORY_FILE
        old = validation_accuracy(read_csv(standing) if standing.exists() else None)
        heads = read_json(metrics)["heads"] if metrics.exists() else {}
        for head, accuracy in validation_accuracy(history).items():
            rows[parse_run(run)[0], head].append((accuracy, old.get(head)))
            chance[parse_run(run)[0], head] = heads.get(head, {}).get("chance")
    lines = [f"tried: {change}" for change in changes]
    if any(tried.values()) and not rows:
        return "\n".join([*lines, "split.validation is 0: there is nothing to choose by"])
    lines.append(
        f"{'validation accuracy':22} {'head':11} {'seeds':>5} "
        f"{'tried':>8} {'standing':>8} {'chance':>8}"
    )
    for (experiment, head), pairs in rows.items():
        figures = [*(_mean([p[side] for p in pairs]) for side in (0, 1)), chance[experiment, head]]
        shown = (f"{v:8.3f}" if v is not None else f"{'-':>8}" for v in figures)
        lines.append(f"{experiment:22} {head:11} {len(pairs):5} {' '.join(shown)}")
    return "\n".join(
        [
            *lines,
            "params.yaml, dvc.lock and the results are as they were. Write the values into "
            "params.yaml to keep them: `make repro` then takes the runs from DVC's cache.",
        ]
    )


def _mean(values: list[float | None]) -> float | None:
    there = [v for v in values if v is not None]
    return sum(there) / len(there) if there and len(there) == len(values) else None
