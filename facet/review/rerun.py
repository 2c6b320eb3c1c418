"""Make a commit's result again: a clean clone, an environment from its lock, the pipeline."""

import contextlib
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from packaging.utils import canonicalize_name

from facet.base.config import suggest
from facet.errors import InputError
from facet.formats import Finding
from facet.git import run_git
from facet.grid.worker import extract_error
from facet.launch import die_with
from facet.review import checks, trace
from facet.review.checks import PACKAGE_LOCK, Lock, Stage
from facet.tracking.provenance import describe_machine

ENVIRONMENTS = Path(".review")


def find_targets(wanted: str, stages: dict[str, Stage]) -> list[str]:
    """The stages meant by RUN=: runs, experiments or stages, with commas; all if empty."""
    if not wanted:
        return list(stages)
    found: list[str] = []
    for name in wanted.replace(",", " ").split():
        of = re.compile(rf"{re.escape(name)}|evaluate@{re.escape(name)}(-\d+)?")
        meant = [s for s in stages if of.fullmatch(s)]
        if not meant:
            runs = [s.partition("@")[2] for s in stages if s.startswith("evaluate@")]
            known = [*stages, *runs, *dict.fromkeys(run.rpartition("-")[0] for run in runs)]
            raise InputError(f"RUN={name}: no run, experiment or stage{suggest(name, known)}")
        found += meant
    return found


@contextlib.contextmanager
def make_clone(root: Path, commit: str, into: str) -> Iterator[Path]:
    """A clean clone of `root` at `commit`, with an empty DVC cache of its own."""
    kept = Path(into).resolve() if into else None
    if kept and kept.exists():
        raise InputError(f"{kept}: is there already; name a folder to be made")
    with tempfile.TemporaryDirectory(prefix="facet-review-") as temporary:
        clone = kept or Path(temporary).resolve() / "facet"
        run_git("clone", "--quiet", "--no-hardlinks", "--no-checkout", str(root), str(clone))
        run_git("checkout", "--quiet", "--detach", commit, at=clone)
        # Whatever .dvc/config or the user's own settings say of a shared cache.
        (clone / ".dvc/config.local").write_text("[cache]\n    dir = cache\n")
        yield clone


def make_environment(root: Path, clone: Path) -> Path:
    """An environment made from the commit's own lock files and this Python, once for each."""
    locks = [clone / PACKAGE_LOCK, clone / "requirements-uv.lock"]
    for file in locks:
        if not file.exists():
            raise InputError(f"{file.name}: not in the commit; it cannot tell its packages")
    name = hashlib.sha256(b"".join(f.read_bytes() for f in locks)).hexdigest()[:16]
    folder = root / ENVIRONMENTS / f"env-{platform.python_version()}-{name}"
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
            raise InputError(
                f"{PACKAGE_LOCK}: no environment from it: {done.stderr.strip()[-400:]}"
            )
    complete.touch()
    return folder


def installed_packages(folder: Path) -> dict[str, str]:
    """The version of each package in the environment `folder`, by its plain name, and python's."""
    code = (
        "import json, platform; from importlib import metadata;"
        "found = [[d.name, d.version] for d in metadata.distributions()];"
        "print(json.dumps([['python', platform.python_version()], *found]))"
    )
    python = folder / "bin/python"
    if not python.exists():
        raise InputError(f"{folder}: no environment; ENV= takes a folder with bin/python")
    done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True)
    return {canonicalize_name(name): version for name, version in json.loads(done.stdout)}


def run_pipeline(
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
    environment = {
        "PATH": f"{env / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(site),
        "PYTHONUNBUFFERED": "1",
        "FACET_TRACE": str(notes),
        "DVC_SITE_CACHE_DIR": str(notes.parent / "dvc"),
        **({"WANDB_DIR": str(wandb)} if wandb else {"WANDB_MODE": "disabled"}),
    }
    runs = [w.removeprefix("evaluate@") for w in wanted if w.startswith("evaluate@")]
    jobs = jobs or int(describe_machine()["cores"])
    if jobs > 1 and (whole or (len(runs) > 1 and len(runs) == len(wanted))):
        run = "" if whole else ",".join(runs)
        # Commits from before there was the package facet have the grid under another name.
        module = ["facet", "repro"] if (clone / "facet/cli.py").exists() else ["tools.grid"]
        words = [str(env / "bin/python"), "-m", *module, "--run", run, "--jobs", str(jobs)]
    else:
        words = [str(env / "bin/dvc"), "repro", "--keep-going", *([] if whole else wanted)]
    process = subprocess.Popen(
        words,
        cwd=clone,
        env=ours | environment,
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
    return [line.strip() for line in extract_error("".join(lines)).splitlines()]


def find_undeclared_reads(
    clone: Path, notes: Path, stages: dict[str, Stage], lock: Lock, scope: list[str]
) -> list[Finding]:
    """What the stages read that dvc.yaml does not say, the same of several stages once."""
    found: dict[Finding, list[str]] = {}
    for name in scope:
        file = notes / name.replace("/", "%")
        if file.exists():
            for f in checks.find_undeclared(
                stages[name], file.read_text(), lock.get(name, {}), clone
            ):
                found.setdefault(replace(f, where=""), []).append(name)
    return [replace(f, where=checks.list_some(names)) for f, names in found.items()]
