"""Tables: the rows of CSV files, and what an index beside images says of each of them.

A column is float64, NaN where a cell is empty, if each number can be had back as it was written;
else it is the text of the file, "" where a cell is empty. So `01` and `1` stay two labels.
"""

import csv
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from facet.base.arrays import CHUNK_BYTES
from facet.base.config import Index, suggest
from facet.base.names import IMAGE_SUFFIXES
from facet.datasets.items import Items
from facet.errors import InputError

# What people and programs write for a missing value; `?` is UCI's.
MISSING = ["", "?", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "<NA>", "#N/A"]
SEPARATORS, OTHER_SEPARATORS = (",", ";", "\t"), ("|", ":", " ")
LONGEST_HEADER = 10_000_000  # characters
LONGEST_CELL = 20_000  # characters; each cell of its column takes as much memory
CHUNK_ROWS = 50_000
EXACT = 2.0**53  # from here on not every whole number is a float64


def read_columns(path: Path) -> dict[str, np.ndarray]:
    """The columns of one CSV file (`,`, `;` or tabs), (N,) each; blanks in their names become `_`.

    Raises InputError.
    """
    import pandas as pd  # here: it takes a third of the time to start, and images need none of it

    parts: dict[str, list[_Cells]] = {}
    try:
        refuse_null_bytes(path)
        with path.open(encoding="utf-8-sig") as file:
            separator = _read_header(file.readline(LONGEST_HEADER), path)
        with (
            warnings.catch_warnings(action="error", category=pd.errors.ParserWarning),
            pd.read_csv(
                path,
                sep=separator,
                encoding="utf-8-sig",
                index_col=False,
                dtype=str,
                keep_default_na=False,
                chunksize=CHUNK_ROWS,
            ) as frames,
        ):
            for frame in frames:
                # A row that ends early has cells that are no strings.
                for name, column in frame.fillna("").items():
                    cells = column.tolist()
                    if (longest := max(map(len, cells), default=0)) > LONGEST_CELL:
                        raise ValueError(
                            f"a cell of {name} has {longest:,} characters; is a quote left open?"
                        )
                    texts = np.strings.strip(np.array(cells, str))
                    parts.setdefault(str(name), []).append(_compact(texts))
    except pd.errors.ParserWarning:
        raise InputError(f"{path}: a row has more cells than there are columns") from None
    except (ValueError, csv.Error) as e:
        raise InputError(f"{path}: not a CSV table: {' '.join(str(e).split())}") from None
    if not parts or not len(next(iter(parts.values()))[0].values):
        raise InputError(f"{path}: has no rows")
    return {_name_column(name): _join(chunks) for name, chunks in parts.items()}


def refuse_null_bytes(path: Path) -> None:
    """Raise ValueError for a file that is no text: numpy would drop the zeros."""
    with path.open("rb") as file:
        while piece := file.read(CHUNK_BYTES):
            if b"\0" in piece:
                raise ValueError("it holds zero bytes: it is no text, or not in UTF-8")


def _name_column(written: str) -> str:
    return written.strip().replace(" ", "_")


def _read_header(line: str, path: Path) -> str:
    """What separates a table's cells: of `SEPARATORS` the one that makes most columns.

    Raises InputError for another one, and for a name that two columns have.
    """
    found = [(s, next(csv.reader([line], delimiter=s), [])) for s in SEPARATORS]
    separator, names = max(found, key=lambda one: len(one[1]))
    if len(names) == 1 and (other := next((s for s in OTHER_SEPARATORS if s in line), None)):
        raise InputError(
            f"{path}: seems to be separated by `{other}`; save it with `,`, `;` or tabs"
        )
    if any(name and not name.strip() for name in names):
        raise InputError(f"{path}: a column's name is blank; give it one")
    counts = Counter(_name_column(name) for name in names if name.strip())
    twice, times = counts.most_common(1)[0] if counts else ("", 0)
    if times > 1:
        written = [f"`{n.strip()}`" for n in names if _name_column(n) == twice]
        raise InputError(
            f"{path}: the columns {' and '.join(written[:2])} are both {twice}; rename one"
        )
    return separator


@dataclass(frozen=True)
class _Cells:
    """Some cells of a column: float64 if their texts can be had back, else the texts."""

    values: np.ndarray
    point: bool | None = None
    """Whether whole numbers are written 7.0 and not 7; None where there are none."""

    def as_text(self) -> np.ndarray:
        return as_text(self.values, repr if self.point else write_number)


def _compact(texts: np.ndarray) -> _Cells:
    """The cells of these texts."""
    texts = np.where(np.isin(texts, MISSING), "", texts)
    numbers = read_numbers(texts)
    if numbers is None:
        return _Cells(texts)
    written = set(np.unique(texts[texts != ""]).tolist())
    values = np.unique(numbers[texts != ""]).tolist()
    whole = any(v.is_integer() for v in values)
    for point, write in ((False, write_number), (True, repr)):
        if written == set(map(write, values)):
            return _Cells(numbers, point if whole else None)
    return _Cells(texts)


