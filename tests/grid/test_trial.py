"""Trying a value leaves every file as it is, and gives what the edit gives."""

import json
import os
import subprocess

import pytest

from facet.base.config import check_params
from facet.base.storage import file_sha256, read_csv
from facet.errors import InputError
from facet.grid import trial
from facet.launch import SERVER_VARIABLE
from tests.helpers import (
    REPRO,
    Project,
    processes_of_session,
    small_parameters,
    wait_until,
    words_of,
)
from tests.warm import server_address


def test_a_value_is_set_in_a_copy_and_all_keep_their_order() -> None:
    tree = small_parameters("embedded")
    before = json.dumps(tree)
    words = ["defaults.batch=8", "experiments.plain.epochs=3", "datasets.faces.size=[4, 6]"]
    new = trial.set_values(tree, words)
    assert json.dumps(tree) == before
    assert list(new) == list(tree)
    assert list(new["experiments"]) == list(tree["experiments"])
    assert (new["defaults"]["batch"], new["experiments"]["plain"]["epochs"]) == (8, 3)
    assert new["datasets"]["faces"]["size"] == [4, 6]
    check_params(new)
    assert trial.find_set(tree, new)[0] == "datasets.faces.size: [8, 8] -> [4, 6]"


def test_a_value_that_two_names_share_is_set_under_one() -> None:
    shared = {"each": []}
    tree = {"a": {"heads": shared}, "b": {"heads": shared}}
    assert trial.set_values(tree, ["a.heads.each=[1]"])["b"] == {"heads": {"each": []}}


@pytest.mark.parametrize("word", ["epochs", "=3", "a.b=[", "seeds.first=3"])
def test_what_is_no_value_is_refused_by_name(word: str) -> None:
    with pytest.raises(InputError) as refused:
        trial.set_values({"seeds": [0]}, [word])
    assert word.partition("=")[0] in str(refused.value)


def test_a_trial_leaves_all_files_and_gives_what_the_edit_gives(made: Project) -> None:
    folder = made.folder
    words = [*REPRO, "--run", "plain"]

    def files() -> dict[str, str]:
        listed = [
            *(p for place in ("data", "metrics") for p in (folder / place).rglob("*")),
            *(folder / name for name in ("params.yaml", "dvc.lock")),
        ]
        return {str(p.relative_to(folder)): file_sha256(p) for p in listed if p.is_file()}

    before = files()
    started = subprocess.Popen(
        [*words, "--set", "experiments.plain.epochs=4"],
        cwd=folder,
        env=os.environ | {SERVER_VARIABLE: server_address()},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    output, _ = started.communicate(timeout=600)
    assert started.returncode == 0, output
    wait_until(lambda: processes_of_session(started.pid) == [], "the end of all it started", 20)
    assert files() == before
    lines = [line.split() for line in output.splitlines()]
    assert output.startswith("checking")
    assert ["evaluate@plain-0", "begins"] in lines
    (tried,) = (line for line in lines if line[:2] == ["plain", "pose"])

    def figures() -> tuple[float, float]:
        """The last validation accuracy, and the chance beside it."""
        history = read_csv(folder / "data/runs/plain-0/history.csv")
        heads = json.loads((folder / "metrics/runs/plain-0.json").read_text())["heads"]
        return float(history[-1]["val_pose_accuracy"]), heads["pose"]["chance"]

    old, chance = figures()

    # What it made is in DVC's cache: the same edit trains nothing.
    made.parameters["experiments"]["plain"]["epochs"] = 4
    made.write()
    made.run(*words)
    noted = json.loads((folder / "metrics/costs/stages.json").read_text())["stages"]
    assert not noted["train@plain-0"]["ran"]
    metrics = json.loads((folder / "metrics/runs/plain-0.json").read_text())
    assert metrics["epochs"] == 4
    assert tried[2:] == ["1", *(f"{v:.3f}" for v in (figures()[0], old, chance))]

    done = made.run(*words, "--set", "experiments.plain.epochs=4")
    assert "nothing" in words_of(done.stdout)
    done = made.run(*words, "--set", "experiments.plain.epoch=4", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("repro: params.yaml: experiments.plain.epoch")
