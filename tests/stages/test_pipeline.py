"""The graph with the real DVC: what runs, what does not, and what each stage is told."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys

import yaml

from facet.base.config import check_params, read_params
from facet.base.storage import file_sha256
from facet.grid.plan import stage_names
from tests.helpers import (
    ROOT,
    Project,
    new_data,
    processes_of_session,
    run_program,
    wait_until,
    words_of,
)

ALL = [
    "download@faces",
    "pickle@faces",
    "normalise@faces",
    "augment@plain",
    "augment@dropped",
    "train@plain-0",
    "train@dropped-0",
    "evaluate@plain-0",
    "evaluate@dropped-0",
    "compare",
]


def test_the_stage_list_is_the_grid() -> None:
    project = check_params(read_params(ROOT / "params.yaml"))
    from dvc.repo import Repo

    with Repo(str(ROOT)) as repo:
        assert [s.addressing for s in repo.index.stages] == stage_names(project)


def test_what_changes_runs_again_and_nothing_else(project: Project) -> None:
    parameters = project.parameters
    assert sorted(project.ran()) == sorted(ALL)
    assert project.ran() == []
    status = project.run("git", "status", "--porcelain").stdout.split("\n")
    assert {line[3:] for line in status if line} == {"dvc.lock", "metrics/"}

    parameters["experiments"]["dropped"]["epochs"] = 3
    project.write()
    assert sorted(project.ran()) == ["compare", "evaluate@dropped-0", "train@dropped-0"]
    lock = yaml.safe_load((project.folder / "dvc.lock").read_text())["stages"]
    # Augmented alike, they are one object in DVC's cache.
    assert lock["augment@plain"]["outs"][0]["md5"] == lock["augment@dropped"]["outs"][0]["md5"]
    assert lock["train@dropped-0"]["params"]["params.yaml"] == {
        "defaults": parameters["defaults"],
        "experiments.dropped": parameters["experiments"]["dropped"],
    }

    parameters["datasets"]["faces"]["augment"]["experiments"] = {"dropped": {"copies": 1}}
    project.write()
    assert sorted(project.ran()) == [
        "augment@dropped",
        "augment@plain",
        "compare",
        "evaluate@dropped-0",
        "train@dropped-0",
    ]
    del parameters["datasets"]["faces"]["augment"]["experiments"]
    project.write()
    assert [s for s in project.ran() if s != "compare"] == []  # all from the cache

    parameters["seeds"] = [0, 5]
    project.write()
    assert sorted(project.ran()) == [
        "compare",
        "evaluate@dropped-5",
        "evaluate@plain-5",
        "train@dropped-5",
        "train@plain-5",
    ]

    parameters["seeds"] = [0]
    project.write()
    assert project.ran() == ["compare"]
    assert not list(project.folder.glob("*/runs/*-5*"))
    rows = (project.folder / "metrics/runs.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * 2

    parameters["datasets"]["faces"]["augment"]["rotate"] = 9
    project.write()
    again = project.ran()
    assert set(again) == {
        s for s in ALL if s.split("@")[0] not in ("download", "pickle", "normalise")
    }

    parameters["datasets"]["faces"]["augment"]["rotate"] = 5
    project.write()
    assert [s for s in project.ran() if s != "compare"] == []  # all from the cache


def test_make_repro_is_the_grid_on_all_cores(project: Project) -> None:
    words = (sys.executable, "-m", "facet", "repro")
    output = project.run(*words).stdout
    made = json.loads((project.folder / "metrics/runs/plain-0.json").read_text())
    pose = made["heads"]["pose"]
    (row,) = (w for w in map(str.split, output.splitlines()) if w[:2] == ["plain", "pose"])
    assert row[2:5] == ["1", f"{pose['accuracy']:.3f}", f"{pose['chance']:.3f}"]
    assert "metrics/report.html" in words_of(output)
    page = (project.folder / "metrics/report.html").read_text()
    assert 'id="comparison-dropout"' in page
    assert all(f'id="run-{run}"' in page for run in ("plain-0", "dropped-0"))
    noted = json.loads((project.folder / "metrics/costs/stages.json").read_text())["stages"]
    assert sorted(noted) == sorted(ALL)
    assert all(s["ran"] and s["seconds"] > 0 for s in noted.values())
    # What the workers made lies once on the disk: they have links to DVC's cache.
    trees = (project.folder / ".workers").glob("[0-9]*/data/runs/*/*")
    assert {file.stat().st_nlink > 1 for file in trees} == {True}
    lock = (project.folder / "dvc.lock").read_text()
    times = [(project.folder / f).stat().st_mtime_ns for f in ("dvc.lock", "metrics/report.html")]
    project.run(*words)
    assert times == [
        (project.folder / f).stat().st_mtime_ns for f in ("dvc.lock", "metrics/report.html")
    ]
    costs = json.loads((project.folder / "metrics/costs/plain-0.json").read_text())
    assert costs["train_seconds"] > 0

    # A process of its own for each stage makes the same bytes.
    project.run("dvc", "repro", "--force", "--single-item", "train@plain-0", "evaluate@plain-0")
    assert (project.folder / "dvc.lock").read_text() == lock
    runs = sorted(p.name for p in (project.folder / "metrics/runs").iterdir())
    assert runs == ["dropped-0.json", "plain-0.json"]

    # One run fails: the others are made, and the status says so.
    project.parameters["experiments"]["dropped"]["learning_rate"] = 1e30
    project.parameters["experiments"]["plain"]["epochs"] = 3
    project.write()
    done = project.run(*words, check=False)
    assert done.returncode == 1
    assert "learning_rate" in done.stdout  # what the stage said, among what is told of the grid
    assert "evaluate@dropped-0" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    metrics = json.loads((project.folder / "metrics/runs/plain-0.json").read_text())
    assert metrics["epochs"] == 3
    noted = json.loads((project.folder / "metrics/costs/stages.json").read_text())["stages"]
    assert noted["train@plain-0"]["ran"]
    assert not noted["download@faces"]["ran"]
    assert noted["download@faces"]["seconds"] > 0

    # What params.yaml no longer names leaves dvc.lock; what it names stays in the graph's order.
    del project.parameters["experiments"]["dropped"], project.parameters["comparisons"]["dropout"]
    project.write()
    project.run(*words)
    lock = yaml.safe_load((project.folder / "dvc.lock").read_text())["stages"]
    assert list(lock) == [s for s in ALL if "dropped" not in s]

    done = project.run(*words, "--run", "plan", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("repro: RUN=plan: ")
    assert "plain" in words_of(done.stderr)
    assert done.stderr.count("\n") == 1
    project.parameters["seeds"] = []
    project.write()
    assert project.run(*words, check=False).stderr.startswith("repro: params.yaml: seeds: ")


def test_ctrl_c_ends_the_grid_and_all_it_started(project: Project) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "facet", "repro"],
        cwd=project.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # Where the tests themselves were started to ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout
    lines = iter(process.stdout.readline, "")  # to the end, should none of them come
    assert any(line.startswith("[1/") for line in lines)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in output

    wait_until(
        lambda: processes_of_session(process.pid) == [], "the end of all that was started", 20
    )


def test_new_data_need_no_code(project: Project) -> None:
    """A folder of images and a CSV become data sets by params.yaml alone."""
    new = new_data(project.folder.parent / "new")
    project.parameters["datasets"] |= new["datasets"]
    project.parameters["experiments"] |= new["experiments"]
    project.write()
    project.ran()
    for run, heads in {"tiles-0": {"label"}, "leaves-0": {"kind", "shade"}}.items():
        metrics = json.loads((project.folder / f"metrics/runs/{run}.json").read_text())
        assert set(metrics["heads"]) == heads
        assert metrics["warnings"] == []
        for head in metrics["heads"].values():
            assert head["verdict"] == "above chance"
            assert head["balanced_accuracy"] > 0.8
        assert (project.folder / f"data/evaluations/{run}/confusion.png").exists()
    rows = (project.folder / "metrics/runs.csv").read_text()
    assert "leaves-0,leaves,leaves,0,shade" in rows


def test_bad_input_through_dvc_leaves_what_is_stored(project: Project) -> None:
    project.ran("normalise")
    stored = project.folder / "data/faces/normalised/names_train.npy"
    before = stored.read_bytes()
    victim = sorted((project.folder.parent / "source/images").iterdir())[0]
    victim.rename(victim.with_name("three_part_name.png"))
    index = project.folder.parent / "source/files_list.csv"
    index.write_text(index.read_text().replace(victim.name, "three_part_name.png"))
    done = project.run("dvc", "repro", "-f", "normalise", check=False)
    assert done.returncode != 0
    (message,) = (
        line for line in done.stderr.splitlines() if line.startswith("normalise: faces: ")
    )
    assert {"three_part_name.png", "read.parts"} <= words_of(message)
    assert "Traceback" not in done.stderr
    project.run("dvc", "checkout", "normalise@faces")
    assert stored.read_bytes() == before


# What takes away the calls that Linux alone has, and hides /proc and /sys from the project's code.
NOT_LINUX = """
import ctypes, os, socket, sys

