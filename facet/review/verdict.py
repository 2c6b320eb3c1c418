"""Compare what was made again with what was committed, and conclude."""

import contextlib
import csv
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from facet.base.config import flatten
from facet.base.names import MANIFESTS, METRIC_NAMES, METRICS, RUNS_TABLE
from facet.formats import Finding, Judgement, Processor, ReviewVerdict, StageVerdict
from facet.review import checks, consistency
from facet.review.checks import Cache, Lock, Stage, entry_hashes
from facet.tracking.provenance import describe_processor

MetricsFile = Mapping[str, Any]  # a run's metrics or the comparisons, compared leaf by leaf


def judge_stages(was: Lock, now: Lock, scope: list[str]) -> dict[str, StageVerdict]:
    """Each stage of `scope` as `identical`, `departs` (its inputs are equal, its outputs not),
    `follows` (its inputs differ already) or `not made`.
    """
    out = {}
    for name in scope:
        then, here = entry_hashes(was[name], "outs"), entry_hashes(now.get(name, {}), "outs")
        outs = {p: (h, here.get(p)) for p, h in then.items()}
        before, after = entry_hashes(was[name], "deps"), entry_hashes(now.get(name, {}), "deps")
        inputs = [p for p, h in before.items() if after.get(p) != h]
        if name not in now:
            out[name] = StageVerdict("not made", outs)
        elif then == here:
            out[name] = StageVerdict("identical", outs)
        elif inputs:
            out[name] = StageVerdict(
                "follows", outs, f"its input differs: {checks.list_some(inputs)}"
            )
        else:
            out[name] = StageVerdict("departs", outs, "its inputs are equal, its outputs are not")
    return out


def find_differences(was: MetricsFile, now: MetricsFile) -> dict[str, tuple[Any, Any]]:
    """The values that differ, then and now, by dotted key."""
    a, b = flatten(was, lists=True), flatten(now, lists=True)
    return {k: (a.get(k), b.get(k)) for k in {**a, **b} if a.get(k) != b.get(k)}


def mark_consistent(
    found: dict[str, StageVerdict],
    stages: dict[str, Stage],
    elsewhere: set[str],
    run_judgements: "JudgedRuns",
) -> None:
    """Mark as `consistent` what differs in bytes alone: stages of which each run that they reach
    was made `elsewhere`, where bytes may differ, and has figures consistent with the committed.
    """
    ends = {n for n in found if n.startswith("evaluate@")}
    needs = {n: set(checks.find_closure(stages, [n])) for n in found}
    fine = {
        n
        for n in ends
        if found[n].verdict != "not made"
        and n.partition("@")[2] in elsewhere
        and n.partition("@")[2] in run_judgements.consistent_runs
    }
    for name, verdict in found.items():
        # The runs that it leads to, or that lead to it.
        reached = {n for n in ends if name in needs[n] or n in needs[name]}
        if verdict.verdict in ("departs", "follows") and reached and reached <= fine:
            verdict.why = f"{verdict.verdict}; no equal bytes are promised between the processors"
            verdict.verdict = "consistent"


@dataclass
class JudgedRuns:
    """The figures made again, judged: what was found, and the runs of which nothing differs.

    `processor` is the one that the runs were made on, as their manifests describe it.
    """

    processor: Processor = field(default_factory=describe_processor)
    judgements: list[Judgement] = field(default_factory=list)
    exact: list[str] = field(default_factory=list)
    consistent_runs: set[str] = field(default_factory=set)


