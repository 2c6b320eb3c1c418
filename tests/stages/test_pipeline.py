"""The graph with the real DVC: what runs, what does not, and what each stage is told."""

import json
import re
import shutil
import sys

import pytest
import yaml

from facet.base.config import check_params, read_params
from facet.base.storage import file_sha256
from facet.grid.plan import stage_names
from tests.helpers import REPRO, ROOT, Project, run_program, words_of

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


def test_a_made_grid_runs_nothing_and_git_is_shown_results_alone(made: Project) -> None:
    assert made.ran() == []
    status = made.run("git", "status", "--porcelain").stdout.split("\n")
    assert {line[3:] for line in status if line} == {"dvc.lock", "metrics/"}
    lock = yaml.safe_load((made.folder / "dvc.lock").read_text())["stages"]
    assert sorted(lock) == sorted(ALL)
    # Augmented alike, they are one object in DVC's cache.
    assert lock["augment@plain"]["outs"][0]["md5"] == lock["augment@dropped"]["outs"][0]["md5"]
    assert lock["train@dropped-0"]["params"]["params.yaml"] == {
        "defaults": made.parameters["defaults"],
        "experiments.dropped": made.parameters["experiments"]["dropped"],
    }


def test_a_changed_experiment_runs_again_alone(made: Project) -> None:
    made.parameters["experiments"]["dropped"]["epochs"] = 3
    made.write()
    assert sorted(made.ran()) == ["compare", "evaluate@dropped-0", "train@dropped-0"]


def test_changed_augmentation_runs_again_from_there_and_back_runs_nothing(made: Project) -> None:
    augment = made.parameters["datasets"]["faces"]["augment"]
    augment["experiments"] = {"dropped": {"copies": 1}}
    made.write()
    assert sorted(made.ran()) == [
        "augment@dropped",
        "augment@plain",
        "compare",
        "evaluate@dropped-0",
        "train@dropped-0",
    ]
    del augment["experiments"]
    made.write()
    assert [s for s in made.ran() if s != "compare"] == []  # all from the cache
    augment["rotate"] = 9
    made.write()
    found = made.run("dvc", "status", "--json").stdout
    # Of those that follow DVC says nothing beforehand.
    assert sorted(json.loads(found)) == ["augment@dropped", "augment@plain"]


