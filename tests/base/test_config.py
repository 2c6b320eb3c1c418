"""params.yaml is checked whole, and what is wrong is named with the nearest right key."""

import copy
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from facet import setting
from facet.base.config import check_params, merge, parse_run, parse_yaml, read_params, run_names
from facet.errors import InputError
from tests.helpers import ROOT, small_parameters, words_of


def changed(path: str, value: Any) -> dict[str, Any]:
    tree = copy.deepcopy(small_parameters("embedded"))
    *steps, last = path.split(".")
    inside = tree
    for step in steps:
        inside = inside[step]
    inside[last] = value
    return tree


# A change of params.yaml that is wrong, and what the refusal names: the key as it is written there,
# what was given, what to write instead.
WRONG: list[tuple[str, Any, set[str]]] = [
    ("seeds", [], {"seeds"}),
    ("seeds", 3, {"seeds", "3"}),
    ("seeds", [1, 1], {"seeds", "twice"}),
    ("seeds", [-1], {"seeds.0", "-1"}),
    ("seeds", [True], {"seeds.0", "True"}),
    ("sedes", [1], {"sedes", "seeds"}),
    ("experiments.a-b", {"dataset": "faces"}, {"a-b"}),
    ("experiments.plain.epochs", -3, {"experiments.plain.epochs", "-3"}),
    ("experiments.plain.epoch", 3, {"experiments.plain.epoch", "epochs"}),
    ("experiments.plain.dataset", "face", {"experiments.plain.dataset", "face", "faces"}),
    ("experiments.plain.heads", ["eye"], {"experiments.plain.heads", "eye", "eyes"}),
    (
        "experiments.plain.network",
        {"heads": {"eye": []}},
        {"experiments.plain.network.heads", "eye", "eyes"},
    ),
    (
        "experiments.plain.network",
        {"trunk": [{"conv": 3, "dense": 2}]},
        {"experiments.plain.network.trunk.0", "conv", "dense"},
    ),
    (
        "experiments.plain.network",
        {"trunk": [{"conv": 3, "pol": 2}]},
        {"experiments.plain.network.trunk.0.pol", "pool"},
    ),
    ("defaults.epoch", 3, {"defaults.epoch", "epochs"}),
    (
        "defaults.learning_rate",
        float("nan"),
        {"experiments.plain.learning_rate", "nan"},
    ),
    ("datasets.faces.siz", 3, {"datasets.faces.siz", "size"}),
    ("datasets.faces.size", "midle", {"datasets.faces.size", "midle"}),
    ("datasets.faces.size", [0, 3], {"datasets.faces.size.0", "0"}),
    (
        "datasets.faces.split.by",
        "siting",
        {"datasets.faces", "split.by", "siting", "random", "own", "sitting", "person"},
    ),
    ("datasets.faces.split.test", 1.5, {"datasets.faces.split.test", "1.5"}),
    (
        "datasets.faces.split.validation",
        0.8,
        {"datasets.faces.split", "test", "validation", "train"},
    ),
    ("datasets.faces.heads.pose", {"prt": "pose"}, {"datasets.faces.heads.pose.prt", "part"}),
    (
        "datasets.faces.heads.pose",
        {"part": "pos"},
        {"datasets.faces", "heads.pose", "pos", "read.parts"},
    ),
    (
        "datasets.faces.augment.flip.swap",
        {"pos": ["a", "b"]},
        {"datasets.faces", "augment.flip.swap", "pos", "pose"},
    ),
    (
        "datasets.faces.augment.experiments",
        {"plan": {"copies": 1}},
        {"datasets.faces.augment.experiments", "plan", "plain"},
    ),
    (
        "datasets.faces.augment.experiments",
        {"plain": {"copis": 1}},
        {"datasets.faces.augment.experiments.plain.copis", "copies"},
    ),
    (
        "datasets.faces.augment.experiments",
        {"plain": {"flip": {"swap": {"pos": ["a", "b"]}}}},
        {"datasets.faces", "augment.experiments.plain.flip.swap", "pos", "pose"},
    ),
    (
        "experiments.plain.augment",
        {"copies": 1},
        {"experiments.plain", "augment", "datasets.faces.augment.experiments"},
    ),
    (
        "datasets.faces.read.operations",
        [{"filter": "blurr"}],
        {"datasets.faces.read.operations.0.filter", "blurr", "blur"},
    ),
    ("datasets.faces.read.folder", ["kind"], {"datasets.faces.read.folder", "folders"}),
    ("datasets.faces.read.folders", ["pose"], {"datasets.faces.read", "pose", "twice"}),
    ("datasets.faces.read.own", {"feld": "pose"}, {"datasets.faces.read.own.feld", "field"}),
    (
        "datasets.faces.read.own",
        {"field": "pose", "train": ["a"], "test": ["A"]},
        {"datasets.faces.read.own", "a", "two"},
    ),
    ("datasets.faces.read.own", {"field": "p", "train": [0]}, {"datasets.faces.read.own.train.0"}),
    ("datasets.faces.read.index", {"file": "a.csv"}, {"datasets.faces.read.index.column"}),
    (
        "datasets.faces.read.index",
        {"file": "a.csv", "column": "b", "unmatched": "drp"},
        {"datasets.faces.read.index.unmatched", "drp", "drop"},
    ),
    ("datasets.faces.read.arrays", {"x": "a"}, {"datasets.faces.read.arrays", "x", "y"}),
    (
        "datasets.faces.read.arrays",
        {"train": {"x": "a", "z": "b"}, "test": {"x": "a", "y": "b"}},
        {"datasets.faces.read.arrays.train.z", "y"},
    ),
    ("datasets.faces.read.scale", [5, 5], {"datasets.faces.read", "scale"}),
    ("datasets.faces.read.scale", [0, "x"], {"datasets.faces.read.scale.1", "x"}),
    ("datasets.faces.read.missing", "mean", {"datasets.faces.read.missing", "mean", "median"}),
    ("datasets.faces.read.ordinal", {"a": ["x", "x"]}, {"datasets.faces.read", "ordinal.a"}),
    ("datasets.faces.read.ordinal", {"a": "x"}, {"datasets.faces.read.ordinal.a", "x"}),
    ("datasets.faces.read.keep", ["a", "a"], {"datasets.faces.read", "a", "keep"}),
    ("comparisons.dropout.head", "eye", {"comparisons.dropout.head", "eye", "eyes"}),
    ("comparisons.dropout.candidate", "drop", {"comparisons.dropout.candidate", "drop"}),
    ("comparisons.dropout.candidate", "plain", {"comparisons.dropout", "plain"}),
    (
        "comparisons.dropout.metric",
        "acc",
        {"comparisons.dropout.metric", "acc", "accuracy", "balanced_accuracy"},
    ),
    ("experiments", {}, {"experiments"}),
    (
        "experiments.plain",
        {"dataset": "faces", "logistic_regression": {}, "extra_trees": {}},
        {"experiments.plain", "logistic_regression", "extra_trees", "one"},
    ),
    (
        "experiments.plain",
        {"dataset": "faces", "extra_trees": {"trees": 0}},
        {"experiments.plain.extra_trees.trees", "0"},
    ),
]