def judge_metrics(
    found: dict[str, StageVerdict], elsewhere: set[str], clone: Path, committed: dict[str, str]
) -> JudgedRuns:
    """Judge the figures of the runs made `elsewhere` by those that metrics/runs.csv has in git."""
    runs = [
        n.partition("@")[2]
        for n, v in found.items()
        if n.startswith("evaluate@") and v.verdict != "not made"
    ]
    if not elsewhere or all(v.verdict == "identical" for v in found.values()):
        return JudgedRuns()
    was = list(csv.DictReader(io.StringIO(committed.get(str(RUNS_TABLE), ""))))
    needed = ("run", "experiment", "seed", "head", *METRIC_NAMES, *consistency.EXACT_METRICS)
    if lacking := [k for k in needed if not was or k not in was[0]]:
        return JudgedRuns(exact=[f"metrics/runs.csv in git has no {lacking[0]} to judge by"])
    here = [row for run in runs if run in elsewhere for row in head_rows(run, clone)]
    exact = consistency.exact_differences(was, here)
    judgements = consistency.judge(
        consistency.read_metrics(was),
        consistency.read_metrics(here),
        consistency.count_items([*was, *here]),
    )
    doubtful = {
        f"{j.experiment}-{s}"
        for j in judgements
        if j.verdict != "consistent"
        for s in j.differences
    } | {e.partition(":")[0] for e in exact}
    # Of heads that are not applicable there is no figure to be judged.
    known = {f"{j.experiment}-{s}" for j in judgements for s in j.differences}
    return JudgedRuns(judgements=judgements, exact=exact, consistent_runs=known - doubtful)


def head_rows(run: str, clone: Path) -> list[consistency.Row]:
    """A run's figures in the clone, a row for each head as runs.csv has them."""
    metrics = json.loads((clone / METRICS.format(run)).read_text())
    rows: list[consistency.Row] = []
    for head, figures in metrics.get("heads", {}).items():
        row = {k: metrics.get(k) for k in ("experiment", "seed", "n_test")} | figures
        counts = [sum(r) for r in figures.get("confusion") or [] if sum(r)]
        balanced = len(counts) ** 2 / sum(1 / c for c in counts) if counts else None
        rows.append(row | {"run": run, "head": head, "balanced_items": balanced})
    return rows


def processor_named(name: str) -> Processor:
    """A processor of which no more than the name is known."""
    return {
        "architecture": "",
        "name": name,
        "vendor": "",
        "family": "",
        "model": "",
        "stepping": "",
        "flags": [],
        "caches": {},
        "libc": "",
        "limits": {},
        "gpus": [],
        "same_bytes": False,
    }


def read_processors(clone: Path, runs: Iterable[str]) -> dict[str, Processor]:
    """The processor that each run in `clone` was made on, by its manifest; else this process's.

    Code from before the promise tells a name alone: then equal bytes are not promised.
    """
    out: dict[str, Processor] = {}
    for run in runs:
        try:
            processor = json.loads((clone / MANIFESTS.format(run)).read_text())["processor"]
            known = isinstance(processor, dict)
            out[run] = processor if known else processor_named(processor)
        except (OSError, ValueError, KeyError, TypeError):
            out[run] = describe_processor()
    return out


def read_original(
    path: str, hash: str | None, cache: Cache, committed: dict[str, str]
) -> MetricsFile | None:
    """Metrics as they were: from git or DVC's cache; None where neither has them."""
    with contextlib.suppress(ValueError):
        if path in committed:
            return json.loads(committed[path])
        if hash and cache.sound(hash):
            return json.loads(cache.file(hash).read_text())
    return None


def read_from_table(
    path: str, after: MetricsFile, committed: dict[str, str]
) -> tuple[MetricsFile, MetricsFile]:
    """What metrics/runs.csv tells of a run's metrics at `path`, and the same part of those `after`;
    where it tells nothing, nothing and all of them.
    """
    was: dict[str, MetricsFile] = {}
    here: dict[str, MetricsFile] = {}
    for row in csv.DictReader(io.StringIO(committed.get(str(RUNS_TABLE), ""))):
        now = after.get("heads", {}).get(row["head"], {})
        if METRICS.format(row["run"]) == path:
            keys = [k for k, v in now.items() if k in row and not isinstance(v, (list, str))]
            was[row["head"]] = {k: float(row[k]) if row[k] else None for k in keys}
            here[row["head"]] = {k: now[k] for k in keys}
    return ({"heads": was}, {"heads": here}) if was else ({}, after)


