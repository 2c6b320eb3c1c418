"""Make a data set ready to learn from: labels, splits and inputs together."""

import numpy as np

from facet.base.arrays import Chunks
from facet.base.config import Dataset
from facet.base.names import SPLITS
from facet.base.prepared import InputInfo, NewData, NewSplit
from facet.datasets.inputs import middle_size, prepare_images
from facet.datasets.items import Items
from facet.datasets.labels import (
    check_classes,
    check_head,
    find_only,
    make_labels,
    read_fields,
    read_own_split,
)
from facet.datasets.readings import choose_readings, encode_readings, fill_missing, find_fill
from facet.datasets.splits import check_splits, content_hashes, make_splits
from facet.datasets.tables import is_missing
from facet.errors import InputError


def keep_complete(
    items: Items, fields: dict[str, np.ndarray], readings: np.ndarray | None, spec: Dataset
) -> np.ndarray:
    """The rows to use, (n,) int64: what read.missing says of those that lack a value.

    Raises InputError that names the first one, by default and where a label is what is missing.
    """
    needed = [h.column or h.part or "" for h in spec.heads.values()]
    needed += spec.group.get(spec.split.by, [])
    needed += [spec.read.own.field] if spec.read.own else []
    lacking = {f: is_missing(fields[f]) for f in needed if f in fields}
    if readings is not None and spec.read.missing != "median":
        columns = (c for c in items.columns if c not in spec.read.ignore)
        lacking |= {c: is_missing(items.columns[c]) for c in columns}
    where = np.any([*lacking.values(), np.zeros(len(items), bool)], axis=0)
    if spec.read.missing == "drop":
        if where.all():
            raise InputError("read.missing: drop: no row is complete; name columns in read.ignore")
        return np.flatnonzero(~where)
    if where.any():
        row = int(where.argmax())
        column = next(c for c, absent in lacking.items() if absent[row])
        median = "" if column in needed else " or median"
        raise InputError(
            f"{items.names[row]}: has no {column} ({where.sum()} of {len(items)} lack a value); "
            f"fill it in, or set read.missing: drop{median}"
        )
    return np.arange(len(items))


def check_range(
    how: InputInfo, largest: np.ndarray, mean: np.ndarray, deviation: np.ndarray
) -> None:
    """Raise InputError for readings so large that they turn infinite when they are standardised.

    `largest`, `mean` and `deviation` are (readings,); a column of text has several readings.
    """
    one_hot = how.get("one_hot", {})
    columns = [c for c in how["columns"] for _ in one_hot.get(c, [c])]
    bound = np.finfo("float32").max / 2
    for column, most, *spread in zip(columns, largest, mean, deviation, strict=True):
        # NaN, where values are missing, is not too large.
        if most > bound or not np.isfinite(spread).all():
            raise InputError(
                f"column {column}: values up to {most:g} are too large to be standardised; "
                "give it in another unit, or name it in read.ignore"
            )


def normalise(items: Items, name: str, spec: Dataset) -> list[NewData]:
    """A data set ready to learn from, once for each of split.seed.

    Images are brought to one size and mode, chunk by chunk as they are asked for; a table's
    readings are standardised by mean and deviation of the training split. Raises InputError where
    data and `spec` do not fit each other.
    """
    fields = read_fields(items, spec.read)
    if spec.read.only:
        rows = find_only(fields, spec.read.only)
        items = items.select(rows)
        fields = {field: values[rows] for field, values in fields.items()}
    for head_name, head in spec.heads.items():
        check_head(head_name, head, fields)
    readings, size = None, (0, 0)
    if items.images:
        if spec.size is None:
            raise InputError(
                f"datasets.{name}.size: null, but the data are images; "
                "give [width, height] or middle"
            )
        size = middle_size(items.images.shapes) if spec.size == "middle" else spec.size
        preparation: InputInfo = {
            "size": list(size),
            "mode": spec.read.mode,
            "alpha": spec.read.alpha,
            "operations": [o.model_dump(exclude_none=True) for o in spec.read.operations],
        }
        if spec.read.scale:
            preparation["scale"] = list(spec.read.scale)
    else:
        if spec.size is not None:
            raise InputError(f"datasets.{name}.size: the data are a table; write null")
        preparation = choose_readings(items, spec)
        readings = encode_readings(items.columns, items.names, preparation)
    rows = keep_complete(items, fields, readings, spec)
    if len(rows) < len(items):
        items = items.select(rows)
        fields = {field: values[rows] for field, values in fields.items()}
        readings = readings[rows] if readings is not None else None
    labels = {h: make_labels(h, head, fields) for h, head in spec.heads.items()}
    for head_name, (classes, _) in labels.items():
        check_classes(head_name, classes, items, spec.read)
    label_matrix = np.stack([y for _, y in labels.values()], 1)
    own = items.own
    if spec.read.own and spec.split.by == "own":
        own = read_own_split(fields, spec.read.own)
    hashes = content_hashes(items, readings)
    made = []
    seeds = spec.split.seed if isinstance(spec.split.seed, list) else [spec.split.seed]
    for seed in seeds:
        splits, groups = make_splits(
            fields,
            items.names,
            own,
            label_matrix,
            hashes,
            [*spec.read.folders, *spec.read.parts] if spec.read.parts else [],
            spec.group,
            spec.split,
            seed,
        )
        check_splits(splits, groups, hashes, spec.split.by)
        inputs = preparation.copy()
        if readings is not None:
            training = readings[splits == "train"]
            if spec.read.missing == "median":
                fill = find_fill(training, preparation)
                inputs["fill"] = fill.tolist()
                training = fill_missing(training, fill)
            with np.errstate(over="ignore", invalid="ignore"):
                mean, deviation = training.mean(0), training.std(0)
            check_range(preparation, np.nanmax(np.abs(readings), 0, initial=0), mean, deviation)
            deviation = np.where(deviation > 0, deviation, 1.0)
            inputs |= {"mean": mean.tolist(), "spread": deviation.tolist()}
        of_split = {}
        for split in SPLITS:
            rows = np.flatnonzero(splits == split)
            rows = rows[np.argsort(items.names[rows], kind="stable")]
            X: np.ndarray | Chunks
            if readings is None:
                X = prepare_images(items, rows, size, spec.read)
            else:
                whole = readings[rows]
                if "fill" in inputs:
                    whole = fill_missing(whole, fill)
                X = ((whole - mean) / deviation).astype("float32")
            y = {h: indices[rows] for h, (_, indices) in labels.items()}
            of_split[split] = NewSplit(X, y, items.names[rows], groups[rows])
        made.append(
            NewData(
                about={
                    "dataset": name,
                    "split": {
                        "by": spec.split.by,
                        "seed": seed,
                        "test": spec.split.test,
                        "validation": spec.split.validation,
                    },
                    "input": inputs,
                    "heads": list(spec.heads),
                },
                classes={h: classes for h, (classes, _) in labels.items()},
                splits=of_split,
            )
        )
    return made
