"""A prepared data set comes back from its file as it was."""

from pathlib import Path

import numpy as np
import pytest

from facet.base.names import SPLITS
from facet.base.prepared import (
    DataInfo,
    PreparedData,
    SplitData,
    load_prepared,
    save_prepared,
    select_split,
)


def make_data(seed: int) -> PreparedData:
    about: DataInfo = {
        "dataset": "x",
        "split": {"by": "random", "seed": seed, "test": 0.3, "validation": 0.3},
        "input": {"size": [3, 2], "mode": "L"},
        "heads": ["b", "a"],
    }
    rng = np.random.default_rng(seed)
    splits = {}
    for split, n in zip(SPLITS, (6, 0, 3), strict=True):
        names = np.array([f"{split}/{i}" for i in range(n)], "<U12")
        y = {head: rng.integers(0, 2, n) for head in ("b", "a")}
        copies = np.array([0, 0, 0, 1, 1, 1]) if split == "train" else None
        splits[split] = SplitData(rng.random((n, 2, 3, 1), "float32"), y, names, names, copies)
    return PreparedData(about, {h: np.array(["no", "yes"]) for h in ("b", "a")}, splits)


@pytest.mark.parametrize("count", [1, 3])
def test_what_is_saved_is_loaded(tmp_path: Path, count: int) -> None:
    data = [make_data(seed) for seed in range(count)]
    save_prepared(tmp_path / "a", data)
    back = load_prepared(tmp_path / "a")
    assert len(back) == count
    for ours, theirs in zip(data, back, strict=True):
        assert theirs.about == ours.about
        assert list(theirs.splits) == list(SPLITS)
        for split in SPLITS:
            a, b = ours.splits[split], theirs.splits[split]
            np.testing.assert_array_equal(b.X, a.X)
            assert b.names.tolist() == a.names.tolist()
            assert b.groups.tolist() == a.groups.tolist()
            assert {h: y.tolist() for h, y in b.y.items()} == {
                h: y.tolist() for h, y in a.y.items()
            }
        assert theirs.splits["train"].originals.tolist() == [0, 1, 2]
        assert theirs.splits["test"].originals.tolist() == [0, 1, 2]


def test_a_seed_picks_its_split() -> None:
    data = [make_data(0), make_data(1)]
    assert select_split(data[:1], 5) is data[0]
    assert select_split(data, 3) is data[1]
