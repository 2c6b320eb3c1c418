"""Whatever ends or disturbs a command: the next one gives what an undisturbed one gives.

Commands that are killed are processes of their own, started as a user starts them. KILLS says how
many times `make test-all` kills the grid: `make torture` has 200.
"""

import csv
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from facet.grid.dvc_session import mend_lock
from facet.launch import SERVER_VARIABLE
from tests.helpers import (
    REPRO,
    Project,
    processes_of_session,
    some_in_test,
    wait_for_end,
    wait_until,
)
from tests.warm import server_address

KILLS = int(os.environ.get("KILLS", "30"))


def begin(project: Project, *words: str, cold: bool = False, **env: str) -> subprocess.Popen[str]:
    """Start a command in a session of its own, its output in the file `output`.

    Its stages run warm, unless it is to be `cold`.
    """
    server = {} if cold else {SERVER_VARIABLE: server_address()}
    with (project.folder.parent / "output").open("w") as output:
        return subprocess.Popen(
            words,
            cwd=project.folder,
            env=os.environ | {"PYTHONPATH": "", "WANDB_MODE": "offline"} | server | env,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )


def read_output(project: Project) -> str:
    return (project.folder.parent / "output").read_text()


def read_result(project: Project) -> dict[str, Any]:
    """What the grid's result is: hashes of all outputs, figures, verdicts; no W&B ids."""
    stages = yaml.safe_load((project.folder / "dvc.lock").read_text())["stages"]
    outs = {
        o["path"]: o["md5"]
        for stage in stages.values()
        for o in stage["outs"]
        if not o["path"].endswith("runs.csv")
    }
    rows = list(csv.DictReader((project.folder / "metrics/runs.csv").open()))
    figures = [{k: v for k, v in row.items() if "wandb" not in k} for row in rows]
    verdicts = json.loads((project.folder / "metrics/comparisons.json").read_text())
    return {"outs": outs, "figures": figures, "verdicts": verdicts}


def kill_tree(process: subprocess.Popen[str], how: str) -> None:
    """End a command: itself alone, one of its processes, or all of them as when power fails."""
    try:
        all_of_them = [psutil.Process(process.pid)]
        all_of_them += all_of_them[0].children(recursive=True)
    except psutil.Error:
        return
    chosen = {
        "one": [random.choice(all_of_them)],
        "power": all_of_them,
    }.get(how, all_of_them[:1])
    number = {"int": signal.SIGINT, "term": signal.SIGTERM}.get(how, signal.SIGKILL)
    if how == "int":  # as a terminal does; DVC itself leaves it to the command that runs
        os.killpg(process.pid, number)
        chosen = []
    for one in chosen:
        try:
            one.send_signal(number)
        except psutil.Error:
            continue
    if how == "one":
        time.sleep(1)
        process.kill()
    process.wait(60)
    wait_for_end(*(p.pid for p in all_of_them))


@pytest.mark.parametrize("kills", [3, pytest.param(KILLS, marks=pytest.mark.slow)])
@pytest.mark.timeout(900 + 60 * KILLS)
def test_a_grid_killed_at_any_moment_ends_as_one_that_was_not(
    made_once: Project, tmp_path: Path, kills: int
) -> None:
    """In a folder with letters that ASCII lacks."""
    whole = made_once.copy_to(tmp_path / "größer ☃" / "projekt ü")
    expected = read_result(whole)
    draw = random.Random(kills)
    random.seed(kills)
    ways = ["kill", "one", "power", "int", "term"]
    for number in range(kills):
        if number % 6 == 0:
            whole.forget()
        plain = number % 3 == 2
        words = ("dvc", "repro") if plain else REPRO
        # Few kills are of warm stages, many of what a user starts.
        process = begin(whole, *words, cold=kills > 3)
        time.sleep(draw.uniform(0, 12 if number % 6 == 0 else 6))
        how = ways[number % len(ways)]
        kill_tree(process, how)
        output = read_output(whole)
        print(f"kill {number}, {how}, of `{' '.join(words[-2:])}`", flush=True)
        if not plain:
            for noise in ("Traceback", "KeyboardInterrupt", "leaked"):
                assert noise not in output, (number, how, output)
        if number % 6 == 5 or number == kills - 1:
            whole.run(*REPRO)
            assert read_result(whole) == expected, (number, how)
            left = whole.run("git", "status", "--porcelain", "--", "facet", "stages").stdout
            assert left == ""


