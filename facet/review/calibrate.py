"""How often does a review elsewhere err? `facet calibrate [TABLE]` measures it.

TABLE is a runs.csv with many seeds of each experiment; tests/data/seeds.csv has 24 of the default
grid. A review is played by drawing some seeds as the committed ones and as many others as those
made on another processor: another seed is at least as far as another processor, which begins with
the same weights and order. Then the same from simulated trainings, whose spread is known.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from facet.base.storage import read_csv
from facet.errors import InputError
from facet.review.consistency import FALSE_ALARM, POWER, Cell, count_items, judge, read_metrics

Table = dict[Cell, dict[int, float]]
Draw = Callable[[np.random.Generator], tuple[Table, Table]]


def measure_errors(
    draw: Draw, items: dict[Cell, float], reviews: int, seed: int
) -> tuple[float, float]:
    """The share of honest reviews that are inconsistent, and of changes that are found.

    Of each review one figure is then changed by the `smallest` change that its judgement states, up
    or down, in all its runs; one of those that can be changed as far within 0 and 1.
    """
    rng = np.random.default_rng(seed)
    alarms = found = changed = 0
    for _ in range(reviews):
        committed, here = draw(rng)
        judgements = judge(committed, here, items)
        alarms += any(j.verdict == "differs" for j in judgements)
        changes = [
            (cell, change)
            for j in judgements
            for cell in [(j.experiment, j.head, j.metric)]
            for change in (-(j.smallest or 0), j.smallest or 0)
            if all(0 <= v + change <= 1 for v in here[cell].values())
        ]
        if not changes:
            continue
        cell, change = changes[rng.integers(len(changes))]
        moved = here | {cell: {s: v + change for s, v in here[cell].items()}}
        verdicts = {
            (j.experiment, j.head, j.metric): j.verdict for j in judge(committed, moved, items)
        }
        found += verdicts[cell] == "differs"
        changed += 1
    return alarms / reviews, found / changed


def draw_seeds(table: Table, seeds: int) -> Draw:
    """Reviews from the seeds of `table`, the same ones for all figures of a review."""
    known = sorted(set.intersection(*(set(v) for v in table.values())))
    if len(known) < 2 * seeds:
        raise InputError(f"{len(known)} seeds in the table: {2 * seeds} are needed for {seeds}")

    def draw(rng: np.random.Generator) -> tuple[Table, Table]:
        chosen = rng.permutation(known)[: 2 * seeds].reshape(2, seeds)
        first, second = (
            {cell: {i: v[int(s)] for i, s in enumerate(side)} for cell, v in table.items()}
            for side in chosen
        )
        return first, second

    return draw


def simulate_seeds(table: Table, items: dict[Cell, float], seeds: int) -> Draw:
    """Reviews of simulated trainings: the figures of `table`, spreads of all sizes.

    Each head of an experiment has a share of right answers, of which a training hits more or fewer:
    as a normal number does whose spread is 0.3 to 3 times that of independent items, rounded to
    whole items. The two metrics of a head share their luck, as the heads of a run do by half.
    """

    def draw(rng: np.random.Generator) -> tuple[Table, Table]:
        factor = {cell[:2]: np.exp(rng.uniform(np.log(0.3), np.log(3))) for cell in table}
        sides: tuple[Table, Table] = ({}, {})
        for side in sides:
            shared = {cell[0]: rng.normal(size=seeds) for cell in table}
            noise = {
                cell[:2]: (shared[cell[0]] + rng.normal(size=seeds)) / np.sqrt(2) for cell in table
            }
            for cell, values in table.items():
                n, share = items[cell], float(np.mean(list(values.values())))
                spread = factor[cell[:2]] * np.sqrt(share * (1 - share) / n)
                drawn = np.rint((share + spread * noise[cell[:2]]) * n) / n
                side[cell] = dict(enumerate(drawn.clip(0, 1).tolist()))
        return sides

    return draw


def calibrate(table: Path, seeds: int, reviews: int) -> None:
    """Print how many honest reviews are called inconsistent, and how many changes are found."""
    rows = read_csv(table)
    metrics, items = read_metrics(rows), count_items(rows)
    for name, draw in (
        ("other seeds as another processor", draw_seeds(metrics, seeds)),
        ("simulated trainings", simulate_seeds(metrics, items, seeds)),
    ):
        alarms, found = measure_errors(draw, items, reviews, seed=0)
        print(
            f"{name}: {reviews} reviews of {len(metrics)} figures, {seeds} seeds: "
            f"{alarms:.2%} of honest ones inconsistent (at most {FALSE_ALARM:.0%} wanted), "
            f"{found:.1%} of smallest changes found (at least {POWER:.0%} stated)"
        )
