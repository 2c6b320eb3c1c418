"""A saved model answers for new files as it did in training, and bad files spoil no others."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facet.base.arrays import load_arrays
from facet.base.prepared import InputInfo
from facet.base.storage import read_csv
from facet.errors import InputError
from facet.prediction.predict import prepare_image, prepare_rows
from tests.helpers import Project, run_program, words_of


def predict(project: Project, *words: str, status: int = 0) -> tuple[list[str], str]:
    done = project.run(sys.executable, "-m", "facet", "predict", *words, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout.splitlines(), done.stderr


def check_answers(project: Project, run: str, lines: list[str], items: dict[str, str]) -> None:
    """Assert that the lines are what the run's training answered; `items` maps theirs to ours."""
    output = load_arrays(project.folder / f"data/runs/{run}/predictions.npz")
    heads = json.loads((project.folder / f"data/runs/{run}/model.json").read_text())["heads"]
    rows = {name: row for row, name in enumerate(output["names_test"].tolist())}
    answers = [json.loads(line) for line in lines]
    seen = [(items[a["item"]], a["head"]) for a in answers if a["item"] in items]
    assert sorted(seen) == sorted((name, head) for name in rows for head in heads)
    for answer in answers:
        if answer["item"] in items:
            given = answer["probabilities"]
            p = output[f"{answer['head']}_test"][rows[items[answer["item"]]]]
            expected = {c: float(v) for c, v in zip(heads[answer["head"]], p, strict=True)}
            assert given == pytest.approx(expected, abs=2e-5)


def test_it_answers_as_the_training_did(made: Project) -> None:
    output = load_arrays(made.folder / "data/runs/plain-0/predictions.npz")
    files = {f"data/faces/raw/images/{n}": n for n in output["names_test"].tolist()}
    lines, _ = predict(made, "plain-0", *files, "--json")
    check_answers(made, "plain-0", lines, files)

    # In words: the likeliest class, and its probability.
    lines, _ = predict(made, "plain-0", *files)
    classes = json.loads((made.folder / "data/runs/plain-0/model.json").read_text())
    for line in lines:
        item, head, answer, probability, *_ = line.split("\t")
        p = output[f"{head}_test"][output["names_test"].tolist().index(files[item])]
        assert answer == classes["heads"][head][int(p.argmax())]
        assert float(probability) == pytest.approx(p.max(), abs=1e-3)


def test_a_bad_file_is_reported_and_the_rest_answered(made: Project) -> None:
    good = next((made.folder / "data/faces/raw/images").iterdir())
    cut = made.folder / "cut.png"
    cut.write_bytes(good.read_bytes()[:40])
    # A copy of the run's folder is enough, wherever it lies.
    copy = shutil.copytree(made.folder / "data/runs/plain-0", made.folder.parent / "a model")
    lines, output = predict(made, str(copy), "absent.png", str(cut), str(good), status=1)
    assert [line.split("\t")[:2] for line in lines] == [[str(good), "eyes"], [str(good), "pose"]]
    absent, broken, last = output.splitlines()
    assert absent.startswith("predict: absent.png: ")
    assert broken.startswith(f"predict: {cut}: ")
    assert {"2", "3"} <= words_of(last)


def test_a_table_is_answered_row_by_row(new_data_project: Project, tmp_path: Path) -> None:
    project = new_data_project.copy_to(tmp_path / "project")
    # Another order of the columns, and those of the labels left out.
    rows = read_csv(new_data_project.folder.parent / "new/leaves.csv")
    new = project.folder / "new.csv"
    new.write_text("\n".join(["b,a", *(f"{r['b']},{r['a']}" for r in rows)]) + "\n")
    broken = project.folder / "broken.csv"
    broken.write_text("b,c\n1,2\n")
    lines, output = predict(project, "leaves-0", str(broken), str(new), "--json", status=1)
    assert {str(broken), "a", "b"} <= words_of(output.splitlines()[0])
    assert len(lines) == 2 * len(rows)
    names = load_arrays(project.folder / "data/runs/leaves-0/predictions.npz")["names_test"]
    items = {f"new.csv:{n.partition(':')[2]}": n for n in names.tolist()}
    check_answers(project, "leaves-0", lines, items)


def test_folders_and_patterns_are_files_too(made: Project) -> None:
    images = made.folder / "data/faces/raw/images"
    photos = made.folder.parent / "photos"
    (photos / "more").mkdir(parents=True)
    first, second = sorted(images.iterdir())[:2]
    shutil.copy(first, photos)
    shutil.copy(second, photos / "more")
    (photos / "notes.txt").write_text("none of ours")
    of_folder, _ = predict(made, "plain-0", str(photos))
    named = [str(photos / "more" / second.name), str(photos / first.name)]
    assert [line.split("\t")[0] for line in of_folder] == [n for n in named for _ in range(2)]
    of_pattern, _ = predict(made, "plain-0", f"{photos}/*.png")
    assert of_pattern == of_folder[2:]
    (photos / "more" / second.name).unlink()
    _, output = predict(made, "plain-0", str(photos / "more"), status=1)
    assert {str(photos / "more"), "png"} <= words_of(output)