def test_a_lock_cut_off_is_mended(made: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = read_result(made)
    lock = made.folder / "dvc.lock"
    content = lock.read_bytes()
    for half in (b"", content[: len(content) // 2] + b"\n  '", b"schema: '2.0'\nstages: [1]\n"):
        lock.write_bytes(half)
        with monkeypatch.context() as patch:
            patch.chdir(made.folder)
            mend_lock()
        assert yaml.safe_load(lock.read_text())["schema"] == "2.0"
    lock.write_bytes(b"")
    (made.folder / ".dvc/tmp/rwlock").write_bytes(b"")
    shutil.rmtree(made.folder / "data/runs")
    done = made.run(*REPRO)
    assert "dvc.lock: was not whole" in done.stdout
    assert read_result(made) == expected


@pytest.mark.parametrize(("how", "status"), [("term", 143), ("int", 130), ("kill", -9)])
def test_a_grid_ends_in_order_and_in_silence(made: Project, how: str, status: int) -> None:
    shutil.rmtree(made.folder / "data/runs")
    made.parameters["experiments"]["plain"] |= {"epochs": 300}
    made.write()
    process = begin(made, *REPRO)
    wait_until(lambda: "plain-0 begins" in read_output(made), "a run's start")
    kill_tree(process, how)
    assert process.returncode == status
    assert read_output(made).splitlines()[-1].endswith(" begins")
    ended = lambda: processes_of_session(process.pid) == []  # noqa: E731
    wait_until(ended, "the end of all that was started", 20)


@pytest.mark.parametrize("kills", [2, pytest.param(KILLS, marks=pytest.mark.slow)])
@pytest.mark.timeout(900 + 60 * KILLS)
def test_a_worktree_killed_in_the_making_is_laid_again(made: Project, kills: int) -> None:
    code = (
        "import sys; from pathlib import Path; from facet.grid.worktree import sync_worktree;"
        "sync_worktree(Path('.workers/0').absolute(), Path.cwd())"
    )
    words = (sys.executable, "-c", code)
    started = time.monotonic()
    made.run(*words, PYTHONPATH=str(made.folder))
    seconds = time.monotonic() - started
    draw = random.Random(0)
    for number in range(kills):
        if number % 4 == 0:
            shutil.rmtree(made.folder / ".workers")
        process = begin(made, *words, PYTHONPATH=str(made.folder))
        time.sleep(draw.uniform(0.3, 1) * seconds)
        kill_tree(process, "power")
        made.run(*words, PYTHONPATH=str(made.folder))
        assert (made.folder / ".workers/0/params.yaml").read_bytes() == (
            made.folder / "params.yaml"
        ).read_bytes()


def test_a_second_grid_is_told_who_runs(made: Project) -> None:
    shutil.rmtree(made.folder / "data")
    process = begin(made, *REPRO)
    try:
        wait_until(lambda: (made.folder / ".workers/running").exists(), "the first one's start")
        wait_until((made.folder / ".workers/running").read_text, "its number")
        done = made.run(*REPRO, check=False)
        assert done.returncode == 1
        assert done.stderr.startswith("repro: another `make repro` runs here (process ")
        assert str(process.pid) in done.stderr
        assert done.stderr.count("\n") == 1
    finally:
        kill_tree(process, "term")


# --- what changes while a stage runs -----------------------------------------------------------


def long_training(project: Project) -> subprocess.Popen[str]:
    """A training by plain DVC that has begun, and takes long enough to be disturbed."""
    project.parameters["experiments"]["dropped"] |= {"epochs": 120}
    project.write()
    process = begin(project, "dvc", "repro", "train@dropped-0")
    wait_until(lambda: list((project.folder / ".ckpt").glob("*/state.npz")), "the first epoch")
    return process


@pytest.mark.parametrize("whose", ["its own", "another's"])
def test_inputs_that_change_while_a_stage_runs_are_named(made: Project, whose: str) -> None:
    process = long_training(made)
    mine = whose == "its own"
    made.parameters["experiments"]["dropped" if mine else "plain"]["batch"] = 7
    made.write()
    path = next((made.folder / f"data/augmented/{'dropped' if mine else 'plain'}").glob("X_t*.npy"))
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:-1] + b"\x07")
    name = "facet/models/network.py" if mine else "facet/report/page.py"
    with (made.folder / name).open("a") as file:
        file.write("# edited\n")
    process.wait(300)
    output = read_output(made)
    lock = yaml.safe_load((made.folder / "dvc.lock").read_text())["stages"]
    stored = str(lock["train@dropped-0"]["params"]).count("120") > 0
    assert stored == (not mine), output
    assert (process.returncode == 0) == (not mine)
    if mine:
        changed = f"data/augmented/dropped, {name}, params.yaml: experiments.dropped"
        assert f"train: {changed}: changed while the stage ran" in output


def test_data_damaged_in_the_cache_or_by_hand_are_found_before_they_are_used(
    made: Project,
) -> None:
    lock = yaml.safe_load((made.folder / "dvc.lock").read_text())["stages"]
    cache = made.folder / ".dvc/cache/files/md5"
    whole = lock["augment@dropped"]["outs"][0]["md5"]
    listed = json.loads((cache / whole[:2] / whole[2:]).read_text())
    md5 = next(m["md5"] for m in listed if m["relpath"] == "X_train.npy")
    held = cache / md5[:2] / md5[2:]
    before = held.stat()
    content = bytearray(held.read_bytes())
    content[-1] ^= 1
    held.chmod(0o644)
    held.write_bytes(content)
    held.chmod(0o444)
    os.utime(held, ns=(before.st_atime_ns, before.st_mtime_ns))
    shutil.rmtree(made.folder / "data")
    made.parameters["seeds"] = [0, 1]
    made.write()
    done = made.run("dvc", "repro", "train@dropped-1", check=False)
    assert done.returncode != 0
    path = "data/augmented/dropped/X_train.npy"
    object_path = f".dvc/cache/files/md5/{md5[:2]}/{md5[2:]}"
    assert f"train: {path}: is not what dvc.lock says" in done.stdout + done.stderr
    assert f"remove data/augmented/dropped and {object_path}" in done.stdout + done.stderr
    # What it says to do brings all back.
    shutil.rmtree(made.folder / "data/augmented/dropped")
    held.unlink()
    made.run("dvc", "repro", "train@dropped-1")
    again = yaml.safe_load((made.folder / "dvc.lock").read_text())["stages"]["augment@dropped"]
    assert again["outs"] == lock["augment@dropped"]["outs"]

    made.run("dvc", "checkout", "augment@plain")
    edited = made.folder / "data/augmented/plain/X_train.npy"
    content = bytearray(edited.read_bytes())
    content[-1] ^= 1
    edited.unlink()
    edited.write_bytes(content)
    words = ("dvc", "repro", "--force", "--single-item", "train@plain-0")
    done = made.run(*words, check=False)
    assert done.returncode != 0
    assert "train: data/augmented/plain/X_train.npy: is not what dvc.lock says" in (
        done.stdout + done.stderr
    )


# --- a machine that has too little ---------------------------------------------------------------


@pytest.mark.parametrize("megabytes", some_in_test([400, 900, 1600], 400))
def test_too_little_memory_is_told(made: Project, megabytes: int) -> None:
    """Whatever native code does where memory ends, the last line says that it is memory."""
    limit = megabytes << 20
    shutil.rmtree(made.folder / "data/runs")
    done = subprocess.run(
        [sys.executable, "-m", "stages", "train", "plain-0"],
        cwd=made.folder,
        env=os.environ | {"PYTHONPATH": "", "WANDB_MODE": "disabled"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "memory" in done.stderr.splitlines()[-1]
    assert done.stderr.splitlines()[-1].startswith("train: ")


def test_a_file_that_cannot_grow_is_named(made: Project) -> None:
    """As on a full disk: a limit on the size of files."""
    shutil.rmtree(made.folder / "data/augmented")
    done = subprocess.run(
        [sys.executable, "-m", "stages", "augment", "plain"],
        cwd=made.folder,
        env=os.environ | {"PYTHONPATH": "", "WANDB_MODE": "disabled"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("augment: ")
    assert done.stderr.count("\n") == 1
    assert not (made.folder / "data/augmented/plain").exists()
