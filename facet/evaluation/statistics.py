"""Intervals, verdicts against chance and paired comparisons, each with its uncertainty.

Pure functions of arrays. Shares and differences are fractions (0-1, -1-1), intervals are 95 %,
verdicts two-sided at 5 % unless said otherwise. Items of one group (a sitting, a person, a
sample) are not independent of each other; items that belong to no group need a name each.
Malformed input raises ValueError.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import special

from facet.base.names import MAIN_METRIC, Metric

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Strings = NDArray[np.str_]
Verdict = Literal["better", "worse", "no difference shown"]
LEVEL = 0.05
POWER = 0.8
MOST_SEEDS = 1000
PERMUTATIONS = 999


@dataclass(frozen=True)
class Comparison:
    """What `compare_runs` found; fractions, differences candidate minus baseline.

    `per_seed` has one difference for each seed. With one seed, or too few groups to say
    anything, `ci95`, `p_value` and `seeds_needed` are None.
    """

    difference: float
    baseline_mean: float
    candidate_mean: float
    ci95: tuple[float, float] | None
    p_value: float | None
    verdict: Verdict
    seeds_needed: int | None
    covers: str
    per_seed: list[float]


class RunPairs(NamedTuple):
    """Both sides' runs on a head: for each seed an array of its n test items.

    `baseline`, `candidate`, `true`: int64 (n,) class indices; `groups`: str (n,).
    """

    baseline: list[Ints]
    candidate: list[Ints]
    true: list[Ints]
    groups: list[Strings]


class Runs(NamedTuple):
    """One side's runs on a head: for each seed an array of its n test items.

    `predicted`, `true`: int64 (n,) class indices; `groups`: str (n,).
    """

    predicted: list[Ints]
    true: list[Ints]
    groups: list[Strings]


class SplitRuns(NamedTuple):
    """Two sides that are tested on different items: nothing is paired."""

    baseline: Runs
    candidate: Runs


def wilson_interval(correct: int, n: int) -> tuple[float, float]:
    """95 % interval for an accuracy of `correct` out of `n` independent items (Wilson 1927)."""
    _check_counts(correct, n)
    z = float(_t_quantile(LEVEL, np.inf))
    share, extra = correct / n, z**2 / n
    half_width = z * math.sqrt(share * (1 - share) / n + extra / n / 4)
    low, high = ((share + extra / 2 + side * half_width) / (1 + extra) for side in (-1, 1))
    return (0.0 if correct == 0 else low), (1.0 if correct == n else high)


def balanced_accuracy(
    true: Ints, predicted: Ints, classes: int, groups: Strings
) -> tuple[float, tuple[float, float] | None]:
    """Balanced accuracy, and its 95 % interval [low, high] for items that come in groups.

    `true`, `predicted`: int64 (n,), class indices below `classes`; `groups`: str (n,). Balanced
    accuracy is the mean recall over the classes present in `true`. The interval is None where
    all items are of one group, which says nothing of others.

    The variance is that of the linearised statistic over groups (Binder 1983), with the
    small-sample corrections of Bell & McCaffrey (2002). All right or all wrong, or nearly, that
    variance is near 0 by luck; so it is never taken below, and the interval is centred on, the
    adjusted shares of Price & Bonett (2004), which are Agresti & Coull's (1998) for one class,
    times the design effect (Kish 1965).
    """
    _check_labels(true, predicted, classes, groups)
    right = (true == predicted).astype(np.float64)
    cells = _sort_into_cells(true, groups)
    mean, parts = _linearise(right, cells)
    value = float(mean)
    if parts.size < 2:
        return value, None
    variance, effect, degrees_of_freedom = _item_variance(right, parts, cells)
    extra = 2 / cells.members.size
    share = (_sum_by_label(right, cells.item_class) + extra) / (cells.members + 2 * extra)
    floor = (share * (1 - share) / (cells.members + 2 * extra - 1)).mean() / share.size
    half_width = _t_quantile(LEVEL, degrees_of_freedom) * np.sqrt(
        np.maximum(variance, effect * floor)
    )
    low, high = share.mean() - half_width, share.mean() + half_width
    return value, (float(max(0, min(low, value))), float(min(1, max(high, value))))


def judge_against_chance(
    true: Ints, predicted: Ints, classes: int, groups: Strings
) -> Literal["above chance", "at chance", "below chance"]:
    """Is balanced accuracy other than what predictions independent of the labels would get?

    Arrays as for `balanced`. With every class in the test part that chance is 1 / `classes`,
    whatever the predictor's habits; always naming the commonest class is exactly at chance.
    Two-sided at 5 %; all items of one group: always at chance.

    The test is made under independence, not from the interval, whose level fails where a class
    has two items: predictions are permuted over items (seed fixed). Where labels and predictions
    both run in groups, permuting items would exaggerate, so the distance from chance is first
    divided by the root of the design effect,
    1 + (pairs in the same group) x (covariance of their labels) x (that of their predictions)
    (Rao & Scott 1984; Kish 1965), never below 1, and by t's excess over the normal at the
    effective number of groups.
    """
    _check_labels(true, predicted, classes, groups)
    present, label = np.unique(true, return_inverse=True)
    _, group = np.unique(groups, return_inverse=True)
    sizes = np.bincount(group).astype(np.float64)
    if sizes.size < 2:
        return "at chance"
    members, named = np.bincount(label), np.bincount(predicted, minlength=classes)
    weight = 1 / (members * present.size)
    chance = float(named[present].sum() / true.size / present.size)
    value = float(weight[label[true == predicted]].sum())

    def products(values: Ints) -> tuple[Floats, Floats]:
        """Sums of products of the centred class indicators: over items, over group totals."""
        centred = (values == present[:, None]) - (values == present[:, None]).mean(1)[:, None]
        totals = _sum_by_label(centred, group)
        return centred @ centred.T, totals @ totals.T

    (labels, label_totals), (answers, answer_totals) = products(true), products(predicted)
    alone = float(weight @ (labels * answers) @ weight) / true.size
    pairs = float((sizes * (sizes - 1)).sum())
    joint = float(weight @ ((label_totals - labels) * (answer_totals - answers)) @ weight)
    effect = max(1.0, 1 + joint / pairs / alone) if pairs and alone else 1.0
    degrees_of_freedom = max(1.0, true.size**2 / (sizes**2).sum() - 1)
    excess = _t_quantile(LEVEL, degrees_of_freedom) / _t_quantile(LEVEL, np.inf)
    distance = (value - chance) / (math.sqrt(effect) * excess)

    narrow = np.min_scalar_type(classes)
    permuted = np.tile(predicted.astype(narrow), (PERMUTATIONS, 1))
    np.random.default_rng(0).permuted(permuted, axis=1, out=permuted)
    drawn = (permuted == true.astype(narrow)) @ weight[label] - chance
    tail = LEVEL / 2 * (PERMUTATIONS + 1) - 1
    if (drawn >= distance - 1e-12).sum() <= tail:
        return "above chance"
    return "below chance" if (drawn <= distance + 1e-12).sum() <= tail else "at chance"


def exceeds_training(train_correct: int, n_train: int, test_correct: int, n_test: int) -> bool:
    """Is the test accuracy above the training accuracy by more than luck (one-sided, 1 %)?

    A sign of a leak, or of parts that differ. Fisher's exact test (1935), items independent.
    """
    _check_counts(train_correct, n_train)
    _check_counts(test_correct, n_test)
    if test_correct * n_train <= train_correct * n_test:
        return False

    def log_choose(n: int, k: Ints) -> Floats:
        """The logarithm of the number of ways to choose `k` of `n`."""
        return np.asarray(-special.betaln(n - k + 1, k + 1) - np.log(n + 1))

    # The upper tail of the hypergeometric distribution: scipy.stats takes 1.5 s to be imported.
    correct, n = train_correct + test_correct, n_train + n_test
    k = np.arange(test_correct, min(n_test, correct) + 1)
    ways = log_choose(correct, k) + log_choose(n - correct, n_test - k)
    return bool(np.exp(ways - log_choose(n, np.array(n_test))).sum() < 0.01)


def compare_runs(
    baseline: Sequence[Ints],
    candidate: Sequence[Ints],
    true: Sequence[Ints],
    groups: Sequence[Strings],
    metric: Metric,
    n_train: int,
) -> Comparison:
    """Did the candidate do better than the baseline, over paired seeds?

    One array for each seed: int64 (n,) class indices of that seed's test items, and str (n,)
    `groups`; the two runs of a pair have the same items in the same order. `n_train`: items in
    a training part. A verdict, `p_value` < 0.05 and an interval without 0 go together.

    All seeds with the same test items (one split): seeds and items are crossed. The variance of
    the mean difference is that over seeds, plus that over groups of test items, less the
    interaction of the two, which both contain (Cornfield & Tukey 1956; Brennan 2001). Over
    groups it is linearised and corrected for small samples (Binder 1983; Bell & McCaffrey
    2002). Each part has its own t quantile, half^2 = sum of t^2 V (Banerjee 1961), because one
    t with Satterthwaite's (1946) degrees of freedom errs up to 8 % of the time with 3 seeds and
    12 % with 2. Half is no less than the items alone give, with two more disagreements among
    the classes (Bonett & Price 2012): equal predictions do not prove equal networks.

    Otherwise pairs are compared by seed alone: the corrected resampled t-test of Nadeau &
    Bengio (2003), variance x (1/S + n_test/n_train), S - 1 degrees of freedom, the variance no
    less than the test items of a single split give.

    `seeds_needed`: the least number of seeds, up to 1000, that has 80 % power to show the
    difference seen, were it and the variances the true ones. More seeds lessen neither the luck
    of the items in one split nor that of overlapping training parts: None where no number
    suffices, where the difference is 0, and with one seed.
    """
    pairs = RunPairs(list(baseline), list(candidate), list(true), list(groups))
    return _conclude(*_measure_pairs(pairs, metric, n_train))


def compare_splits(runs: SplitRuns, metric: Metric, n_train: int) -> Comparison:
    """Does the candidate's split give another figure than the baseline's?

    For two sides with different test items. Each side's mean varies over its seeds and its groups
    of test items as the difference of `compare_runs` does, and half^2 = sum over the sides of
    half^2 (Banerjee 1961): nothing is paired, so what the sides have in common makes no interval
    narrower.
    """
    return _conclude(*_measure_splits(runs, metric, n_train))


def _conclude(means: Floats, spread_of_difference: "_Spread | None", covers: str) -> Comparison:
    """The verdict on both metrics of each seed (seeds, 2), given what varies in them."""
    per_seed = means[:, 1] - means[:, 0]
    difference = float(per_seed.mean())
    found = Comparison(
        difference=difference,
        baseline_mean=float(means[:, 0].mean()),
        candidate_mean=float(means[:, 1].mean()),
        ci95=None,
        p_value=None,
        verdict="no difference shown",
        seeds_needed=None,
        covers=covers,
        per_seed=per_seed.tolist(),
    )
    if spread_of_difference is None:
        return found
    half_width = float(spread_of_difference.half_width(LEVEL))
    shown: Verdict = (
        "better"
        if difference > half_width
        else "worse"
        if difference < -half_width
        else "no difference shown"
    )
    return replace(
        found,
        ci95=(max(-1.0, difference - half_width), min(1.0, difference + half_width)),
        p_value=_p_value(spread_of_difference, abs(difference)),
        verdict=shown,
        seeds_needed=_seeds_needed(spread_of_difference, abs(difference)),
    )


@dataclass(frozen=True)
class Plan:
    """What more seeds would show; `seeds` is None where no number up to 1000 suffices."""

    seeds: int | None
    smallest: float
    """The smallest difference that the seeds at hand show four times in five."""
    covers: str


def plan_seeds(
    runs: RunPairs | SplitRuns, metric: Metric, n_train: int, difference: float
) -> Plan | None:
    """How many seeds show a true `difference`, > 0, with 80 % power; None where that is not known.

    The `runs` were made so far; the variances are theirs. They tell what varies, not what differs,
    so that a plan may be made from them. `metric` and `n_train` are as `compare_runs` takes them.
    """
    if isinstance(runs, RunPairs):
        seeds, (_, spread, covers) = len(runs.true), _measure_pairs(runs, metric, n_train)
    else:
        seeds = len(runs.baseline.true)
        _, spread, covers = _measure_splits(runs, metric, n_train)
    if spread is None:
        return None
    from scipy import optimize

    def lacks_power(distance: float) -> float:
        return POWER - _power(spread, seeds, distance)

    smallest = 1.0 if lacks_power(1) > 0 else float(optimize.brentq(lacks_power, 1e-9, 1))
    return Plan(_seeds_needed(spread, difference), smallest, covers)


def _measure_pairs(
    pairs: RunPairs, metric: Metric, n_train: int
) -> "tuple[Floats, _Spread | None, str]":
    """Both metrics of each seed (seeds, 2), what varies in their difference, and in words."""
    baseline, candidate, true, groups = pairs
    _check_pairs(baseline, candidate, true, groups, metric, n_train)
    strata = [t if metric == MAIN_METRIC else np.zeros_like(t) for t in true]
    cells = [_sort_into_cells(s, g) for s, g in zip(strata, groups, strict=True)]
    runs = zip(baseline, candidate, true, strict=True)
    right = [np.stack([b == t, c == t]).astype(np.float64) for b, c, t in runs]
    means = np.stack([_linearise(r, c)[0] for r, c in zip(right, cells, strict=True)])
    items = [r[1] - r[0] for r in right]
    return means, *_variance(items, true, groups, cells, n_train)


def _measure_splits(
    runs: SplitRuns, metric: Metric, n_train: int
) -> "tuple[Floats, _Spread | None, str]":
    """As `_measure_pairs`, of sides that have nothing in common."""
    # Against one that is never right, the difference is the metric itself.
    measured = [
        _measure_pairs(
            RunPairs([np.full_like(p, -1) for p in side.predicted], *side), metric, n_train
        )
        for side in runs
    ]
    (a, baseline, covers), (b, candidate, _) = measured
    means = np.stack([a[:, 1], b[:, 1]], 1)
    if isinstance(baseline, _Paired) and isinstance(candidate, _Paired):
        return means, _SidesVariance(baseline, candidate), f"{covers}, on both sides; unpaired"
    return means, None, covers


class AdjustedPValues(NamedTuple):
    """p-values of several comparisons, each as high as the others make it."""

    holm: list[float]
    benjamini_hochberg: list[float]


def adjust_p_values(p_values: Sequence[float]) -> AdjustedPValues:
    """p-values of comparisons that are made together, adjusted for how many they are.

    Those below 0.05 may be claimed together: by Holm (1979) with a chance of at most 5 % that any
    of the claims is false, however the comparisons depend on each other; by Benjamini & Hochberg
    (1995) such that in the mean at most 5 % of the claims are false, if the comparisons are
    independent or depend positively.
    """
    order = np.argsort(p_values, kind="stable")
    ranked, rank = np.asarray(p_values, np.float64)[order], np.arange(len(p_values))
    holm = np.maximum.accumulate(ranked * rank[::-1] + ranked)
    share = np.minimum.accumulate((ranked * len(rank) / (rank + 1))[::-1])[::-1]
    adjusted = np.minimum(np.stack([holm, share]), 1)
    adjusted[:, order] = adjusted.copy()
    return AdjustedPValues(*adjusted.tolist())


class _CrossedVariance(NamedTuple):
    """Variances of the mean difference over seeds crossed with items; all of one shape.

    `seed` and `item` both contain `interaction`, the interaction; `floor` is the smallest variance
    that items may have; `degrees_of_freedom` is that of `item`, `seeds` - 1 that of `seed`.
    """

    seed: Floats
    item: Floats
    interaction: Floats
    floor: Floats
    degrees_of_freedom: Floats
    seeds: int

    def half_width(self, level: float) -> Floats:
        """Half the width of the interval at `level`."""
        seed = _t_quantile(level, self.seeds - 1) ** 2
        item = _t_quantile(level, self.degrees_of_freedom) ** 2
        rest = (
            self.item - self.interaction
        )  # where negative by luck, it takes off no more than it can
        total = seed * self.seed + np.where(rest < 0, np.minimum(seed, item), item) * rest
        return np.asarray(np.sqrt(np.maximum(total, item * (self.item + self.floor))))

    def error(self) -> tuple[Floats, Floats]:
        """Variance of the mean difference, and its degrees of freedom (Satterthwaite 1946)."""
        rest = self.item - self.interaction
        variance = np.maximum(self.seed + rest, self.item + self.floor)
        parts = self.seed**2 / (self.seeds - 1) + rest**2 / self.degrees_of_freedom
        return variance, variance**2 / np.maximum(parts, 1e-300)

    def with_seeds(self, seeds: int) -> "_CrossedVariance":
        """The same with another number of seeds."""
        interaction = self.interaction * self.seeds / seeds
        item = np.maximum(self.item - self.interaction, 0) + interaction
        now = np.maximum(self.item, self.interaction)
        floor = self.floor * (item / now if now > 0 else 1)
        seed = np.maximum(self.seed, self.interaction) * self.seeds / seeds
        return _CrossedVariance(seed, item, interaction, floor, self.degrees_of_freedom, seeds)


class _SplitVariance(NamedTuple):
    """Variance of one seed's difference, where each seed has its own split.

    `variance` is that over seeds, with `seeds` - 1 degrees of freedom; `item` what the test
    items of a single split give, with `degrees_of_freedom`; `ratio` is n_test / n_train.
    """

    variance: float
    item: float
    degrees_of_freedom: float
    ratio: float
    seeds: int

    def half_width(self, level: float) -> Floats:
        """Half the width of the interval at `level`."""
        seed = (
            _t_quantile(level, self.seeds - 1) ** 2 * self.variance * (1 / self.seeds + self.ratio)
        )
        item = _t_quantile(level, self.degrees_of_freedom) ** 2 * self.item / self.seeds
        return np.asarray(np.sqrt(np.maximum(seed, item)))

    def error(self) -> tuple[Floats, Floats]:
        """Variance of the mean difference, and its degrees of freedom."""
        seed = self.variance * (1 / self.seeds + self.ratio)
        return np.maximum(seed, self.item / self.seeds), np.asarray(self.seeds - 1)

    def with_seeds(self, seeds: int) -> "_SplitVariance":
        """The same with another number of seeds."""
        return self._replace(seeds=seeds)


class _SidesVariance(NamedTuple):
    """Variances of two independent means, whose difference is looked at."""

    baseline: "_Paired"
    candidate: "_Paired"

    def half_width(self, level: float) -> Floats:
        """Half the width of the interval at `level`."""
        return np.hypot(self.baseline.half_width(level), self.candidate.half_width(level))

    def error(self) -> tuple[Floats, Floats]:
        """Variance of the difference, and its degrees of freedom (Satterthwaite 1946)."""
        (a, free_a), (b, free_b) = self.baseline.error(), self.candidate.error()
        return a + b, (a + b) ** 2 / np.maximum(a**2 / free_a + b**2 / free_b, 1e-300)

    def with_seeds(self, seeds: int) -> "_SidesVariance":
        """The same with another number of seeds on each side."""
        return _SidesVariance(self.baseline.with_seeds(seeds), self.candidate.with_seeds(seeds))


_Paired: TypeAlias = _CrossedVariance | _SplitVariance
_Spread: TypeAlias = _Paired | _SidesVariance


def _variance(
    items: list[Floats],
    true: Sequence[Ints],
    groups: Sequence[Strings],
    cells: "list[_ItemCells]",
    n_train: int,
) -> tuple[_CrossedVariance | _SplitVariance | None, str]:
    """What varies in the differences `items`, [seed] (n,), if that can be said; and in words."""
    seeds = len(items)
    what = "items" if all(c.groups == c.item_cell.size for c in cells) else "groups of items"
    if seeds == 1:
        return None, "nothing: one seed does not show the luck of training"
    same = zip(true, groups, strict=True)
    if all(np.array_equal(true[0], t) and np.array_equal(groups[0], g) for t, g in same):
        if cells[0].groups == 1:
            return None, "nothing: the test part is a single group, which says nothing of others"
        covers = f"the luck of training (seeds) and of which {what} are in the test part; one split"
        return _crossed_variance(np.stack(items), cells[0]), covers
    means = np.array([_linearise(d, c)[0] for d, c in zip(items, cells, strict=True)])
    variance, item, degrees_of_freedom = float(means.var(ddof=1)), 0.0, 1.0
    if all(c.groups > 1 for c in cells):
        alone = [_crossed_variance(d[None], c) for d, c in zip(items, cells, strict=True)]
        item = float(np.mean([one.item + one.floor for one in alone]))
        degrees_of_freedom = float(np.sum([one.degrees_of_freedom for one in alone]))
    if max(variance, item) == 0:
        return None, "nothing: single groups as test parts, and no difference between them"
    covers = f"the luck of training (seeds), of the split and of which {what} are in the test part"
    ratio = float(np.mean([d.size for d in items])) / n_train
    return _SplitVariance(
        variance, item, degrees_of_freedom, ratio, seeds
    ), f"{covers}; several splits"


def _crossed_variance(items: Floats, cells: "_ItemCells") -> _CrossedVariance:
    """Variances of the differences `items` (..., seeds, n), each -1, 0 or 1; all of shape (...).

    With one seed, `seed` and `interaction` are 0.
    """
    seeds = items.shape[-2]
    means, parts = _linearise(items, cells)
    interaction = (parts - parts.mean(-2, keepdims=True)) ** 2
    mean = items.mean(-2)
    item, _, degrees_of_freedom = _item_variance(mean, parts.mean(-2), cells)
    # Two disagreements of the usual size in a cell; of one item, where none was seen.
    size = np.abs(_sum_by_label(mean, cells.item_cell))
    count = _sum_by_label((size > 1e-12).astype(np.float64), cells.cell_class)
    usual = _sum_by_label(size, cells.cell_class) / np.maximum(count, 1)
    usual = np.where(count, usual, 1) / cells.members / cells.members.size
    return _CrossedVariance(
        seed=means.var(-1) / max(seeds - 1, 1),
        item=item,
        interaction=interaction.sum((-2, -1)) / (seeds * max(seeds - 1, 1)),
        floor=2 * (usual**2).mean(-1),
        degrees_of_freedom=degrees_of_freedom,
        seeds=seeds,
    )


def _t_quantile(level: float, degrees_of_freedom: Floats | float) -> Floats:
    """Student's t that is exceeded, in either direction, with probability `level`."""
    return np.asarray(-special.stdtrit(degrees_of_freedom, level / 2))


