"""params.yaml is checked whole, and what is wrong is named with the nearest right key."""

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest

from facet import setting
from facet.config import check_params, merge, parse_run, read_params, run_names
from facet.errors import InputError
from tests.helpers import ROOT, small_parameters


def changed(path: str, value: Any) -> dict[str, Any]:
    tree = copy.deepcopy(small_parameters("embedded"))
    *steps, last = path.split(".")
    inside = tree
    for step in steps:
        inside = inside[step]
    inside[last] = value
    return tree


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("seeds", [], "seeds: .*at least 1"),
        ("seeds", 3, "seeds: .*valid list, got 3"),
        ("seeds", [1, 1], "seeds: holds the same seed twice"),
        ("seeds", [-1], "seeds.0: .*greater than or equal to 0, got -1"),
        ("seeds", [True], "seeds.0"),
        ("sedes", [1], "sedes: unknown key; did you mean seeds"),
        ("experiments.a-b", {"dataset": "faces"}, "a-b: a name holds letters, digits and _"),
        ("experiments.plain.epochs", -3, "experiments.plain.epochs: .*greater than 0, got -3"),
        ("experiments.plain.epoch", 3, "experiments.plain.epoch: unknown key; did you mean epochs"),
        ("experiments.plain.dataset", "face", "no data set named face; did you mean faces"),
        ("experiments.plain.heads", ["eye"], "no head named eye; did you mean eyes"),
        (
            "experiments.plain.network",
            {"heads": {"eye": []}},
            "experiments.plain.network.heads: no head named eye; did you mean eyes",
        ),
        (
            "experiments.plain.network",
            {"trunk": [{"conv": 3, "dense": 2}]},
            "network.trunk.0: holds exactly one of",
        ),
        (
            "experiments.plain.network",
            {"trunk": [{"conv": 3, "pol": 2}]},
            "network.trunk.0.pol: unknown key; did you mean pool",
        ),
        ("defaults.epoch", 3, "defaults.epoch: unknown key; did you mean epochs"),
        ("defaults.learning_rate", float("nan"), "learning_rate: .*finite"),
        ("datasets.faces.siz", 3, "datasets.faces.siz: unknown key; did you mean size"),
        ("datasets.faces.size", "midle", "datasets.faces.size"),
        ("datasets.faces.size", [0, 3], "datasets.faces.size.0: .*greater than 0"),
        ("datasets.faces.split.by", "siting", "siting is none of random, own, sitting, person"),
        ("datasets.faces.split.test", 1.5, "datasets.faces.split.test"),
        ("datasets.faces.split.validation", 0.8, "leave no items to train on"),
        ("datasets.faces.heads.pose", {"prt": "pose"}, "heads.pose.prt: unknown key.*part"),
        ("datasets.faces.heads.pose", {"part": "pos"}, "pos is not among read.parts"),
        ("datasets.faces.augment.flip.swap", {"pos": ["a", "b"]}, "no head named pos.*pose"),
        (
            "datasets.faces.augment.experiments",
            {"plan": {"copies": 1}},
            "augment.experiments: no experiment on this data set named plan; did you mean plain",
        ),
        (
            "datasets.faces.augment.experiments",
            {"plain": {"copis": 1}},
            "augment.experiments.plain.copis: unknown key; did you mean copies",
        ),
        (
            "datasets.faces.augment.experiments",
            {"plain": {"flip": {"swap": {"pos": ["a", "b"]}}}},
            "augment.experiments.plain.flip.swap: no head named pos.*pose",
        ),
        (
            "experiments.plain.augment",
            {"copies": 1},
            "augment: write it at datasets.faces.augment.experiments, under the experiment's name",
        ),
        ("datasets.faces.read.operations", [{"filter": "blurr"}], "operations.0.filter.*blurr"),
        ("comparisons.dropout.head", "eye", "no head named eye; did you mean eyes"),
        ("comparisons.dropout.candidate", "drop", "no experiment named drop"),
        ("comparisons.dropout.candidate", "plain", "compares plain with itself"),
        ("comparisons.dropout.metric", "acc", "metric: .*'balanced_accuracy', got 'acc'"),
        ("experiments", {}, "experiments: .*at least 1"),
    ],
)
def test_a_wrong_key_is_refused_by_name(path: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=rf"^params.yaml: .*{message}"):
        check_params(changed(path, value))


def test_comparing_two_data_sets_is_refused() -> None:
    tree = changed("experiments.dropped.dataset", "other")
    tree["datasets"]["other"] = copy.deepcopy(tree["datasets"]["faces"])
    with pytest.raises(InputError, match="plain and dropped are on two data sets"):
        check_params(tree)


def test_a_missing_key_is_named() -> None:
    tree = changed("seeds", [0])
    del tree["datasets"]["faces"]["heads"]
    with pytest.raises(InputError, match=r"datasets.faces.heads: missing"):
        check_params(tree)


@pytest.mark.parametrize("text", ["a: [", "- 1", "", "a: 1\na: 2", "\x00"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=r"params.yaml"):
        read_params(file)


def test_defaults_are_filled_in_and_lists_replaced_whole() -> None:
    tree = check_params(small_parameters("embedded"))
    assert tree.experiments["plain"].epochs == 2
    assert len(tree.experiments["dropped"].network.trunk) == 3
    assert merge({"a": {"b": 1, "c": 2}}, {"a": {"c": [3]}}) == {"a": {"b": 1, "c": [3]}}


@pytest.mark.parametrize("run", ["faces", "faces-", "faces-x", "-0", "faces-1.5"])
def test_a_run_is_experiment_dash_seed(run: str) -> None:
    with pytest.raises(InputError, match="EXPERIMENT-SEED"):
        parse_run(run)


@pytest.mark.parametrize(
    ("names", "experiment"),
    [("", "faces_shallow"), ("class", "digits_long"), ("class,sitting", "faces_batchnorm")],
)
def test_the_projects_own_parameters_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: str, experiment: str
) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "settings", tmp_path / "settings")
    monkeypatch.chdir(tmp_path)
    if names:
        setting.apply_setting(names)
    assert f"{experiment}-0" in run_names(check_params(read_params()))
