"""Who made a run, when, where and from what: metrics/manifests/RUN.json.

Neither in git nor an output of DVC, since it differs each time while the run does not.
"""

import contextlib
import os
import platform
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from facet.base.config import parse_run
from facet.base.names import MANIFESTS, PACKAGES_FILE, RUN
from facet.base.processor import AVX512_LIMITS, LIMITS, cpu_fields, machine_cores, same_bytes
from facet.base.storage import file_sha256, folder_sha256, md5, write_json
from facet.formats import Identity, Machine, Manifest, Processor, Provenance
from facet.git import call_git

# What computes or stores; requirements.lock, whose hash is among the inputs, names all.
PACKAGES = (
    "dvc",
    "keras",
    "numpy",
    "pandas",
    "pillow",
    "scipy",
    "scikit-learn",
    "tensorflow",
    "wandb",
)
# What can change a byte, or tell two processors of one name apart.
PROCESSOR_FLAGS = (
    "sse4_2",
    "avx",
    "f16c",
    "fma",
    "avx2",
    "avx_vnni",
    "avx512f",
    "avx512bw",
    "avx512vl",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimdhp",
    "sve",
    "sve2",
    "bf16",
    "i8mm",
)
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


def ask_git(*words: str) -> str:
    """What git says; empty outside a repository."""
    return call_git(*words).stdout.strip()


def make_provenance(run: str, dataset: str, id: str, data: Path) -> Provenance:
    """What a run is and comes from: commit, and the hashes of its inputs."""
    experiment, seed = parse_run(run)
    return {
        "run": run,
        "experiment": experiment,
        "dataset": dataset,
        "seed": seed,
        "identity": id,
        "commit": ask_git("rev-parse", "HEAD"),
        # Of the inputs: what DVC itself writes while the grid runs is no change to its commit.
        "uncommitted": bool(ask_git("status", "--porcelain", "--", ".", ":!dvc.lock", ":!metrics")),
        "data_sha256": folder_sha256(data),
        "lock_sha256": file_sha256(PACKAGES_FILE),
    }


def git_user() -> Identity:
    """Name and e-mail as git knows them; None where git has none."""
    return {
        "name": ask_git("config", "user.name") or None,
        "email": ask_git("config", "user.email") or None,
    }


def utc_now() -> str:
    """The time now, in UTC, as ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def describe_processor(gpus: Sequence[str] = ()) -> Processor:
    """What the bytes of a result may depend on: instructions, caches, C library, limits in force.

    `vendor`, `family`, `model`, `stepping`, `name`, `flags` are the kernel's, "" or [] where it
    tells none; `caches` a core's, like {"L1 Data": "32K"}; `limits` the environment variables in
    force; `gpus` those that TensorFlow uses; `same_bytes` whether results made here have the bytes
    that they have elsewhere.
    """
    fields = cpu_fields()
    flags = f"{fields.get('flags', '')} {fields.get('Features', '')}".split()
    return {
        "architecture": platform.machine(),
        "name": fields.get("model name") or platform.processor() or "unknown",
        "vendor": fields.get("vendor_id") or fields.get("CPU implementer", ""),
        "family": fields.get("cpu family", ""),
        "model": fields.get("model") or fields.get("CPU part", ""),
        "stepping": fields.get("stepping") or fields.get("CPU revision", ""),
        "flags": [f for f in PROCESSOR_FLAGS if f in flags],
        "caches": cache_sizes(),
        "libc": " ".join(platform.libc_ver()).strip(),
        "limits": {k: os.environ[k] for k in LIMITS | AVX512_LIMITS if k in os.environ},
        "gpus": list(gpus),
        "same_bytes": same_bytes() and not gpus,
    }


def name_processor(description: Any) -> str:
    """A description from `describe_processor` in a line; empty where it is none."""
    try:
        widest = [f for f in description["flags"] if f.startswith(("avx", "asimd", "sve"))][-1:]
        numbers = "/".join(description[k] for k in ("family", "model", "stepping")).strip("/")
        words = (
            description["name"],
            description["vendor"],
            numbers,
            description["architecture"],
            *widest,
            description["libc"],
        )
        return ", ".join(w for w in words if w)
    except (KeyError, TypeError):
        return ""


def cache_sizes() -> dict[str, str]:
    """A core's caches, size by level and type, as Linux tells them; empty elsewhere."""
    found = {}
    for folder in sorted(CACHES.glob("index*")):
        with contextlib.suppress(OSError):
            texts = [(folder / f).read_text().strip() for f in ("level", "type", "size")]
            level, kind, size = texts
            found[f"L{level} {kind}"] = size
    return found


def describe_machine() -> Machine:
    """The machine this process runs on; `cores` are those it may use."""
    return {"host": platform.node(), "system": platform.platform(), "cores": machine_cores()}


def package_versions() -> dict[str, str]:
    """Python's version and those of the PACKAGES that are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def write_manifest(run: str, origin: Provenance, inputs: Iterable[Path], wandb_id: str) -> None:
    """Say of a run just made who, when, where and from what; `origin` is train's provenance."""
    folder = Path(RUN.format(run))
    outputs = [*sorted(folder.iterdir()), folder]
    manifest: Manifest = {
        **origin,
        "who": git_user(),
        "when": utc_now(),
        "machine": describe_machine(),
        "versions": package_versions(),
        "inputs": {os.path.relpath(p): md5(p) for p in inputs},
        "outputs": {str(p): md5(p) for p in outputs},
        "wandb_id": wandb_id,
    }
    write_json(MANIFESTS.format(run), manifest)
