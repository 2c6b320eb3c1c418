"""Projects, data and processes that several tests make."""

import compileall
import contextlib
import http.server
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import psutil
import pytest
import yaml
from PIL import Image

from facet.base.config import Read
from facet.base.names import SPLITS
from facet.base.prepared import PreparedData, SplitData, StoredData, save_prepared
from facet.datasets import decode
from facet.datasets.items import Images, Items
from facet.launch import SERVER_VARIABLE
from tests.warm import run_warm, server_address

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared/data"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
TIMEOUT = 400  # seconds that a program may take; the little grid of `small_parameters` takes 60
REPRO = (sys.executable, "-m", "facet", "repro")
IDENTITY = ("-c", "user.name=t", "-c", "user.email=t@t")
T = TypeVar("T")
RESULTS_HEADER = (
    "run,experiment,seed,head,accuracy,balanced_accuracy,chance,balanced_chance,ci95_low,"
    "ci95_high,balanced_ci95_low,balanced_ci95_high\n"
)


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; `faults` maps a path to how many times it is answered 503 first."""

    faults: dict[str, int] = {}  # noqa: RUF012
    seen: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.seen.append(self.path)
        if self.faults.get(self.path, 0) > 0:
            self.faults[self.path] -= 1
            self.send_error(503)
        else:
            super().do_GET()

    def log_message(self, *_: Any) -> None:
        pass


def draw_faces(folder: Path, people: int = 4, size: tuple[int, int] = (8, 8)) -> list[str]:
    """Little images named as the faces are, with an index; the mean grey tells the person."""
    (folder / "images").mkdir(parents=True)
    names = []
    for person in range(people):
        for pose in ("left", "right", "straight", "up"):
            for expression in ("happy", "sad"):
                for eyes in ("open", "sunglasses"):
                    name = f"p{person}_{pose}_{expression}_{eyes}.png"
                    rng = np.random.default_rng(len(names))
                    pixels = rng.integers(0, 60, (size[1], size[0])) + 40 * person
                    pixels[:, : size[0] // 2] += 60 * (pose == "left")
                    pixels[:, size[0] // 2 :] += 60 * (pose == "right")
                    Image.fromarray(pixels.clip(0, 255).astype("uint8")).save(
                        folder / "images" / name
                    )
                    names.append(name)
    (folder / "files_list.csv").write_text("\n".join(["files", *names]) + "\n")
    return names


def small_parameters(source: str) -> dict[str, Any]:
    """Parameters of a grid that takes seconds: two dense networks on little faces."""
    return {
        "seeds": [0],
        "datasets": {
            "faces": {
                "source": source,
                "size": [8, 8],
                "read": {"parts": ["userid", "pose", "expression", "eyes"], "mode": "L"},
                "heads": {"pose": {"part": "pose"}, "eyes": {"part": "eyes"}},
                "group": {"sitting": ["userid", "pose", "eyes"], "person": ["userid"]},
                "split": {"by": "sitting", "seed": 0, "test": 0.25, "validation": 0.15},
                "augment": {
                    "copies": 2,
                    "rotate": 5,
                    "flip": {"swap": {"pose": ["left", "right"]}},
                },
            }
        },
        "defaults": {
            "epochs": 2,
            "batch": 16,
            "threads": 1,
            "learning_rate": 0.01,
            "schedule": "constant",
            "class_weights": "none",
            "network": {"trunk": [{"flatten": True}, {"dense": 8}], "heads": {"each": []}},
        },
        "experiments": {
            "plain": {"dataset": "faces"},
            "dropped": {
                "dataset": "faces",
                "network": {"trunk": [{"flatten": True}, {"dense": 8}, {"dropout": 0.2}]},
            },
        },
        "comparisons": {
            "dropout": {
                "baseline": "plain",
                "candidate": "dropped",
                "head": "pose",
                "metric": "accuracy",
            }
        },
    }


def new_data(folder: Path) -> dict[str, Any]:
    """Two data sets nobody thought of: images named label_group_n.png, a CSV of two label columns.

    Returns what params.yaml needs for them: datasets and experiments.
    """
    rng = np.random.default_rng(0)
    (folder / "tiles").mkdir(parents=True)
    for i in range(96):
        label, group = ("plain", "striped", "dotted")[i % 3], i // 3 % 16
        pixels = rng.integers(0, 60, (12, 12, 3))
        pixels[:: {"striped": 2, "dotted": 3}.get(label, 99)] += 150
        Image.fromarray(pixels.astype("uint8")).save(folder / f"tiles/{label}_g{group}_{i}.png")
    rows = rng.normal(size=(80, 2)).round(3)
    kinds = [f"{'big' if a > 0 else 'small'},{'dark' if b > 0 else 'light'}" for a, b in rows]
    lines = [f"{a},{b},{kind}" for (a, b), kind in zip(rows, kinds, strict=True)]
    (folder / "leaves.csv").write_text("\n".join(["a,b,kind,shade", *lines]) + "\n")
    split = {"seed": 0, "test": 0.25, "validation": 0.2}
    return {
        "datasets": {
            "tiles": {
                "source": (folder / "tiles").as_uri(),
                "size": [12, 12],
                "read": {"parts": ["label", "group", "n"], "mode": "RGB"},
                "heads": {"label": {"part": "label"}},
                "group": {"group": ["group"]},
                "split": split | {"by": "group"},
                "augment": {"copies": 2, "rotate": 10},
            },
            "leaves": {
                "source": (folder / "leaves.csv").as_uri(),
                "size": None,
                "read": {},
                "heads": {"kind": {"column": "kind"}, "shade": {"column": "shade"}},
                "group": {},
                "split": split | {"by": "random"},
                "augment": {},
            },
        },
        "experiments": {
            "tiles": {"dataset": "tiles", "epochs": 40},
            "leaves": {"dataset": "leaves", "epochs": 30},
        },
    }


def write_results(folder: Path, epochs: int, deep: float, verdict: str) -> None:
    """Write parameters and results of two experiments with two seeds; `deep` is one's accuracy."""
    (folder / "metrics").mkdir(exist_ok=True)
    extra = "    dropout: 0.2\n" if epochs > 10 else ""
    (folder / "params.yaml").write_text(
        f"defaults: {{epochs: {epochs}, batch: 32}}\n"
        f"experiments:\n  deep:\n    heads: [pose]\n{extra}"
    )
    rows = []
    for experiment, value in (("plain", 0.5), ("deep", deep)):
        for seed in (0, 1):
            v = value + 0.02 * seed
            figures = [v, v, 0.3, 0.25, v - 0.1, v + 0.1, v - 0.2, v + 0.2]
            rows.append([f"{experiment}-{seed}", experiment, seed, "pose", *figures])
    rows.append(["plain-0", "plain", 0, "userid", *[""] * 8])  # not applicable
    text = RESULTS_HEADER + "".join(",".join(map(str, r)) + "\n" for r in rows)
    (folder / "metrics/runs.csv").write_text(text)
    one = {"difference": deep - 0.5, "ci95": [0.01, 0.2], "verdict": verdict}
    same = {"difference": None, "ci95": None, "verdict": "no difference shown"}
    (folder / "metrics/comparisons.json").write_text(json.dumps({"depth": one, "other": same}))


