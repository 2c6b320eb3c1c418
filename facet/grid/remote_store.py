"""What goes to DVC's remote and comes from it, stage by stage.

`dvc push` and `dvc pull` build the whole graph for each call: 1.3 s where this takes 0.3 s.
"""

from collections.abc import Callable, Collection, Iterable
from typing import Any, TypeVar

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc_data.hashfile.db import get_index
from tenacity import RetryError, Retrying, stop_after_delay, wait_random_exponential

PATIENCE = 120.0  # seconds for which a remote that fails is tried again
FEW = 100  # files that a remote is asked for one by one
Given = TypeVar("Given")


def _try_remote(what: str, act: Callable[[], Given]) -> Given:
    """What `act` returns, tried again for PATIENCE seconds. Raises DvcException after that."""
    # Each kind of remote has errors of its own.
    tries = Retrying(stop=stop_after_delay(PATIENCE), wait=wait_random_exponential(1, max=20))
    try:
        return tries(act)
    except RetryError as e:
        error = e.last_attempt.exception()
        words = " ".join(str(error).split())[:300]
        raise DvcException(
            f"{what}: the DVC remote failed for {PATIENCE:.0f} s: {type(error).__name__}: {words}"
        ) from None


def open_remote(repo: Repo) -> Any:
    """DVC's default remote. Its client takes half a second to be made: once for a process."""
    return repo.cloud.get_remote_odb()


def _forget(remote: Any) -> None:
    """Have DVC remember nothing of what a remote holds.

    DVC notes each folder that it pushed, and asks the remote for all of them each time: 260
    requests a run, five times as many, where 12 runs had been pushed. And what a remote has lost
    it takes for there.
    """
    get_index(remote).clear()


def _ask_for_each(remote: Any, stages: Iterable[Any]) -> None:
    """Have DVC ask a remote for each file of a few, where it would list all that are there.

    That list, and the time that it takes, grow with each run that was pushed.
    """
    files = sum(out.meta.nfiles or 1 for stage in stages for out in stage.outs if out.meta)
    remote.fs.CAN_TRAVERSE = files > FEW


def push_stages(repo: Repo, stages: Collection[Any], remote: Any) -> None:
    """Have a remote hold the outputs of DVC's `stages`, as dvc.lock has them.

    Raises DvcException where it does not, since they are not here or since it fails.
    """

    def push() -> None:
        _forget(remote)
        _ask_for_each(remote, stages)
        objects = {o for s in stages for some in s.get_used_objs().values() for o in some}
        if failed := repo.cloud.push(objects, odb=remote).failed:
            raise DvcException(f"{len(failed)} of {len(objects)} files did not arrive")

    _try_remote(f"pushing {', '.join(s.addressing for s in stages)}", push)


def pull_stages(repo: Repo, stages: list[Any], remote: Any) -> None:
    """Bring the outputs of stages, as dvc.lock has them, into the cache and their places."""

    def pull() -> None:
        _forget(remote)
        _ask_for_each(remote, stages)
        # The lists of folders first, all at once: DVC would fetch them one after the other.
        listed = {out.hash_info for stage in stages for out in stage.outs if out.hash_info}
        repo.cloud.pull(listed, odb=remote)
        objects = {o for s in stages for some in s.get_used_objs().values() for o in some}
        repo.cloud.pull(objects, odb=remote)
        for stage in stages:
            stage.checkout(force=True)

    if stages:
        _try_remote(f"pulling {', '.join(s.addressing for s in stages[:3])}", pull)


def has_outputs(stage: Any) -> bool:
    """Whether all outputs of a stage are in their places and are those of dvc.lock."""
    return not any(out.status() for out in stage.outs)


def find_inputs(chain: Iterable[Any], stage: Any) -> list[Any]:
    """The stages of a `chain` that make what `stage` reads."""
    read = {str(dep) for dep in stage.deps}
    return [s for s in chain if read & {str(out) for out in s.outs}]
