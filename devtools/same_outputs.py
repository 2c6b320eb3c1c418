"""Have two checkouts made the same? Data, models, predictions and figures, member by member.

    python -m devtools.same_outputs A B

Compares what lies in `data` and `metrics` of the folders A and B: each array of an archive, each
value of a JSON file, each column of a table, all other files as bytes. What names the code, the
commit or a W&B run is left out: that differs where the code does. Exit status 1 where anything
differs, with a line for each member.
"""

import argparse
import csv
import hashlib
import json
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Keys of JSON files and columns of tables that name code, a commit, a machine or a W&B run.
LEFT_OUT = frozenset({"commit", "declared", "identity", "md5", "uncommitted", "wandb", "wandb_id"})
# Notes of when and where, which differ each time.
NOTES = ("metrics/costs", "metrics/manifests", "metrics/report.html")


def digest(content: bytes) -> str:
    """The first digits of a SHA-256."""
    return hashlib.sha256(content).hexdigest()[:16]


def list_values(tree: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Each value of a JSON tree with its dotted key, without what is left out."""
    if isinstance(tree, dict):
        for name in sorted(set(tree) - LEFT_OUT):
            yield from list_values(tree[name], f"{key}.{name}")
    elif isinstance(tree, list) and any(isinstance(one, (dict, list)) for one in tree):
        for number, one in enumerate(tree):
            yield from list_values(one, f"{key}[{number}]")
    else:
        yield key, json.dumps(tree)


def read_members(file: Path) -> dict[str, str]:
    """The members of a file, each with a digest or its value."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            return {f"[{name}]": digest(archive.read(name)) for name in archive.namelist()}
    if file.suffix == ".json":
        return dict(list_values(json.loads(file.read_text())))
    if file.suffix == ".csv" and file.parts[-2:-1] == ("metrics",):
        with file.open(newline="") as opened:
            names, *rows = csv.reader(opened)
        columns = zip(names, zip(*rows, strict=True), strict=True)
        return {f".{name}": digest(repr(c).encode()) for name, c in columns if name not in LEFT_OUT}
    return {"": digest(file.read_bytes())}


def list_files(root: Path) -> set[str]:
    """The files that a checkout's stages have made, by their paths in it."""
    files = (p for name in ("data", "metrics") for p in (root / name).rglob("*") if p.is_file())
    names = {p.relative_to(root).as_posix() for p in files}
    return {name for name in names if not name.startswith(NOTES) and not name.endswith(".part")}


def find_differences(a: Path, b: Path) -> list[str]:
    """A line for each file or member that is in one alone, or not the same in both."""
    here, there = list_files(a), list_files(b)
    found = [f"{name}: in {a if name in here else b} alone" for name in sorted(here ^ there)]
    for name in sorted(here & there):
        one, other = read_members(a / name), read_members(b / name)
        for member in sorted(one.keys() | other.keys()):
            if one.get(member) != other.get(member):
                found.append(f"{name}{member}: {one.get(member)}, {other.get(member)}")
    return found


def main() -> None:
    """Print the differences; exit status 1 if there are any, or nothing to compare."""
    parser = argparse.ArgumentParser("python -m devtools.same_outputs", description=__doc__)
    parser.add_argument("a", type=Path)
    parser.add_argument("b", type=Path)
    given = parser.parse_args()
    found = find_differences(given.a, given.b)
    files = len(list_files(given.a) & list_files(given.b))
    print(*found, f"{files} files in both, {len(found)} differences", sep="\n")
    sys.exit(bool(found) or not files)


if __name__ == "__main__":
    main()