def _p_value(spread_of_difference: _Spread, distance: float) -> float:
    """The level at which the interval just reaches 0; no less than 1e-15."""

    def beyond(exponent: float) -> float:
        return float(spread_of_difference.half_width(10**exponent)) - distance

    if distance == 0:
        return 1.0
    from scipy import optimize  # not above: see `exceeds_training`

    return 1e-15 if beyond(-15) < 0 else float(10 ** optimize.brentq(beyond, -15, 0))


def _seeds_needed(spread_of_difference: _Spread, distance: float) -> int | None:
    """The least number of seeds with 80 % power, as `compare_runs` says."""
    if distance == 0:
        return None
    numbers = range(2, MOST_SEEDS + 1)
    found = bisect_left(
        numbers, True, key=lambda n: _power(spread_of_difference, n, distance) >= POWER
    )
    return numbers[found] if found < len(numbers) else None


def _power(spread_of_difference: _Spread, seeds: int, distance: float) -> float:
    """The chance that so many seeds show a true difference (noncentral t)."""
    from scipy import stats  # not above: see `exceeds_training`

    planned = spread_of_difference.with_seeds(seeds)
    variance, degrees_of_freedom = planned.error()
    far, shown = distance / np.sqrt(variance), planned.half_width(LEVEL) / np.sqrt(variance)
    return float(stats.nct.sf(shown, degrees_of_freedom, np.minimum(far, 40)))


