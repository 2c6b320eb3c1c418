"""Say what W&B's folders take and remove what has been uploaded: `make prune`."""

import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

from facet.tracking import offline_records, sync, wandb_run

YOUNG_SECONDS = 600  # seconds


def disk_usage(folders: Iterable[Path]) -> int:
    """Bytes on disk under `folders`; a file with two names counts once."""
    found = {}
    for folder in folders:
        for place, _, names in os.walk(folder):
            for path in (Path(place) / n for n in ["", *names]):
                about = path.lstat()
                found[about.st_ino] = about.st_blocks * 512
    return sum(found.values())


def files_needed(run: sync.Recorded) -> set[str]:
    """The files a run's upload will read."""
    return {e["local_path"] for c in run.artifacts.values() for e in c if "local_path" in e}


def remove_uploaded(folder: Path) -> tuple[int, int]:
    """Remove the folders of uploaded runs; returns how many, and how many stay."""
    files = offline_records.record_files(folder)
    uploaded = [f for f in files if f.with_name(f.name + ".synced").exists()]
    keep = set().union(
        *(files_needed(r) for f in files if f not in uploaded if (r := sync.read_recorded(f)))
    )
    for file in uploaded:
        if not (file.parent / wandb_run.JOINED).exists():
            with (folder / wandb_run.PRUNED).open("a") as known:  # a repeat needs another id
                known.write(file.stem.removeprefix("run-") + "\n")
        shutil.rmtree(file.parent)
    # W&B copies what goes into a table, and some of it twice; a young copy may be of a run that
    # is just being logged. A folder that other projects use too may hold what waits of theirs.
    data = Path(os.environ["WANDB_DATA_DIR"]).resolve()
    for path in (data / "artifacts/staging").glob("*"):
        if (
            data.is_relative_to(Path.cwd())
            and path.is_file()
            and str(path) not in keep
            and time.time() - path.stat().st_mtime > YOUNG_SECONDS
        ):
            path.unlink()
    return len(uploaded), len(files) - len(uploaded)


def prune_runs() -> None:
    """Remove what W&B's server has; what waits for upload stays."""
    wandb_run.configure_wandb()
    here = [
        wandb_run.runs_folder(),
        *(Path(os.environ[f"WANDB_{n}_DIR"]) for n in ("DATA", "CACHE")),
    ]
    before = {p: disk_usage([p]) for p in here}
    gone, stay = remove_uploaded(wandb_run.runs_folder())
    for path, was in before.items():
        print(f"{path}: {was / 1e6:.1f} MB, now {disk_usage([path]) / 1e6:.1f} MB")
    print(f"{gone} uploaded folders removed, {stay} not uploaded stay" + "; make sync" * bool(stay))
