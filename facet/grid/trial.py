"""Try other values of params.yaml and leave every file as it is: `facet repro --set KEY=VALUE`.

The runs are made in the workers' own trees. What they make is in DVC's cache, so that the same edit
of params.yaml, made later, finds it there.
"""

from collections import defaultdict
from pathlib import Path
from typing import Any

import yaml
from dvc.repo import Repo

from facet.base.config import Parameters, check_params, flatten, get_nested, parse_run, read_params
from facet.base.names import LOCK_FILE, METRICS, PARAMS_FILE
from facet.base.storage import read_json
from facet.errors import InputError
from facet.formats import RunMetrics
from facet.grid.dvc_session import changed_stages, read_lock
from facet.grid.plan import plan_targets, stage_names
from facet.grid.pool import prepare_workers
from facet.grid.runner import check_results, choose_runs, make_plan, prepare_tracking
from facet.grid.worktree import WORKERS

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
            tree = inside(tree, key.split("."), key, yaml.safe_load(text))
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
    print(format_trial(find_set(present, tree), {r: stored_metrics(r, entries) for r in tried}))
    check_results(results)


def find_set(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What differs of `new`, as `key: old -> new`."""
    was, now = flatten(old), flatten(new)
    return [f"{k}: {was.get(k, '-')} -> {v}" for k, v in now.items() if was.get(k, "-") != v]


def stored_metrics(run: str, entries: dict[str, Any]) -> RunMetrics | None:
    """A run's metrics out of DVC's cache, by its entry in dvc.lock; None where it was not made."""
    outs = entries.get(f"evaluate@{run}", {}).get("outs", [])
    md5 = next((o["md5"] for o in outs if o["path"] == METRICS.format(run)), None)
    if md5 is None:
        return None
    with Repo() as repo:
        found: RunMetrics = read_json(repo.cache.local.oid_to_path(md5))
    return found


def format_trial(changes: list[str], tried: dict[str, RunMetrics | None]) -> str:
    """A row for each experiment and head: means over seeds, as tried and as they stand."""
    rows: dict[tuple[str, str], list[tuple[Any, Any]]] = defaultdict(list)
    for run, new in tried.items():
        path = Path(METRICS.format(run))
        old = read_json(path)["heads"] if path.exists() else {}
        for head, metrics in new["heads"].items() if new else ():
            rows[parse_run(run)[0], head].append((metrics, old.get(head)))
    lines = [
        *(f"tried: {change}" for change in changes),
        f"{'':22} {'':11} {'':5} {'as tried':^17}   {'as it stands':^17}",
        f"{'experiment':22} {'head':11} {'seeds':>5} {'accuracy':>8} {'balanced':>8}   "
        f"{'accuracy':>8} {'balanced':>8}  {'chance':>6}",
    ]
    for (experiment, head), pairs in rows.items():

        def mean(side: int, key: str, pairs: list[tuple[Any, Any]] = pairs) -> str:
            values = [p[side][key] for p in pairs if p[side] and p[side][key] is not None]
            return f"{sum(values) / len(values):.3f}" if len(values) == len(pairs) else "-"

        lines.append(
            f"{experiment:22} {head:11} {len(pairs):5} {mean(0, 'accuracy'):>8} "
            f"{mean(0, 'balanced_accuracy'):>8}   {mean(1, 'accuracy'):>8} "
            f"{mean(1, 'balanced_accuracy'):>8}  {mean(0, 'balanced_chance'):>6}"
        )
    return "\n".join(
        [
            *lines,
            "params.yaml, dvc.lock and the results are as they were. Write the values into "
            "params.yaml to keep them: `make repro` then takes the runs from DVC's cache.",
        ]
    )
