"""Cut the labels, deal items out to parts by group, bring inputs to one size and scale."""

import hashlib
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from PIL import Image, ImageFilter
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from tqdm import tqdm

from stages.common import NORMALISED, PARTS, PICKLED, Refused, enter, load, save
from stages.parameters import Dataset, Head, Operation, Read, Split, ask, nearest

FILTERS = {
    "blur": ImageFilter.BLUR,
    "contour": ImageFilter.CONTOUR,
    "detail": ImageFilter.DETAIL,
    "edge_enhance": ImageFilter.EDGE_ENHANCE,
    "sharpen": ImageFilter.SHARPEN,
    "smooth": ImageFilter.SMOOTH,
}
CHANNELS = {2: "LA", 3: "RGB", 4: "RGBA"}


# --- labels ---------------------------------------------------------------------------------


def fields(items: dict[str, Any], read: Read) -> dict[str, np.ndarray]:
    """What labels and groups are made from, field by field, (N,) strings or float64.

    The parts of image names, split at `_`; columns; constants by file. Raises Refused for a name
    that has not the parts.
    """
    names, found = items["names"], dict(items["columns"])
    if read.parts:
        least, most = len(read.parts), len(read.parts) + len(read.optional_parts)
        split = [PurePosixPath(n).stem.split("_") for n in names.tolist()]
        for name, parts in zip(names, split, strict=True):
            if not least <= len(parts) <= most or "" in parts:
                raise Refused(
                    f"{name}: has {len(parts)} parts between `_`, not {least} "
                    f"({'_'.join(read.parts)}); rename it or change read.parts"
                )
        found |= {p: np.array([s[i] for s in split]) for i, p in enumerate(read.parts)}
    files = np.array([n.partition(":")[0] for n in names.tolist()])
    constants = {f: c for f, c in read.constants.items() if f in files}
    for column in sorted({c for values in constants.values() for c in values}):
        if column in found:
            raise Refused(f"read.constants: {column} is a column of the data already")
        given = {f: values[column] for f, values in constants.items() if column in values}
        if lacking := sorted(set(files) - set(given)):
            raise Refused(f"read.constants: {lacking[0]} is given no {column}")
        found[column] = np.array([given[f] for f in files])
    return found


