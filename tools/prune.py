"""Say what W&B's folders take and remove what has been uploaded: `make prune`."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from stages import tracking
from stages.common import command
from tools import records, sync


def size(folders: Iterable[Path]) -> int:
    """Bytes on disk under `folders`; a file with two names counts once."""
    found = {}
    for folder in folders:
        for place, _, names in os.walk(folder):
            for path in (Path(place) / n for n in ["", *names]):
                about = path.lstat()
                found[about.st_ino] = about.st_blocks * 512
    return sum(found.values())


def staged(run: sync.Recorded) -> list[Path]:
    """The copies W&B keeps of what was in a run's artifacts."""
    inside = Path(os.environ["WANDB_DATA_DIR"]).resolve()
    paths = [Path(e["local_path"]) for c in run.artifacts.values() for e in c if "local_path" in e]
    return [p for p in paths if inside in p.resolve().parents]


def prune(folder: Path) -> tuple[int, int]:
    """Remove the folders of uploaded runs; returns how many, and how many stay."""
    gone = stay = 0
    for file in records.files(folder):
        if not file.with_name(file.name + ".synced").exists():
            stay += 1
            continue
        run = sync.recorded(file)
        for path in staged(run) if run else []:
            path.unlink(missing_ok=True)
        if run and not (file.parent / tracking.JOINED).exists():
            with (folder / tracking.PRUNED).open("a") as known:  # a repeat needs another id
                known.write(run.id + "\n")
        shutil.rmtree(file.parent)
        gone += 1
    return gone, stay


def main() -> None:
    """Remove what W&B's server has; what waits for upload stays."""
    tracking.configure()
    here = [tracking.folder(), *(Path(os.environ[f"WANDB_{n}_DIR"]) for n in ("DATA", "CACHE"))]
    before = {p: size([p]) for p in here}
    gone, stay = prune(tracking.folder())
    for path, was in before.items():
        print(f"{path}: {was / 1e6:.1f} MB, now {size([path]) / 1e6:.1f} MB")
    print(f"{gone} uploaded folders removed, {stay} not uploaded stay" + "; make sync" * bool(stay))


if __name__ == "__main__":
    command(main)
