"""A saved model answers for new files as it did in training, and bad files spoil no others."""

import json
import shutil
import sys

import numpy as np
import pytest

from facet.storage import load_pickle
from tests.helpers import Project, new_data


@pytest.fixture
def trained_project(prepared: Project) -> Project:
    prepared.run(sys.executable, "-m", "stages.train", "plain-0")
    return prepared


def predict(project: Project, *words: str, status: int = 0) -> tuple[list[str], str]:
    done = project.run(sys.executable, "-m", "facet", "predict", *words, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout.splitlines(), done.stderr


def test_it_answers_as_the_training_did(trained_project: Project) -> None:
    output = load_pickle(trained_project.folder / "data/runs/plain-0/predictions.pkl")
    names = output["names_test"].tolist()
    files = [f"data/faces/raw/images/{n}" for n in names]
    lines, _ = predict(trained_project, "plain-0", *files, "--json")
    answers = [json.loads(line) for line in lines]
    assert len(answers) == 2 * len(files)
    for answer in answers:
        row = files.index(answer["item"])
        given = list(answer["probabilities"].values())
        expected = output[f"{answer['head']}_test"][row]
        np.testing.assert_allclose(given, expected, atol=2e-5)


def test_a_bad_file_is_reported_and_the_rest_answered(trained_project: Project) -> None:
    good = next((trained_project.folder / "data/faces/raw/images").iterdir())
    cut = trained_project.folder / "cut.png"
    cut.write_bytes(good.read_bytes()[:40])
    # A copy of the run's folder is enough, wherever it lies.
    copy = shutil.copytree(
        trained_project.folder / "data/runs/plain-0", trained_project.folder.parent / "a model"
    )
    lines, output = predict(trained_project, str(copy), "absent.png", str(cut), str(good), status=1)
    assert [line.split("\t")[:2] for line in lines] == [[str(good), "eyes"], [str(good), "pose"]]
    assert "absent.png: not found" in output
    assert "cut.png" in output
    assert "2 of 3 files" in output


def test_a_table_is_answered_row_by_row(project: Project) -> None:
    project.parameters |= new_data(project.folder.parent / "new") | {"comparisons": {}}
    project.write()
    project.run("dvc", "repro", "train@leaves-0")
    new = project.folder / "new.csv"
    new.write_text("b,a\n0.5,2\n-0.5,-2\n")
    broken = project.folder / "broken.csv"
    broken.write_text("b,c\n1,2\n")
    lines, output = predict(project, "leaves-0", str(broken), str(new), status=1)
    assert "broken.csv: has no column a" in output
    answers = [line.split("\t")[:3] for line in lines]
    assert [a for a in answers if a[1] == "kind"] == [
        ["new.csv:1", "kind", "big"],
        ["new.csv:2", "kind", "small"],
    ]


def test_an_unknown_run_is_refused_by_name(trained_project: Project) -> None:
    _, output = predict(trained_project, "plane-0", "x.png", status=1)
    assert "data/runs/plane-0/model.json: not found" in output
    assert "did you mean plain-0?" in output


def test_the_network_is_drawn(trained_project: Project) -> None:
    done = trained_project.run(sys.executable, "-m", "facet", "pictures", "plain-0")
    folder = trained_project.folder / "pictures/plain-0"
    assert "pose_logits (Dense)" in (folder / "summary.txt").read_text()
    assert (folder / "layers.png").stat().st_size > 1000
    assert (folder / "graph.png").exists() or "needs Graphviz" in done.stderr
