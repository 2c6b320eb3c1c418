"""A worker's git worktree, equal to the working tree."""

import shutil
import subprocess
from pathlib import Path

from facet.base.names import PARAMS_FILE

WORKERS = Path(".workers")
LOGS, PROGRESS = WORKERS / "logs", WORKERS / "progress"  # a file for each target
# What a run leaves outside DVC's outputs.
SHARED_FOLDERS = (".ckpt", "metrics/costs", "metrics/manifests")


def sync_worktree(folder: Path, root: Path, params: str = "", notes: Path | None = None) -> None:
    """Make `folder` a git worktree that equals the working tree of `root`.

    Its params.yaml holds `params` if there are any. What runs note beside their outputs goes to
    `notes`, which is `root` if not said.
    """

    from dvc.config import Config
    from dvc.repo import Repo

    def git(*words: str, at: Path = root) -> str:
        return subprocess.run(
            ["git", *words], cwd=at, check=True, capture_output=True, text=True
        ).stdout

    head = git("rev-parse", "HEAD").strip()
    if not (folder / ".git").exists():
        shutil.rmtree(folder, ignore_errors=True)
        git("worktree", "prune")
        git("worktree", "add", "--force", "--detach", "--no-checkout", str(folder), head)
    git("reset", "--quiet", head, at=folder)
    listed = ("ls-files", "-z", "--cached", "--others", "--exclude-standard")
    ours = [f for f in set(git(*listed).split("\0")) - {""} if (root / f).is_file()]
    for name in set(git(*listed, at=folder).split("\0")) - {"", *ours}:
        (folder / name).unlink(missing_ok=True)
    for name in ours:
        there = folder / name
        if not there.is_file() or there.read_bytes() != (root / name).read_bytes():
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, there)
    if params:
        (folder / PARAMS_FILE).write_text(params)
    local = root / ".dvc/config.local"
    config = local.read_text() if local.exists() else ""
    (folder / ".dvc/config.local").write_text(config)
    with Repo(root) as repo:
        cache = repo.cache.local_cache_dir
    with Config(folder / ".dvc").edit("local") as settings:
        # Links: large data lie once on the disk, not again for each worker.
        settings["cache"] |= {"dir": cache, "type": ["hardlink", "copy"]}
    for name in SHARED_FOLDERS:
        place = (notes or root) / name
        place.mkdir(parents=True, exist_ok=True)
        link = folder / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(place)