class _ItemCells(NamedTuple):
    """Test items in cells: those of one class and one group.

    `item_class`, `item_cell`: (n,) indices; `cell_class`, `cell_group`, `size`: (cells,);
    `members`: (classes,) items of each class; `alone`: (cells,) is it its whole class?
    `leverage`: (cells,) its share in the mean that it is compared with.
    """

    item_class: Ints
    item_cell: Ints
    cell_class: Ints
    cell_group: Ints
    size: Ints
    members: Ints
    alone: NDArray[np.bool_]
    leverage: Floats
    groups: int


def _sort_into_cells(classes: Ints, groups: Strings) -> _ItemCells:
    """Sort items by class and group, int64 (n,) and str (n,)."""
    names, kind = np.unique(classes, return_inverse=True)
    teams, team = np.unique(groups, return_inverse=True)
    cell, index, size = np.unique(team * names.size + kind, return_inverse=True, return_counts=True)
    members = np.bincount(kind)
    cell_class = cell % names.size
    alone = size == members[cell_class]
    leverage = np.where(alone, 1 / names.size, size / members[cell_class])
    group = cell // names.size
    return _ItemCells(kind, index, cell_class, group, size, members, alone, leverage, teams.size)


def _linearise(values: Floats, cells: _ItemCells) -> tuple[Floats, Floats]:
    """Mean over classes of the class means of `values` (..., n), and each group's part in it.

    The mean is (...), the parts (..., groups); the sum of their squares is the variance of the
    mean: Binder's (1983) linearisation, each cell's deviation from its class mean over the root
    of 1 - leverage (CR2, Bell & McCaffrey 2002). A class found in one group only is compared
    with the mean of all classes instead (Lumley's `adjust` for lonely sampling units). With one
    group there is no telling: all parts are 0.
    """
    sums = _sum_by_label(values, cells.item_cell)
    means = _sum_by_label(values, cells.item_class) / cells.members
    mean = means.mean(-1)
    centre = np.where(cells.alone, mean[..., None], means[..., cells.cell_class])
    weight = cells.members[cells.cell_class] * cells.members.size
    scale = weight * np.sqrt(np.where(cells.leverage < 1, 1 - cells.leverage, np.inf))
    return mean, _sum_by_label((sums - cells.size * centre) / scale, cells.cell_group)


