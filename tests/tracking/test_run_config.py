"""W&B's config: what a run was made with, flat, so that runs compare."""

import importlib
import json
from typing import Any

from facet.base.config import flatten
from facet.tracking.run_config import describe_config
from tests.helpers import small_parameters


def test_each_knob_is_a_key_with_its_resolved_value() -> None:
    tree = small_parameters("embedded")
    changed = {
        "dataset": "faces",
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
    trees = {"dataset": "faces", "extra_trees": {"trees": 50, "leaf": 2}}
    declared = {
        "defaults": tree["defaults"],
        "experiments": {"dropped": changed, "trees": trees},
    }
    data: dict[str, Any] = {
        "split": {"by": "sitting", "seed": 7, "test": 0.25, "validation": 0.15},
        "input": {"size": [32, 30], "mode": "L"},
        "augment": {
            "copies": 3,
            "seed": 0,
            "rotate": 8.0,
            "shear": 0.0,
            "translate": 0.0,
            "zoom": 0.1,
            "elastic": 0.0,
            "flip": {"probability": 0.5, "swap": {"pose": ["left", "right"]}},
        },
    }
    config = describe_config("dropped-3", declared, data)
    assert config["extra_trees"] == ""
    assert describe_config("trees-0", declared, data)["extra_trees"] == "50 trees, 2 items a leaf"
    assert config["dataset"] == "faces"
    assert config["experiment"] == "dropped"
    assert config["seed"] == config["epochs"] == 3
    assert config["batch"] == tree["defaults"]["batch"]
    assert config["learning_rate"] == tree["defaults"]["learning_rate"]
    assert (config["split"], config["split_seed"], config["test_share"]) == ("sitting", 7, 0.25)
    assert config["size"] == "32x30"
    assert config["network"] == (
        "trunk: conv 8 pool 2 batchnorm, flatten, dropout 0.2; eyes: dense 4"
    )
    in_words = {"flip": 0.5, "swap": "pose: left and right"}
    assert config["augment"] == data["augment"] | in_words
    json.dumps(config)
    # Columns, filters and groups want values, not trees.
    assert [k for k, v in config.items() if isinstance(v, (dict, list))] == ["augment"]
    assert all(v is None or isinstance(v, (str, int, float)) for v in flatten(config).values())


def test_wandb_asks_for_a_name_with_a_dot_where_the_config_has_it() -> None:
    """Its own client writes a panel's query: `augment.rotate` is a key in `augment`'s value."""
    wr = importlib.import_module("wandb_workspaces.reports.v2")
    axis = wr.ParallelCoordinatesPlotColumn(metric=wr.Config("augment.rotate"))
    panel = wr.ParallelCoordinatesPlot(columns=[axis])._to_model()
    assert panel.config.columns[0].accessor == "config:augment.value.rotate"
