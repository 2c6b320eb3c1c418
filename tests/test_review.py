"""A review finds what keeps a result from coming out of its commit, and names it."""

import copy
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stages.manifest import md5
from tests.conftest import Project
from tools import checks
from tools.review import Verdict, tolerate, verdicts, worst

RUN = "plain-0"
MODEL, FIGURES = f"data/runs/{RUN}", f"metrics/runs/{RUN}.json"


class Made(Project):
    """A project with a made and committed result, as another's clone would be."""

    def commit(self) -> None:
        self.run("git", "add", "-A")
        self.run("git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "change")

    def edit(self, file: str, old: str, new: str) -> None:
        text = (self.folder / file).read_text()
        assert old in text
        (self.folder / file).write_text(text.replace(old, new, 1))

    def lock(self) -> dict[str, Any]:
        return checks.entries(self.folder)

    def object(self, hash: str | None) -> Path:
        return checks.Cache(self.folder / ".dvc/cache/files/md5").file(str(hash))

    def review(self, *words: str, fails: bool = True, **env: str) -> tuple[dict[str, Any], str]:
        """review.json, and all that was said; an environment is never built."""
        words = ("-m", "tools.review", "--jobs", "1", "--env", sys.prefix, *words)
        done = self.run(sys.executable, *words, check=False, **env)
        said = done.stdout + done.stderr
        assert done.returncode == int(fails), said
        assert "Traceback" not in said
        return json.loads((self.folder / "review.json").read_text()), said


def refusals(review: dict[str, Any]) -> list[tuple[str, str]]:
    return [(f["where"], f["what"]) for f in review["findings"] if f["severity"] == "refuse"]


@pytest.fixture(scope="session")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    project = Made(tmp_path_factory.mktemp("made") / "project")
    project.parameters["experiments"].pop("dropped")
    project.parameters["comparisons"] = {}
    project.write()
    project.commit()
    project.ran()
    project.commit()
    return project


@pytest.fixture
def made(_made: Made, tmp_path: Path) -> Made:
    project = copy.copy(_made)
    project.folder = tmp_path / "a folder"
    project.parameters = copy.deepcopy(_made.parameters)
    shutil.copytree(_made.folder, project.folder, symlinks=True)
    return project


def test_a_result_that_comes_out(made: Made) -> None:
    review, said = made.review(fails=False)
    assert review["verdict"] == "holds"
    assert review["findings"] == []
    assert {n: v["verdict"] for n, v in review["stages"].items()} == dict.fromkeys(
        made.lock(), "identical"
    )
    assert all(a == b for v in review["stages"].values() for a, b in v["outs"].values())
    assert made.run("git", "status", "--porcelain").stdout == ""  # nothing tracked was touched

    # The run's manifest tells the same facts of its making, and the W&B run it belongs to.
    manifest = review["runs"][RUN]["manifest"]
    assert manifest == json.loads((made.folder / f"metrics/manifests/{RUN}.json").read_text())
    assert manifest["outputs"][MODEL] == md5(made.folder / MODEL)
    assert manifest["inputs"]["stages/train.py"] == md5(made.folder / "stages/train.py")
    assert manifest["commit"] == made.run("git", "rev-parse", "HEAD~").stdout.strip()
    assert manifest["versions"]["numpy"] == review["versions"]["numpy"]
    figures = json.loads((made.folder / FIGURES).read_text())
    assert review["runs"][RUN]["wandb_id"] == manifest["wandb_id"] == figures["wandb"]["id"]
    page = (made.folder / "review.md").read_text()
    assert page.startswith(f"# Review of {review['commit'][:12]}: holds")
    assert str(checks.outputs(made.lock())[MODEL]) in page
    assert figures["wandb"]["id"] in page
    assert "7 of 7 stages came out identical" in said

    # Without data, and where git knows no name.
    for name in ("data", "metrics/runs", ".dvc/cache", "metrics/manifests"):
        shutil.rmtree(made.folder / name)
    nobody = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    review, _ = made.review("--quick", fails=False, **nobody)
    assert (review["verdict"], review["findings"]) == ("consistent", [])
    assert review["reviewer"] == {"name": None, "email": None}
    assert "git was told no name" in (made.folder / "review.md").read_text()


def test_a_swapped_model(made: Made) -> None:
    # In the working tree alone.
    model = made.folder / MODEL / "model.keras"
    model.write_bytes(model.read_bytes() + b"\0")
    review, _ = made.review("--run", RUN)
    assert [w for w, what in refusals(review) if "is not what dvc.lock says" in what] == [MODEL]
    assert review["stages"] == {}  # first things first: nothing was run

    # Everywhere: in DVC's cache and in dvc.lock, with the figures read from it.
    predictions = made.folder / MODEL / "predictions.pkl"
    code = (
        "from pathlib import Path; from stages.common import load, save; import sys;"
        "c = load(sys.argv[1]); c['pose_test'] = c['pose_test'][::-1]; save(sys.argv[1], c)"
    )
    made.run(sys.executable, "-c", code, str(predictions))
    made.run("dvc", "commit", "-f", f"train@{RUN}")
    assert made.ran() == [f"evaluate@{RUN}", "compare"]
    made.commit()
    assert made.review("--quick", fails=False)[0]["verdict"] == "consistent"
    review, said = made.review("--run", RUN)
    assert refusals(review) == []
    assert review["verdict"] == "does not hold"
    assert f"train@{RUN} departs first; 2 of 6 stages do not come out" in said
    stages = {n: v["verdict"] for n, v in review["stages"].items()}
    assert (stages["augment@plain"], stages[f"train@{RUN}"]) == ("identical", "departs")
    assert stages[f"evaluate@{RUN}"] == "follows"
    then, here = review["stages"][f"evaluate@{RUN}"]["metrics"]["heads.pose.accuracy"]
    assert then != here
    assert then == json.loads((made.folder / FIGURES).read_text())["heads"]["pose"]["accuracy"]
    assert "heads.pose.accuracy" in (made.folder / "review.md").read_text()


def test_a_changed_digit_in_a_metrics_file(made: Made) -> None:
    table = made.folder / "metrics/runs.csv"
    row = next(line for line in table.read_text().splitlines() if line.startswith(RUN))
    figure = re.findall(r"0\.\d+", row)[0]
    made.edit("metrics/runs.csv", figure, figure[:-1] + str((int(figure[-1]) + 1) % 10))
    assert "metrics/runs.csv" in made.review("--quick")[1]
    made.commit()
    review, said = made.review("--quick")
    what = "was changed after compare made it: its MD5 is not the one in dvc.lock"
    assert refusals(review) == [("metrics/runs.csv", what)]
    assert said.splitlines()[-1].startswith("review: ")

    # dvc.lock made to fit: then the row still tells which file it was read from.
    made.run("git", "checkout", "-q", "HEAD~", "metrics/runs.csv")
    made.edit("metrics/runs.csv", str(checks.outputs(made.lock())[FIGURES]), "0" * 32)
    made.run("dvc", "commit", "-f", "compare")
    made.commit()
    assert refusals(made.review("--quick")[0]) == [
        ("metrics/runs.csv", f"{RUN}'s row was read from another {FIGURES} than dvc.lock names")
    ]

    made.run("git", "checkout", "-q", "HEAD~2", ".")
    made.commit()
    made.edit(FIGURES, '"correct": ', '"correct": 1')
    where = [w for w, what in refusals(made.review("--run", RUN)[0])]
    assert where == [FIGURES]


def test_a_random_seed_left_free_in_one_stage(made: Made) -> None:
    free = "between = np.random.default_rng().uniform(-1, 1, u.shape)"
    made.edit("stages/augment.py", "between = 2 * u - 1", free)
    made.ran("augment@plain")
    made.commit()
    review, said = made.review("--run", "augment@plain")
    assert "augment@plain departs first; 1 of 4 stages do not come out" in said
    assert review["stages"]["normalise@faces"]["verdict"] == "identical"


def test_an_undeclared_parameter(made: Made) -> None:
    made.edit("stages/pickle.py", "import", "from stages.parameters import ask, raw\nimport")
    made.edit("stages/pickle.py", "    save(PICKLED", '    ask("seeds")\n    save(PICKLED')
    made.ran("pickle@faces")
    made.commit()
    review, _ = made.review("--run", "pickle@faces")
    assert review["verdict"] == "refused"  # though every output came out
    what = "reads the parameter seeds, which is not among its params"
    assert refusals(review) == [("pickle@faces", what)]

    made.edit("stages/pickle.py", 'ask("seeds")', 'raw()["seeds"]')
    made.ran("pickle@faces")
    made.commit()
    ((where, what),) = refusals(made.review("--run", "pickle@faces")[0])
    assert where == "pickle@faces"
    assert what.startswith("reads params.yaml without stages.parameters.ask")


def test_an_undeclared_helper_module(made: Made) -> None:
    (made.folder / "stages/helper.py").write_text("SCALE = 1\n")
    (made.folder / "notes.txt").write_text("a file\n")
    more = 'import stages.helper\nopen("notes.txt").close()\nimport'
    made.edit("stages/pickle.py", "import", more)
    made.ran("pickle@faces")
    made.commit()
    assert refusals(made.review("--run", "pickle@faces")[0]) == [
        ("pickle@faces", "reads the file notes.txt, which is not among its deps"),
        ("pickle@faces", "reads the module stages/helper.py, which is not among its deps"),
    ]


def test_an_edited_object_in_the_cache(made: Made) -> None:
    hash = checks.outputs(made.lock())["data/augmented/plain.pkl"]
    inner = md5(made.folder / MODEL / "model.keras")
    for file in (made.object(hash), made.object(inner)):
        file.chmod(0o644)
        file.write_bytes(file.read_bytes() + b"\0")
        file.chmod(0o444)
    assert "up to date" in made.run("dvc", "status").stdout  # DVC trusts it
    review, _ = made.review("--run", RUN)
    assert [where for where, _ in refusals(review)] == [
        "data/augmented/plain.pkl",
        f"{MODEL}/model.keras",
    ]
    assert f"its object {hash} in DVC's cache was changed" in refusals(review)[0][1]


def test_a_newer_numpy(made: Made) -> None:
    lock = (made.folder / "requirements.lock").read_text()
    ours = checks.pinned(lock)["numpy"]
    made.edit("requirements.lock", f"numpy=={ours}", "numpy==99.1")
    made.commit()
    review, _ = made.review("--quick")
    ((where, what),) = refusals(review)
    assert where == "requirements.lock"
    assert what.startswith("is not what it was when dvc.lock was made by download@faces")

    # A lock made anew, but by an environment that is not the one it names.
    made.ran("download@faces")
    made.commit()
    review, _ = made.review("--run", "download@faces")
    assert refusals(review) == [("numpy", f"{ours} in {sys.prefix}, not 99.1")]


def test_a_deleted_object_in_the_remote(made: Made) -> None:
    remote = made.folder.parent / "remote"
    made.run("dvc", "remote", "add", "-q", "-d", "store", str(remote))
    made.commit()
    made.run("dvc", "push")
    hash = md5(made.folder / MODEL / "model.keras")
    (remote / "files/md5" / hash[:2] / hash[2:]).unlink()
    where, what = f"{MODEL}/model.keras", f"its object {hash} is not in the remote store"
    assert refusals(made.review("--run", RUN)[0]) == [(where, f"{what}; `dvc push`")]
    made.object(hash).unlink()
    assert refusals(made.review("--run", RUN)[0]) == [(where, f"{what} nor in the cache here")]


def test_what_the_lock_does_not_tell_of_the_commit(made: Made) -> None:
    made.parameters["seeds"] = [5]
    made.parameters["datasets"]["faces"]["augment"]["rotate"] = 9
    made.write()
    made.edit("dvc.yaml", "  compare:\n", "  compare:\n    frozen: true\n")
    made.edit("stages/stats.py", '"""', '"""Edited. ')
    review, _ = made.review("--quick")
    assert refusals(review)[0][0] == "dvc.yaml, params.yaml, stages/stats.py"  # uncommitted
    made.commit()
    review, _ = made.review("--quick")
    found = [f"{where} {what}" for where, what in refusals(review)]
    for words in (
        "compare is frozen",
        "dvc.lock lacks train@plain-5, evaluate@plain-5;",
        "params.yaml: seeds is not what it was when dvc.lock was made by compare",
        "params.yaml: datasets.faces.augment is not what it was when dvc.lock was made by augment",
        "stages/stats.py is not what it was when dvc.lock was made by compare",
    ):
        assert any(f.startswith(words) for f in found), found
    left = "holds train@plain-0, evaluate@plain-0, which dvc.yaml has no longer"
    assert left in [f["what"] for f in review["findings"]]
    # What was committed before is still consistent, and can be reviewed as it is.
    assert made.review("--quick", "--commit", "HEAD~", fails=False)[0]["findings"] == []


def test_a_shallow_clone_is_refused(made: Made) -> None:
    clone = made.folder.parent / "shallow"
    subprocess.run(
        ["git", "clone", "-q", "--depth", "1", made.folder.as_uri(), str(clone)], check=True
    )
    made.folder = clone
    words = (sys.executable, "-m", "tools.review")
    done = made.run(*words, check=False)
    assert done.returncode == 1
    assert "a shallow clone does not hold the history" in done.stderr
    made.run(*words, "--quick")
    done = made.run(*words, "--quick", "--commit", "nowhere", check=False)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    done = made.run(*words, "--quick", "--run", "plan", check=False)
    assert done.stderr.endswith("RUN=plan: no run, experiment or stage; did you mean plain-0?\n")


def entry(**told: Any) -> dict[str, Any]:
    return {
        kind: [{"path": p, "md5": h} for p, h in told.get(kind, {}).items()]
        for kind in ("deps", "outs")
    }


def test_only_another_processor_earns_a_tolerance() -> None:
    stages = {
        "train@a-0": checks.Stage("train@a-0", "", (), (), {"data/runs/a-0": True}),
        "evaluate@a-0": checks.Stage(
            "evaluate@a-0", "", ("data/runs/a-0",), (), {"metrics/runs/a-0.json": True}
        ),
    }
    was = {
        "train@a-0": entry(outs={"data/runs/a-0": "1"}),
        "evaluate@a-0": entry(deps={"data/runs/a-0": "1"}, outs={"metrics/runs/a-0.json": "2"}),
    }
    now = {
        "train@a-0": entry(outs={"data/runs/a-0": "3"}),
        "evaluate@a-0": entry(deps={"data/runs/a-0": "3"}, outs={"metrics/runs/a-0.json": "4"}),
    }

    def judge(difference: float, elsewhere: set[str]) -> list[str]:
        found = verdicts(was, now, list(stages))
        found["evaluate@a-0"].metrics = {"heads.pose.accuracy": (0.5, 0.5 + difference)}
        tolerate(found, stages, elsewhere, 0.02)
        return [v.verdict for v in found.values()]

    assert judge(0.01, {"a-0"}) == ["within tolerance"] * 2
    assert judge(0.01, set()) == ["departs", "follows"]
    assert judge(0.03, {"a-0"}) == ["departs", "follows"]
    assert worst({"heads.pose.accuracy": (0.5, None)}) > 1
    assert verdicts(was, {}, ["train@a-0"])["train@a-0"] == Verdict(
        "not made", {"data/runs/a-0": ("1", None)}
    )