def fill_metrics(
    found: dict[str, StageVerdict], clone: Path, cache: Cache, committed: dict[str, str]
) -> None:
    """Fill in which metrics differ, of the stages that do."""
    for verdict in found.values():
        for path, (was, here) in verdict.outs.items():
            file = clone / path
            if was == here or not path.endswith(".json") or not file.is_file():
                continue
            after = json.loads(file.read_text())
            before = read_original(path, was, cache, committed)
            if before is None:
                before, after = read_from_table(path, after, committed)
                verdict.why += "; of its metrics only metrics/runs.csv is at hand"
            verdict.metrics |= find_differences(before, after)


def conclude(
    findings: list[Finding], found: dict[str, StageVerdict], run_judgements: JudgedRuns, quick: bool
) -> tuple[ReviewVerdict, str]:
    """The verdict on the whole, and why in a sentence."""
    refusals = [f for f in findings if f.severity == "refuse"]
    bad = {n: v for n, v in found.items() if v.verdict not in ("identical", "consistent")}
    if bad:
        first = next((n for n, v in bad.items() if v.verdict == "departs"), next(iter(bad)))
        word = "departs first" if bad[first].verdict == "departs" else bad[first].verdict
        reason = f"{first} {word}; {len(bad)} of {len(found)} stages do not come out"
        if changed := next((v.metrics for v in bad.values() if largest_change(v.metrics)), None):
            reason += f"; {largest_change(changed)}"
        if run_judgements.exact:
            return "does not hold", f"{reason}; {run_judgements.exact[0]}."
        if differing := [j for j in run_judgements.judgements if j.verdict == "differs"]:
            j = max(differing, key=lambda j: abs(j.mean) / (j.limit or 1))
            return "does not hold", (
                f"{reason}; {j.metric} of {j.head} of {j.experiment} differs by {j.mean:+.3f}, "
                f"which the luck of training does not explain (limit {j.limit:.3f})."
            )
        if any(j.verdict == "not judged" for j in run_judgements.judgements):
            reason += (
                "; equal bytes are not promised here, and one seed shows no luck of training: "
            )
            return "does not hold", f"{reason}review on x86-64 with AVX2, or add seeds."
        if not run_judgements.processor.get("same_bytes"):
            reason += (
                "; equal bytes are not promised here, and only runs can be judged without them"
            )
            return "does not hold", f"{reason}: review those that the stage leads to."
        return (
            "does not hold",
            f"{reason}; on this processor the bytes are promised to be the same.",
        )
    if refusals:
        reason = f"{refusals[0].where}: {refusals[0].what}"
        return "refused", reason + (f" (and {len(refusals) - 1} more)." if refusals[1:] else ".")
    if quick:
        return (
            "checked",
            "dvc.lock, code, parameters, packages and figures agree; nothing was run, "
            "no data were hashed.",
        )
    same = sum(v.verdict == "identical" for v in found.values())
    reason = f"{same} of {len(found)} stages came out identical"
    if same == len(found):
        return "holds", f"{reason}."
    runs = len({(j.experiment, s) for j in run_judgements.judgements for s in j.differences})
    return "consistent", (
        f"{reason}; equal bytes are not promised here, and the figures of {runs} runs differ from "
        "the committed ones by no more than the luck of training (an honest repeat is said to "
        f"differ in at most {consistency.FALSE_ALARM:.0%} of reviews; the smallest changes that "
        "would have been found are in review.md)."
    )


def largest_change(changed: dict[str, tuple[Any, Any]]) -> str:
    """The accuracy or mean that differs most, in words; empty where none does."""
    named = (*METRIC_NAMES, "baseline_mean", "candidate_mean", "difference")
    pairs = {k: v for k, v in changed.items() if k.rpartition(".")[2] in named}
    for key, (a, b) in pairs.items():
        if not (isinstance(a, (int, float)) and isinstance(b, (int, float))):
            return f"{key} was {a} and is {b}"
    if not pairs:
        return ""
    key = max(pairs, key=lambda k: abs(pairs[k][0] - pairs[k][1]))
    return "{} was {} and is {}".format(key, *pairs[key])