@pytest.mark.parametrize(("path", "value", "named"), WRONG)
def test_a_wrong_key_is_refused_by_name(path: str, value: Any, named: set[str]) -> None:
    with pytest.raises(InputError, match=r"^params\.yaml: ") as e:
        check_params(changed(path, value))
    assert named <= words_of(e.value), e.value


def test_the_parameters_of_these_tests_are_right_otherwise() -> None:
    check_params(small_parameters("embedded"))


def test_comparing_two_data_sets_is_refused_unless_they_differ_in_their_split_alone() -> None:
    tree = changed("experiments.dropped.dataset", "other")
    tree["datasets"]["other"] = copy.deepcopy(tree["datasets"]["faces"])
    tree["datasets"]["other"]["split"]["by"] = "random"
    check_params(tree)
    tree["datasets"]["other"]["size"] = [9, 9]
    with pytest.raises(InputError) as e:
        check_params(tree)
    assert {"comparisons.dropout", "plain", "dropped"} <= words_of(e.value)


def test_a_missing_key_is_named() -> None:
    tree = changed("seeds", [0])
    del tree["datasets"]["faces"]["heads"]
    with pytest.raises(InputError, match=r"datasets\.faces\.heads: "):
        check_params(tree)


@pytest.mark.parametrize("text", ["a: [", "- 1", "", "a: 1\na: 2", "\x00"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=r"params.yaml"):
        read_params(file)


def test_numbers_are_those_that_dvc_reads() -> None:
    assert parse_yaml("[1e-05, 1E3, 2.5e-3, -1e+4, 7, 0.5]") == [1e-5, 1e3, 2.5e-3, -1e4, 7, 0.5]
    assert parse_yaml("['1e5', a1e5, 1e]") == ["1e5", "a1e5", "1e"]


def test_defaults_are_filled_in_and_lists_replaced_whole() -> None:
    tree = check_params(small_parameters("embedded"))
    assert tree.experiments["plain"].epochs == 2
    assert len(tree.experiments["dropped"].network.trunk) == 3
    assert merge({"a": {"b": 1, "c": 2}}, {"a": {"c": [3]}}) == {"a": {"b": 1, "c": [3]}}


@pytest.mark.parametrize("run", ["faces", "faces-", "faces-x", "-0", "faces-1.5"])
def test_a_run_is_experiment_dash_seed(run: str) -> None:
    with pytest.raises(InputError, match="EXPERIMENT-SEED"):
        parse_run(run)


def test_the_seed_is_what_follows_the_last_dash() -> None:
    assert parse_run("faces_deep-12") == ("faces_deep", 12)


@pytest.mark.parametrize(
    ("names", "experiment"),
    [
        ("", "faces_shallow"),
        ("class", "digits_long"),
        ("class,sitting", "faces_batchnorm"),
        ("class,best", "faces_four"),
    ],
)
def test_the_projects_own_parameters_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: str, experiment: str
) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "settings", tmp_path / "settings")
    monkeypatch.chdir(tmp_path)
    if names:
        setting.apply_setting(names)
        assert "# drawn faces; or the URL" in (tmp_path / "params.yaml").read_text()
    assert f"{experiment}-0" in run_names(check_params(read_params()))


