"""A data set ready to learn from: what `normalise` and `augment` make, in memory and in a file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from facet.formats import DataInfo
from facet.names import SPLITS
from facet.storage import load_pickle, save_pickle


@dataclass(frozen=True)
class SplitData:
    """The items of one split, N of them."""

    X: np.ndarray
    """Inputs, float32: N x height x width x channels in 0-1, or N x columns standardised."""
    y: dict[str, np.ndarray]
    """By head: (N,) int64, an index into the head's classes."""
    names: np.ndarray
    """(N,) strings."""
    groups: np.ndarray
    """(N,) strings: items of one group are all in one split."""
    copies: np.ndarray | None = None
    """(N,) int64: 0 for an item as it came, else its copy's number; None: no copies are here."""

    def __len__(self) -> int:
        """The number of items, copies included."""
        return len(self.X)

    @property
    def originals(self) -> np.ndarray:
        """The rows of the items as they came, (n,) int64."""
        return np.arange(len(self)) if self.copies is None else np.flatnonzero(self.copies == 0)


@dataclass(frozen=True)
class PreparedData:
    """A data set, split once."""

    about: DataInfo
    classes: dict[str, np.ndarray]
    """By head: the names of its classes, (classes,) strings."""
    splits: dict[str, SplitData]
    """train, validation and test."""


def save_prepared(path: str | Path, data: Sequence[PreparedData]) -> None:
    """Write one data set, or several splits of it: those are a list under `splits`."""
    contents = [_to_mapping(one) for one in data]
    save_pickle(path, contents[0] if len(contents) == 1 else {"splits": contents})


def load_prepared(path: str | Path) -> list[PreparedData]:
    """What `save_prepared` wrote. Raises InputError for any other file."""
    content = load_pickle(path)
    return [_from_mapping(one) for one in content.get("splits", [content])]


def select_split(data: Sequence[PreparedData], seed: int) -> PreparedData:
    """The one split of a data set that runs of `seed` use.

    With a list as split.seed there are several; the run's own seed picks one, so that a further run
    never changes what an earlier one used.
    """
    return data[seed % len(data)]


def _to_mapping(data: PreparedData) -> dict[str, Any]:
    content: dict[str, Any] = {"about": data.about}
    content |= {f"classes_{h}": classes for h, classes in data.classes.items()}
    for split, items in data.splits.items():
        content |= {f"X_{split}": items.X, f"names_{split}": items.names}
        content |= {f"groups_{split}": items.groups}
        content |= {f"y_{split}_{h}": y for h, y in items.y.items()}
        if items.copies is not None:
            content[f"copy_{split}"] = items.copies
    return content


def _from_mapping(content: dict[str, Any]) -> PreparedData:
    heads = content["about"]["heads"]
    return PreparedData(
        about=content["about"],
        classes={h: content[f"classes_{h}"] for h in heads},
        splits={
            split: SplitData(
                X=content[f"X_{split}"],
                y={h: content[f"y_{split}_{h}"] for h in heads},
                names=content[f"names_{split}"],
                groups=content[f"groups_{split}"],
                copies=content.get(f"copy_{split}"),
            )
            for split in SPLITS
        },
    )
