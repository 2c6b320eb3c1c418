"""Who made a run, when, where and from what: metrics/manifests/RUN.json.

Neither in git nor an output of DVC, since it differs each time while the run does not.
"""

import contextlib
import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from stages.common import MANIFESTS, RUN, digest, dump
from stages.parameters import parse_run

# What computes or stores; requirements.lock, whose hash is among the inputs, names all.
PACKAGES = ("dvc", "keras", "numpy", "pandas", "pillow", "scipy", "scikit-learn", "tensorflow",
            "wandb")  # fmt: skip


def md5(path: Path) -> str:
    """The MD5 by which dvc.lock knows a file, or a folder (ends in .dir)."""
    if not path.is_dir():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest()
    files = sorted(p for p in path.rglob("*") if p.is_file() and p.parent.name != "__pycache__")
    return listing({p.relative_to(path).as_posix(): md5(p) for p in files})


def listing(members: dict[str, str]) -> str:
    """The MD5 of a folder that holds `members`, a file's MD5 by its path."""
    told = [{"md5": members[name], "relpath": name} for name in sorted(members)]
    return hashlib.md5(json.dumps(told, sort_keys=True).encode()).hexdigest() + ".dir"


def git(*words: str) -> str:
    """What git says; empty outside a repository."""
    return subprocess.run(["git", *words], capture_output=True, text=True).stdout.strip()


def provenance(run: str, dataset: str, id: str, data: Path) -> dict[str, Any]:
    """What a run is and comes from: commit, and the hashes of its inputs."""
    experiment, seed = parse_run(run)
    return {
        "run": run,
        "experiment": experiment,
        "dataset": dataset,
        "seed": seed,
        "identity": id,
        "commit": git("rev-parse", "HEAD"),
        # Of the inputs: what DVC itself writes while the grid runs is no change to its commit.
        "uncommitted": bool(git("status", "--porcelain", "--", ".", ":!dvc.lock", ":!metrics")),
        "data_sha256": digest(data),
        "lock_sha256": digest("requirements.lock"),
    }


def who() -> dict[str, str | None]:
    """Name and e-mail as git knows them; None where git was told neither."""
    return {k: git("config", f"user.{k}") or None for k in ("name", "email")}


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def processor() -> str:
    """The processor's type, on which the bytes of a training depend."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or "unknown")


def machine() -> dict[str, Any]:
    """The machine this process runs on; `cores` are those it may use."""
    usable = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))(0)
    return {"host": platform.node(), "system": platform.platform(), "cores": len(usable)}


def versions() -> dict[str, str]:
    """Python's version and those of the PACKAGES that are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def write(run: str, origin: dict[str, Any], inputs: Iterable[Path], wandb_id: str) -> None:
    """Say of a run just made who, when, where and from what; `origin` is train's provenance."""
    folder = Path(RUN.format(run))
    outputs = [*sorted(folder.iterdir()), folder]
    dump(
        MANIFESTS.format(run),
        origin
        | {
            "who": who(),
            "when": now(),
            "machine": machine(),
            "versions": versions(),
            "inputs": {os.path.relpath(p): md5(p) for p in inputs},
            "outputs": {str(p): md5(p) for p in outputs},
            "wandb_id": wandb_id,
        },
    )
