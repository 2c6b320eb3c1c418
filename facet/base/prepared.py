"""A data set ready to learn from, as `normalise` and `augment` make it, and its folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, NotRequired, TypeAlias, TypeVar

import numpy as np
from typing_extensions import TypedDict  # pydantic checks those of `typing` from 3.12 on

from facet.base.arrays import Array, load_array, save_array
from facet.base.names import SPLITS
from facet.base.storage import atomic_write, read_json, write_json


class SplitInfo(TypedDict):
    """How a data set was split."""

    by: Annotated[str, "random, own, or the group that was kept together"]
    seed: Annotated[int, "split.seed of this split"]
    test: Annotated[float, "share of the items that was wanted for testing"]
    validation: Annotated[float, "share of the items that was wanted for validation"]


class InputInfo(TypedDict):
    """How inputs are prepared: an image's first four keys and scale, or a table's rest."""

    size: Annotated[NotRequired[list[int]], "[width, height] in pixels"]
    mode: Annotated[NotRequired[str], "L (grey) or RGB"]
    alpha: Annotated[NotRequired[str], "what becomes of transparency"]
    operations: Annotated[NotRequired[list[dict[str, Any]]], "read.operations, before resizing"]
    scale: Annotated[NotRequired[list[float]], "what becomes 0 and 255 of deeper images"]
    columns: Annotated[NotRequired[list[str]], "the columns that are readings, in their order"]
    one_hot: Annotated[
        NotRequired[dict[str, list[str]]], "by column: the values that are a reading each, 0 or 1"
    ]
    ordinal: Annotated[
        NotRequired[dict[str, list[str]]], "by column: the values that are 0, 1, 2, ..."
    ]
    fill: Annotated[NotRequired[list[float]], "a reading's value where it is missing"]
    mean: Annotated[NotRequired[list[float]], "a reading's mean over the training items"]
    spread: Annotated[NotRequired[list[float]], "its standard deviation over them"]


class FlipInfo(TypedDict):
    """Which copies were mirrored, and what that does to labels."""

    probability: Annotated[float, "share of the copies that are mirrored"]
    swap: Annotated[dict[str, list[str]], "by head: the two classes that change places"]


class AugmentInfo(TypedDict):
    """How training images were changed; each copy is drawn from these."""

    copies: Annotated[int, "how many times as large the training part became; 1: no copies"]
    seed: Annotated[int, "augment.seed; with an image's name and the copy's number, the draw"]
    rotate: Annotated[float, "at most so many degrees"]
    shear: Annotated[float, "at most this share of the height sideways, between top and bottom"]
    translate: Annotated[float, "at most this share of width and height"]
    zoom: Annotated[float, "at most this share larger or smaller"]
    elastic: Annotated[float, "at most this share of the height, each node of a grid by itself"]
    flip: Annotated[FlipInfo | None, "mirroring; null: none"]


class DataInfo(TypedDict):
    """What a normalised data set was made with."""

    dataset: Annotated[str, "name of the data set"]
    split: Annotated[SplitInfo, "how it was split"]
    input: Annotated[InputInfo, "how inputs were prepared"]
    heads: Annotated[list[str], "the heads, in the order of params.yaml"]
    augment: Annotated[NotRequired[AugmentInfo], "how it was augmented; in data/augmented alone"]


@dataclass(frozen=True)
class NewSplit:
    """The items of one split, N of them, before they are saved: arrays may be made in chunks."""

    X: Array
    """Inputs: images uint8, N x height x width x channels, or readings float32, N x columns,
    standardised."""
    y: dict[str, np.ndarray]
    """By head: (N,) int64, an index into the head's classes."""
    names: Array
    """(N,) strings."""
    groups: Array
    """(N,) strings: items of one group are all in one split."""
    copies: np.ndarray | None = None
    """(N,) int64: 0 for an item as it came, else its copy's number; None: no copies are here."""

    def __len__(self) -> int:
        """The number of items, copies included."""
        return len(self.X)


@dataclass(frozen=True)
class SplitData(NewSplit):
    """The items of one split as they are stored: memory maps."""

    X: np.ndarray
    names: np.ndarray
    groups: np.ndarray

    @property
    def originals(self) -> np.ndarray:
        """The rows of the items as they came, (n,) int64."""
        return np.arange(len(self)) if self.copies is None else np.flatnonzero(self.copies == 0)

    def scale(self, rows: np.ndarray) -> np.ndarray:
        """What a network is given for these rows: float32, images in 0-1."""
        X = self.X[rows]
        return X.astype("float32") / np.float32(255) if X.dtype == np.uint8 else X


Split = TypeVar("Split", bound=NewSplit)


@dataclass(frozen=True)
class PreparedData(Generic[Split]):
    """A data set, split once."""

    about: DataInfo
    classes: dict[str, np.ndarray]
    """By head: the names of its classes, (classes,) strings."""
    splits: dict[str, Split]
    """train, validation and test."""


NewData: TypeAlias = PreparedData[NewSplit]
StoredData: TypeAlias = PreparedData[SplitData]


def save_prepared(folder: str | Path, data: Sequence[PreparedData[Split]]) -> None:
    """Write a data set into a folder, a file for each array; several splits in folders 0, 1, ..."""
    with atomic_write(folder) as aside:
        for number, one in enumerate(data):
            place = aside / str(number) if len(data) > 1 else aside
            place.mkdir(parents=True)
            _save_one(place, one)


def load_prepared(folder: str | Path) -> list[StoredData]:
    """What `save_prepared` wrote, as memory maps. Raises InputError for anything else."""
    folder, several = Path(folder), list[StoredData]()
    while (place := folder / str(len(several))).is_dir():
        several.append(_load_one(place))
    return several or [_load_one(folder)]


def select_split(data: Sequence[PreparedData[Split]], seed: int) -> PreparedData[Split]:
    """The one split of a data set that runs of `seed` use.

    With a list as split.seed there are several; the run's own seed picks one, so that a further run
    never changes what an earlier one used.
    """
    return data[seed % len(data)]


def _save_one(folder: Path, data: PreparedData[Split]) -> None:
    write_json(folder / "about.json", data.about)
    for head, classes in data.classes.items():
        save_array(folder / f"classes_{head}.npy", classes)
    for split, items in data.splits.items():
        save_array(folder / f"X_{split}.npy", items.X)
        save_array(folder / f"names_{split}.npy", items.names)
        save_array(folder / f"groups_{split}.npy", items.groups)
        for head, y in items.y.items():
            save_array(folder / f"y_{split}_{head}.npy", y)
        if items.copies is not None:
            save_array(folder / f"copy_{split}.npy", items.copies)


def _load_one(folder: Path) -> StoredData:
    about: DataInfo = read_json(folder / "about.json")
    splits = {}
    for split in SPLITS:
        copies = folder / f"copy_{split}.npy"
        splits[split] = SplitData(
            X=load_array(folder / f"X_{split}.npy"),
            y={h: load_array(folder / f"y_{split}_{h}.npy") for h in about["heads"]},
            names=load_array(folder / f"names_{split}.npy"),
            groups=load_array(folder / f"groups_{split}.npy"),
            copies=load_array(copies) if copies.exists() else None,
        )
    classes = {h: load_array(folder / f"classes_{h}.npy") for h in about["heads"]}
    return PreparedData(about, classes, splits)
