"""Do other processors make the same bytes? `make portable` trains on emulated ones and compares.

QEMU emulates processors of several makers, generations and caches, none with AVX-512. What runs on
each is `facet.portability.steps` (each kind of layer and loss) and then the pipeline's own stages
for every experiment of params.yaml, with one epoch instead of many.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

from facet.base.config import read_params, suggest
from facet.base.names import (
    AUGMENTED,
    EVALUATION,
    METRICS,
    NORMALISED,
    PACKAGES_FILE,
    PARAMS_FILE,
    PICKLED,
    RAW,
    RUN,
)
from facet.base.processor import why_other_bytes
from facet.base.storage import md5
from facet.errors import InputError
from facet.portability.steps import FAULTS
from facet.tracking.provenance import describe_machine

ROOT = Path(__file__).resolve().parents[2]
EMULATOR = ROOT / ".qemu/usr/bin/qemu-x86_64"  # where facet/portability/emulator.sh lays a new one
# An Intel of 2013, an AMD of 2019, an AMD of 2022 and whatever the emulator can do.
PROCESSORS = ("Haswell-noTSX", "EPYC-Rome-v1", "EPYC-Genoa-v1", "max")
DEFAULT = f"{PROCESSORS[0]},{PROCESSORS[2]}"  # of `make portable`: one of each maker
SORT_CHECK = """
import numpy as np
values = np.random.default_rng(0).integers(0, 240, 400)
print((np.diff(values[values.argsort()]) >= 0).all())
"""


def find_emulator() -> str:
    """The path of QEMU's user-mode emulator of x86-64.

    Raises InputError where there is none, or one that computes wrongly: numpy sorts wrongly with
    the AVX2 of QEMU 7.2, which Debian 12 has.
    """
    path = str(EMULATOR) if EMULATOR.exists() else shutil.which("qemu-x86_64")
    if why := why_other_bytes():
        raise InputError(f"{why}: there is nothing to compare with here")
    if path is None:
        raise InputError(
            "qemu-x86_64: not found; facet/portability/emulator.sh lays it into .qemu on Debian"
        )
    words = [path, "-cpu", "max", *interpreter(), "-c", SORT_CHECK]
    done = subprocess.run(words, env=make_environment(), capture_output=True, text=True)
    if done.stdout.strip() != "True":
        raise InputError(
            f"{path}: sorts wrongly, as QEMU 7.2 does; facet/portability/emulator.sh lays a new one"
        )
    return path


def interpreter() -> list[str]:
    """The interpreter itself: an emulator cannot follow a virtual environment's link."""
    return [os.path.realpath(sys.executable)]


