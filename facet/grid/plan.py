"""Which targets of the grid are to be made, and in which order."""

from facet.base.config import Parameters, parse_run, run_names
from facet.base.names import STAGES


def stage_names(parameters: Parameters) -> list[str]:
    """All stages, in the order of dvc.yaml, which is that of dvc.lock."""
    *of_datasets, augment, train, evaluate, compare = STAGES
    runs = run_names(parameters)
    items = {stage: list(parameters.datasets) for stage in of_datasets}
    items |= {augment: list(parameters.experiments), train: runs, evaluate: runs}
    return [f"{stage}@{item}" for stage, names in items.items() for item in names] + [compare]


def target_chain(parameters: Parameters, run: str) -> dict[str, list[str]]:
    """The targets that make a run, in order, each with the stages it is made of."""
    experiment, _ = parse_run(run)
    data = parameters.experiments[experiment].dataset
    return {
        f"normalise@{data}": [f"{s}@{data}" for s in ("download", "pickle", "normalise")],
        f"augment@{experiment}": [f"augment@{experiment}"],
        f"evaluate@{run}": [f"train@{run}", f"evaluate@{run}"],
    }


def plan_targets(
    parameters: Parameters, wanted: list[str], changed: set[str]
) -> dict[str, tuple[list[str], list[str]]]:
    """Targets that are not up to date, each with the targets it waits for and all its stages."""
    plan: dict[str, tuple[list[str], list[str]]] = {}
    for run in wanted:
        waits: list[str] = []
        upstream: list[str] = []
        for target, stages in target_chain(parameters, run).items():
            upstream = [*upstream, *stages]
            if waits or changed.intersection(stages):
                plan[target] = (waits, upstream)
                waits = [target]
    return plan


def stages_to_make(plan: dict[str, tuple[list[str], list[str]]], changed: set[str]) -> list[str]:
    """The stages that a plan's targets will run: in each the first changed one and what follows."""
    found = []
    for waits, stages in plan.values():
        before = set(plan[waits[0]][1]) if waits else set()
        stale = bool(waits)
        for stage in (s for s in stages if s not in before):
            stale = stale or stage in changed
            if stale:
                found.append(stage)
    return list(dict.fromkeys(found))
