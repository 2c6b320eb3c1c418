"""Remove what the project's commands made in this folder: `make clean`."""

import os
from collections.abc import Iterator
from pathlib import Path

from facet.base.names import REPORT_FILE
from facet.base.storage import remove
from facet.base.unchanged import lock_outputs
from facet.git import call_git
from facet.prediction import export, pictures

# What commands write beside the outputs that dvc.lock names; nobody else writes there.
OURS = (
    *(".ckpt", ".workers", "metrics/costs", "metrics/manifests", str(REPORT_FILE)),
    *("dvc_plots", "review.json", "review.md", "comment.md"),
)
OUTPUTS = ("data", "metrics/runs", "exports", "pictures")


def find_made() -> Iterator[Path]:
    """The files and folders here that commands made: of metrics what git does not hold."""
    yield from (Path(name) for name in OURS)
    yield from (
        Path(name) for name in lock_outputs() if name.startswith(("data/", "metrics/runs/"))
    )
    for folder in Path("exports").glob("*/*/"):
        if {p.name for p in folder.iterdir()} <= {export.ABOUT_FILE, *export.FILES.values()}:
            yield folder
    for folder in Path("pictures").glob("*/"):
        yield from (folder / name for name in pictures.FILES)
    yield from Path("data").rglob(".*.part")  # of a stage that was killed


def clean() -> None:
    """Remove outputs, checkpoints and reports; what nothing here has made stays, and is named."""
    for path in list(find_made()):
        remove(path)
    left = []
    for name in OUTPUTS:
        for folder, _, files in os.walk(name, topdown=False):
            left += [os.path.join(folder, file) for file in files]
            if not os.listdir(folder):
                os.rmdir(folder)
    call_git("worktree", "prune")
    if left:
        more = f" and {len(left) - 4} more" if len(left) > 4 else ""
        print(f"not of this project's commands, so they stay: {', '.join(sorted(left)[:4])}{more}")