def _join(chunks: list[_Cells]) -> np.ndarray:
    kinds = {(c.values.dtype.kind, c.point) for c in chunks} - {("f", None)}
    if len(kinds) > 1 or ("U", None) in kinds:
        return np.concatenate([chunk.as_text() for chunk in chunks])
    return np.concatenate([chunk.values for chunk in chunks])


def write_number(value: float) -> str:
    """A number as text: 7, 0.25, 1234567; "" for NaN."""
    if value != value:
        return ""
    return str(int(value)) if value.is_integer() and abs(value) < EXACT else repr(value)


def as_text(column: np.ndarray, write: Callable[[float], str] = write_number) -> np.ndarray:
    """A column as strings, "" where a value is missing."""
    if column.dtype.kind == "U":
        return column
    values, place = np.unique(column, return_inverse=True)
    return np.array(["" if v != v else write(v) for v in values.tolist()], str)[place]


def read_numbers(column: np.ndarray) -> np.ndarray | None:
    """A column as float64, NaN where a value is missing; None if a cell is no number."""
    if column.dtype.kind == "f":
        return column
    texts = np.where(column == "", "nan", column)
    if (np.strings.find(texts, "_") >= 0).any():  # Python's own way to write 1_000
        return None
    try:
        return texts.astype("float64")
    except ValueError:
        return None


def is_missing(column: np.ndarray) -> np.ndarray:
    """Where a column has no value, (N,) bool."""
    return np.isnan(column) if column.dtype.kind == "f" else column == ""


def read_tables(paths: list[Path]) -> Items:
    """Rows of CSV files one after the other; `names` is FILE:ROW, from 1 after the header."""
    tables = [read_columns(path) for path in paths]
    for path, table in zip(paths, tables, strict=True):
        if table.keys() != tables[0].keys():
            strange = sorted(table.keys() ^ tables[0].keys())[0]
            raise InputError(
                f"{paths[0].parent}: the tables' columns differ: {strange} is not in both of "
                f"{paths[0].name} and {path.name}"
            )
    counts = [len(next(iter(table.values()))) for table in tables]
    names = [f"{p.name}:{row + 1}" for p, n in zip(paths, counts, strict=True) for row in range(n)]
    columns = {name: _join([_Cells(table[name]) for table in tables]) for name in tables[0]}
    return Items(np.array(names), columns)


# --- an index beside images --------------------------------------------------------------------


def _cut_name(name: str) -> tuple[list[str], str, str]:
    """A name's folders, innermost first, its last part without an image's ending, and that."""
    path = PurePosixPath(name.replace("\\", "/"))
    ending = path.suffix if path.suffix.lower() in IMAGE_SUFFIXES else ""
    return list(path.parts[-2::-1]), path.name.removesuffix(ending), ending


def match_names(images: list[str], written: Iterable[str]) -> list[int]:
    """For each name `written` the place in `images` of the one image it means; -1 for none.

    A name may lack folders or ending, or have folders more.
    """
    exact = {image: place for place, image in enumerate(images)}
    by_stem: dict[str, list[tuple[int, list[str], str]]] = {}
    for place, image in enumerate(images):
        folders, stem, ending = _cut_name(image)
        by_stem.setdefault(stem, []).append((place, folders, ending))
    found = []
    for name in written:
        folders, stem, ending = _cut_name(name)
        fitting = [
            place
            for place, inside, its_ending in by_stem.get(stem, ())
            if ending in ("", its_ending)
            and all(a == b for a, b in zip(folders, inside, strict=False))
        ]
        found.append(exact.get(name, fitting[0] if len(fitting) == 1 else -1))
    return found


def join_index(images: list[str], path: Path, index: Index) -> tuple[np.ndarray, Items]:
    """The places of the images that an index has a row for, in order, and these as items.

    The items have the index's other columns. Raises InputError for an image without a row and a
    row without an image, unless `index.unmatched` says to drop them.
    """
    columns = read_columns(path)
    if index.column not in columns:
        raise InputError(
            f"read.index.column: {path.name} has no column {index.column}"
            f"{suggest(index.column, columns)}"
        )
    written = as_text(columns.pop(index.column)).tolist()
    places = np.array(match_names(images, written), "int64")
    strays = [written[row] or f"row {row + 1}" for row in np.flatnonzero(places < 0)]
    unlisted = [images[p] for p in sorted(set(range(len(images))) - set(places.tolist()))]
    if index.unmatched == "refuse" and (strays or unlisted):
        counted = [
            f"{what} (the first: {names[0]})"
            for what, names in (
                (f"{len(strays)} rows name no image or several", strays),
                (f"{len(unlisted)} images have no row", unlisted),
            )
            if names
        ]
        raise InputError(
            f"{path.name}: {' and '.join(counted)}; correct them, or leave them out by "
            "read.index.unmatched: drop"
        )
    rows = np.flatnonzero(places >= 0)
    if not len(rows):
        raise InputError(f"{path.name}: column {index.column} names none of the images")
    order = rows[np.argsort(places[rows], kind="stable")]
    places = places[order]
    if (twice := np.flatnonzero(np.diff(places) == 0)).size:
        raise InputError(f"{path.name}: {images[places[twice[0]]]} has two rows; keep one")
    names = np.array([images[p] for p in places])
    return places, Items(names, {name: column[order] for name, column in columns.items()})
