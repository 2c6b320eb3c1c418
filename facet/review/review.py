"""Does this result come out of this commit? Make it again and compare.

A clean clone at the commit, an environment from its requirements.lock, no cache; then each output
and metric against dvc.lock. What stands in the way of a proof is found and named first. Writes
review.json and review.md.
"""

import contextlib
import csv
import io
import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from facet.base.names import MANIFESTS, RUN, RUNS_TABLE
from facet.base.storage import write_json
from facet.errors import InputError
from facet.formats import Finding, Manifest, Review, RunReference, StageVerdict
from facet.git import run_git
from facet.packages import read_pins
from facet.report.diff import resolve_commit
from facet.review import checks
from facet.review.checks import PACKAGE_LOCK, Cache, Lock, Stage
from facet.review.page import render_page
from facet.review.rerun import (
    find_targets,
    find_undeclared_reads,
    installed_packages,
    make_clone,
    make_environment,
    run_pipeline,
)
from facet.review.verdict import (
    JudgedRuns,
    conclude,
    fill_metrics,
    judge_metrics,
    judge_stages,
    mark_consistent,
    read_processors,
)
from facet.tracking.provenance import (
    PACKAGES,
    describe_machine,
    git_user,
    utc_now,
)


def read_manifests(root: Path, lock: Lock, scope: list[str]) -> dict[str, Manifest]:
    """The manifest of each run, where there is one here of the very outputs in `lock`."""
    outs, found = checks.lock_outputs(lock), {}
    for name in scope:
        stage, _, run = name.partition("@")
        if stage != "train":
            continue
        with contextlib.suppress(OSError, ValueError, AttributeError, KeyError, TypeError):
            manifest = json.loads((root / MANIFESTS.format(run)).read_text())
            if manifest["outputs"].get(RUN.format(run)) == outs[RUN.format(run)]:
                found[run] = manifest
    return found


def list_runs(
    lock: Lock, scope: list[str], manifests: dict[str, Manifest], committed: dict[str, str]
) -> dict[str, RunReference]:
    """For each run the W&B run it belongs to and its manifest, None where that is not here."""
    table = csv.DictReader(io.StringIO(committed.get(str(RUNS_TABLE), "")))
    ids = {r["run"]: r.get("wandb_id") for r in table}
    runs = [n.partition("@")[2] for n in scope if n.startswith("train@")]
    return {
        run: {
            "wandb_id": m["wandb_id"] if (m := manifests.get(run)) else ids.get(run),
            "manifest": m,
        }
        for run in runs
    }


def review_commit(
    run: str = "",
    commit: str = "HEAD",
    quick: bool = False,
    jobs: int = 0,
    env: str = "",
    wandb: bool = False,
    into: str = "",
) -> None:
    """Prove, or disprove, that a commit's results come out of it; writes review.json, review.md.

    `run` are runs, experiments or stages with commas, all if empty; `quick` runs nothing and needs
    no data; `jobs` processes, as many as cores if 0; `env` an environment to use instead of a new
    one; `wandb` lets W&B record the runs; `into` is a folder for the clone, which then stays.
    Raises InputError where the result does not come out.
    """
    root = Path(run_git("rev-parse", "--show-toplevel")).resolve()
    sha = resolve_commit("COMMIT", commit)
    if not quick and run_git("rev-parse", "--is-shallow-repository") == "true":
        raise InputError(
            f"{root}: a shallow clone does not hold the history that the result came from; "
            "run `git fetch --unshallow`, or `make review QUICK=1`"
        )
    with make_clone(root, sha, into) as clone:
        subject = make_subject(root, clone, sha, run)
        manifests = read_manifests(root, subject.lock, subject.scope)
        findings = static_checks(subject, quick)
        verdicts: dict[str, StageVerdict] = {}
        run_judgements = JudgedRuns()
        versions: dict[str, str] = {}
        if not quick and not any(f.severity == "refuse" for f in findings):
            folder = Path(env).absolute() if env else make_environment(root, clone)
            versions = installed_packages(folder)
            more, verdicts, run_judgements = rerun(
                subject, folder, versions, jobs, wandb, manifests
            )
            findings += more
    verdict, reason = conclude(findings, verdicts, run_judgements, quick)
    review = Review(
        commit=sha,
        verdict=verdict,
        reason=reason,
        reviewer=git_user(),
        when=utc_now(),
        machine=describe_machine(),
        processor=run_judgements.processor,
        versions={k: versions[k] for k in ("python", *PACKAGES) if k in versions},
        scope=run or "all stages",
        ran=bool(verdicts),
        bytes="promised to be the same"
        if run_judgements.processor.get("same_bytes")
        else "not promised to be the same: figures are judged by statistics",
        judgements=run_judgements.judgements,
        findings=findings,
        stages=verdicts,
        runs=list_runs(subject.lock, subject.scope, manifests, subject.committed),
    )
    write_json(root / "review.json", asdict(review))
    (root / "review.md").write_text(render_page(review))
    for f in findings:
        print(f"{f.severity}: {f.where}: {f.what}")
    reason = f"{sha[:12]}: {verdict}: {reason.rstrip('.')}; see review.md"
    if verdict not in ("holds", "consistent", "checked"):
        raise InputError(reason)
    print(reason)


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


