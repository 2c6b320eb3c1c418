"""What two commits differ in: parameters, figures with their intervals, verdicts: `make diff`."""

import io
import json
from math import isnan
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import yaml

from facet.base.config import flatten
from facet.base.names import COMPARISONS_FILE, PARAMS_FILE, RUNS_TABLE
from facet.errors import InputError
from facet.formats import ComparisonResult
from facet.git import call_git

DIFF_FILES = (str(PARAMS_FILE), str(RUNS_TABLE), str(COMPARISONS_FILE))
METRIC_PREFIXES = {"balanced_accuracy": "balanced_", "accuracy": ""}


class Change(NamedTuple):
    """A value that differs, as JSON; `-` stands for a key that one side lacks."""

    key: str
    old: str
    new: str


def find_changes(old: dict[str, Any], new: dict[str, Any]) -> list[Change]:
    """What differs between two flattened trees."""

    def words(side: dict[str, Any], key: str) -> str:
        return json.dumps(side[key]) if key in side else "-"

    found = [Change(k, words(old, k), words(new, k)) for k in dict.fromkeys([*old, *new])]
    return [c for c in found if c.old != c.new]


def read_at(commit: str, file: str, name: str) -> str:
    """A file as it was at `commit`, `name` to the user, or as it is now if that is empty."""
    if not commit:
        try:
            return Path(file).read_text(encoding="utf-8")
        except FileNotFoundError:
            raise InputError(f"{file}: not found here; make it with `make repro`") from None
    done = call_git("show", f"{commit}:./{file}")
    if done.returncode:
        raise InputError(f"{name}: has no {file}; choose a commit whose results are in git")
    return done.stdout


def resolve_commit(name: str, value: str) -> str:
    """The full hash of the commit that `value` names; `name` is what the user calls it."""
    words = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{value}^{{commit}}")
    done = call_git(*words)
    if done.returncode:
        raise InputError(f"{name}={value}: no commit of that name here; see `git log --oneline`")
    return done.stdout.strip()


def read_metrics(text: str, where: str) -> dict[str, str]:
    """`experiment head metric` to a mean over seeds with the mean of the runs' 95 % intervals."""
    out = {}
    try:
        # Nothing but an empty cell is missing: an experiment may be called NA.
        words = {"experiment": str, "head": str}
        table = pd.read_csv(io.StringIO(text), dtype=words, keep_default_na=False, na_values=[""])
        for (experiment, head), rows in table.groupby(["experiment", "head"], sort=False):
            seeds = "1 seed" if len(rows) == 1 else f"{len(rows)} seeds"
            for metric, prefix in METRIC_PREFIXES.items():
                ends = [f"{prefix}ci95_low", f"{prefix}ci95_high"]
                value, low, high, chance = rows[[metric, *ends, f"{prefix}chance"]].mean()
                amount = "not applicable" if isnan(value) else f"{value:.3f}"
                amount += "" if isnan(low) or isnan(high) else f" [{low:.3f}, {high:.3f}]"
                amount += "" if isnan(chance) else f" chance {chance:.3f}"
                out[f"{experiment} {head} {metric}"] = f"{amount} ({seeds})"
    except (KeyError, ValueError, TypeError) as e:
        raise InputError(
            f"{where}{RUNS_TABLE}: not a table of this project ({e}); choose another commit or "
            "make it with `dvc repro compare`"
        ) from None
    return out


def read_verdicts(text: str, where: str) -> dict[str, str]:
    """Each comparison's verdict with its difference and 95 % interval, in words."""
    try:
        return {name: _verdict(c) for name, c in json.loads(text).items()}
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise InputError(
            f"{where}metrics/comparisons.json: not of this project ({e}); choose another commit or "
            "make it with `dvc repro compare`"
        ) from None


def _verdict(c: ComparisonResult) -> str:
    amount = "" if c["difference"] is None else f" {c['difference']:+.3f}"
    amount += f" [{c['ci95'][0]:+.3f}, {c['ci95'][1]:+.3f}]" if c["ci95"] else ""
    return f"{c['verdict']}{amount}"


def read_parameters(text: str, where: str) -> dict[str, Any]:
    """The leaves of a params.yaml by dotted key. Raises InputError where it is no YAML."""
    try:
        return flatten(yaml.safe_load(text))
    except yaml.YAMLError as e:
        words = " ".join(str(e).split())
        raise InputError(f"{where}params.yaml: not readable as YAML: {words}") from None


class Texts(NamedTuple):
    """What two commits say of each thing, by its name."""

    old: dict[str, str]
    new: dict[str, str]

    def changes(self) -> list[Change]:
        """What differs; `-` stands for what one side lacks."""
        names = dict.fromkeys([*self.old, *self.new])
        found = [Change(n, self.old.get(n, "-"), self.new.get(n, "-")) for n in names]
        return [c for c in found if c.old != c.new]

    def describe(self, title: str) -> list[str]:
        """Lines that tell what of the newer side differs, and how much does not."""
        changes = self.changes()
        same = len({*self.old, *self.new}) - len(changes)
        lines = [f"{title}: {len(changes)} differ, {same} are the same"]
        for name, old, new in changes:
            lines += [f"  {name}", f"    {old}", f"    -> {new}"]
        return lines


class Differences(NamedTuple):
    """What two commits differ in."""

    title: str
    """The two commits."""
    parameters: list[Change]
    figures: Texts
    """By `experiment head metric`: the mean over seeds, intervals, chance."""
    verdicts: Texts
    """By comparison: the verdict, the difference, its interval."""


def compare_commits(a: str, b: str = "") -> Differences:
    """What commits `a` and `b` differ in; the working tree if `b` is empty.

    Raises InputError where one is no commit, or has no results in git.
    """
    if not a:
        raise InputError("A: names no commit; say for example `make diff A=HEAD~1`")
    sides = [resolve_commit("A", a), resolve_commit("B", b) if b else ""]
    places = [f"{a}:", f"{b}:" if b else ""]
    texts = [
        [read_at(s, file, n) for file in DIFF_FILES] for s, n in zip(sides, (a, b), strict=True)
    ]
    parameters, figures, verdicts = (
        [reader(t[number], p) for t, p in zip(texts, places, strict=True)]
        for number, reader in enumerate((read_parameters, read_metrics, read_verdicts))
    )
    return Differences(
        f"{a} {sides[0][:12]} -> {f'{b} {sides[1][:12]}' if b else 'the working tree'}",
        find_changes(*parameters),
        Texts(*figures),
        Texts(*verdicts),
    )


def show_differences(a: str, b: str = "") -> None:
    """Print what two commits differ in: parameters, figures with their intervals, verdicts."""
    found = compare_commits(a, b)
    print(f"{found.title}\n")
    print(f"parameters: {len(found.parameters)} differ")
    for key, before, after in found.parameters:
        print(f"  {key}: {before} -> {after}")
    figures = found.figures.describe("figures, means over seeds [mean of the runs' 95 % intervals]")
    print("", *figures, sep="\n")
    print("", *found.verdicts.describe("verdicts, difference [95 % interval]"), sep="\n")
