"""Find items and groups that are in more than one split."""

from typing import Any

import numpy as np

from facet.names import SPLITS


def find_leakage(content: dict[str, Any]) -> list[str]:
    """A warning for each kind of thing found in more than one split: groups, identical items."""
    keys = {
        "group": {p: set(content[f"groups_{p}"].tolist()) for p in SPLITS},
        "identical item": {p: {x.tobytes() for x in original_inputs(content, p)} for p in SPLITS},
    }
    found = []
    for what, by_split in keys.items():
        for i, first in enumerate(SPLITS):
            for second in SPLITS[i + 1 :]:
                if shared := by_split[first] & by_split[second]:
                    found.append(f"straddle: {len(shared)} {what}s are in {first} and in {second}")
    return found


def original_inputs(content: dict[str, Any], split: str) -> np.ndarray:
    """A split's inputs without augmented copies."""
    X = content[f"X_{split}"]
    return X[content["copy_train"] == 0] if split == "train" else X
