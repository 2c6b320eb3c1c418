"""W&B's config: what a run was made with, flat, so that runs compare."""

import json
from pathlib import Path

import pytest
import yaml

from facet.tracking.run_config import describe_config
from tests.helpers import small_parameters


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    tree = small_parameters("embedded")
    tree["datasets"]["faces"]["split"]["seed"] = [5, 7]
    tree["datasets"]["faces"]["augment"] = {
        "copies": 2,
        "flip": {"probability": 0.5},
        "experiments": {"plain": {"copies": 1}},
    }
    tree["experiments"]["dropped"] |= {
        "epochs": 3,
        "network": {
            "trunk": [
                {"conv": 8, "pool": 2, "batchnorm": True},
                {"flatten": True},
                {"dropout": 0.2},
            ],
            "heads": {"eyes": [{"dense": 4}], "each": []},
        },
    }
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    monkeypatch.chdir(tmp_path)
    return tree


def test_each_knob_is_a_key_with_its_resolved_value(params: dict[str, object]) -> None:
    config = describe_config("dropped-3")
    defaults = params["defaults"]
    assert isinstance(defaults, dict)
    assert config["dataset"] == "faces"
    assert config["experiment"] == "dropped"
    assert config["seed"] == 3
    assert config["epochs"] == 3
    assert config["batch"] == defaults["batch"]
    assert config["learning_rate"] == defaults["learning_rate"]
    assert (config["split"], config["split_seed"]) == ("sitting", 7)
    assert config["augment"]["copies"] == 2
    assert config["augment"]["flip"]["probability"] == 0.5
    assert config["network"] == (
        "trunk: conv 8 pool 2 batchnorm, flatten, dropout 0.2; eyes: dense 4"
    )
    assert config["heads"] == "pose, eyes"
    json.dumps(config)
    # Columns, filters and groups want values, not trees.
    assert [k for k, v in config.items() if isinstance(v, (dict, list))] == ["augment"]


def test_what_an_experiment_has_in_the_data_sets_place_counts(params: dict[str, object]) -> None:
    assert describe_config("plain-0")["augment"]["copies"] == 1
    assert describe_config("plain-0")["split_seed"] == 5