def _item_variance(
    values: Floats, parts: Floats, cells: _ItemCells
) -> tuple[Floats, Floats, Floats]:
    """Variance of the mean of `values` (..., n), its design effect and degrees of freedom.

    `parts` as `_linearise` gives them; all results (...). The design effect (Kish 1965), at least
    1, is the variance over that of independent items.
    """
    variance = (parts**2).sum(-1)
    means = _sum_by_label(values, cells.item_class) / cells.members
    squares = _sum_by_label((values - means[..., cells.item_class]) ** 2, cells.item_class)
    free = cells.members * np.maximum(cells.members - 1, 1)
    alone = (squares / free).mean(-1) / cells.members.size
    effect = np.maximum(np.where(alone > 1e-15, variance / np.maximum(alone, 1e-15), 1), 1)
    usual = float((cells.size**2).sum() / cells.size.sum())
    intraclass_correlation = (
        np.clip((effect - 1) / (usual - 1), 0, 1) if usual > 1 else np.zeros_like(effect)
    )
    grid = np.linspace(0, 1, 9 if usual > 1 else 1)
    degrees_of_freedom = np.interp(
        intraclass_correlation, grid, [_degrees_of_freedom(cells, rho) for rho in grid]
    )
    return variance, effect, np.asarray(degrees_of_freedom)


