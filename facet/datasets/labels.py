"""Cut labels, groups and the data's own split from file names, folders and columns."""

from pathlib import PurePosixPath

import numpy as np

from facet.base.config import Head, Own, Read, suggest
from facet.base.names import IMAGE_SUFFIXES, SPLITS
from facet.datasets.items import Items
from facet.datasets.tables import as_text, read_numbers
from facet.errors import InputError

JOINERS = {0x200C: "", 0x200D: ""}  # they show by what they do to the letters beside them


def read_fields(items: Items, read: Read) -> dict[str, np.ndarray]:
    """What labels and groups are made from, field by field, (N,) strings or float64.

    The parts of image names, split at `_`, "" for an optional one that a name lacks; the folders
    above them; columns; constants by file. Raises InputError for a name that has not the parts or
    the folders.
    """
    names = items.names.tolist()
    found = _read_folders(items, read)
    if read.parts:
        fewest, most = len(read.parts), len(read.parts) + len(read.optional_parts)
        split = [PurePosixPath(n).stem.split("_") for n in names]
        for name, parts in zip(names, split, strict=True):
            if not fewest <= len(parts) <= most or "" in parts:
                raise InputError(
                    f"{name}: has {len(parts)} parts between `_`, not {fewest} "
                    f"({'_'.join(read.parts)}); rename it or change read.parts"
                )
        found |= {p: np.array([s[i] for s in split]) for i, p in enumerate(read.parts)}
        for i, part in enumerate(read.optional_parts, fewest):
            found[part] = np.array([s[i] if i < len(s) else "" for s in split])
    if both := sorted(set(found) & set(items.columns)):
        raise InputError(f"read.parts or read.folders: {both[0]} is a column of the data already")
    found |= items.columns
    files = np.array([n.partition(":")[0] for n in names])
    constants = {f: c for f, c in read.constants.items() if f in files}
    for column in sorted({c for values in constants.values() for c in values}):
        if column in found:
            raise InputError(f"read.constants: {column} is a column of the data already")
        given = {f: values[column] for f, values in constants.items() if column in values}
        if lacking := sorted(set(files) - set(given)):
            raise InputError(f"read.constants: {lacking[0]} is given no {column}")
        found[column] = np.array([given[f] for f in files])
    return found


def find_only(fields: dict[str, np.ndarray], only: dict[str, list[str]]) -> np.ndarray:
    """The rows that have one of the values named for each field, (n,) int64.

    Raises InputError for a field or a value that the data lack.
    """
    chosen = np.ones(len(next(iter(fields.values()))), bool)
    for field, values in only.items():
        if field not in fields:
            raise InputError(f"read.only: the data have no {field}{suggest(field, fields)}")
        found = as_text(fields[field])
        for value in values:
            if value not in found:
                hint = suggest(value, np.unique(found).tolist())
                raise InputError(f"read.only.{field}: no item has {value or '(none)'}{hint}")
        chosen &= np.isin(found, values)
    if not chosen.any():
        raise InputError(f"read.only: no item has all of {', '.join(only)} as named")
    return np.flatnonzero(chosen)


def cut_folders(names: list[str]) -> list[list[str]]:
    """The folders above each file, outermost first, without those that all files share."""
    folders = [list(PurePosixPath(n).parts[:-1]) for n in names]
    while all(folders) and len({levels[0] for levels in folders}) == 1:
        folders = [levels[1:] for levels in folders]
    return folders


def _read_folders(items: Items, read: Read) -> dict[str, np.ndarray]:
    """The declared levels of folders as fields. Raises InputError where none are declared."""
    names = items.names.tolist()
    folders = cut_folders(names)
    if read.folders:
        count = len(read.folders)
        whole = [list(PurePosixPath(n).parts[:-1]) for n in names]
        # Folders that all files share come off, as long as enough are left.
        shared = len(whole[0]) - len(folders[0])
        shared = min(shared, max(0, min(map(len, whole)) - count))
        levels = [above[shared:] for above in whole]
        for name, above in zip(names, levels, strict=True):
            if len(above) != count:
                raise InputError(
                    f"{name}: lies in {len(above)} folders, not {count} "
                    f"({'/'.join(read.folders)}); move it or change read.folders"
                )
        return {f: np.array([above[i] for above in levels]) for i, f in enumerate(read.folders)}
    is_image = PurePosixPath(names[0]).suffix.lower() in IMAGE_SUFFIXES
    if is_image and not read.index and not items.columns:
        for name, above in zip(names, folders, strict=True):
            # A folder whose name is a part of the file's name says nothing new.
            if set(above) - set(PurePosixPath(name).stem.split("_")):
                kinds = sorted({levels[-1] for levels in folders if levels})
                raise InputError(
                    f"{name}: the images lie in folders ({', '.join(kinds[:4])}"
                    f"{', ...' if len(kinds) > 4 else ''}) that nothing reads; give each level a "
                    "name in read.folders, the outermost first, like [kind]"
                )
    return {}