@pytest.mark.slow
@pytest.mark.parametrize("good", [True, False])
def test_standard_input_is_a_file_too(made: Project, good: bool) -> None:
    image = next((made.folder / "data/faces/raw/images").iterdir())
    content = image.read_bytes() if good else b"no image"
    words = [sys.executable, "-m", "facet", "predict", "plain-0", "-"]
    done = subprocess.run(words, cwd=made.folder, input=content, capture_output=True, check=False)
    assert done.returncode == (not good)
    of_file, _ = predict(made, "plain-0", str(image))
    lines = done.stdout.decode().splitlines()
    assert [line.split("\t")[1:] for line in lines] == [
        line.split("\t")[1:] for line in of_file if good
    ]
    assert good or done.stderr.decode().startswith("predict: stdin: ")


def test_a_run_is_found_from_any_folder(made: Project) -> None:
    image = next((made.folder / "data/faces/raw/images").iterdir())
    words = (sys.executable, "-m", "facet", "predict", "plain-0", str(image))
    done = run_program(*words, folder=made.folder.parent, PYTHONPATH=str(made.folder))
    assert len(done.stdout.splitlines()) == 2, done.stderr


def test_images_are_brought_to_8_bits_as_in_training_or_refused(tmp_path: Path) -> None:
    deep = np.array([[0, 2048], [4095, 9999]], "uint16")
    Image.fromarray(deep).save(tmp_path / "a.png")
    how: InputInfo = {"size": [2, 2], "mode": "L", "alpha": "refuse", "operations": []}
    with pytest.raises(InputError) as e:
        prepare_image(tmp_path / "a.png", how)
    assert {str(tmp_path / "a.png"), "16-bit", "9999", "8", "model"} <= words_of(e.value)
    x = prepare_image(tmp_path / "a.png", how | {"scale": [0, 4095]})
    np.testing.assert_allclose(x[0, ..., 0] * 255, [[0, 128], [255, 255]], atol=1e-4)


def test_rows_are_prepared_as_in_training_or_refused(tmp_path: Path) -> None:
    how: InputInfo = {
        "columns": ["size", "stage", "town"],
        "one_hot": {"town": ["1", "2"]},
        "ordinal": {"stage": ["low", "high"]},
        "mean": [0.0, 0.0, 0.0, 0.0],
        "spread": [2.0, 1.0, 1.0, 1.0],
    }
    table = tmp_path / "t.csv"
    table.write_text("town,stage,size\n2,high,0.50\n1,low,3\n")
    names, X = prepare_rows(table, how)
    assert names == ["t.csv:1", "t.csv:2"]
    assert X.tolist() == [[0.25, 1, 0, 1], [1.5, 0, 1, 0]]
    table.write_text("town,stage,size\n,,\n")
    filled = prepare_rows(table, how | {"fill": [4.0, 1.0, 0.0, 1.0]})[1]
    assert filled.tolist() == [[2, 1, 0, 1]]
    for row, named in (
        ("2,high,", {"t.csv:1", "size"}),
        ("3,high,1", {"t.csv:1", "town", "3", "1", "2"}),
        ("2,middle,1", {"stage", "middle", "low", "high"}),
        ("2,high,x", {"size", "x"}),
        ("2,high,inf", {"size", "finite"}),
    ):
        table.write_text(f"town,stage,size\n{row}\n")
        with pytest.raises(InputError, match=f"^{table}: ") as e:
            prepare_rows(table, how)
        assert named <= words_of(e.value), e.value


def test_an_unknown_run_is_refused_by_name(made: Project) -> None:
    _, output = predict(made, "plane-0", "x.png", status=1)
    assert output.startswith("predict: data/runs/plane-0/model.json: ")
    assert "plain-0" in words_of(output)


def test_the_network_is_drawn(made: Project) -> None:
    done = made.run(sys.executable, "-m", "facet", "pictures", "plain-0")
    folder = made.folder / "pictures/plain-0"
    assert "pose_logits (Dense)" in (folder / "summary.txt").read_text()
    with Image.open(folder / "layers.png") as drawn:
        assert len(set(drawn.convert("RGB").getdata())) > 5
    assert (folder / "graph.png").exists() or "Graphviz" in done.stderr