def _degrees_of_freedom(cells: _ItemCells, intraclass_correlation: float) -> float:
    """Degrees of freedom of `_linearise`'s variance (Bell & McCaffrey 2002).

    `intraclass_correlation` is that of a cell's items (Imbens & Kolesar 2016). With A a cell's
    part in the variance and B its root times leverage, tr(M)^2 / tr(M^2) for M = A - B B'.
    """
    classes, groups = cells.members.size, cells.groups
    variance = cells.size * (1 + (cells.size - 1) * intraclass_correlation)
    scale = (cells.members[cells.cell_class] * classes) ** 2
    part = variance / scale / np.maximum(1 - cells.leverage, 1e-12)
    root = np.zeros((groups, classes + 1))
    column = np.where(cells.alone, classes, cells.cell_class)
    np.add.at(root, (cells.cell_group, column), np.sqrt(part * cells.leverage))
    own, off = _sum_by_label(part, cells.cell_group), (root**2).sum(1)
    square = (own**2).sum() - 2 * (own * off).sum() + ((root.T @ root) ** 2).sum()
    return max(1.0, float((own.sum() - off.sum()) ** 2 / square)) if square > 0 else 1.0


def _sum_by_label(values: NDArray[Any], labels: Ints) -> Floats:
    """Sums of `values` (..., n) by `labels` (n,), each of 0, 1, ... being there: (..., labels)."""
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    if starts.size == order.size:  # nothing to add up
        return np.asarray(values[..., order], dtype=np.float64)
    return np.asarray(np.add.reduceat(values[..., order], starts, axis=-1), dtype=np.float64)