def test_a_seed_more_or_less_runs_its_runs_alone(made: Project) -> None:
    made.parameters["seeds"] = [0, 5]
    made.write()
    assert sorted(made.ran("evaluate@plain-5")) == ["evaluate@plain-5", "train@plain-5"]
    made.parameters["seeds"] = [0]
    made.write()
    assert made.ran() == ["compare"]
    assert not list(made.folder.glob("*/runs/*-5*"))
    rows = (made.folder / "metrics/runs.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * 2


def test_make_repro_is_the_grid_on_all_cores(made_once: Project, made: Project) -> None:
    # What the workers made lies once on the disk: they have links to DVC's cache.
    trees = (made_once.folder / ".workers").glob("[0-9]*/data/runs/*/*")
    assert {file.stat().st_nlink > 1 for file in trees} == {True}
    page = (made.folder / "metrics/report.html").read_text()
    assert 'id="comparison-dropout"' in page
    assert all(f'id="run-{run}"' in page for run in ("plain-0", "dropped-0"))
    noted = json.loads((made.folder / "metrics/costs/stages.json").read_text())["stages"]
    assert sorted(noted) == sorted(ALL)
    assert all(s["ran"] and s["seconds"] > 0 for s in noted.values())
    costs = json.loads((made.folder / "metrics/costs/plain-0.json").read_text())
    assert costs["train_seconds"] > 0

    # Once more: nothing to do, and the same is said.
    files = [made.folder / name for name in ("dvc.lock", "metrics/report.html")]
    times = [file.stat().st_mtime_ns for file in files]
    output = made.run(*REPRO).stdout
    assert "nothing to do" in output
    pose = json.loads((made.folder / "metrics/runs/plain-0.json").read_text())["heads"]["pose"]
    (row,) = (w for w in map(str.split, output.splitlines()) if w[:2] == ["plain", "pose"])
    assert row[2:5] == ["1", f"{pose['accuracy']:.3f}", f"{pose['chance']:.3f}"]
    assert "metrics/report.html" in words_of(output)
    assert times == [file.stat().st_mtime_ns for file in files]

    # A process of its own for each stage makes the same bytes.
    lock = files[0].read_text()
    made.run("dvc", "repro", "--force", "--single-item", "train@plain-0", cold=True)
    assert files[0].read_text() == lock
    runs = sorted(p.name for p in (made.folder / "metrics/runs").iterdir())
    assert runs == ["dropped-0.json", "plain-0.json"]


def test_of_a_grid_with_a_run_that_fails_the_others_are_made(made: Project) -> None:
    made.parameters["experiments"]["dropped"]["learning_rate"] = 1e30
    made.parameters["experiments"]["plain"]["epochs"] = 3
    made.write()
    done = made.run(*REPRO, check=False)
    assert done.returncode == 1
    assert "learning_rate" in done.stdout  # what the stage said, among what is told of the grid
    assert "evaluate@dropped-0" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    metrics = json.loads((made.folder / "metrics/runs/plain-0.json").read_text())
    assert metrics["epochs"] == 3
    noted = json.loads((made.folder / "metrics/costs/stages.json").read_text())["stages"]
    assert noted["train@plain-0"]["ran"]
    assert not noted["download@faces"]["ran"]
    assert noted["download@faces"]["seconds"] > 0


def test_what_params_yaml_no_longer_names_leaves_the_lock(made: Project) -> None:
    del made.parameters["experiments"]["dropped"], made.parameters["comparisons"]["dropout"]
    made.write()
    own = made.folder / "data/runs/best"
    shutil.copytree(made.folder / "data/runs/dropped-0", own)
    done = made.run(*REPRO)
    assert sorted(p.name for p in (made.folder / "data/runs").iterdir()) == ["best", "plain-0"]
    assert (own / "model.keras").exists()
    assert "data/runs/best" in words_of(done.stdout)
    lock = yaml.safe_load((made.folder / "dvc.lock").read_text())["stages"]
    assert list(lock) == [s for s in ALL if "dropped" not in s]

    done = made.run(*REPRO, "--run", "plan", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("repro: RUN=plan: ")
    assert "plain" in words_of(done.stderr)
    assert done.stderr.count("\n") == 1
    made.parameters["seeds"] = []
    made.write()
    assert made.run(*REPRO, check=False).stderr.startswith("repro: params.yaml: seeds: ")


def test_embedded_data_are_drawn_by_their_stage(project: Project) -> None:
    project.parameters["datasets"]["faces"]["source"] = "embedded:wine"
    project.write()
    project.stage("download faces")
    assert list((project.folder / "data/faces/raw").glob("*.csv"))


def test_clean_removes_what_commands_made_and_nothing_else(made: Project) -> None:
    own = ("data/mine/notes.txt", "exports/mine/model.bin", "pictures/a.png")
    own += ("data/runs/plain-0/notes.txt", "data/.mine.part", "metrics/costs/mine.txt")
    for name in own:
        (made.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (made.folder / name).touch()
    made.run(sys.executable, "-m", "facet", "export", "plain-0", "--to", "onnx")
    done = made.run(sys.executable, "-m", "facet", "clean")
    assert set(own) <= words_of(done.stdout)
    folders = ("data", "metrics/costs", "exports", "pictures")
    left = [p for name in folders for p in (made.folder / name).rglob("*")]
    assert sorted(str(p.relative_to(made.folder)) for p in left if p.is_file()) == sorted(own)
    for name in (".ckpt", ".workers", "metrics/runs", "metrics/manifests", "metrics/report.html"):
        assert not (made.folder / name).exists()
    (made.folder / "data/runs/plain-0/notes.txt").unlink()
    assert made.ran() == []  # DVC's cache has all of it


def test_new_data_need_no_code(new_data_project: Project) -> None:
    """A folder of images and a CSV become data sets by params.yaml alone."""
    for run, heads in {"tiles-0": {"label"}, "leaves-0": {"kind", "shade"}}.items():
        metrics = json.loads((new_data_project.folder / f"metrics/runs/{run}.json").read_text())
        assert set(metrics["heads"]) == heads
        assert metrics["warnings"] == []
        for head in metrics["heads"].values():
            assert head["verdict"] == "above chance"
            assert head["balanced_accuracy"] > 0.8
        assert (new_data_project.folder / f"data/evaluations/{run}/confusion.png").exists()
    rows = (new_data_project.folder / "metrics/runs.csv").read_text()
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


def test_the_grid_runs_without_what_linux_alone_has(made: Project) -> None:
    """As on macOS: no stage server, no word of the processor, its cores and memory; the same bytes.

    (The limits that keep the bytes the same come with this process's environment.)
    """
    site = made.folder.parent / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(NOT_LINUX)
    stored = made.folder / "data/runs/plain-0"
    expected = file_sha256(stored / "model.keras")
    shutil.rmtree(made.folder / ".dvc/cache/runs")
    shutil.rmtree(stored)
    lock = made.folder / "dvc.lock"
    kept = yaml.safe_load(lock.read_text())
    for stage in ("train@plain-0", "evaluate@plain-0"):
        del kept["stages"][stage]
    lock.write_text(yaml.safe_dump(kept))
    # A review's variable lets Python's path through.
    changed = {"PYTHONPATH": str(site), "FACET_TRACE": str(site)}
    done = made.run(*REPRO, "--run", "plain", **changed)
    assert "docs/reproducibility.md" in words_of(done.stdout)
    assert file_sha256(stored / "model.keras") == expected
    manifest = json.loads((made.folder / "metrics/manifests/plain-0.json").read_text())
    assert not manifest["processor"]["same_bytes"]
    costs = json.loads((made.folder / "metrics/costs/plain-0.json").read_text())
    assert 100 << 20 < costs["peak_memory_bytes"] < 10 << 30
    done = made.run(sys.executable, "-m", "facet", "serve", check=False, **changed)
    assert done.returncode == 1
    assert "Linux" in words_of(done.stderr)


def test_dvcs_own_views_work_and_need_no_network(made: Project) -> None:
    made.commit("results")
    # In a clone that has no environment of its own, no data and no remote.
    clone = made.folder.parent / "clone"
    made.run("git", "clone", "-q", ".", str(clone))

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
    chance = json.loads((made.folder / "metrics/runs/plain-0.json").read_text())["heads"]
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


@pytest.mark.slow
def test_dvcs_experiments_train_what_they_set(made: Project) -> None:
    made.commit("results")
    done = made.run("dvc", "exp", "run", "-S", "+experiments.plain.epochs=3")
    assert "train@plain-0" in done.stdout
    metrics = json.loads((made.folder / "metrics/runs/plain-0.json").read_text())
    assert metrics["epochs"] == 3
