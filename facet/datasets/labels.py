"""Cut labels from file names and columns."""

from pathlib import PurePosixPath

import numpy as np

from facet.base.config import Head, Read, suggest
from facet.datasets.items import Items
from facet.errors import InputError


def read_fields(items: Items, read: Read) -> dict[str, np.ndarray]:
    """What labels and groups are made from, field by field, (N,) strings or float64.

    The parts of image names, split at `_`; columns; constants by file. Raises InputError for a name
    that has not the parts.
    """
    names, found = items.names, dict(items.columns)
    if read.parts:
        fewest, most = len(read.parts), len(read.parts) + len(read.optional_parts)
        split = [PurePosixPath(n).stem.split("_") for n in names.tolist()]
        for name, parts in zip(names, split, strict=True):
            if not fewest <= len(parts) <= most or "" in parts:
                raise InputError(
                    f"{name}: has {len(parts)} parts between `_`, not {fewest} "
                    f"({'_'.join(read.parts)}); rename it or change read.parts"
                )
        found |= {p: np.array([s[i] for s in split]) for i, p in enumerate(read.parts)}
    files = np.array([n.partition(":")[0] for n in names.tolist()])
    constants = {f: c for f, c in read.constants.items() if f in files}
    for column in sorted({c for values in constants.values() for c in values}):
        if column in found:
            raise InputError(f"read.constants: {column} is a column of the data already")
        given = {f: values[column] for f, values in constants.items() if column in values}
        if lacking := sorted(set(files) - set(given)):
            raise InputError(f"read.constants: {lacking[0]} is given no {column}")
        found[column] = np.array([given[f] for f in files])
    return found


def make_labels(
    name: str, head: Head, found: dict[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """A head's class names, (classes,) strings, and each item's class index, (N,) int64."""
    field = head.part or head.column or ""
    if field not in found:
        raise InputError(f"heads.{name}: the data has no column {field}{suggest(field, found)}")
    values = found[field]
    if head.bins and values.dtype.kind == "f":
        binned = np.full(len(values), "", dtype=f"<U{max(map(len, head.bins))}")
        for bin_name, (low, high) in head.bins.items():
            binned[(values >= low) & (values <= high)] = bin_name
        if (binned == "").any():
            raise InputError(f"heads.{name}.bins: {values[binned == ''][0]:g} falls into none")
        values = binned
    elif values.dtype.kind == "f":
        values = np.array([f"{v:g}" for v in values])
    present = np.unique(values).tolist()
    if head.bins:
        if strange := sorted(set(present) - set(head.bins)):
            raise InputError(f"heads.{name}.bins: {strange[0]} is neither a number nor a bin")
        present = [b for b in head.bins if b in present]
    elif all(v.isdigit() for v in present):
        present.sort(key=int)
    if len(present) < 2:
        raise InputError(f"heads.{name}: all items are {present[0]}; a head needs two classes")
    index = {c: i for i, c in enumerate(present)}
    return np.array(present), np.array([index[v] for v in values.tolist()], "int64")
