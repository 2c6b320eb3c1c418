"""Find items and groups that are in more than one split."""

import hashlib

from facet.datasets.prepared import SplitData
from facet.names import SPLITS


def find_leakage(splits: dict[str, SplitData]) -> list[str]:
    """A warning for each kind of thing found in more than one split: groups, identical items."""
    keys = {
        "group": {s: set(splits[s].groups.tolist()) for s in SPLITS},
        "identical item": {
            s: {hashlib.sha256(splits[s].X[row].tobytes()).digest() for row in splits[s].originals}
            for s in SPLITS
        },
    }
    found = []
    for what, by_split in keys.items():
        for i, first in enumerate(SPLITS):
            for second in SPLITS[i + 1 :]:
                if shared := by_split[first] & by_split[second]:
                    found.append(f"leakage: {len(shared)} {what}s are in {first} and in {second}")
    return found
