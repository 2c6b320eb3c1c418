"""Which targets of the grid are to be made, and in which order."""

from collections.abc import Container

from facet.base.config import Parameters, parse_run, run_names
from facet.base.names import STAGES

# Targets by name, each with the targets it waits for and all stages that it is made of.
Plan = dict[str, tuple[list[str], list[str]]]


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


def plan_targets(parameters: Parameters, wanted: list[str], changed: set[str]) -> Plan:
    """Targets that are not up to date."""
    plan: Plan = {}
    for run in wanted:
        waits: list[str] = []
        upstream: list[str] = []
        for target, stages in target_chain(parameters, run).items():
            upstream = [*upstream, *stages]
            if waits or changed.intersection(stages):
                plan[target] = (waits, upstream)
                waits = [target]
    return plan


def ready_targets(left: list[str], plan: Plan, made: Container[str]) -> list[str]:
    """The targets of `left` that wait for none that is not `made`."""
    return [t for t in left if all(w in made for w in plan[t][0])]


def stages_to_make(plan: Plan, changed: set[str]) -> dict[str, list[str]]:
    """The stages that each target of a plan will run: its first changed one and what follows.

    `changed` may leave out those that follow. A stage is named under one target alone.
    """
    found: dict[str, list[str]] = {}
    for target, (waits, stages) in plan.items():
        before = set(plan[waits[0]][1]) if waits else set()
        own = [s for s in stages if s not in before]
        first = 0 if waits else next((i for i, s in enumerate(own) if s in changed), len(own))
        found[target] = own[first:]
    return found


def stages_after(parameters: Parameters, made: set[str]) -> set[str]:
    """What depends on the stages that were `made`, they themselves left out."""
    found = {STAGES[-1]} if made else set()
    for run in run_names(parameters):
        chain = [s for stages in target_chain(parameters, run).values() for s in stages]
        first = next((i for i, s in enumerate(chain) if s in made), len(chain))
        found |= set(chain[first:])
    return found - made
