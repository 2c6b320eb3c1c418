"""A review finds what keeps a result from coming out of its commit, and names it."""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from facet.base.storage import md5
from facet.errors import InputError
from facet.formats import Judgement, Review, StageVerdict
from facet.packages import read_pins
from facet.review import checks
from facet.review.verdict import JudgedRuns, judge_stages, mark_consistent
from facet.tracking.provenance import describe_processor
from tests.helpers import ROOT, Project, words_of
from tests.test_formats import check

MODEL, FIGURES = "data/runs/a-0", "metrics/runs/a-0.json"
# A project of the same shape as this one, its stages a few lines each.
TOY = {
    "requirements.lock": f"numpy=={metadata.version('numpy')} \\\n    --hash=sha256:0\n",
    "params.yaml": json.dumps({"scale": 3, "seeds": [0], "experiments": {"a": 1, "b": 2}}),
    ".gitignore": "/data/\n/metrics/runs/\n/metrics/manifests\n/review.*\n__pycache__/\n",
    ".dvc/.gitignore": "/tmp\n/cache\n/config.local\n",
    ".dvc/config": "[core]\n    analytics = false\n",
    "dvc.yaml": """
stages:
  prepare:
    cmd: python -m steps.prepare
    deps: [requirements.lock, steps/common.py, steps/prepare.py]
    params: [scale]
    outs: [data/prepared.json]
  train:
    matrix:
      experiment: ${experiments}
      seed: ${seeds}
    cmd: python -m steps.train ${item.experiment}-${item.seed}
    deps: [data/prepared.json, requirements.lock, steps/common.py, steps/train.py]
    outs:
      - data/runs/${item.experiment}-${item.seed}
  evaluate:
    matrix:
      experiment: ${experiments}
      seed: ${seeds}
    cmd: python -m steps.evaluate ${item.experiment}-${item.seed}
    deps:
      - data/runs/${item.experiment}-${item.seed}
      - steps/common.py
      - steps/evaluate.py
    metrics:
      - metrics/runs/${item.experiment}-${item.seed}.json
  compare:
    cmd: python -m steps.compare
    deps: [metrics/runs, steps/common.py, steps/compare.py]
    params: [seeds]
    outs:
      - metrics/runs.csv:
          cache: false
""",
    "steps/__init__.py": '"""Nothing but words."""\n',
    "steps/common.py": """
import json, sys
from pathlib import Path
def ask(key):
    sys.audit("facet.ask", key)
    return json.loads(Path("params.yaml").read_text())[key]
def read(path):
    return json.loads(Path(path).read_text())
def write(path, value):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(value) + chr(10))
""",
    "steps/prepare.py": """
from steps.common import *
noise = 0
write("data/prepared.json", [ask("scale") * i + noise for i in range(8)])
""",
    "steps/train.py": """
from steps.common import *
run = sys.argv[1]
write(f"data/runs/{run}/model.json", sum(read("data/prepared.json")) / 200)
write(f"data/runs/{run}/history.json", list(range(9)))
""",
    "steps/evaluate.py": """
from steps.common import *
run = sys.argv[1]
model = read(f"data/runs/{run}/model.json")
heads = {"pose": {"accuracy": model, "balanced_accuracy": model, "chance": 0.5,
                  "balanced_chance": 0.5, "verdict": "above chance"}}
experiment, seed = run.split("-")
write(f"metrics/runs/{run}.json", {"experiment": experiment, "seed": int(seed), "n_test": 200,
                                   "heads": heads, "wandb": {"id": f"{run}-1234"}})
""",
    "steps/compare.py": """
import hashlib
from steps.common import *
rows = ["run,experiment,seed,head,accuracy,balanced_accuracy,chance,balanced_chance,n_test,"
        "verdict,wandb_id,md5"]
for path in sorted(Path("metrics/runs").iterdir()):
    m = read(path)
    h = m["heads"]["pose"]
    digest = hashlib.md5(path.read_bytes()).hexdigest()
    rows.append(f"{path.stem},{m['experiment']},{m['seed']},pose,{h['accuracy']},"
                f"{h['balanced_accuracy']},0.5,0.5,200,{h['verdict']},{m['wandb']['id']},{digest}")
assert ask("seeds")
Path("metrics/runs.csv").write_text(chr(10).join(rows) + chr(10))
""",
}


