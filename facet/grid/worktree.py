"""A worker's git worktree, equal to the working tree."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from facet.base.names import PARAMS_FILE
from facet.errors import InputError
from facet.git import call_git, run_git

WORKERS = Path(".workers")
RUNNING = WORKERS / "running"  # held by the process that has the workers
LOGS, PROGRESS = WORKERS / "logs", WORKERS / "progress"  # a file for each target
# What a run leaves outside DVC's outputs.
SHARED_FOLDERS = (".ckpt", "metrics/costs", "metrics/manifests")


@contextlib.contextmanager
def only_one() -> Iterator[None]:
    """Hold the workers' folder. Raises InputError, with its number, where another process does."""
    import fcntl

    WORKERS.mkdir(exist_ok=True)
    with RUNNING.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise InputError(
                f"another `make repro` runs here (process {file.read().strip() or '?'}); wait for "
                "it, or end it"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def sync_worktree(folder: Path, root: Path, params: str = "", notes: Path | None = None) -> None:
    """Make `folder` a git worktree that equals the working tree of `root`.

    Its params.yaml holds `params` if there are any. What runs note beside their outputs goes to
    `notes`, which is `root` if not said.
    """

    from dvc.config import Config
    from dvc.repo import Repo

    def add_tree(anew: bool) -> list[str]:
        """Have git lay it; returns the files it holds and knows, or would ask about."""
        if anew or not (folder / ".git").exists():
            shutil.rmtree(folder, ignore_errors=True)
            run_git("worktree", "prune", at=root)
            # Twice: also where a worktree that was killed in the making is still locked.
            force = ["--force", "--force", "--detach", "--no-checkout"]
            run_git("worktree", "add", *force, folder, head, at=root)
        run_git("reset", "--quiet", head, at=folder)
        return run_git(*listed, at=folder).split("\0")

    listed = ("ls-files", "-z", "--cached", "--others", "--exclude-standard")
    try:
        head = call_git("rev-parse", "--verify", "--quiet", "HEAD", at=root).stdout.strip()
        if not head:
            raise InputError("the repository has no commit yet; make a first one")
        ours = [
            f for f in set(run_git(*listed, at=root).split("\0")) - {""} if (root / f).is_file()
        ]
        try:
            theirs = add_tree(anew=False)
        except InputError:  # killed while it was laid or reset
            theirs = add_tree(anew=True)
    except InputError as e:
        raise InputError(f"{folder}: no worktree can be laid: {e}") from None
    for name in set(theirs) - {"", *ours}:
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
        # Links: large data lie once on the disk, not again for each worker. The folder as seen from
        # here, which DVC makes relative: it writes ASCII alone, and the project may lie anywhere.
        here = os.path.relpath(cache)
        settings["cache"] |= {"dir": here, "type": ["hardlink", "copy"]}
        # DVC takes the worktree of a submodule for a folder outside of git; a worker needs no git.
        settings["core"] |= {"no_scm": True}
    for name in SHARED_FOLDERS:
        place = (notes or root) / name
        place.mkdir(parents=True, exist_ok=True)
        link = folder / name
        link.parent.mkdir(parents=True, exist_ok=True)
        if link.is_dir() and not link.is_symlink():
            shutil.rmtree(link)
        link.unlink(missing_ok=True)
        link.symlink_to(place)
