"""Is a result that was made again, with other bytes, consistent with the committed one?

For machines that promise no equal bytes: another architecture, no AVX2, a GPU. There a training
takes another path from the same start, as it does with another seed. So the question is whether
the figures made here differ from the committed ones by more than trainings differ over seeds.

Each figure of each run, and each figure's mean over seeds, is compared by a t test. Few seeds show
their spread badly; so each spread is moderated by those of all other heads and experiments (Smyth
2004, empirical Bayes), on the scale of what independent test items would give. All tests together
call an honest repeat inconsistent with a probability of at most FALSE_ALARM (Bonferroni); most of
it is spent on what is judged everywhere, balanced accuracies as means over seeds.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy import optimize, special, stats

from facet.base.names import CHANCE, MAIN_METRIC, METRIC_NAMES, Metric
from facet.formats import Judgement

FALSE_ALARM = 0.01  # of a whole review, as `facet calibrate` measures it
BUDGET = 0.005  # of that, spent on the tests; estimating the spreads takes the rest
MAIN_SHARE = 0.8  # of the budget, for the means of balanced accuracies
POWER = 0.9
MISSED = 0.09  # a little less than 1 - POWER, for the same reason
# Of a variance, on the scale of independent items: equal figures have none by luck.
VARIANCE_FLOOR = 0.01
EXACT_METRICS = (*CHANCE.values(), "n_test")  # of the data alone: no luck of training in them
Cell = tuple[str, str, Metric]  # experiment, head, metric
Metrics = Mapping[Cell, Mapping[int, float]]  # by seed
Row = Mapping[str, Any]  # of runs.csv, as words or as numbers, its columns gone through by name


def read_metrics(rows: Iterable[Row]) -> dict[Cell, dict[int, float]]:
    """The judged figures in rows of runs.csv, those of heads that are not applicable left out."""
    found: dict[Cell, dict[int, float]] = {}
    for row in rows:
        for metric in METRIC_NAMES:
            if row[metric] not in ("", None):
                cell = (row["experiment"], row["head"], metric)
                found.setdefault(cell, {})[int(row["seed"])] = float(row[metric])
    return found


def count_items(rows: Iterable[Row]) -> dict[Cell, float]:
    """How many test items each figure rests on, the fewest of its runs.

    Of a balanced accuracy the number that as many items of each class would have: it is taken from
    `balanced_items` where a row has that, else from `n_test`.
    """
    found: dict[Cell, float] = {}
    for row in rows:
        for metric in METRIC_NAMES:
            cell = (row["experiment"], row["head"], metric)
            balanced = row.get("balanced_items") if metric == MAIN_METRIC else None
            found[cell] = min(found.get(cell, math.inf), float(balanced or row["n_test"]))
    return found


def judge(committed: Metrics, here: Metrics, items: Mapping[Cell, float]) -> list[Judgement]:
    """Whether each figure made `here` is consistent with the `committed` one.

    `items` as from `count_items`, for each cell of `committed`. Figures of `committed` that were
    not made here still tell of the luck of training.
    """
    pairs = {
        cell: {s: here[cell][s] - was for s, was in committed[cell].items() if s in here[cell]}
        for cell in committed
        if cell in here
    }
    pairs = {cell: differences for cell, differences in pairs.items() if differences}
    main = sum(metric == MAIN_METRIC for _, _, metric in pairs)
    others = sum(1 + len(d) for d in pairs.values()) - main
    prior = fit_prior(committed, here, items)
    out = []
    for cell, differences in pairs.items():
        sides = [committed[cell], here[cell]]
        scale = share_variance(committed[cell], items[cell])
        spread = moderate_spread(sides, scale, prior)
        if spread is None:
            out.append(Judgement(*cell, differences, None, None, {}, None, "not judged"))
            continue
        share = MAIN_SHARE / main if cell[2] == MAIN_METRIC else (1 - MAIN_SHARE) / others
        far = t_quantile(BUDGET * share / 2, spread.degrees)
        # The committed run and this one, each with its luck.
        error = spread.deviation * math.sqrt(2 / len(differences))
        run_limits = {}
        for seed in differences:
            # A run that is out of line would hide in a spread that it is part of.
            rest = {s: v for s, v in committed[cell].items() if s != seed}
            alone = moderate_spread([rest, here[cell]], scale, prior)
            if alone is not None:
                level = BUDGET * (1 - MAIN_SHARE) / others / 2
                far_alone = t_quantile(level, alone.degrees)
                run_limits[seed] = far_alone * alone.deviation * math.sqrt(2)
        differs = abs(float(np.mean(list(differences.values())))) > far * error or any(
            abs(differences[s]) > limit for s, limit in run_limits.items()
        )
        out.append(
            Judgement(
                *cell,
                differences,
                spread.deviation,
                far * error,
                run_limits,
                (far + t_quantile(MISSED, spread.degrees)) * error,
                "differs" if differs else "consistent",
            )
        )
    return out


class Spread(NamedTuple):
    """The standard deviation of a figure over trainings, a fraction, and its degrees of freedom."""

    deviation: float
    degrees: float


class Prior(NamedTuple):
    """The size of variances, on the scale of independent items, and its degrees of freedom.

    `most` is the number of degrees of freedom behind it, 0 where nothing shows any variance.
    """

    size: float
    degrees: float
    most: float


def fit_prior(committed: Metrics, here: Metrics, items: Mapping[Cell, float]) -> Prior:
    """What all figures together say of the luck of training."""
    made = [
        scale_variance([committed[cell], here.get(cell, {})], share_variance(committed[cell], n))
        for cell, n in items.items()
        if cell in committed
    ]
    known = [(ratio, degrees) for ratio, degrees in made if degrees > 0]
    if not known:
        return Prior(0.0, 0.0, 0.0)
    ratios, freedoms = np.array(known).T
    # Two metrics of a head tell nearly the same.
    return Prior(*fit_variances(ratios, freedoms, len(known) / 2), float(freedoms.sum()))


def share_variance(committed: Mapping[int, float], n: float) -> float:
    """The variance of a share of right answers among `n` independent items.

    Of the committed share, so that it does not move with what was made here; never of 0 or 1
    (Agresti & Coull 1998).
    """
    share = (np.mean(list(committed.values())) * n + 2) / (n + 4)
    return float(share * (1 - share) / n + 1 / n**2 / 12)  # and of rounding to whole items


def scale_variance(sides: Iterable[Mapping[int, float]], scale: float) -> tuple[float, float]:
    """The variance of a figure within `sides` over `scale`, and its degrees of freedom."""
    lists = [list(side.values()) for side in sides if side]
    degrees = sum(len(side) - 1 for side in lists)
    squares = float(sum(np.var(side) * len(side) for side in lists))
    return squares / max(degrees, 1) / scale + VARIANCE_FLOOR, float(degrees)


def moderate_spread(
    sides: Iterable[Mapping[int, float]], scale: float, prior: Prior
) -> Spread | None:
    """A figure's spread as its own runs and all other figures show it; None where nothing does."""
    if not prior.most:
        return None
    ratio, degrees = scale_variance(sides, scale)
    if math.isinf(prior.degrees):
        moderated = prior.size
    else:
        moderated = (prior.degrees * prior.size + degrees * ratio) / (prior.degrees + degrees)
    return Spread(math.sqrt(moderated * scale), min(prior.degrees + degrees, prior.most))