def read_own_split(fields: dict[str, np.ndarray], own: Own) -> np.ndarray:
    """Which part each item is in by the data's own split, (N,) strings.

    Raises InputError, by name, for values that are of no part.
    """
    if own.field not in fields:
        raise InputError(
            f"read.own.field: the data have no {own.field}{suggest(own.field, fields)}"
        )
    parts = {v.casefold(): part for part in SPLITS for v in getattr(own, part)}
    values, place = np.unique(as_text(fields[own.field]), return_inverse=True)
    if strange := [v or "(empty)" for v in values.tolist() if v.casefold() not in parts]:
        raise InputError(
            f"read.own: {own.field} is {', '.join(strange[:5])}, which is of no part; add it to "
            "read.own.train, read.own.validation or read.own.test"
        )
    found = np.array([parts[v.casefold()] for v in values.tolist()])[place]
    for needed in ("train", "test"):
        if needed not in found:
            raise InputError(
                f"read.own: no {own.field} means {needed} (there are {', '.join(values[:5])}); "
                f"name one in read.own.{needed}"
            )
    return found


def check_head(name: str, head: Head, found: dict[str, np.ndarray]) -> str:
    """The field that a head's label is cut from. Raises InputError where the data lack it."""
    field = head.part or head.column or ""
    if field not in found:
        raise InputError(f"heads.{name}: the data has no column {field}{suggest(field, found)}")
    return field


def make_labels(
    name: str, head: Head, found: dict[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """A head's class names, (classes,) strings, and each item's class index, (N,) int64.

    A class is named as the label is written; numbers fall into bins.
    """
    field = check_head(name, head, found)
    values = np.strings.strip(as_text(found[field]))  # blanks around a name make no other class
    numbers = read_numbers(found[field]) if head.bins else None
    if head.bins and numbers is not None:
        binned = np.full(len(values), "", dtype=f"<U{max(map(len, head.bins))}")
        for bin_name, (low, high) in head.bins.items():
            binned[(numbers >= low) & (numbers <= high)] = bin_name
        if (binned == "").any():
            raise InputError(f"heads.{name}.bins: {numbers[binned == ''][0]:g} falls into none")
        values = binned
    present = np.unique(values).tolist()
    if hidden := [v for v in present if not v.translate(JOINERS).isprintable()]:
        raise InputError(
            f"heads.{name}: {ascii(hidden[0])[:80]} has a character that does not show; take it out"
        )
    if head.bins:
        if strange := sorted(set(present) - set(head.bins)):
            raise InputError(f"heads.{name}.bins: {strange[0]} is neither a number nor a bin")
        present = [b for b in head.bins if b in present]
    elif all(v.isascii() and v.isdecimal() for v in present):
        # As numbers, without making numbers of them: a label may have thousands of digits.
        present.sort(key=lambda v: (len(v.lstrip("0")), v.lstrip("0")))
    if len(present) < 2:
        raise InputError(f"heads.{name}: all items are {present[0]}; a head needs two classes")
    index = {c: i for i, c in enumerate(present)}
    return np.array(present), np.array([index[v] for v in values.tolist()], "int64")


def check_classes(name: str, classes: np.ndarray, items: Items, read: Read) -> None:
    """Refuse a head whose classes have hardly more than an item each: nothing can be learnt."""
    if 2 * len(classes) > len(items):
        hint = ""
        if items.images and not read.folders and cut_folders(items.names.tolist())[0]:
            hint = " Are the labels the names of folders? Then set read.folders."
        raise InputError(
            f"heads.{name}: {len(classes)} classes ({', '.join(classes[:3])}, ...) for "
            f"{len(items)} items; a class needs several.{hint}"
        )