def make_environment(**more: str) -> dict[str, str]:
    """The environment of a process that is to find this environment's packages and the project."""
    packages = next(p for p in sys.path if p.endswith("site-packages"))
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "DVC", "WANDB"))}
    return (
        kept
        | {
            "PYTHONPATH": f"{ROOT}{os.pathsep}{packages}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "WANDB_MODE": "disabled",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        | more
    )


def run_on(
    processor: str | None, emulator: str, words: Iterable[str], folder: Path, **more: str
) -> str:
    """What `python` with `words` prints in `folder`, on an emulated processor or, if None, on ours.

    Raises InputError with its last words where it fails.
    """
    before = [emulator, "-cpu", processor] if processor else []
    done = subprocess.run(
        [*before, *interpreter(), *words],
        cwd=folder,
        env=make_environment(**more),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        output = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        raise InputError(f"{processor or 'here'}: python {' '.join(words)}: {output[-1]}")
    return done.stdout


def hash_steps(processor: str | None, emulator: str, *options: str) -> dict[str, str]:
    """What `facet.portability.steps` prints on a processor: a hash for each thing computed."""
    words = ["-m", "facet.portability.steps", *options]
    hashes: dict[str, str] = json.loads(run_on(processor, emulator, words, ROOT).splitlines()[-1])
    return hashes


def find_differences(ours: dict[str, str], theirs: dict[str, str]) -> list[str]:
    """The names under which two sets of hashes differ."""
    return [k for k in {**ours, **theirs} if ours.get(k) != theirs.get(k)]


def prepare_project(folder: Path, wanted: list[str]) -> None:
    """Make `folder` a project of params.yaml: one seed, one epoch, two copies of an image.

    It has the `wanted` experiments and their data sets, or all if none is named.
    """
    tree = read_params(ROOT / PARAMS_FILE)
    if wanted:
        tree["comparisons"] = {}
        tree["experiments"] = {e: tree["experiments"][e] for e in wanted}
        used = {spec["dataset"] for spec in tree["experiments"].values()}
        tree["datasets"] = {d: spec for d, spec in tree["datasets"].items() if d in used}
    tree["seeds"] = tree["seeds"][:1]
    tree["defaults"]["epochs"] = 1
    for spec in tree["experiments"].values():
        spec["epochs"] = 1
    for spec in (*tree["datasets"].values(), *tree["experiments"].values()):
        if "copies" in spec.get("augment", {}):
            spec["augment"]["copies"] = min(spec["augment"]["copies"], 2)
    (folder / PARAMS_FILE).write_text(yaml.safe_dump(tree))
    shutil.copy(ROOT / PACKAGES_FILE, folder)


def run_pipeline(processor: str | None, emulator: str, folder: Path) -> dict[str, str]:
    """The MD5 of each output of the pipeline, run in `folder` without DVC."""
    tree = read_params(folder / PARAMS_FILE)
    seed = tree["seeds"][0]
    steps = [
        (s, d, out.format(d))
        for d in tree["datasets"]
        for s, out in (("download", RAW), ("pickle", PICKLED), ("normalise", NORMALISED))
    ]
    steps += [("augment", e, AUGMENTED.format(e)) for e in tree["experiments"]]
    steps += [
        (s, f"{e}-{seed}", out.format(f"{e}-{seed}"))
        for e in tree["experiments"]
        for s, out in (("train", RUN), ("evaluate", EVALUATION))
    ]
    hashes: dict[str, str] = {}
    for stage, name, output in steps:
        run_on(processor, emulator, ["-m", f"stages.{stage}", name], folder)
        files = [folder / output]
        if stage == "evaluate":
            files.append(folder / METRICS.format(name))
        if stage == "train":
            files = sorted(files[0].iterdir())
        hashes |= {str(f.relative_to(folder)): md5(f) for f in files}
        print(f"{processor or 'this processor'}: {stage} {name}", flush=True)
    return hashes


def compare_processors(processors: str, pipeline: bool, run: str) -> None:
    """Compare the bytes made on this processor with those made on emulated ones.

    `processors` are QEMU's names with commas, DEFAULT if empty; with `pipeline` all stages of the
    experiments `run` are compared too, with commas, of every one if empty. Raises InputError where
    bytes differ, and for an experiment that params.yaml does not have.
    """
    wanted, known = run.replace(",", " ").split(), read_params(ROOT / PARAMS_FILE)["experiments"]
    for unknown in set(wanted) - set(known):
        raise InputError(f"RUN={unknown}: no experiment{suggest(unknown, known)}")
    emulator, names = find_emulator(), (processors or DEFAULT).split(",")
    with (
        tempfile.TemporaryDirectory() as place,
        ThreadPoolExecutor(int(describe_machine()["cores"])) as pool,
    ):
        folders = {name: Path(place) / str(name) for name in (None, *names)}

        def make(name: str | None) -> dict[str, str]:
            hashes = hash_steps(name, emulator, "--faults")
            if pipeline:
                folders[name].mkdir()
                prepare_project(folders[name], wanted)
                hashes |= run_pipeline(name, emulator, folders[name])
            return hashes

        made = dict(zip(folders, pool.map(make, folders), strict=True))
    ours = made.pop(None)
    wrong = []
    for name, theirs in made.items():
        differing = find_differences(ours, theirs)
        print(
            f"{name}: {len(ours) - len(differing)} of {len(ours)} the same; differ: "
            f"{', '.join(differing) or 'none'}"
        )
        wrong += [f"{name}: {k} differs" for k in differing if k not in FAULTS]
        wrong += [f"{name}: {k} was not found" for k in FAULTS if k not in differing]
    if wrong:
        raise InputError(f"{'; '.join(wrong[:4])}; results depend on the processor")
    print(f"the same bytes on {len(names)} emulated processors; both planted faults were found")
