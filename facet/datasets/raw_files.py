"""Which of a source's files are data: by their endings, or by an index that lists them."""

import csv
import io
from collections import Counter
from pathlib import PurePosixPath

from facet.base.names import (
    ARRAY_SUFFIXES,
    IMAGE_SUFFIXES,
    RAW_INDEX,
    RAW_INDEX_COLUMN,
    TABLE_SUFFIXES,
)
from facet.errors import InputError


def select_data_files(names: list[str]) -> tuple[list[str], list[str]]:
    """The names that hold data, of one kind, and the names left out.

    A folder with images is a set of images, and the tables beside them may say more of each; else
    it is tables, else arrays. What is hidden is left out: macOS puts a `._a.png` beside a.png.
    """
    seen = [n for n in names if not _is_hidden(n)]

    def choose(suffixes: set[str]) -> list[str]:
        return [n for n in seen if PurePosixPath(n).suffix.lower() in suffixes]

    images, tables, arrays = map(choose, (IMAGE_SUFFIXES, TABLE_SUFFIXES, ARRAY_SUFFIXES))
    if not images:
        tables = [n for n in tables if PurePosixPath(n).name != RAW_INDEX]
    chosen = images + tables if images else tables or arrays
    return sorted(chosen), sorted(set(names) - set(chosen))


def _is_hidden(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return "__MACOSX" in parts or any(p.startswith(".") and p != ".." for p in parts)


def read_index(text: str, where: str) -> list[str]:
    """The file names in an index's column `files`, each once, plain relative names alone."""
    try:
        rows = csv.DictReader(io.StringIO(text.lstrip("\ufeff")))
        if RAW_INDEX_COLUMN not in (rows.fieldnames or []):
            raise InputError(
                f"{where}: no column `{RAW_INDEX_COLUMN}`; its first line must name it"
            )
        names = [name for row in rows if (name := (row[RAW_INDEX_COLUMN] or "").strip())]
    except csv.Error as e:
        raise InputError(f"{where}: not a CSV table: {e}") from None
    if not names:
        raise InputError(f"{where}: lists no files")
    for name in names:
        if not is_plain(name) or "\\" in name:
            raise InputError(f"{where}: {name!r} is not a plain relative file name")
        if (
            name.endswith("/")
            or PurePosixPath(name).suffix.lower()
            not in IMAGE_SUFFIXES | TABLE_SUFFIXES | ARRAY_SUFFIXES
        ):
            raise InputError(f"{where}: {name!r} has no ending of a known kind (.png, .csv, ...)")
    twice, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise InputError(f"{where}: {twice} is listed twice")
    return names


def is_plain(name: str) -> bool:
    """Whether a name is of a file in or below a folder: relative, without `..`."""
    path = PurePosixPath(name)
    return not (path.is_absolute() or ".." in path.parts or "\0" in name)


def says_more(index: str) -> bool:
    """Whether an index has further columns than that of the files, such as labels."""
    return len(next(csv.reader(index.splitlines()), [])) > 1
