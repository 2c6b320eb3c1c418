"""Split items into training, validation and test, whole groups to one split."""

import hashlib
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from facet.config import Split, suggest
from facet.errors import InputError


def content_hashes(items: dict[str, Any], features: np.ndarray | None) -> np.ndarray:
    """A fingerprint of each item's input, (N,) strings: equal content, equal fingerprint."""
    if features is not None:
        rows = [r.tobytes() for r in np.ascontiguousarray(features)]
        return np.array([hashlib.sha256(r).hexdigest()[:32] for r in rows])
    prints = np.empty(len(items["names"]), "<U32")
    for key, rows in items["rows"].items():
        for row, pixels in zip(rows, items["pixels"][key], strict=True):
            prints[row] = hashlib.sha256(key.encode() + pixels.tobytes()).hexdigest()[:32]
    return prints


def connected_groups(*keys: np.ndarray) -> np.ndarray:
    """Groups in which items that share any one key stand together: (N,) int64, 0 to groups - 1."""
    n = len(keys[0])
    nodes, offset = [], n
    for key in keys:
        values, place = np.unique(key, return_inverse=True)
        nodes.append(place + offset)
        offset += len(values)
    rows = np.tile(np.arange(n), len(keys))
    links = coo_array(
        (np.ones(len(rows), bool), (rows, np.concatenate(nodes))), shape=(offset, offset)
    )
    together = connected_components(links, directed=False)[1][:n]
    _, first, place = np.unique(together, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[place].astype("int64")  # numbered by first appearance


def stratified_group_split(
    groups: np.ndarray, labels: np.ndarray, wanted: dict[str, float], seed: int
) -> np.ndarray:
    """A part for each item, (N,) strings, whole groups to one part.

    `groups` (N,) int64; `labels` (N, heads) int64; `wanted` items by part. Stratified over all
    classes of all heads at once by iterative stratification (Sechidis, Tsoumakas and Vlahavas,
    2011), with groups in the place of items: the class with the fewest groups left is dealt first.
    A group goes to the part that, for its share, lacks most of all the group's classes; by the
    rarest class alone, as in the paper, parts came out at up to 0.38 from the share wanted.
    """
    rng = np.random.default_rng(seed)
    parts = [p for p, n in wanted.items() if n > 0]
    offsets = np.cumsum([0, *(labels.max(0)[:-1] + 1)])
    columns = labels + offsets
    counts = np.zeros((groups.max() + 1, int(columns.max()) + 1))
    for column in columns.T:
        np.add.at(counts, (groups, column), 1)
    sizes = np.bincount(groups).astype(float)
    shares = np.array([wanted[p] for p in parts]) / len(groups)
    total = counts.sum(0)
    lacks = shares[:, None] * total
    order = rng.permutation(len(sizes))
    tie = rng.random((len(sizes), len(parts)))
    given = np.full(len(sizes), -1)
    left, luck = (counts > 0).sum(0), rng.random(counts.shape[1]) / 2
    while (given < 0).any():
        column = int(np.where(left > 0, left + luck, np.inf).argmin())
        for g in order[(given[order] < 0) & (counts[order, column] > 0)]:
            score = (counts[g] * lacks / total).sum(1) / shares
            best = int(np.lexsort((tie[g], score.round(9)))[-1])
            given[g] = best
            lacks[best] -= counts[g]
            left -= counts[g] > 0
    return np.array(parts)[given[groups]]


def make_splits(
    found: dict[str, np.ndarray],
    items: dict[str, Any],
    labels: np.ndarray,
    prints: np.ndarray,
    group: dict[str, list[str]],
    how: Split,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Each item's part and group, (N,) strings both.

    Items with one group key, or with equal content, are in one group. `random` takes the parts of
    a name that are not optional for the group, so that copies of a photo stay together. With `own`
    the data's test part stays as it is.
    """
    n = len(prints)
    if how.by in group:
        for field in group[how.by]:
            if field not in found:
                raise InputError(f"group.{how.by}: the data has no {field}{suggest(field, found)}")
        keys = ["_".join(map(str, k)) for k in zip(*(found[f] for f in group[how.by]), strict=True)]
    elif how.by == "random" and items.get("parts"):
        keys = [
            "_".join(map(str, k)) for k in zip(*(found[f] for f in items["parts"]), strict=True)
        ]
    else:
        keys = items["names"].tolist()
    groups = connected_groups(np.array(keys), prints)
    names = np.array(keys)[np.unique(groups, return_index=True)[1]][groups]
    if how.by != "own":
        wanted = {"test": how.test * n, "validation": how.validation * n}
        wanted = {"train": n - sum(wanted.values()), **wanted}
        return stratified_group_split(groups, labels, wanted, seed), names
    if "own" not in items:
        raise InputError("split.by: own: the data has no split of its own; name another")
    part = items["own"].astype("<U10")
    inside = np.flatnonzero(part == "train")
    validation = how.validation * n
    if validation >= len(inside):
        raise InputError("split.validation: more than the data's own training part holds")
    if validation:
        groups = np.unique(groups[inside], return_inverse=True)[1]
        wanted = {"train": len(inside) - validation, "validation": validation}
        part[inside] = stratified_group_split(groups, labels[inside], wanted, seed)
    return part, names


def check_splits(part: np.ndarray, groups: np.ndarray, prints: np.ndarray, by: str) -> None:
    """Refuse a split without training or test items, or in which a group or content straddles.

    The data's own split is taken as it is; what straddles it is a warning of each run.
    """
    for needed in ("train", "test"):
        if not (part == needed).any():
            raise InputError(
                f"split: no items fall into the {needed} part; there are too few groups "
                f"({len(set(groups.tolist()))}) for these shares"
            )
    if by != "own":
        for what, keys in (("group", groups), ("content", prints)):
            pairs = np.unique(np.stack([keys.astype("<U200"), part.astype("<U200")]), axis=1)
            if len(set(pairs[0].tolist())) < pairs.shape[1]:
                raise AssertionError(f"a {what} straddles the split")