def run_program(
    *words: str, folder: Path = ROOT, cold: bool = False, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run a program in `folder`, this project's modules at hand; it ends within TIMEOUT.

    The project's own and DVC in a fork that has the libraries imported, unless `cold` is asked for.
    """
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | env
    if not cold:
        known = {SERVER_VARIABLE: server_address()} | environment
        if (done := run_warm(words, folder, known, TIMEOUT)) is not None:
            return done
    return subprocess.run(
        words, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT, env=environment
    )


def some_in_test(values: Iterable[str], *chosen: str) -> list[Any]:
    """Parameters of which `make test` has the chosen ones and `make test-all` the rest too."""
    return [v if v in chosen else pytest.param(v, marks=pytest.mark.slow) for v in values]


def words_of(message: object) -> set[str]:
    """The words of a message; keys, file names and numbers are one each.

    Tests of errors look for what is named and not for how it is said.
    """
    return {word.strip(".,;:!?()[]{}'\"`") for word in str(message).split()}


class Project:
    """A git and DVC repository of its own with the working tree's code and small parameters."""

    def __init__(self, folder: Path) -> None:
        """The repository that is in `folder` already."""
        self.folder = folder
        self.parameters: dict[str, Any] = yaml.safe_load((folder / "params.yaml").read_text())

    @classmethod
    def make(cls, folder: Path) -> Self:
        """A new repository in `folder`, with its byte-code compiled."""
        folder.mkdir(parents=True)
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True)
        for name in filter(None, names.stdout.split("\0")):
            if (ROOT / name).is_file() and not name.startswith(("tests/", "metrics/", "dvc.lock")):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)
        for name in ("facet", "stages"):
            compileall.compile_dir(folder / name, quiet=1)
        draw_faces(folder.parent / "source")
        parameters = small_parameters((folder.parent / "source").as_uri())
        (folder / "params.yaml").write_text(yaml.safe_dump(parameters, sort_keys=False))
        project = cls(folder)
        project.run("git", "init", "--quiet")
        project.commit("start")
        return project

    def copy_to(self, folder: Path) -> Self:
        """The same project once more, in `folder`; its files may be changed.

        Without the workers' trees and what git knows of them.
        """
        left_out = {self.folder: [".workers"], self.folder / ".git": ["worktrees"]}
        shutil.copytree(
            self.folder, folder, symlinks=True, ignore=lambda at, _: left_out.get(Path(at), [])
        )
        return type(self)(folder)

    def forget(self) -> Self:
        """As a fresh clone: no data, no cache, no lock."""
        for name in ("data", ".dvc/cache", ".dvc/tmp", ".ckpt", ".workers", "metrics", "wandb"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        (self.folder / "dvc.lock").unlink(missing_ok=True)
        return self

    def write(self) -> None:
        text = yaml.safe_dump(self.parameters, sort_keys=False)
        (self.folder / "params.yaml").write_text(text)

    def run(
        self, *words: str, check: bool = True, cold: bool = False, **env: str
    ) -> subprocess.CompletedProcess[str]:
        done = run_program(*words, folder=self.folder, cold=cold, **{"PYTHONPATH": ""} | env)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def stage(self, *stages: str, **env: str) -> None:
        """Run stages, each named with its item: `train plain-0`."""
        for stage in stages:
            self.run(sys.executable, "-m", "stages", *stage.split(), **env)

    def commit(self, message: str, *words: str) -> None:
        self.run("git", "add", "-A")
        self.run("git", *IDENTITY, "commit", "--quiet", "--message", message, *words)

    def ran(self, *targets: str) -> list[str]:
        """The stages that `dvc repro` executes."""
        lines = self.run("dvc", "repro", *targets).stdout.splitlines()
        return [line.split("'")[1] for line in lines if line.startswith("Running stage '")]


# Words before a program that hold it to one core, where the system has such.
ONE_CORE = (
    ("taskset", "-c", str(min(os.sched_getaffinity(0)))) if hasattr(os, "sched_getaffinity") else ()
)
KEY = "k" * 40


def wandb_environment(url: str = "", mode: str = "") -> dict[str, str]:
    """An environment for W&B: offline, or online with the server at `url`."""
    server = {"WANDB_BASE_URL": url, "WANDB_API_KEY": KEY} if url else {}
    return server | {"WANDB_MODE": mode or ("online" if url else "offline")}


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def processes_of_session(session: int) -> list[str]:
    """The processes of a session that have not ended."""
    found = []
    for other in psutil.process_iter():
        with contextlib.suppress(OSError, psutil.Error):
            if os.getsid(other.pid) == session and other.status() != psutil.STATUS_ZOMBIE:
                found.append(str(other))
    return found


def wait_until(condition: Callable[[], T], what: str, seconds: float = 240) -> T:
    """What `condition` returns once that is true; fails, saying `what`, if it takes too long."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.05)
    return found


def wait_for_pid(folder: Path) -> int:
    """The process id that a stage writes into `folder`/pid."""
    file = folder / "pid"
    return int(wait_until(lambda: file.exists() and file.read_text(), "the stage's start"))


def wait_for_end(*pids: int) -> None:
    """Wait until none of the processes is alive."""
    wait_until(lambda: not any(map(is_alive, pids)), "the end of the processes", 20)


def as_arrays(data: PreparedData[Any]) -> dict[str, Any]:
    """A data set as its folder has it: an array for each file, by its name, and `about`."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "data"
        save_prepared(folder, [data])
        arrays: dict[str, Any] = {p.stem: np.load(p) for p in sorted(folder.glob("*.npy"))}
        return arrays | {"about": json.loads((folder / "about.json").read_text())}


def as_data(arrays: dict[str, Any]) -> StoredData:
    """The data set that a folder with these arrays holds."""
    heads = arrays["about"]["heads"]
    splits = {
        s: SplitData(
            X=arrays[f"X_{s}"],
            y={h: arrays[f"y_{s}_{h}"] for h in heads},
            names=arrays[f"names_{s}"],
            groups=arrays[f"groups_{s}"],
            copies=arrays.get(f"copy_{s}"),
        )
        for s in SPLITS
        if f"X_{s}" in arrays
    }
    return StoredData(arrays["about"], {h: arrays[f"classes_{h}"] for h in heads}, splits)


def decode_folder(folder: Path, **read: Any) -> Items:
    """The items of a raw folder, read so; by default by the parts of their names."""
    how = Read.model_validate(read or {"parts": ["name"]})
    with tempfile.TemporaryDirectory() as place:
        items = decode.decode_items(folder, Path(place) / "pixels.npy", how)
        if items.images:
            items = replace(items, images=Images(items.images.pixels.copy(), items.images.shapes))
        return items


def make_items(images: list[np.ndarray], **known: Any) -> Items:
    """Items of these images, uint8, height x width[ x channels]."""
    shapes = np.array([(*image.shape, 1)[:3] for image in images], "int64").reshape(-1, 3)
    pixels = np.concatenate([np.zeros(0, "uint8"), *(image.ravel() for image in images)])
    given = {"names": np.array([f"n{i:02d}" for i in range(len(images))]), "columns": {}} | known
    return Items(images=Images(pixels, shapes), **given)
