"""Does this result come out of this commit? `make review` makes it again and compares.

A clean clone at the commit, an environment from its requirements.lock, no cache; then each output
and metric against dvc.lock. What stands in the way of a proof is found and named first. Writes
review.json and review.md.
"""

import contextlib
import csv
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from stages.common import MANIFESTS, METRICS, RUN, Refused, command, die_with, dump
from stages.manifest import PACKAGES, describe_processor, machine, name_processor, now, who
from stages.parameters import nearest
from tools import checks, consistency, trace
from tools.checks import PACKAGE_LOCK, Cache, Finding, Lock, Stage, hashes
from tools.consistency import Judgement
from tools.grid import reason

ENVIRONMENTS = Path(".review")


@dataclass
class Verdict:
    """How a stage came out: its outputs' MD5 in dvc.lock and here, and why they differ.

    `metrics` holds the figures that differ, then and now.
    """

    verdict: str
    outs: dict[str, tuple[str | None, str | None]]
    why: str = ""
    metrics: dict[str, tuple[Any, Any]] = field(default_factory=dict)


# --- comparing ------------------------------------------------------------------------------


def verdicts(was: Lock, now: Lock, scope: list[str]) -> dict[str, Verdict]:
    """Each stage of `scope` as `identical`, `departs` (its inputs are equal, its outputs not),
    `follows` (its inputs differ already) or `not made`.
    """
    out = {}
    for name in scope:
        then, here = hashes(was[name], "outs"), hashes(now.get(name, {}), "outs")
        outs = {p: (h, here.get(p)) for p, h in then.items()}
        before, after = hashes(was[name], "deps"), hashes(now.get(name, {}), "deps")
        inputs = [p for p, h in before.items() if after.get(p) != h]
        if name not in now:
            out[name] = Verdict("not made", outs)
        elif then == here:
            out[name] = Verdict("identical", outs)
        elif inputs:
            out[name] = Verdict("follows", outs, f"its input differs: {checks.told(inputs)}")
        else:
            out[name] = Verdict("departs", outs, "its inputs are equal, its outputs are not")
    return out


def leaves(value: Any, at: str = "") -> dict[str, Any]:
    """The values in nested dicts and lists, by dotted key."""
    if isinstance(value, (dict, list)) and value:
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        return {k: v for key, inner in pairs for k, v in leaves(inner, f"{at}.{key}").items()}
    return {at.removeprefix("."): value}


