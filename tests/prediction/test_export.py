"""An exported model answers in its own runtime as the run did; another is not kept."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, get_type_hints
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from facet.base.arrays import load_arrays, save_arrays
from facet.errors import InputError
from facet.formats import ExportInfo
from facet.prediction.export import FILES, check_packages
from tests.helpers import Project, some_in_test, words_of

PREDICTIONS = "data/runs/plain-0/predictions.npz"


def export(project: Project, *words: str) -> subprocess.CompletedProcess[str]:
    return project.run(sys.executable, "-m", "facet", "export", *words, check=False)


def ask(to: str, path: Path, X: np.ndarray) -> dict[str, np.ndarray]:
    """What the model in a file says, as somebody without this project would ask it."""
    if to == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path)
        names = [o.name for o in session.get_outputs()]
        return dict(zip(names, session.run(None, {session.get_inputs()[0].name: X}), strict=True))
    if to == "tflite":
        from ai_edge_litert.interpreter import Interpreter

        return Interpreter(str(path)).get_signature_runner()(input=X)
    code = (
        "import sys, numpy, tensorflow\n"
        "model = tensorflow.saved_model.load(sys.argv[1])\n"
        "out = model.serve(numpy.load(sys.argv[2]))\n"
        "numpy.savez(sys.argv[3], **{h: p.numpy() for h, p in out.items()})"
    )
    given, answered = path.parent / "given.npy", path.parent / "answered.npz"
    np.save(given, X)
    subprocess.run([sys.executable, "-c", code, path, given, answered], check=True)
    with np.load(answered) as arrays:
        return dict(arrays)


@pytest.mark.parametrize("to", some_in_test(FILES, "onnx", "tflite"))
def test_it_answers_for_raw_images_prepared_as_the_json_says(made: Project, to: str) -> None:
    done = export(made, "plain-0", "--to", to)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "plain-0" in words_of(done.stdout)
    folder = made.folder / "exports/plain-0" / to
    about: dict[str, Any] = json.loads((folder / "export.json").read_text())
    assert set(about) == set(get_type_hints(ExportInfo))

    expected = load_arrays(made.folder / PREDICTIONS)
    files = [made.folder / "data/faces/raw/images" / n for n in expected["names_test"].tolist()]
    assert about["test_items"] == len(files) > 3
    images = [Image.open(f).convert(about["input"]["mode"]) for f in files]
    resized = [
        np.asarray(i.resize(about["input"]["size"], Image.Resampling.LANCZOS)) for i in images
    ]
    X = (np.stack(resized) / 255).astype("float32").reshape(-1, *about["shape"])
    answers = ask(to, folder / about["file"], X)
    assert set(answers) == set(about["heads"]) == {"pose", "eyes"}
    for head, classes in about["heads"].items():
        assert answers[head].shape == (len(files), len(classes))
        np.testing.assert_allclose(answers[head], expected[f"{head}_test"], atol=1e-4)


def test_one_that_answers_otherwise_is_refused_and_the_earlier_one_stays(made: Project) -> None:
    words = ("plain-0", "--to", "tflite", "--into", "phone")
    assert export(made, *words).returncode == 0
    before = {p.name: p.read_bytes() for p in (made.folder / "phone").iterdir()}
    output = load_arrays(made.folder / PREDICTIONS)
    p = output["pose_test"]
    other_class = p[:, ::-1].copy()
    for answers, named in ((p + np.float32(0.01), "1.0e-02"), (other_class, "pose")):
        save_arrays(made.folder / PREDICTIONS, output | {"pose_test": answers})
        done = export(made, *words)
        assert done.returncode == 1
        assert done.stderr.startswith("export: plain-0 as tflite ")
        assert done.stderr.count("\n") == 1
        assert named in words_of(done.stderr)
        assert {p.name: p.read_bytes() for p in (made.folder / "phone").iterdir()} == before
    assert export(made, *words[:3]).returncode == 1
    assert list((made.folder / "exports/plain-0").iterdir()) == []


def test_it_overwrites_no_folder_of_others_and_needs_the_data_of_the_run(made: Project) -> None:
    taken = made.folder / "taken"
    taken.mkdir()
    (taken / "model.onnx").write_text("somebody's own")
    done = export(made, "plain-0", "--to", "onnx", "--into", "taken")
    assert done.returncode == 1
    assert done.stderr.startswith("export: taken: is there already")
    assert (taken / "model.onnx").read_text() == "somebody's own"

    names = made.folder / "data/augmented/plain/names_test.npy"
    shutil.copyfile(names, made.folder / "kept.npy")
    names.unlink()  # it may be a link into DVC's cache
    np.save(names, np.char.add("x", np.load(made.folder / "kept.npy")))
    done = export(made, "plain-0", "--to", "onnx")
    assert done.stderr.startswith("export: data/augmented/plain: not the data ")
    assert not list(made.folder.glob("exports/plain-0/*"))


def test_a_missing_package_is_named_with_what_to_do() -> None:
    there = importlib.util.find_spec

    def hide(name: str) -> Any:
        return None if name == "onnxruntime" else there(name)

    with (
        mock.patch.object(importlib.util, "find_spec", hide),
        pytest.raises(InputError) as refused,
    ):
        check_packages("onnx")
    assert {"onnx", "onnxruntime", "make", "env"} <= words_of(refused.value)
    check_packages("saved_model")