del os.pidfd_open, os.sched_getaffinity, socket.SO_PEERCRED, socket.SOCK_SEQPACKET

class Library(ctypes.CDLL):
    def __getattr__(self, name):
        if name == "prctl":
            raise AttributeError(name)
        return super().__getattr__(name)

ctypes.CDLL = Library

def hide(event, words):
    if event in ("open", "os.listdir") and str(words[0]).startswith(("/proc/", "/sys/")):
        frame = sys._getframe(1)
        while "pathlib" in frame.f_code.co_filename:
            frame = frame.f_back
        if "/facet/" in frame.f_code.co_filename.removeprefix(sys.prefix):
            raise FileNotFoundError(2, "hidden", words[0])

sys.addaudithook(hide)
"""


def test_the_grid_runs_without_what_linux_alone_has(project: Project) -> None:
    """As on macOS: no stage server, no word of the processor, its cores and memory; the same bytes.

    (The limits that keep the bytes the same come with this process's environment.)
    """
    site = project.folder.parent / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(NOT_LINUX)
    words = [sys.executable, "-m", "facet", "repro", "--run", "plain"]
    done = project.run(*words, PYTHONPATH=str(site))
    assert "docs/reproducibility.md" in words_of(done.stdout)
    manifest = json.loads((project.folder / "metrics/manifests/plain-0.json").read_text())
    assert not manifest["processor"]["same_bytes"]
    costs = json.loads((project.folder / "metrics/costs/plain-0.json").read_text())
    assert 100 << 20 < costs["peak_memory_bytes"] < 10 << 30
    stored = project.folder / "data/runs/plain-0"
    without = file_sha256(stored / "model.keras")
    shutil.rmtree(stored)
    (project.folder / "dvc.lock").unlink()
    shutil.rmtree(project.folder / ".dvc/cache")
    project.run(*words)
    assert file_sha256(stored / "model.keras") == without
    done = project.run(sys.executable, "-m", "facet", "serve", check=False, PYTHONPATH=str(site))
    assert done.returncode == 1
    assert "Linux" in words_of(done.stderr)


def test_dvcs_own_views_work_and_need_no_network(project: Project) -> None:
    project.ran()
    for words in ("add -A", "-c user.name=t -c user.email=t@t commit -qm results"):
        project.run("git", *words.split())
    # In a clone that has no environment of its own, no data and no remote.
    clone = project.folder.parent / "clone"
    project.run("git", "clone", "-q", ".", str(clone))

    def dvc(*words: str) -> str:
        done = run_program("dvc", *words, folder=clone)
        assert done.returncode == 0, done.stderr
        return done.stdout

    dvc("plots", "show")
    page = (clone / "dvc_plots/index.html").read_text()
    assert "faces: pose" in page
    assert not re.findall(r'<(?:script|link)[^>]+(?:src|href)="', page)
    shown = json.loads(dvc("metrics", "show", "--json"))
    (values,) = (v["data"] for v in shown[""]["data"].values())
    chance = json.loads((project.folder / "metrics/runs/plain-0.json").read_text())["heads"]
    assert values["plain-0"]["pose"]["chance"] == chance["pose"]["balanced_chance"]
    assert set(values) == {"plain-0", "dropped-0"}
    for words in (["--all", "--no-path", "HEAD"], ["--no-path", "HEAD~1"]):
        lines = dvc("metrics", "diff", *words).splitlines()
        assert {line.split()[0] for line in lines[1:]} >= {
            f"{run}.pose.{key}"
            for run in ("plain-0", "dropped-0")
            for key in ("balanced_accuracy", "chance")
        }
        assert max(map(len, lines)) <= 120
    assert "train" in dvc("dag", "--collapse-foreach-matrix")
    assert '"train" -> "evaluate"' in dvc("dag", "--collapse-foreach-matrix", "--dot")
    done = project.run("dvc", "exp", "run", "-S", "+experiments.plain.epochs=3")
    assert "train@plain-0" in done.stdout
    made = json.loads((project.folder / "metrics/runs/plain-0.json").read_text())
    assert made["epochs"] == 3