def make_subject(root: Path, clone: Path, commit: str, run: str) -> Subject:
    """What RUN= asks to have reviewed."""
    stages, lock = checks.read_stages(clone), checks.read_lock(clone)
    wanted = find_targets(run, stages)
    files = [p for s in stages.values() for p, cached in s.outs.items() if not cached]
    return Subject(
        root,
        clone,
        commit,
        stages,
        lock,
        wanted,
        checks.find_closure(stages, wanted),
        not run,
        local_cache(root),
        {p: (clone / p).read_text(errors="replace") for p in files if (clone / p).is_file()},
    )


def static_checks(subject: Subject, quick: bool) -> list[Finding]:
    """What can be found without running anything; `quick` without data too."""
    stages, scope, clone = subject.stages, subject.scope, subject.clone
    lock = {name: entry for name, entry in subject.lock.items() if name in stages}
    # Of another commit the working tree is no matter.
    head = subject.commit == run_git("rev-parse", "HEAD", at=subject.root)
    found = checks.check_uncommitted(subject.root) if head else []
    found += checks.check_marks(stages[s] for s in scope)
    found += checks.check_listed(subject.lock, stages, scope)
    found += checks.check_up_to_date(lock, stages, scope, clone, subject.cache.members)
    found += checks.check_metrics(lock, stages, scope, clone)
    if not quick:
        found += checks.check_workspace(lock, scope, subject.root) if head else []
        found += checks.check_caches(subject.root, subject.cache, lock, stages, scope)
    return found


def rerun(
    subject: Subject,
    env: Path,
    versions: dict[str, str],
    jobs: int,
    wandb: bool,
    manifests: dict[str, Manifest],
) -> tuple[list[Finding], dict[str, StageVerdict], JudgedRuns]:
    """Make the stages anew with the environment `env`, which has the packages `versions`: what was
    found, each stage's verdict, its figures judged. `manifests` are the runs' manifests.
    """
    pins = read_pins((subject.clone / PACKAGE_LOCK).read_text(), versions["python"])
    findings = checks.check_packages(versions, pins, str(env))
    if findings:
        return findings, {}, JudgedRuns()
    with tempfile.TemporaryDirectory(prefix="facet-trace-") as temporary:
        notes = Path(temporary).resolve() / "notes"
        record = subject.root if wandb else None
        failed = run_pipeline(
            subject.clone, env, subject.wanted, subject.whole, jobs, notes, record
        )
        if failed:
            findings.append(Finding("rerun", "the pipeline", "; ".join(failed)))
        findings += find_undeclared_reads(
            subject.clone, notes, subject.stages, subject.lock, subject.scope
        )
    verdicts = judge_stages(subject.lock, checks.read_lock(subject.clone), subject.scope)
    fill_metrics(verdicts, subject.clone, subject.cache, subject.committed)
    runs = [n.partition("@")[2] for n in verdicts if n.startswith("train@")]
    processors = read_processors(subject.clone, runs)
    # Made here or there without the promise of equal bytes; without a manifest, there is a promise.
    elsewhere = {run for run, p in processors.items() if not p.get("same_bytes")} | {
        run
        for run, m in manifests.items()
        if not (isinstance(m.get("processor"), dict) and m["processor"].get("same_bytes"))
    }
    run_judgements = judge_metrics(verdicts, elsewhere, subject.clone, subject.committed)
    run_judgements.processor = next(iter(processors.values()), run_judgements.processor)
    mark_consistent(verdicts, subject.stages, elsewhere, run_judgements)
    return findings, verdicts, run_judgements


def local_cache(root: Path) -> Cache:
    """The cache that the project in `root` uses."""
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        return Cache(Path(repo.cache.local.path))