@pytest.mark.parametrize("source", ["file:///me/facet/data/x/raw", "data/x/raw/a.zip"])
def test_a_source_where_dvc_removes_what_is_there_is_refused(source: str) -> None:
    tree = small_parameters(source)
    tree["datasets"] = {"x": tree["datasets"]["faces"]}
    for experiment in tree["experiments"].values():
        experiment["dataset"] = "x"
    with pytest.raises(InputError, match=r"datasets\.x\.source: data/x/raw is where"):
        check_params(tree)
    tree["datasets"]["x"]["source"] = source.replace("data/x/raw", "raw/x")
    check_params(tree)


def test_a_setting_leaves_comments_and_changes_one_of_two_names_of_a_mapping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "params.yaml").read_text()
    text = re.sub(r"  faces_leak\w*:.*\n(    .*\n)*", "", text)  # its data sets may not differ more
    (tmp_path / "params.yaml").write_text(text + "# mine\n")
    (tmp_path / "settings").mkdir()
    (tmp_path / "settings/one.yaml").write_text("defaults: {epochs: 3}\n")
    (tmp_path / "settings/two.yaml").write_text("datasets: {faces: {group: {eyes: [eyes]}}}\n")
    monkeypatch.chdir(tmp_path)
    setting.apply_setting("one")
    changed = (tmp_path / "params.yaml").read_text()
    lines = [line for line in changed.splitlines() if line not in text.splitlines()]
    assert lines == ["  epochs: 3", "# mine"] or [x.split("#")[0].strip() for x in lines] == [
        "epochs: 3",
        "",
    ]
    # `faces` and `faces_by_photo` have one `group`, by a name of YAML's.
    setting.apply_setting("two")
    datasets = read_params()["datasets"]
    assert "eyes" in datasets["faces"]["group"]
    assert "eyes" not in datasets["faces_by_photo"]["group"]
