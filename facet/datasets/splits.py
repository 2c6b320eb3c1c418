"""Split items into training, validation and test, whole groups to one split."""

import hashlib

import numpy as np

from facet.base.config import Split, suggest
from facet.datasets.items import Items
from facet.datasets.tables import as_text
from facet.errors import InputError


def content_hashes(items: Items, features: np.ndarray | None) -> np.ndarray:
    """A fingerprint of each item's input, (N,) byte strings: equal content, equal fingerprint."""
    if features is not None:
        contents = (row.tobytes() for row in np.ascontiguousarray(features))
    else:
        images = items.images
        assert images is not None
        contents = (images.shapes[i].tobytes() + images[i].tobytes() for i in range(len(images)))
    fingerprints = (hashlib.sha256(c).hexdigest()[:32].encode() for c in contents)
    return np.fromiter(fingerprints, "S32", len(items))


def connected_groups(*keys: np.ndarray) -> np.ndarray:
    """Groups in which items that share any one key stand together: (N,) int64, 0 to groups - 1."""
    n = len(keys[0])
    places = [np.unique(key, return_inverse=True)[1] for key in keys]
    # A key that each item has for itself joins none.
    joining = [p for p in places if p.max() < n - 1] or places[:1]
    together = joining[0] if len(joining) == 1 else _components(joining)
    _, first, place = np.unique(together, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[place].astype("int64")  # numbered by first appearance


def _components(keys: list[np.ndarray]) -> np.ndarray:
    """The component of each item, (N,) int; items with equal values of any of `keys` are linked."""
    from scipy.sparse import coo_array  # here: it takes a quarter of the time to start
    from scipy.sparse.csgraph import connected_components

    n = len(keys[0])
    offsets = n + np.cumsum([0, *(k.max() + 1 for k in keys)])
    nodes = np.concatenate([k + at for k, at in zip(keys, offsets, strict=False)])
    rows = np.tile(np.arange(n), len(keys))
    shape = (offsets[-1], offsets[-1])
    links = coo_array((np.ones(len(rows), bool), (rows, nodes)), shape=shape)
    return connected_components(links, directed=False)[1][:n]


def stratified_group_split(
    groups: np.ndarray, labels: np.ndarray, wanted: dict[str, float], seed: int
) -> np.ndarray:
    """A split for each item, (N,) strings, whole groups to one split.

    `groups` (N,) int64; `labels` (N, heads) int64; `wanted` items by split. Stratified over all
    classes of all heads at once by iterative stratification (Sechidis, Tsoumakas and Vlahavas,
    2011), with groups in the place of items: the class with the fewest groups left comes first.
    A group goes to the split that, for its share, lacks most of all the group's classes; by the
    rarest class alone, as in the paper, splits came out at up to 0.38 from the share wanted.
    """
    rng = np.random.default_rng(seed)
    splits = [p for p, n in wanted.items() if n > 0]
    offsets = np.cumsum([0, *(labels.max(0)[:-1] + 1)])
    columns = labels + offsets
    counts = np.zeros((groups.max() + 1, int(columns.max()) + 1))
    for column in columns.T:
        np.add.at(counts, (groups, column), 1)
    sizes = np.bincount(groups).astype(float)
    shares = np.array([wanted[p] for p in splits]) / len(groups)
    total = counts.sum(0).clip(1)  # a class may be in the test items alone
    lacks = shares[:, None] * counts.sum(0)
    order = rng.permutation(len(sizes))
    tie = rng.random((len(sizes), len(splits)))
    given = np.full(len(sizes), -1)
    left, tie_break = (counts > 0).sum(0), rng.random(counts.shape[1]) / 2
    while (given < 0).any():
        column = int(np.where(left > 0, left + tie_break, np.inf).argmin())
        for g in order[(given[order] < 0) & (counts[order, column] > 0)]:
            score = (counts[g] * lacks / total).sum(1) / shares
            best = int(np.lexsort((tie[g], score.round(9)))[-1])
            given[g] = best
            lacks[best] -= counts[g]
            left -= counts[g] > 0
    return np.array(splits)[given[groups]]


def make_splits(
    fields: dict[str, np.ndarray],
    names: np.ndarray,
    own: np.ndarray | None,
    labels: np.ndarray,
    hashes: np.ndarray,
    parts: list[str],
    group: dict[str, list[str]],
    config: Split,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Each item's split and group, (N,) strings both.

    Items with one group key, or with equal content, are in one group. `random` takes `parts`, those
    of a name that are not optional, for the group, so that copies of a photo stay together. With
    `own` the data's own split, (N,) strings, stays as it is; if it has no validation part, that is
    cut from training.
    """
    count = len(hashes)
    if config.by in group:
        for field in group[config.by]:
            if field not in fields:
                raise InputError(
                    f"group.{config.by}: the data has no {field}{suggest(field, fields)}"
                )
        keys = join_fields(fields, group[config.by])
    elif config.by == "random" and parts:
        keys = join_fields(fields, parts)
    else:
        keys = names.tolist()
    groups = connected_groups(np.array(keys), hashes)
    group_names = np.array(keys)[np.unique(groups, return_index=True)[1]][groups]
    if config.by != "own":
        items_wanted = {"test": config.test * count, "validation": config.validation * count}
        items_wanted = {"train": count - sum(items_wanted.values()), **items_wanted}
        return stratified_group_split(groups, labels, items_wanted, seed), group_names
    if own is None:
        raise InputError(
            "split.by: own: the data has no split of its own; name another, or the field that "
            "says it in read.own"
        )
    splits = own.astype("<U10")
    if "validation" in splits:
        return splits, group_names
    inside = np.flatnonzero(splits == "train")
    validation = config.validation * count
    if validation >= len(inside):
        raise InputError("split.validation: more than the data's own training part holds")
    if validation:
        groups = np.unique(groups[inside], return_inverse=True)[1]
        items_wanted = {"train": len(inside) - validation, "validation": validation}
        splits[inside] = stratified_group_split(groups, labels[inside], items_wanted, seed)
    return splits, group_names


def join_fields(fields: dict[str, np.ndarray], chosen: list[str]) -> list[str]:
    """For each item the values of these fields, joined by `_`."""
    return ["_".join(k) for k in zip(*(as_text(fields[f]).tolist() for f in chosen), strict=True)]


def check_splits(splits: np.ndarray, groups: np.ndarray, hashes: np.ndarray, by: str) -> None:
    """Refuse a split without training or test items, or in which a group or content is in two.

    The data's own split is taken as it is; what is in two of its splits is a warning of each run.
    """
    for needed in ("train", "test"):
        if not (splits == needed).any():
            raise InputError(
                f"split: no items fall into the {needed} split; there are too few groups "
                f"({len(set(groups.tolist()))}) for these shares"
            )
    if by != "own":
        for what, keys in (("group", groups), ("content", hashes)):
            _, key = np.unique(keys, return_inverse=True)
            _, split = np.unique(splits, return_inverse=True)
            first = np.full(key.max() + 1, -1)
            first[key] = split  # some item's
            if (first[key] != split).any():
                raise AssertionError(f"a {what} is in two splits")