def _check_counts(correct: int, n: int) -> None:
    if not 0 <= correct <= n or n < 1:
        raise ValueError(f"{correct} correct of {n}: give 0 <= correct <= n and n >= 1")


def _check_labels(true: Ints, predicted: Ints, classes: int, groups: Strings) -> None:
    if true.ndim != 1 or not true.size or {predicted.shape, groups.shape} != {true.shape}:
        raise ValueError("labels, predictions and groups: give one of each for at least one item")
    for labels in (true, predicted):
        if labels.min() < 0 or labels.max() >= classes:
            raise ValueError(f"labels and predictions must be from 0 to {classes - 1}")


def _check_pairs(
    baseline: Sequence[Ints],
    candidate: Sequence[Ints],
    true: Sequence[Ints],
    groups: Sequence[Strings],
    metric: str,
    n_train: int,
) -> None:
    seeds = len(true)
    if not seeds or {len(baseline), len(candidate), len(groups)} != {seeds}:
        raise ValueError("baseline, candidate, labels and groups: give one of each for each seed")
    for one in zip(baseline, candidate, true, groups, strict=True):
        if len({array.shape for array in one}) > 1 or one[0].ndim != 1 or not one[0].size:
            raise ValueError("the runs of a pair must have the same test items, at least one")
    if metric not in get_args(Metric):
        raise ValueError(f"metric {metric!r}: give one of {', '.join(get_args(Metric))}")
    if n_train < 1:
        raise ValueError(f"n_train {n_train}: give at least 1")