class Toy(Project):
    """A committed result, as in another's clone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def edit(self, file: str, old: str, new: str) -> None:
        text = (self.folder / file).read_text()
        assert old in text
        (self.folder / file).write_text(text.replace(old, new, 1))

    def made(self, *targets: str) -> None:
        """Bring the result up to date with what was edited, and commit both."""
        self.run("dvc", "repro", *targets)
        self.commit("change")

    def outputs(self) -> dict[str, str | None]:
        return checks.lock_outputs(checks.read_lock(self.folder))

    def object(self, hash: str | None) -> Path:
        return checks.Cache(self.folder / ".dvc/cache/files/md5").file(str(hash))

    def review(
        self, *words: str, fails: bool = True, jobs: int = 1, **env: str
    ) -> tuple[dict[str, Any], str]:
        """review.json, and all that was said; an environment is never built."""
        words = ("-m", "facet", "review", "--jobs", str(jobs), "--env", sys.prefix, *words)
        done = self.run(sys.executable, *words, check=False, **{"PYTHONPATH": str(ROOT)} | env)
        output = done.stdout + done.stderr
        assert done.returncode == int(fails), output
        assert "Traceback" not in output
        return json.loads((self.folder / "review.json").read_text()), output


def refusals(review: dict[str, Any], check: str = "") -> list[tuple[str, set[str]]]:
    """Where something is wrong, and the words of what; all of one check, if that is given."""
    found = [f for f in review["findings"] if f["severity"] == "refuse"]
    assert {f["check"] for f in found} <= ({check} if check else {f["check"] for f in found})
    return [(f["where"], words_of(f["what"])) for f in found]


def refused(review: dict[str, Any], check: str, where: str, *words: str) -> None:
    """Assert that this alone is wrong, and that these words are in its message."""
    ((at, words_found),) = refusals(review, check)
    assert at == where
    assert set(words) <= words_found


def last_line(output: str) -> str:
    """The line that ends a review."""
    return output.rstrip().splitlines()[-1]


def came_out(review: dict[str, Any]) -> dict[str, str]:
    return {name: v["verdict"] for name, v in review["stages"].items()}


@pytest.fixture(scope="session")
def _toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    toy = Toy(tmp_path_factory.mktemp("toy") / "project")
    for name, text in TOY.items():
        (toy.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (toy.folder / name).write_text(text)
    toy.run("git", "init", "-q")
    toy.made()
    return toy


@pytest.fixture
def toy(_toy: Toy, tmp_path: Path) -> Toy:
    shutil.copytree(_toy.folder, tmp_path / "a folder")
    return Toy(tmp_path / "a folder")


@pytest.mark.parametrize(
    ("wanted", "stages"), [("evaluate@plain-0", 6), pytest.param("", 10, marks=pytest.mark.slow)]
)
def test_the_projects_own_result_comes_out(made: Project, wanted: str, stages: int) -> None:
    result = Toy(made.folder)
    result.commit("results")
    # One stage by plain DVC, all by the grid.
    review, output = result.review("--run", wanted, fails=False, jobs=1 if wanted else 2)
    check(Review, review)
    assert (review["verdict"], review["findings"]) == ("holds", [])
    assert {"holds", str(stages)} <= words_of(last_line(output))
    assert list(came_out(review).values()) == ["identical"] * stages
    assert all(a == b for v in review["stages"].values() for a, b in v["outs"].values())
    assert result.run("git", "status", "--porcelain").stdout == ""

    # The run's manifest tells of its making, and the W&B run it belongs to.
    run = "plain-0"
    manifest = review["runs"][run]["manifest"]
    assert manifest == json.loads((result.folder / f"metrics/manifests/{run}.json").read_text())
    folder = result.folder / "data/runs" / run
    assert manifest["outputs"][f"data/runs/{run}"] == md5(folder)
    assert manifest["inputs"]["stages/train.py"] == md5(result.folder / "stages/train.py")
    assert manifest["commit"] == result.run("git", "rev-parse", "HEAD~").stdout.strip()
    assert (manifest["processor"], manifest["uncommitted"]) == (describe_processor(), False)
    versions = manifest["versions"]
    assert versions["numpy"] == review["versions"]["numpy"] == metadata.version("numpy")
    id = json.loads((folder / "model.json").read_text())["wandb"]["id"]
    assert review["runs"][run]["wandb_id"] == manifest["wandb_id"] == id
    page = (result.folder / "review.md").read_text()
    assert {review["commit"][:12], "holds"} <= words_of(page.splitlines()[0])
    assert md5(folder) in page
    assert id in page


def test_without_data_and_where_git_knows_no_name(toy: Toy) -> None:
    for name in ("data", "metrics/runs", ".dvc/cache"):
        shutil.rmtree(toy.folder / name)
    nobody = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    review, _ = toy.review("--quick", fails=False, **nobody)
    assert (review["verdict"], review["findings"]) == ("checked", [])
    assert review["reviewer"] == {"name": None, "email": None}
    assert review["runs"]["a-0"] == {"wandb_id": "a-0-1234", "manifest": None}
    # Nothing is stored, so all of it is made again.
    review, _ = toy.review(fails=False, **nobody)
    assert set(came_out(review).values()) == {"identical"}
    assert [f["check"] for f in review["findings"]] == ["cache"]


def test_a_swapped_model(toy: Toy) -> None:
    model = toy.folder / MODEL / "model.json"
    then = model.read_text()
    model.write_text("0.9\n")
    review, _ = toy.review("--run", "a-0")
    refused(review, "workspace", MODEL, "dvc.lock", "train@a-0", MODEL)
    assert review["stages"] == {}  # what is wrong already is reported before anything is run

    # Everywhere: in DVC's cache, in dvc.lock, in the figures made of it.
    toy.run("dvc", "commit", "-f", "train@a-0")
    toy.made()
    assert toy.review("--quick", fails=False)[0]["verdict"] == "checked"
    review, output = toy.review()
    assert refusals(review) == []
    assert review["verdict"] == "does not hold"
    assert {"train@a-0", "3", "6", "heads.pose.accuracy", "0.9", "0.42"} <= words_of(
        last_line(output)
    )
    assert came_out(review) == {
        "prepare": "identical",
        "train@a-0": "departs",
        "train@b-0": "identical",
        "evaluate@a-0": "follows",
        "evaluate@b-0": "identical",
        "compare": "follows",
    }
    changed = review["stages"]["evaluate@a-0"]["metrics"]
    metrics = ("accuracy", "balanced_accuracy")
    assert changed == {f"heads.pose.{m}": [0.9, float(then)] for m in metrics}
    row = ["evaluate@a-0", "heads.pose.accuracy", "0.9", "0.42"]
    assert f"| {' | '.join(row)} |" in (toy.folder / "review.md").read_text()
    # Where the old metrics are in no cache, metrics/runs.csv still has their figures.
    shutil.rmtree(toy.folder / ".dvc/cache")
    assert toy.review("--run", "a-0")[0]["stages"]["evaluate@a-0"]["metrics"] == changed


def test_a_changed_digit_in_a_metrics_file(toy: Toy) -> None:
    toy.edit("metrics/runs.csv", "0.42", "0.43")
    toy.commit("change")
    review, output = toy.review("--quick")
    refused(review, "figures", "metrics/runs.csv", "compare", "dvc.lock")
    assert review["verdict"] == "refused"
    assert re.match(r"review: \w{12}: refused: metrics/runs.csv: ", last_line(output))

    # With a dvc.lock made to fit, the row still names the file that it was read from.
    toy.edit("metrics/runs.csv", str(toy.outputs()[FIGURES]), "0" * 32)
    toy.run("dvc", "commit", "-f", "compare")
    toy.commit("change")
    refused(toy.review("--quick")[0], "figures", "metrics/runs.csv", "a-0's", FIGURES)


def test_a_changed_digit_in_a_runs_metrics(toy: Toy) -> None:
    toy.edit(FIGURES, "0.42", "0.43")
    refused(toy.review()[0], "workspace", FIGURES, "evaluate@a-0")


def test_a_row_too_many_or_too_few_in_the_table(toy: Toy) -> None:
    table = toy.folder / "metrics/runs.csv"
    rows = table.read_text().splitlines()
    for text, words in (
        ("\n".join(rows[:-1]) + "\n", {"b-0"}),
        ("\n".join([*rows, rows[1].replace("a-0", "c-0")]) + "\n", {"c-0"}),
    ):
        table.write_text(text)
        toy.run("dvc", "commit", "-f", "compare")
        toy.commit("change")
        refused(toy.review("--quick")[0], "figures", "metrics/runs.csv", *words)


def test_a_random_seed_left_free_in_one_stage(toy: Toy) -> None:
    toy.edit("steps/prepare.py", "noise = 0", "import random; noise = random.random() / 1000")
    toy.made()
    review, output = toy.review()
    assert {"prepare", "6"} <= words_of(last_line(output))
    made = came_out(review)
    assert made.pop("prepare") == "departs"
    assert set(made.values()) == {"follows"}


# A training with luck of its own, another in a review's clone than here but the same in each test,
# which says whether its processor promises equal bytes.
LUCKY = """
import random
luck = random.Random(f"{run} {Path.cwd().name}")
write(f"data/runs/{run}/model.json", 0.4 + luck.gauss(0, 0.01))
write(f"metrics/manifests/{run}.json", {"processor": {"same_bytes": PROMISE}})
write(f"data/runs/{run}/history"""


def lucky(toy: Toy, promise: bool, seeds: str) -> None:
    """Make all runs by luck, on a processor that promises equal bytes or not."""
    toy.edit("params.yaml", '"seeds": [0]', f'"seeds": {seeds}')
    old = 'write(f"data/runs/{run}/model.json", sum(read("data/prepared.json")) / 200)\n'
    toy.edit("steps/train.py", old, 'read("data/prepared.json")\n')
    luck = LUCKY.replace("PROMISE", str(promise))
    toy.edit("steps/train.py", 'write(f"data/runs/{run}/history', luck)
    toy.made()


def test_where_no_equal_bytes_are_promised_figures_are_judged_by_the_luck_of_training(
    toy: Toy,
) -> None:
    lucky(toy, promise=False, seeds="[0, 1, 2]")
    shutil.rmtree(toy.folder / "metrics/manifests")  # of which the author hands nothing over
    review, output = toy.review(fails=False)
    assert review["verdict"] == "consistent"
    for judgement in review["judgements"]:
        check(Judgement, judgement)
    assert {"1", "14"} <= words_of(last_line(output))
    assert review["processor"] == {"same_bytes": False}
    made = came_out(review)
    assert made.pop("prepare") == "identical"
    assert list(made.values()) == ["consistent"] * 13
    judgements = [j for j in review["judgements"] if j["metric"] == "balanced_accuracy"]
    assert [(j["experiment"], j["verdict"]) for j in judgements] == [
        ("a", "consistent"),
        ("b", "consistent"),
    ]
    assert all(0.01 < j["limit"] < j["smallest"] < 0.4 for j in judgements)
    page = (toy.folder / "review.md").read_text()
    assert f"{judgements[0]['smallest']:.3f} | consistent" in page


@pytest.mark.slow
def test_one_run_too_good_is_beyond_what_luck_explains(toy: Toy) -> None:
    lucky(toy, promise=False, seeds="[0, 1, 2, 3]")
    (toy.folder / "data/runs/b-2/model.json").write_text("0.9\n")
    toy.run("dvc", "commit", "-f", "train@b-2")
    toy.made()
    review, output = toy.review()
    assert review["verdict"] == "does not hold"
    assert {"pose", "b"} <= words_of(last_line(output))
    differing = {j["experiment"] for j in review["judgements"] if j["verdict"] == "differs"}
    assert differing == {"b"}
    assert came_out(review)["evaluate@a-0"] == "consistent"
    assert came_out(review)["evaluate@b-2"] != "consistent"


def test_where_equal_bytes_are_promised_others_are_a_departure(toy: Toy) -> None:
    lucky(toy, promise=True, seeds="[0, 1, 2]")
    review, _ = toy.review("--run", "a")
    assert review["verdict"] == "does not hold"
    assert review["processor"] == {"same_bytes": True}
    assert came_out(review)["train@a-0"] == "departs"
    assert review["judgements"] == []


def test_one_seed_shows_no_luck_of_training(toy: Toy) -> None:
    lucky(toy, promise=False, seeds="[0]")
    review, _ = toy.review()
    assert review["verdict"] == "does not hold"
    assert {j["verdict"] for j in review["judgements"]} == {"not judged"}


def test_an_undeclared_parameter(toy: Toy) -> None:
    toy.edit("steps/train.py", "run =", 'ask("scale")\nrun =')
    toy.edit("steps/evaluate.py", "run =", 'read("params.yaml")\nrun =')
    toy.made()
    review, _ = toy.review()
    assert set(came_out(review).values()) == {"identical"}  # and yet it proves nothing
    assert review["verdict"] == "refused"
    (train, what), (evaluate, around) = refusals(review, "undeclared")
    assert (train, evaluate) == ("train@a-0, train@b-0", "evaluate@a-0, evaluate@b-0")
    assert {"scale", "params"} <= what
    assert {"params.yaml", "facet.base.config.get_params"} <= around


def test_an_undeclared_helper_module(toy: Toy) -> None:
    (toy.folder / "steps/helper.py").write_text("SCALE = 1\n")
    (toy.folder / "notes.txt").write_text("a file\n")
    (toy.folder.parent / "beyond.txt").write_text("another\n")
    more = 'import steps.helper\nopen("notes.txt").read()\nopen("{}").read()\nrun ='
    toy.edit("steps/train.py", "run =", more.format(toy.folder.parent / "beyond.txt"))
    toy.made()
    review, _ = toy.review("--run", "a-0")
    (first, file), (second, module) = refusals(review, "undeclared")
    assert first == second == "train@a-0"
    assert {"notes.txt", "deps"} <= file
    assert {"steps/helper.py", "deps"} <= module
    (flagged,) = (f["what"] for f in review["findings"] if f["severity"] == "flag")
    assert str(toy.folder.parent / "beyond.txt") in words_of(flagged)


def test_an_edited_object_in_the_cache(toy: Toy) -> None:
    hashes = [toy.outputs()["data/prepared.json"], md5(toy.folder / MODEL / "model.json")]
    for file in map(toy.object, hashes):
        file.chmod(0o644)
        file.write_text("[7]\n")
        file.chmod(0o444)
    trusted = toy.run("dvc", "status", "--json").stdout
    assert json.loads(trusted) == {}  # DVC trusts what is read-only
    found = refusals(toy.review("--run", "a-0")[0], "cache")
    assert [where for where, _ in found] == ["data/prepared.json", f"{MODEL}/model.json"]
    for hash, (_, what) in zip(hashes, found, strict=True):
        assert {hash, "dvc", "pull"} <= what


def test_a_newer_numpy(toy: Toy) -> None:
    ours = metadata.version("numpy")
    toy.edit("requirements.lock", ours, "99.1")
    toy.commit("change")
    made = ("prepare", "train@a-0", "train@b-0")
    refused(toy.review("--quick")[0], "lock", "requirements.lock", "dvc.lock", *made)
    # A result made anew, but not with the packages that the commit names.
    toy.made()
    refused(toy.review()[0], "environment", "numpy", ours, sys.prefix, "99.1")


def test_names_and_versions_of_packages_are_compared_as_pip_does() -> None:
    pins = read_pins(
        "# made by hand\nPyYAML_x.y==1.0 \\\n    --hash=sha256:0\n"
        "old==2 ; python_version < '3.12'\nmoto[s3]==5.1  # for tests\n--prefer-binary\n",
        "3.12.1",
    )
    assert pins == {"pyyaml-x-y": "1.0", "moto": "5.1"}
    assert checks.check_packages({"pyyaml-x-y": "1.0.0", "moto": "5.1"}, pins, "env") == []
    found = checks.check_packages({"pyyaml-x-y": "1.0+cpu"}, pins, "env")
    assert [f.what for f in found] == ["1.0+cpu in env, not 1.0", "none in env, not 5.1"]
    with pytest.raises(InputError, match=r"requirements.lock: numpy>=2: pins no version"):
        read_pins("numpy>=2\n", "3.12.1")


def test_a_deleted_object_in_the_remote(toy: Toy) -> None:
    remote = toy.folder.parent / "remote"
    toy.run("dvc", "remote", "add", "-q", "-d", "store", str(remote))
    toy.commit("change")
    toy.run("dvc", "push")
    hash = md5(toy.folder / MODEL / "model.json")
    (remote / "files/md5" / hash[:2] / hash[2:]).unlink()
    file = f"{MODEL}/model.json"
    refused(toy.review("--run", "a-0")[0], "remote", file, hash, "store", "push")
    # Nor does it escape one who has nothing of the result yet.
    shutil.rmtree(toy.folder / ".dvc/cache")
    found = [what for at, what in refusals(toy.review("--run", "a-0")[0]) if at == file]
    assert [w for w in found if {hash, "store", "cache"} <= w]


def test_what_the_lock_does_not_tell_of_the_commit(toy: Toy) -> None:
    toy.edit("params.yaml", '"seeds": [0]', '"seeds": [5]')
    toy.edit("params.yaml", '"scale": 3', '"scale": 4')
    toy.edit("dvc.yaml", "  compare:\n", "  compare:\n    frozen: true\n")
    toy.edit("dvc.yaml", "  prepare:\n", "  prepare:\n    always_changed: true\n")
    toy.edit("dvc.yaml", "python -m steps.prepare", "python -B -m steps.prepare")
    toy.edit("steps/evaluate.py", "run =", "again =")
    review, _ = toy.review("--quick")
    (uncommitted,) = (f for f in review["findings"] if f["check"] == "uncommitted")
    assert uncommitted["severity"] == "refuse"
    assert uncommitted["where"] == "dvc.yaml, params.yaml, steps/evaluate.py"
    toy.commit("change")
    review, _ = toy.review("--quick")
    found = {
        (f["severity"], f["where"]): words_of(f["what"])
        for f in review["findings"]
        if f["where"] != "dvc.lock"
    }
    of_lock = {
        f["severity"]: words_of(f["what"]) for f in review["findings"] if f["where"] == "dvc.lock"
    }
    assert ("refuse", "compare") in found
    assert ("flag", "prepare") in found
    assert {"python", "-B", "steps.prepare"} <= found["refuse", "prepare"]
    assert {"compare"} <= found["refuse", "params.yaml: seeds"]
    assert {"prepare"} <= found["refuse", "params.yaml: scale"]
    stages = [f"{stage}@{e}" for stage in ("train", "evaluate") for e in "ab"]
    assert {f"{stage}-5" for stage in stages} <= of_lock["refuse"]
    assert {f"{stage}-0" for stage in stages} <= of_lock["flag"]
    # What was committed before is as consistent as it was, and can be reviewed as it is.
    assert toy.review("--quick", "--commit", "HEAD~", fails=False)[0]["findings"] == []


def test_what_cannot_be_reviewed_is_refused_in_a_line(toy: Toy) -> None:
    clone = toy.folder.parent / "shallow"
    words = ["git", "clone", "-q", "--depth", "1", toy.folder.as_uri(), str(clone)]
    subprocess.run(words, check=True)
    for folder, options, named in (
        (clone, [], {str(clone), "git", "fetch", "--unshallow"}),
        (toy.folder, ["--quick", "--commit", "nowhere"], {"git"}),
        (toy.folder, ["--quick", "--run", "a-1"], {"RUN=a-1", "a-0"}),
        (toy.folder, ["--env", "/nowhere"], {"/nowhere", "ENV="}),
    ):
        command = (sys.executable, "-m", "facet", "review", *options)
        done = Toy(folder).run(*command, check=False, PYTHONPATH=str(ROOT))
        assert done.returncode == 1
        assert done.stderr.startswith("review: ")
        assert named <= words_of(done.stderr)
        assert len(done.stderr.splitlines()) == 1
    assert Toy(clone).review("--quick", fails=False)[0]["verdict"] == "checked"


def entry(**files: Any) -> dict[str, Any]:
    return {
        kind: [{"path": p, "md5": h} for p, h in files.get(kind, {}).items()]
        for kind in ("deps", "outs")
    }


def test_a_stage_is_consistent_if_all_runs_that_it_leads_to_are() -> None:
    model, figures = {"data/runs/a-0": True}, {"metrics/runs/a-0.json": True}
    stages = {
        "train@a-0": checks.Stage("train@a-0", "", (), (), model),
        "evaluate@a-0": checks.Stage("evaluate@a-0", "", (*model,), (), figures),
    }
    was, now = (
        {
            "train@a-0": entry(outs={"data/runs/a-0": m}),
            "evaluate@a-0": entry(deps={"data/runs/a-0": m}, outs={"metrics/runs/a-0.json": f}),
        }
        for m, f in (("1", "2"), ("3", "4"))
    )

    def judge(consistent: set[str], elsewhere: set[str]) -> list[str]:
        found = judge_stages(was, now, list(stages))
        mark_consistent(found, stages, elsewhere, JudgedRuns(consistent_runs=consistent))
        return [v.verdict for v in found.values()]

    assert judge({"a-0"}, {"a-0"}) == ["consistent"] * 2
    assert judge({"a-0"}, set()) == ["departs", "follows"]
    assert judge(set(), {"a-0"}) == ["departs", "follows"]
    missing = StageVerdict("not made", {"data/runs/a-0": ("1", None)})
    assert judge_stages(was, {}, ["train@a-0"])["train@a-0"] == missing
