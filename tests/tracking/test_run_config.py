"""W&B's config: what a run was made with, flat, so that runs compare."""

import json

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
    declared = {"defaults": tree["defaults"], "experiments": {"dropped": changed}}
    config = describe_config(
        "dropped-3",
        declared,
        {"by": "sitting", "seed": 7, "test": 0.25, "validation": 0.15},
        {"size": [32, 30], "mode": "L"},
    )
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
    json.dumps(config)
    # Columns, filters and groups want values, not trees.
    assert not [k for k, v in config.items() if isinstance(v, (dict, list))]