def fit_variances(
    variances: np.ndarray, freedoms: np.ndarray, independent: float
) -> tuple[float, float]:
    """The prior of variances estimated with `freedoms` each: its size and degrees of freedom.

    Moments of their logarithms, as Smyth (2004, section 6.2) has it, but with the variance of these
    raised by its standard error, `independent` of them being so: to take figures for more alike
    than they are makes false alarms. Infinitely many degrees of freedom where they differ no more
    than chance has it.
    """
    half = freedoms / 2
    logs = np.log(variances) - special.digamma(half) + np.log(half)
    squares = (logs - logs.mean()) ** 2
    error = math.sqrt(squares.var() / max(independent, 1))
    excess = squares.sum() / max(len(logs) - 1, 1) + error - special.polygamma(1, half).mean()
    if excess <= 0:
        return float((variances * freedoms).sum() / freedoms.sum()), math.inf
    prior_half = optimize.brentq(lambda x: special.polygamma(1, x) - excess, 1e-3, 1e9)
    size = np.exp(logs.mean() + special.digamma(prior_half) - np.log(prior_half))
    return float(size), float(2 * prior_half)


def t_quantile(level: float, degrees: float) -> float:
    """What Student's t exceeds with a probability of `level`."""
    return float(stats.t.isf(level, degrees))


def exact_differences(committed: Iterable[Row], here: Iterable[Row]) -> list[str]:
    """Figures that no luck of training touches and that differ all the same, in words."""
    was = {(r["run"], r["head"]): r for r in committed}
    found = []
    for row in here:
        then = was.get((row["run"], row["head"]))
        if then is None:
            found.append(f"{row['run']}: {row['head']} is not among the committed figures")
            continue
        found += [
            f"{row['run']}: {key} of {row['head']} was {then[key]} and is {row[key]}"
            for key in EXACT_METRICS
            if not equal_metrics(then[key], row[key])
        ]
    return found


def equal_metrics(a: Any, b: Any) -> bool:
    """Whether two figures are the same to the digits that runs.csv keeps, or both are none."""
    if a in ("", None) or b in ("", None):
        return (a in ("", None)) == (b in ("", None))
    return math.isclose(float(a), float(b), rel_tol=1e-6, abs_tol=1e-7)
