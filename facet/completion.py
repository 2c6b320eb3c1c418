"""What a shell's completion proposes for names: runs, experiments, settings of the project here.

Imported by every call of the program: it imports nothing that takes long.
"""

from pathlib import Path

from facet.base.names import RUN
from facet.errors import InputError


def complete_stored_run(incomplete: str) -> list[str]:
    """The runs whose models are here."""
    folders = Path(RUN.format("")).glob("*/model.json")
    return sorted(f.parent.name for f in folders if f.parent.name.startswith(incomplete))


def complete_experiments(incomplete: str) -> list[str]:
    """The experiments of params.yaml, the last of several with commas."""
    return _complete_last(incomplete, _list_experiments()[0])


def complete_runs(incomplete: str) -> list[str]:
    """The experiments and runs of params.yaml, the last of several with commas."""
    experiments, seeds = _list_experiments()
    runs = [f"{e}-{s}" for e in experiments for s in seeds]
    return _complete_last(incomplete, [*experiments, *runs])


def complete_settings(incomplete: str) -> list[str]:
    """The names in settings/, the last of several with commas."""
    return _complete_last(incomplete, sorted(p.stem for p in Path("settings").glob("*.yaml")))


def _list_experiments() -> tuple[list[str], list[int]]:
    """The names of experiments, and the seeds; none where params.yaml cannot be read."""
    from facet.base.config import read_params  # with pydantic

    try:
        tree = read_params()
        return list(tree["experiments"]), list(tree["seeds"])
    except (InputError, KeyError, TypeError):
        return [], []


def _complete_last(incomplete: str, names: list[str]) -> list[str]:
    before, comma, last = incomplete.rpartition(",")
    return [before + comma + name for name in names if name.startswith(last)]
