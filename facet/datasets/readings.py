"""A table's readings: which columns they are, how text becomes numbers, what fills gaps."""

from collections.abc import Mapping

import numpy as np

from facet.base.config import Dataset, Read, suggest
from facet.base.prepared import InputInfo
from facet.datasets.items import Items
from facet.datasets.tables import as_text, is_missing, read_numbers
from facet.errors import InputError

MOST_NAMES = 20  # in a message
ID_NAMES = {"id", "index", "unnamed:_0"}


def choose_readings(items: Items, spec: Dataset) -> InputInfo:
    """Which columns of a table are readings, and how their text becomes numbers.

    Raises InputError that names all columns that cannot be readings as they are.
    """
    read = spec.read
    declared = {*read.ignore, *read.keep, *read.one_hot, *read.ordinal}
    for column in sorted(declared - set(items.columns)):
        raise InputError(f"read: the data have no column {column}{suggest(column, items.columns)}")
    used = {h.column for h in spec.heads.values()} | {f for g in spec.group.values() for f in g}
    used |= {read.own.field} if read.own else set()
    # By name, so that the order in a file makes no difference.
    chosen = sorted(c for c in items.columns if c not in used and c not in read.ignore)
    unfit = {c: why for c in chosen if (why := why_no_reading(c, items, read))}
    if unfit:
        each = ", ".join(f"{column} ({why})" for column, why in list(unfit.items())[:MOST_NAMES])
        each += f" and {len(unfit) - MOST_NAMES} more" if len(unfit) > MOST_NAMES else ""
        raise InputError(
            f"columns that are no readings as they are: {each}; name each in read.one_hot or "
            "read.ordinal (text), in read.keep (a number that counts) or in read.ignore"
        )
    if not chosen:
        raise InputError("the table has no column left for readings")
    how: InputInfo = {"columns": chosen}
    if read.one_hot:
        how["one_hot"] = {c: list_values(items.columns[c]) for c in chosen if c in read.one_hot}
    if read.ordinal:
        how["ordinal"] = {c: values for c, values in read.ordinal.items() if c in chosen}
    return how


def list_values(column: np.ndarray) -> list[str]:
    """The values of a column as text, sorted, without missing ones."""
    return np.unique(as_text(column)[~is_missing(column)]).tolist()


def why_no_reading(name: str, items: Items, read: Read) -> str:
    """Why a column cannot be a reading as it is; empty if it can."""
    column = items.columns[name]
    if is_missing(column).all():
        return "empty"
    if name in read.one_hot or name in read.ordinal:
        return ""
    numbers = read_numbers(column)
    if numbers is None:
        values = list_values(column)
        text = next(v for v in values if read_numbers(np.array([v])) is None)
        return f"text: {text[:80]}" + (", each another" if len(values) == len(items) else "")
    if name in read.keep:
        return ""
    if name.casefold() in ID_NAMES:
        return "an id by its name"
    return "counts the rows" if counts_rows(numbers, items.names) else ""


def counts_rows(numbers: np.ndarray, names: np.ndarray) -> bool:
    """Whether a column is 0, 1, 2, ... or 1, 2, 3, ..., in each file or over all of them."""
    of_file = np.array([int(n.rpartition(":")[2]) for n in names.tolist()])
    over_all = np.arange(1, len(names) + 1)
    return len(names) > 2 and any(
        (numbers - rows == start).all() for rows in (of_file, over_all) for start in (0, -1)
    )


def encode_readings(
    columns: Mapping[str, np.ndarray], names: np.ndarray, how: InputInfo
) -> np.ndarray:
    """The readings of each row as `how` describes them, N x readings float64, NaN where missing.

    Raises InputError, by row, for what is no finite number or no known value.
    """
    one_hot, ordinal = how.get("one_hot", {}), how.get("ordinal", {})
    found = []
    for name in how["columns"]:
        column = columns[name]
        missing = is_missing(column)
        known = one_hot.get(name) or ordinal.get(name)
        if known is None:
            numbers = read_numbers(column)
            if numbers is None:
                texts = as_text(column)
                row = next(i for i, t in enumerate(texts) if read_numbers(texts[i : i + 1]) is None)
                raise InputError(f"{names[row]}: {name} is {texts[row]}, not a number")
            if (infinite := np.isinf(numbers)).any():
                raise InputError(f"{names[infinite.argmax()]}: {name} is not finite")
            found.append(numbers[:, None])
            continue
        texts = as_text(column)
        place = {value: i for i, value in enumerate(known)}
        codes = np.array([place.get(t, -1) for t in texts.tolist()])
        if (strange := (codes < 0) & ~missing).any():
            row = int(strange.argmax())
            raise InputError(
                f"{names[row]}: {name} is {texts[row]}, which is none of {', '.join(known)}"
            )
        coded = np.eye(len(known))[codes] if name in one_hot else codes[:, None].astype("float64")
        coded[missing] = np.nan
        found.append(coded)
    return np.concatenate(found, 1)


def find_fill(readings: np.ndarray, how: InputInfo) -> np.ndarray:
    """What stands for a missing value, (readings,) float64.

    The median of the given rows; for a column of text its commonest value.
    """
    one_hot, ordinal = how.get("one_hot", {}), how.get("ordinal", {})
    found: list[float] = []
    for name in how["columns"]:
        width = len(one_hot.get(name, [name]))
        part = readings[:, len(found) : len(found) + width]
        part = part[~np.isnan(part).any(1)]
        if not len(part):
            raise InputError(f"column {name} has no value in the training part; set read.ignore")
        if name in one_hot:
            found += np.eye(width)[part.sum(0).argmax()].tolist()
        elif name in ordinal:
            values, counts = np.unique(part, return_counts=True)
            found.append(float(values[counts.argmax()]))
        else:
            found.append(float(np.median(part)))
    return np.array(found)


def fill_missing(readings: np.ndarray, fill: np.ndarray) -> np.ndarray:
    """The readings, `fill` (readings,) where they are NaN."""
    return np.where(np.isnan(readings), fill, readings)