def label(name: str, head: Head, found: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """A head's class names, (classes,) strings, and each item's class index, (N,) int64."""
    field = head.part or head.column or ""
    if field not in found:
        raise Refused(f"heads.{name}: the data has no column {field}{nearest(field, found)}")
    values = found[field]
    if head.bins and values.dtype.kind == "f":
        binned = np.full(len(values), "", dtype=f"<U{max(map(len, head.bins))}")
        for bin_name, (low, high) in head.bins.items():
            binned[(values >= low) & (values <= high)] = bin_name
        if (binned == "").any():
            raise Refused(f"heads.{name}.bins: {values[binned == ''][0]:g} falls into none")
        values = binned
    elif values.dtype.kind == "f":
        values = np.array([f"{v:g}" for v in values])
    present = np.unique(values).tolist()
    if head.bins:
        if strange := sorted(set(present) - set(head.bins)):
            raise Refused(f"heads.{name}.bins: {strange[0]} is neither a number nor a bin")
        present = [b for b in head.bins if b in present]
    elif all(v.isdigit() for v in present):
        present.sort(key=int)
    if len(present) < 2:
        raise Refused(f"heads.{name}: all items are {present[0]}; a head needs two classes")
    index = {c: i for i, c in enumerate(present)}
    return np.array(present), np.array([index[v] for v in values.tolist()], "int64")


# --- splits ---------------------------------------------------------------------------------


def contents(items: dict[str, Any], features: np.ndarray | None) -> np.ndarray:
    """A fingerprint of each item's input, (N,) strings: equal content, equal fingerprint."""
    if features is not None:
        rows = [r.tobytes() for r in np.ascontiguousarray(features)]
        return np.array([hashlib.sha256(r).hexdigest()[:32] for r in rows])
    prints = np.empty(len(items["names"]), "<U32")
    for key, rows in items["rows"].items():
        for row, pixels in zip(rows, items["pixels"][key], strict=True):
            prints[row] = hashlib.sha256(key.encode() + pixels.tobytes()).hexdigest()[:32]
    return prints


def joined(*keys: np.ndarray) -> np.ndarray:
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


def deal(groups: np.ndarray, labels: np.ndarray, wanted: dict[str, float], seed: int) -> np.ndarray:
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


def split(
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
                raise Refused(f"group.{how.by}: the data has no {field}{nearest(field, found)}")
        keys = ["_".join(map(str, k)) for k in zip(*(found[f] for f in group[how.by]), strict=True)]
    elif how.by == "random" and items.get("parts"):
        keys = [
            "_".join(map(str, k)) for k in zip(*(found[f] for f in items["parts"]), strict=True)
        ]
    else:
        keys = items["names"].tolist()
    groups = joined(np.array(keys), prints)
    names = np.array(keys)[np.unique(groups, return_index=True)[1]][groups]
    if how.by != "own":
        wanted = {"test": how.test * n, "validation": how.validation * n}
        wanted = {"train": n - sum(wanted.values()), **wanted}
        return deal(groups, labels, wanted, seed), names
    if "own" not in items:
        raise Refused("split.by: own: the data has no split of its own; name another")
    part = items["own"].astype("<U10")
    inside = np.flatnonzero(part == "train")
    validation = how.validation * n
    if validation >= len(inside):
        raise Refused("split.validation: more than the data's own training part holds")
    if validation:
        groups = np.unique(groups[inside], return_inverse=True)[1]
        wanted = {"train": len(inside) - validation, "validation": validation}
        part[inside] = deal(groups, labels[inside], wanted, seed)
    return part, names


# --- inputs ---------------------------------------------------------------------------------


def to_mode(image: Image.Image, mode: str, alpha: str, name: str) -> Image.Image:
    """`image` in `mode`, its transparency treated by the rule `alpha`."""
    if image.mode in ("LA", "RGBA"):
        if alpha == "refuse":
            raise Refused(f"{name}: has an alpha channel; set read.alpha to black, white or drop")
        if alpha != "drop":
            under = Image.new("RGBA", image.size, alpha)
            image = Image.alpha_composite(under, image.convert("RGBA"))
        image = image.convert("RGB" if image.mode == "RGBA" else "L")
    return image.convert(mode)


def spread(image: Image.Image, distance: int, name: str) -> Image.Image:
    """Each pixel exchanged for one at most `distance` away, the same for the same name.

    Pillow's effect_spread draws from C's rand, whose state depends on what ran before.
    """
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    shift = np.random.default_rng(seed).integers(
        -distance, distance + 1, (2, image.height, image.width)
    )
    y, x = np.indices((image.height, image.width)) + shift
    pixels = np.asarray(image)
    return Image.fromarray(pixels[y.clip(0, image.height - 1), x.clip(0, image.width - 1)])


def operate(image: Image.Image, operation: Operation, name: str) -> Image.Image:
    """One declared operation."""
    if operation.crop:
        left, top, right, bottom = operation.crop
        if not (0 <= left < right <= image.width and 0 <= top < bottom <= image.height):
            raise Refused(
                f"{name}: crop {list(operation.crop)} is not inside {image.width}x{image.height}"
            )
        return image.crop(operation.crop)
    if operation.rotate is not None:
        return image.rotate(operation.rotate, Image.Resampling.BILINEAR)
    if operation.transpose:
        return image.transpose(Image.Transpose[operation.transpose.upper()])
    if operation.filter:
        return image.filter(FILTERS[operation.filter])
    return spread(image, operation.spread or 1, name)


def middle(items: dict[str, Any]) -> tuple[int, int]:
    """The size, (width, height), in the middle of those present, by area."""
    sizes = {(k.split("x")[1], k.split("x")[0]) for k in items["pixels"]}
    ordered = sorted(((int(w), int(h)) for w, h in sizes), key=lambda s: (s[0] * s[1], s))
    return ordered[(len(ordered) - 1) // 2]


def images(items: dict[str, Any], size: tuple[int, int], read: Read) -> np.ndarray:
    """All images as uint8, N x height x width x channels (1 for grey, 3 for RGB), Lanczos."""
    width, height = size
    out = np.empty((len(items["names"]), height, width, len(read.mode)), "uint8")
    names = items["names"].tolist()
    for key, rows in items["rows"].items():
        shape = key.split("x")
        mode = CHANNELS[int(shape[2])] if len(shape) == 3 else "L"
        if not read.operations and mode == read.mode and shape[:2] == [str(height), str(width)]:
            out[rows] = items["pixels"][key].reshape(len(rows), height, width, -1)
            continue
        for row, pixels in tqdm(
            zip(rows, items["pixels"][key], strict=True),
            "normalise",
            len(rows),
            unit="image",
            delay=1,
        ):
            image = to_mode(Image.fromarray(pixels), read.mode, read.alpha, names[row])
            for operation in read.operations:
                image = operate(image, operation, names[row])
            if image.size != size:
                image = image.resize(size, Image.Resampling.LANCZOS)
            out[row] = np.asarray(image).reshape(height, width, -1)
    return out


def columns(items: dict[str, Any], spec: Dataset) -> tuple[list[str], np.ndarray]:
    """The names of a table's readings and the readings, N x columns float64."""
    used = {h.column for h in spec.heads.values()} | {f for g in spec.group.values() for f in g}
    chosen = [c for c in items["columns"] if c not in used and c not in spec.read.ignore]
    for c in chosen:
        values = items["columns"][c]
        if values.dtype.kind != "f":
            raise Refused(
                f"column {c} holds text ({values[0]}); name it in heads, group or read.ignore"
            )
        if not np.isfinite(values).all():
            raise Refused(f"column {c}: row {int(np.isfinite(values).argmin()) + 1} is not finite")
    if not chosen:
        raise Refused("the table has no column left for readings")
    return chosen, np.stack([items["columns"][c] for c in chosen], 1)


# --- the stage ------------------------------------------------------------------------------


def normalise(items: dict[str, Any], name: str, spec: Dataset) -> dict[str, Any]:
    """A data set ready to learn from, in the form design and README describe.

    `X_PART` float32, N x height x width x channels in 0-1, or N x columns standardised by mean and
    spread of the training part; `y_PART_HEAD` int64; `classes_HEAD`, `names_PART`, `groups_PART`
    strings; `about` what it was made with. With a list as split.seed, one such dict for each under
    `splits`.
    """
    found = fields(items, spec.read)
    labels = {h: label(h, head, found) for h, head in spec.heads.items()}
    ys = np.stack([y for _, y in labels.values()], 1)
    items = items | {"parts": spec.read.parts}
    if pictures := "pixels" in items:
        if spec.size is None:
            raise Refused(
                f"datasets.{name}.size: null, but the data are images; "
                "give [width, height] or middle"
            )
        size = middle(items) if spec.size == "middle" else spec.size
        X, readings = images(items, size, spec.read), None
        how: dict[str, Any] = {
            "size": list(size),
            **spec.read.model_dump(include={"mode", "alpha", "operations"}, exclude_none=True),
        }
    else:
        chosen, X = columns(items, spec)
        readings, how = X, {"columns": chosen}
    prints = contents(items, readings)
    one: list[dict[str, Any]] = []
    seeds = spec.split.seed if isinstance(spec.split.seed, list) else [spec.split.seed]
    for seed in seeds:
        part, groups = split(found, items, ys, prints, spec.group, spec.split, seed)
        check(part, groups, prints, spec.split.by)
        content: dict[str, Any] = {f"classes_{h}": c for h, (c, _) in labels.items()}
        inputs = dict(how)
        if not pictures:
            mean, spread_ = X[part == "train"].mean(0), X[part == "train"].std(0)
            spread_ = np.where(spread_ > 0, spread_, 1.0)
            inputs |= {"mean": mean.tolist(), "spread": spread_.tolist()}
        for p in PARTS:
            rows = np.flatnonzero(part == p)
            rows = rows[np.argsort(items["names"][rows], kind="stable")]
            if pictures:
                content[f"X_{p}"] = X[rows].astype("float32") / np.float32(255)
            else:
                content[f"X_{p}"] = ((X[rows] - mean) / spread_).astype("float32")
            content[f"names_{p}"] = items["names"][rows]
            content[f"groups_{p}"] = groups[rows]
            content |= {f"y_{p}_{h}": y[rows] for h, (_, y) in labels.items()}
        about = {
            "by": spec.split.by,
            "seed": seed,
            "test": spec.split.test,
            "validation": spec.split.validation,
        }
        one.append(
            content
            | {
                "about": {
                    "dataset": name,
                    "split": about,
                    "input": inputs,
                    "heads": list(spec.heads),
                }
            }
        )
    return {"splits": one} if isinstance(spec.split.seed, list) else one[0]


def check(part: np.ndarray, groups: np.ndarray, prints: np.ndarray, by: str) -> None:
    """Refuse a split without training or test items, or in which a group or content straddles.

    The data's own split is taken as it is; what straddles it is a warning of each run.
    """
    for needed in ("train", "test"):
        if not (part == needed).any():
            raise Refused(
                f"split: no items fall into the {needed} part; there are too few groups "
                f"({len(set(groups.tolist()))}) for these shares"
            )
    if by != "own":
        for what, keys in (("group", groups), ("content", prints)):
            pairs = np.unique(np.stack([keys.astype("<U200"), part.astype("<U200")]), axis=1)
            if len(set(pairs[0].tolist())) < pairs.shape[1]:
                raise AssertionError(f"a {what} straddles the split")


def main(dataset: str) -> None:
    """Make data/DATASET/normalised.pkl of data/DATASET/pickled.pkl."""
    at = f"datasets.{dataset}"
    size, read, heads, group, split_ = ask(
        *(f"{at}.{k}" for k in ("size", "read", "heads", "group", "split"))
    )
    spec = Dataset.model_construct(size=size, read=read, heads=heads, group=group, split=split_)
    try:
        content = normalise(load(PICKLED.format(dataset)), dataset, spec)
    except Refused as e:
        raise Refused(f"{dataset}: {e}") from None
    save(NORMALISED.format(dataset), content)
    for one in content.get("splits", [content]):
        counts = ", ".join(f"{len(one[f'names_{p}'])} {p}" for p in PARTS)
        print(f"{dataset}: {counts}, split by {split_.by}, seed {one['about']['split']['seed']}")


if __name__ == "__main__":
    enter(main)
