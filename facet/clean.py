"""Remove what the project's commands made in this folder: `make clean`."""

import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from facet.base.names import REPORT_FILE
from facet.base.storage import remove
from facet.base.unchanged import cache_object, lock_outputs
from facet.git import call_git
from facet.prediction import export, pictures

# What commands write beside the outputs that dvc.lock names; nobody else writes there.
OURS = (".ckpt", ".workers", str(REPORT_FILE), "dvc_plots", "review.json", "review.md")
NOTES = ("metrics/costs", "metrics/manifests")
OUTPUTS = ("data", "metrics/runs", *NOTES, "exports", "pictures")
PART = re.compile(r"\..+\.\d+\.part")  # what a stage that was killed has written aside


def find_made() -> Iterator[Path]:
    """The files and folders here that commands made: of metrics what git does not hold."""
    yield from (Path(name) for name in OURS)
    for name, hash in lock_outputs().items():
        if name.startswith(("data/", "metrics/runs/")):
            yield from list_members(Path(name), hash)
    for notes in NOTES:
        yield from Path(notes).glob("*.json")
    for folder in Path("exports").glob("*/*/"):
        if {p.name for p in folder.iterdir()} <= {export.ABOUT_FILE, *export.FILES.values()}:
            yield folder
    for folder in Path("pictures").glob("*/"):
        yield from (folder / name for name in pictures.FILES)
    yield from (p for p in Path("data").rglob(".*.part") if PART.fullmatch(p.name))


def list_members(output: Path, hash: str) -> list[Path]:
    """An output, or the files of a folder that DVC's listing has: others are somebody's own."""
    if not output.is_dir():
        return [output]
    listing = cache_object(hash)
    members = json.loads(listing.read_bytes()) if listing else []
    return [output / member["relpath"] for member in members]


def clean() -> None:
    """Remove outputs, checkpoints and reports; what nothing here has made stays, and is named."""
    for path in list(find_made()):
        remove(path)
    left = []
    for name in OUTPUTS:
        for folder, _, files in os.walk(name, topdown=False):
            left += [os.path.join(folder, file) for file in files]
            with contextlib.suppress(OSError):  # not empty, or a link
                os.rmdir(folder)
    call_git("worktree", "prune")
    if left:
        more = f" and {len(left) - 8} more" if len(left) > 8 else ""
        print(f"not of this project's commands, so they stay: {', '.join(sorted(left)[:8])}{more}")