def differences(was: dict[str, Any], now: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The values that differ, then and now, by dotted key."""
    a, b = leaves(was), leaves(now)
    return {k: (a.get(k), b.get(k)) for k in {**a, **b} if a.get(k) != b.get(k)}


def mark_consistent(
    found: dict[str, Verdict], stages: dict[str, Stage], elsewhere: set[str], judged: "Judged"
) -> None:
    """Mark as `consistent` what differs in bytes alone: stages of which each run that they reach
    was made `elsewhere`, where bytes may differ, and has figures consistent with the committed.
    """
    ends = {n for n in found if n.startswith("evaluate@")}
    needs = {n: set(checks.closure(stages, [n])) for n in found}
    fine = {
        n
        for n in ends
        if found[n].verdict != "not made"
        and n.partition("@")[2] in elsewhere
        and n.partition("@")[2] in judged.consistent_runs
    }
    for name, verdict in found.items():
        # The runs that it leads to, or that lead to it.
        reached = {n for n in ends if name in needs[n] or n in needs[name]}
        if verdict.verdict in ("departs", "follows") and reached and reached <= fine:
            verdict.why = f"{verdict.verdict}; no equal bytes are promised between the processors"
            verdict.verdict = "consistent"


@dataclass
class Judged:
    """The figures made again, judged: what was found, and the runs of which nothing differs.

    `processor` is the one that the runs were made on, as their manifests describe it.
    """

    processor: dict[str, Any] = field(default_factory=describe_processor)
    judgements: list[Judgement] = field(default_factory=list)
    exact: list[str] = field(default_factory=list)
    consistent_runs: set[str] = field(default_factory=set)


def judge_figures(
    found: dict[str, Verdict], elsewhere: set[str], clone: Path, committed: dict[str, str]
) -> Judged:
    """Judge the figures of the runs made `elsewhere` by those that metrics/runs.csv has in git."""
    runs = [n.partition("@")[2] for n, v in found.items()
            if n.startswith("evaluate@") and v.verdict != "not made"]  # fmt: skip
    if not elsewhere or all(v.verdict == "identical" for v in found.values()):
        return Judged()
    was = list(csv.DictReader(io.StringIO(committed.get("metrics/runs.csv", ""))))
    needed = ("run", "experiment", "seed", "head", *consistency.METRICS, *consistency.EXACT)
    if lacking := [k for k in needed if not was or k not in was[0]]:
        return Judged(exact=[f"metrics/runs.csv in git has no {lacking[0]} to judge by"])
    here = [row for run in runs if run in elsewhere for row in head_rows(run, clone)]
    exact = consistency.exact_differences(was, here)
    judgements = consistency.judge(
        consistency.read_figures(was),
        consistency.read_figures(here),
        consistency.count_items([*was, *here]),
    )
    doubtful = {f"{j.experiment}-{s}" for j in judgements if j.verdict != "consistent"
                for s in j.differences} | {e.partition(":")[0] for e in exact}  # fmt: skip
    # Of heads that are not applicable there is no figure to be judged.
    known = {f"{j.experiment}-{s}" for j in judgements for s in j.differences}
    return Judged(judgements=judgements, exact=exact, consistent_runs=known - doubtful)


def head_rows(run: str, clone: Path) -> list[dict[str, Any]]:
    """A run's figures in the clone, a row for each head as runs.csv has them."""
    told = json.loads((clone / METRICS.format(run)).read_text())
    rows = []
    for head, figures in told.get("heads", {}).items():
        row = {k: told.get(k) for k in ("experiment", "seed", "n_test")} | figures
        counts = [sum(r) for r in figures.get("confusion") or [] if sum(r)]
        balanced = len(counts) ** 2 / sum(1 / c for c in counts) if counts else None
        rows.append(row | {"run": run, "head": head, "balanced_items": balanced})
    return rows


def read_processors(clone: Path, runs: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The processor that each run in `clone` was made on, by its manifest; else this process's.

    Code from before the promise tells a name alone: then equal bytes are not promised.
    """
    out = {}
    for run in runs:
        try:
            told = json.loads((clone / MANIFESTS.format(run)).read_text())["processor"]
            out[run] = told if isinstance(told, dict) else {"name": told, "same_bytes": False}
        except (OSError, ValueError, KeyError, TypeError):
            out[run] = describe_processor()
    return out


def original(
    path: str, hash: str | None, cache: Cache, committed: dict[str, str]
) -> dict[str, Any] | None:
    """Metrics as they were: from git or DVC's cache; None where neither has them."""
    with contextlib.suppress(ValueError):
        if path in committed:
            return json.loads(committed[path])
        if hash and cache.sound(hash):
            return json.loads(cache.file(hash).read_text())
    return None


def from_table(
    path: str, after: dict[str, Any], committed: dict[str, str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What metrics/runs.csv tells of a run's metrics at `path`, and the same part of those `after`;
    where it tells nothing, nothing and all of them.
    """
    was: dict[str, Any] = {}
    here: dict[str, Any] = {}
    for row in csv.DictReader(io.StringIO(committed.get("metrics/runs.csv", ""))):
        now = after.get("heads", {}).get(row["head"], {})
        if METRICS.format(row["run"]) == path:
            told = [k for k, v in now.items() if k in row and not isinstance(v, (list, str))]
            was[row["head"]] = {k: float(row[k]) if row[k] else None for k in told}
            here[row["head"]] = {k: now[k] for k in told}
    return ({"heads": was}, {"heads": here}) if was else ({}, after)


def measure(
    found: dict[str, Verdict], clone: Path, cache: Cache, committed: dict[str, str]
) -> None:
    """Fill in which metrics differ, of the stages that do."""
    for verdict in found.values():
        for path, (was, here) in verdict.outs.items():
            file = clone / path
            if was == here or not path.endswith(".json") or not file.is_file():
                continue
            after = json.loads(file.read_text())
            before = original(path, was, cache, committed)
            if before is None:
                before, after = from_table(path, after, committed)
                verdict.why += "; of its metrics only metrics/runs.csv is at hand"
            verdict.metrics |= differences(before, after)


# --- making it again ------------------------------------------------------------------------


def targets(wanted: str, stages: dict[str, Stage]) -> list[str]:
    """The stages meant by RUN=: runs, experiments or stages, with commas; all if empty."""
    if not wanted:
        return list(stages)
    found: list[str] = []
    for name in wanted.replace(",", " ").split():
        of = re.compile(rf"{re.escape(name)}|evaluate@{re.escape(name)}(-\d+)?")
        meant = [s for s in stages if of.fullmatch(s)]
        if not meant:
            known = [*stages, *(s.partition("@")[2] for s in stages if s.startswith("evaluate@"))]
            raise Refused(f"RUN={name}: no run, experiment or stage{nearest(name, known)}")
        found += meant
    return found


def git(*words: str, at: Path | None = None) -> str:
    done = subprocess.run(["git", *words], cwd=at, capture_output=True, text=True)
    if done.returncode:
        raise Refused(f"git {words[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


@contextlib.contextmanager
def cloned(root: Path, commit: str, into: str) -> Iterator[Path]:
    """A clean clone of `root` at `commit`, with an empty DVC cache of its own."""
    kept = Path(into).resolve() if into else None
    if kept and kept.exists():
        raise Refused(f"{kept}: is there already; name a folder to be made")
    with tempfile.TemporaryDirectory(prefix="facet-review-") as temporary:
        clone = kept or Path(temporary).resolve() / "facet"
        git("clone", "--quiet", "--no-hardlinks", "--no-checkout", str(root), str(clone))
        git("checkout", "--quiet", "--detach", commit, at=clone)
        # Whatever .dvc/config or the user's own settings say of a shared cache.
        (clone / ".dvc/config.local").write_text("[cache]\n    dir = cache\n")
        yield clone


def environment(root: Path, clone: Path) -> Path:
    """An environment made from the commit's own lock files, once for each content of them."""
    locks = [clone / PACKAGE_LOCK, clone / "requirements-uv.lock"]
    for file in locks:
        if not file.exists():
            raise Refused(f"{file.name}: not in the commit; it cannot tell its packages")
    name = hashlib.sha256(b"".join(f.read_bytes() for f in locks)).hexdigest()[:16]
    folder = root / ENVIRONMENTS / f"env-{name}"
    complete = folder / ".complete"
    if complete.exists():
        return folder
    print(f"building {folder.relative_to(root)} from {PACKAGE_LOCK}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    python = str(folder / "bin/python")
    sync = ["-m", "uv", "pip", "sync", "--quiet", "--compile-bytecode", "--python", python]
    for words in (
        [os.path.realpath(sys.executable), "-m", "venv", str(folder)],
        [python, "-m", "pip", "install", "--quiet", "--require-hashes", "-r", str(locks[1])],
        [python, *sync, *map(str, locks)],
    ):
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode:
            raise Refused(f"{PACKAGE_LOCK}: no environment from it: {done.stderr.strip()[-400:]}")
    complete.touch()
    return folder


def installed(folder: Path) -> dict[str, str]:
    """The version of each package in the environment `folder`, by its plain name, and python's."""
    code = (
        "import json, platform; from importlib import metadata;"
        "found = [[d.name, d.version] for d in metadata.distributions()];"
        "print(json.dumps([['python', platform.python_version()], *found]))"
    )
    python = folder / "bin/python"
    if not python.exists():
        raise Refused(f"{folder}: no environment; ENV= takes a folder with bin/python")
    done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True)
    return {checks.plain(name): version for name, version in json.loads(done.stdout)}


def run_again(
    clone: Path,
    env: Path,
    wanted: list[str],
    whole: bool,
    jobs: int,
    notes: Path,
    wandb: Path | None,
) -> list[str]:
    """Run the pipeline in `clone` for the stages `wanted`, without a word from its old dvc.lock.

    `notes` is a folder to fill with what each stage reads, `wandb` where W&B is to write, None for
    nowhere. Returns what was said that tells of a failure, nothing if all went well.
    """
    site = notes.parent / "site"
    site.mkdir(parents=True)
    notes.mkdir()
    shutil.copy(str(trace.__file__), site / "sitecustomize.py")
    (clone / checks.LOCK).unlink(missing_ok=True)
    # What names another project, environment or cache must not reach the stages.
    ours = {
        k: v
        for k, v in os.environ.items()
        if k not in ("DVC_ROOT", "DVC_STAGE", "VIRTUAL_ENV")
        and not k.startswith(("GIT_", "PYTHON", "DVC_EXP"))
    }
    said = {
        "PATH": f"{env / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(site),
        "PYTHONUNBUFFERED": "1",
        "FACET_TRACE": str(notes),
        "DVC_SITE_CACHE_DIR": str(notes.parent / "dvc"),
        **({"WANDB_DIR": str(wandb)} if wandb else {"WANDB_MODE": "disabled"}),
    }
    runs = [w.removeprefix("evaluate@") for w in wanted if w.startswith("evaluate@")]
    jobs = jobs or int(machine()["cores"])
    if jobs > 1 and (whole or (len(runs) > 1 and len(runs) == len(wanted))):
        run = "" if whole else ",".join(runs)
        words = [str(env / "bin/python"), "-m", "tools.grid", "--run", run, "--jobs", str(jobs)]
    else:
        words = [str(env / "bin/dvc"), "repro", "--keep-going", *([] if whole else wanted)]
    process = subprocess.Popen(
        words,
        cwd=clone,
        env=ours | said,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        preexec_fn=partial(die_with, os.getpid()),
    )
    lines = []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if line.startswith(("[", "Running stage '")):
            print(line.rstrip(), flush=True)
    if process.wait() == 0:
        return []
    return [line.strip() for line in reason("".join(lines)).splitlines()]


def seen(
    clone: Path, notes: Path, stages: dict[str, Stage], lock: Lock, scope: list[str]
) -> list[Finding]:
    """What the stages read that dvc.yaml does not say, the same of several stages told once."""
    found: dict[tuple[str, ...], list[str]] = {}
    for name in scope:
        file = notes / name.replace("/", "%")
        if file.exists():
            for f in checks.undeclared(stages[name], file.read_text(), lock.get(name, {}), clone):
                found.setdefault((f.check, f.what, f.severity), []).append(name)
    return [Finding(c, checks.told(names), what, s) for (c, what, s), names in found.items()]  # type: ignore[arg-type]


# --- the runs behind ------------------------------------------------------------------------


def manifests(root: Path, lock: Lock, scope: list[str]) -> dict[str, dict[str, Any]]:
    """The manifest of each run, where there is one here of the very outputs in `lock`."""
    outs, found = checks.outputs(lock), {}
    for name in scope:
        stage, _, run = name.partition("@")
        if stage != "train":
            continue
        with contextlib.suppress(OSError, ValueError, AttributeError, KeyError, TypeError):
            told = json.loads((root / MANIFESTS.format(run)).read_text())
            if told["outputs"].get(RUN.format(run)) == outs[RUN.format(run)]:
                found[run] = told
    return found


def runs_behind(
    lock: Lock, scope: list[str], made: dict[str, dict[str, Any]], committed: dict[str, str]
) -> dict[str, Any]:
    """For each run the W&B run it belongs to and its manifest, None where that is not here."""
    table = csv.DictReader(io.StringIO(committed.get("metrics/runs.csv", "")))
    ids = {r["run"]: r.get("wandb_id") for r in table}
    runs = [n.partition("@")[2] for n in scope if n.startswith("train@")]
    return {
        run: {
            "wandb_id": made.get(run, {}).get("wandb_id") or ids.get(run),
            "manifest": made.get(run),
        }
        for run in runs
    }


# --- the report -----------------------------------------------------------------------------


def table(head: list[str], rows: list[list[Any]]) -> list[str]:
    """A Markdown table."""
    cells = [[str("" if c is None else c).replace("|", "\\|") for c in r] for r in rows]
    return [f"| {' | '.join(r)} |" for r in [head, ["---"] * len(head), *cells]] + [""]


def page(review: dict[str, Any]) -> str:
    """review.md: the verdict first, then what was found, each stage, each run."""
    who, here = review["reviewer"], review["machine"]
    name = " ".join(filter(None, (who["name"], who["email"] and f"<{who['email']}>")))
    lines = [
        f"# Review of {review['commit'][:12]}: {review['verdict']}",
        "",
        review["told"],
        "",
        *table(
            ["", ""],
            [
                ["commit", review["commit"]],
                ["reviewer", name or "git was told no name"],
                ["when", review["when"]],
                ["machine", f"{here['host']}, {here['cores']} cores, {here['system']}"],
                ["processor", name_processor(review["processor"])],
                ["packages", ", ".join(f"{k} {v}" for k, v in review["versions"].items()) or "-"],
                ["scope", review["scope"] + ("" if review["ran"] else "; nothing was run")],
                ["bytes", review["bytes"]],
            ],
        ),
    ]
    if review["judgements"]:
        lines += judgement_lines(review["judgements"])
    if review["findings"]:
        rows = [[f["severity"], f["check"], f["where"], f["what"]] for f in review["findings"]]
        lines += ["## Found", "", *table(["", "check", "where", "what"], rows)]
    stages = review["stages"]
    if changed := {n: s["metrics"] for n, s in stages.items() if s["metrics"]}:
        rows = [[n, key, a, b] for n, m in changed.items() for key, (a, b) in list(m.items())[:12]]
        lines += [
            "## Metrics that differ",
            "",
            "At most 12 for each stage; review.json has all.",
            "",
        ]
        lines += table(["stage", "figure", "then", "now"], rows)
    if stages:
        rows = [
            [n if not i else "", s["verdict"] if not i else "", out, was, "same" if was == now else
             now or "none", s["why"] if not i else ""]
            for n, s in stages.items()
            for i, (out, (was, now)) in enumerate(s["outs"].items())
        ]  # fmt: skip
        lines += ["## Stages", ""]
        lines += table(["stage", "verdict", "output", "dvc.lock", "here", "why"], rows)
    if review["runs"]:
        rows = []
        for run, r in review["runs"].items():
            m = r["manifest"] or {}
            state = " and uncommitted changes" if m.get("uncommitted") is True else ""
            source = f"{str(m.get('commit'))[:12]}{state}" if m else "no manifest here"
            by = checks.dig(m, "who.name")
            where = name_processor(m.get("processor"))
            rows.append([run, r["wandb_id"], by, m.get("when"), source, where])
        lines += ["## Runs", ""]
        lines += table(["run", "W&B", "made by", "when", "from", "processor"], rows)
    return "\n".join(lines)


def judgement_lines(judgements: list[dict[str, Any]]) -> list[str]:
    """What the judgement of figures found, and what it would have found."""
    rows = []
    for j in judgements:
        if j["metric"] != "balanced_accuracy":
            continue
        numbers = [f"{x:.3f}" if x is not None else "-" for x in (j["spread"], j["limit"])]
        found = "nothing" if j["smallest"] is None else (
            f"{j['smallest']:.3f}" if j["smallest"] < 1 else "nothing below 1")  # fmt: skip
        mean = sum(j["differences"].values()) / len(j["differences"])
        rows.append([j["experiment"], j["head"], len(j["differences"]), f"{mean:+.3f}", *numbers,
                     found, j["verdict"]])  # fmt: skip
    return [
        "## Figures",
        "",
        "Balanced accuracies made here less the committed ones, means over seeds. `spread` is the "
        "standard deviation over trainings; a mean difference beyond `limit` is inconsistent, "
        f"which happens to at most {consistency.FALSE_ALARM:.0%} of honest reviews. `found` is the "
        f"smallest change that would have been found with {consistency.POWER:.0%}: few seeds and "
        "few test items find little. review.json has the accuracies and single runs too.",
        "",
        *table(["experiment", "head", "seeds", "difference", "spread", "limit", "found", "verdict"],
               rows),
    ]  # fmt: skip


def conclude(
    findings: list[Finding], found: dict[str, Verdict], judged: Judged, quick: bool
) -> tuple[str, str]:
    """The verdict on the whole, and why in a sentence."""
    refusals = [f for f in findings if f.severity == "refuse"]
    bad = {n: v for n, v in found.items() if v.verdict not in ("identical", "consistent")}
    if bad:
        first = next((n for n, v in bad.items() if v.verdict == "departs"), next(iter(bad)))
        word = "departs first" if bad[first].verdict == "departs" else bad[first].verdict
        told = f"{first} {word}; {len(bad)} of {len(found)} stages do not come out"
        if changed := next((v.metrics for v in bad.values() if largest_change(v.metrics)), None):
            told += f"; {largest_change(changed)}"
        if judged.exact:
            return "does not hold", f"{told}; {judged.exact[0]}."
        if differing := [j for j in judged.judgements if j.verdict == "differs"]:
            j = max(differing, key=lambda j: abs(j.mean) / (j.limit or 1))
            return "does not hold", (
                f"{told}; {j.metric} of {j.head} of {j.experiment} differs by {j.mean:+.3f}, which "
                f"the luck of training does not explain (limit {j.limit:.3f})."
            )
        if any(j.verdict == "not judged" for j in judged.judgements):
            told += "; equal bytes are not promised here, and one seed shows no luck of training: "
            return "does not hold", f"{told}review on x86-64 with AVX2, or add seeds."
        if not judged.processor.get("same_bytes"):
            told += "; equal bytes are not promised here, and only runs can be judged without them"
            return "does not hold", f"{told}: review those that the stage leads to."
        return "does not hold", f"{told}; on this processor the bytes are promised to be the same."
    if refusals:
        told = f"{refusals[0].where}: {refusals[0].what}"
        return "refused", told + (f" (and {len(refusals) - 1} more)." if refusals[1:] else ".")
    if quick:
        return "checked", "dvc.lock, code, parameters, packages and figures agree; nothing was run."
    same = sum(v.verdict == "identical" for v in found.values())
    told = f"{same} of {len(found)} stages came out identical"
    if same == len(found):
        return "holds", f"{told}."
    runs = len({(j.experiment, s) for j in judged.judgements for s in j.differences})
    return "consistent", (
        f"{told}; equal bytes are not promised here, and the figures of {runs} runs differ from "
        "the committed ones by no more than the luck of training (an honest repeat is said to "
        f"differ in at most {consistency.FALSE_ALARM:.0%} of reviews; the smallest changes that "
        "would have been found are in review.md)."
    )


def largest_change(changed: dict[str, tuple[Any, Any]]) -> str:
    """The accuracy or mean that differs most, in words; empty where none does."""
    named = ("accuracy", "balanced_accuracy", "baseline_mean", "candidate_mean", "difference")
    pairs = {k: v for k, v in changed.items() if k.rpartition(".")[2] in named}
    for key, (a, b) in pairs.items():
        if not (isinstance(a, (int, float)) and isinstance(b, (int, float))):
            return f"{key} was {a} and is {b}"
    if not pairs:
        return ""
    key = max(pairs, key=lambda k: abs(pairs[k][0] - pairs[k][1]))
    return "{} was {} and is {}".format(key, *pairs[key])


# --- the command ----------------------------------------------------------------------------


def main(
    run: Annotated[
        str, typer.Option(help="runs, experiments or stages, with commas; all if empty")
    ] = "",
    commit: Annotated[str, typer.Option(help="what to review")] = "HEAD",
    quick: Annotated[bool, typer.Option(help="run nothing, need no data")] = False,
    jobs: Annotated[int, typer.Option(help="processes; as many as cores if 0", min=0)] = 0,
    env: Annotated[str, typer.Option(help="an environment to use instead of a new one")] = "",
    wandb: Annotated[bool, typer.Option(help="let W&B record the runs made for review")] = False,
    into: Annotated[str, typer.Option(help="a folder for the clone, which then stays")] = "",
) -> None:
    """Prove, or disprove, that a commit's results come out of it; writes review.json, review.md."""
    root = Path(git("rev-parse", "--show-toplevel")).resolve()
    sha = git("rev-parse", "--verify", "--end-of-options", f"{commit}^{{commit}}")
    if not quick and git("rev-parse", "--is-shallow-repository") == "true":
        raise Refused(
            f"{root}: a shallow clone does not hold the history that the result came from; "
            "run `git fetch --unshallow`, or `make review QUICK=1`"
        )
    with cloned(root, sha, into) as clone:
        it = subject(root, clone, sha, run)
        made = manifests(root, it.lock, it.scope)
        findings = at_rest(it, quick)
        found: dict[str, Verdict] = {}
        judged = Judged()
        have: dict[str, str] = {}
        if not quick and not any(f.severity == "refuse" for f in findings):
            folder = Path(env).absolute() if env else environment(root, clone)
            have = installed(folder)
            more, found, judged = again(it, folder, have, jobs, wandb, made)
            findings += more
    verdict, told = conclude(findings, found, judged, quick)
    review: dict[str, Any] = {
        "commit": sha,
        "verdict": verdict,
        "told": told,
        "reviewer": who(),
        "when": now(),
        "machine": machine(),
        "processor": judged.processor,
        "versions": {k: have[k] for k in ("python", *PACKAGES) if k in have},
        "scope": run or "all stages",
        "ran": bool(found),
        "bytes": "promised to be the same" if judged.processor.get("same_bytes") else
        "not promised to be the same: figures are judged by statistics",
        "judgements": [asdict(j) for j in judged.judgements],
        "findings": [asdict(f) for f in findings],
        "stages": {n: asdict(v) for n, v in found.items()},
        "runs": runs_behind(it.lock, it.scope, made, it.committed),
    }
    dump(root / "review.json", review)
    (root / "review.md").write_text(page(review))
    for f in review["findings"]:
        print(f"{f['severity']}: {f['where']}: {f['what']}")
    told = f"{sha[:12]}: {verdict}: {told.rstrip('.')}; see review.md"
    if verdict not in ("holds", "consistent", "checked"):
        raise Refused(told)
    print(told)


@dataclass
class Subject:
    """A commit under review: `clone` is a clean clone of `root` at it; `scope` the stages."""

    root: Path
    clone: Path
    commit: str
    stages: dict[str, Stage]
    lock: Lock
    wanted: list[str]
    scope: list[str]
    whole: bool
    cache: Cache
    committed: dict[str, str]  # the outputs that are in git


def subject(root: Path, clone: Path, commit: str, run: str) -> Subject:
    """What RUN= asks to have reviewed."""
    stages, lock = checks.declared(clone), checks.entries(clone)
    wanted = targets(run, stages)
    files = [p for s in stages.values() for p, cached in s.outs.items() if not cached]
    return Subject(
        root,
        clone,
        commit,
        stages,
        lock,
        wanted,
        checks.closure(stages, wanted),
        not run,
        local_cache(root),
        {p: (clone / p).read_text(errors="replace") for p in files if (clone / p).is_file()},
    )


def at_rest(it: Subject, quick: bool) -> list[Finding]:
    """What can be found without running anything; `quick` without data too."""
    stages, scope, clone = it.stages, it.scope, it.clone
    lock = {name: entry for name, entry in it.lock.items() if name in stages}
    head = it.commit == git("rev-parse", "HEAD", at=it.root)  # else the working tree is no matter
    found = checks.uncommitted(it.root) if head else []
    found += checks.marks(stages[s] for s in scope)
    found += checks.listed(it.lock, stages, scope)
    found += checks.up_to_date(lock, stages, scope, clone, it.cache.members)
    found += checks.figures(lock, stages, scope, clone)
    if not quick:
        found += checks.workspace(lock, scope, it.root) if head else []
        found += checks.caches(it.root, it.cache, lock, stages, scope)
    return found


def again(
    it: Subject,
    env: Path,
    have: dict[str, str],
    jobs: int,
    wandb: bool,
    made: dict[str, Any],
) -> tuple[list[Finding], dict[str, Verdict], Judged]:
    """Make the stages anew with the environment `env`, which has the packages `have`: what was
    found, each stage's verdict, its figures judged. `made` are the runs' manifests.
    """
    pins = checks.pinned((it.clone / PACKAGE_LOCK).read_text())
    findings = checks.packages(have, pins, str(env))
    if findings:
        return findings, {}, Judged()
    with tempfile.TemporaryDirectory(prefix="facet-trace-") as temporary:
        notes = Path(temporary).resolve() / "notes"
        record = it.root if wandb else None
        failed = run_again(it.clone, env, it.wanted, it.whole, jobs, notes, record)
        if failed:
            findings.append(Finding("rerun", "the pipeline", "; ".join(failed)))
        findings += seen(it.clone, notes, it.stages, it.lock, it.scope)
    found = verdicts(it.lock, checks.entries(it.clone), it.scope)
    measure(found, it.clone, it.cache, it.committed)
    runs = [n.partition("@")[2] for n in found if n.startswith("train@")]
    here = read_processors(it.clone, runs)
    # Made here or there without the promise of equal bytes; without a manifest, there is a promise.
    elsewhere = {run for run, told in here.items() if not told.get("same_bytes")} | {
        run
        for run, m in made.items()
        if not (isinstance(m.get("processor"), dict) and m["processor"].get("same_bytes"))
    }
    judged = judge_figures(found, elsewhere, it.clone, it.committed)
    judged.processor = next(iter(here.values()), judged.processor)
    mark_consistent(found, it.stages, elsewhere, judged)
    return findings, found, judged


def local_cache(root: Path) -> Cache:
    """The cache that the project in `root` uses."""
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        return Cache(Path(repo.cache.local.path))


if __name__ == "__main__":
    command(main)
