"""Known values, invariances and error rates of facet.evaluation.statistics.

The simulations draw right and wrong answers from a latent score: class mean + effect of the arm +
luck of the seed + difficulty of the group and of the item + noise, right where it is above 0.
Rates are held to their promise plus 2.6 standard errors of the simulation itself.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import optimize
from scipy import stats as distributions

from facet.evaluation import statistics

Array = NDArray[Any]


def above(rate: float, runs: int) -> float:
    """`rate` and 2.6 standard errors of a simulated one."""
    return rate + 2.6 * sqrt(rate * (1 - rate) / runs)


def names(groups: Array) -> Array:
    return np.char.mod("g%d", groups)


def answers(rng: np.random.Generator, true: Array, share: float, classes: int) -> Array:
    """Predictions of which `share` is right, the rest the next class."""
    return np.where(rng.random(true.shape) < share, true, (true + 1) % classes)


# --- accuracy, suspicion ---------------------------------------------------------------------


def test_wilson_known_values() -> None:
    assert statistics.wilson_interval(15, 148) == pytest.approx(
        (0.0624, 0.1605), abs=5e-5
    )  # Newcombe 1998
    assert statistics.wilson_interval(0, 20) == pytest.approx((0, 0.1611), abs=5e-5)
    assert statistics.wilson_interval(29, 29) == pytest.approx((0.8830, 1), abs=5e-5)


@given(n=st.integers(1, 10_000), data=st.data())
def test_wilson_contains_the_share_and_mirrors(n: int, data: st.DataObject) -> None:
    correct = data.draw(st.integers(0, n))
    low, high = statistics.wilson_interval(correct, n)
    assert 0 <= low <= correct / n + 1e-12
    assert correct / n - 1e-12 <= high <= 1
    assert statistics.wilson_interval(n - correct, n) == pytest.approx(
        (1 - high, 1 - low), abs=1e-12
    )


def test_suspicious_known_values() -> None:
    assert statistics.exceeds_training(250, 468, 110, 156)
    assert not statistics.exceeds_training(300, 468, 100, 156)  # the same share
    assert not statistics.exceeds_training(460, 468, 120, 156)  # ordinary overfitting
    assert not statistics.exceeds_training(5, 10, 8, 10)  # too few to tell
    table = [[14, 6], [180, 270]]
    expected = distributions.fisher_exact(table, alternative="greater").pvalue < 0.01
    assert statistics.exceeds_training(180, 450, 14, 20) == expected


def test_suspicious_errs_at_most_one_time_in_a_hundred() -> None:
    rng = np.random.default_rng(1)
    train, test = rng.binomial(468, 0.8, 2000), rng.binomial(156, 0.8, 2000)
    false = [statistics.exceeds_training(a, 468, b, 156) for a, b in zip(train, test, strict=True)]
    assert np.mean(false) <= above(0.01, 2000)


@pytest.mark.parametrize(("correct", "n"), [(-1, 5), (6, 5), (0, 0)])
def test_impossible_counts_are_refused(correct: int, n: int) -> None:
    with pytest.raises(ValueError, match=f"{correct} correct of {n}"):
        statistics.wilson_interval(correct, n)
    with pytest.raises(ValueError, match=f"{correct} correct of {n}"):
        statistics.exceeds_training(correct, n, 1, 2)


# --- balanced accuracy and chance ------------------------------------------------------------


def test_balanced_is_the_mean_recall_of_the_classes_present() -> None:
    true, predicted = np.array([0, 0, 0, 0, 2, 2]), np.array([0, 0, 0, 1, 2, 0])
    value, interval = statistics.balanced_accuracy(true, predicted, 4, names(np.arange(6)))
    assert value == pytest.approx((0.75 + 0.5) / 2)
    assert interval is not None
    assert interval[0] < value < interval[1]


def test_balanced_of_one_class_is_close_to_wilson_and_never_of_no_width() -> None:
    true = np.zeros(200, int)
    for correct in (0, 1, 100, 190, 200):
        predicted = (np.arange(200) >= correct).astype(int)
        value, interval = statistics.balanced_accuracy(true, predicted, 2, names(np.arange(200)))
        assert value == pytest.approx(correct / 200)
        assert interval == pytest.approx(statistics.wilson_interval(correct, 200), abs=0.015)
        assert interval is not None
        assert interval[1] - interval[0] > 0.015


def test_one_group_tells_nothing_of_others() -> None:
    true = np.arange(40) % 4
    one = names(np.zeros(40, int))
    assert statistics.balanced_accuracy(true, true, 4, one) == (1.0, None)
    assert statistics.judge_against_chance(true, true, 4, one) == "at chance"


def test_items_alike_in_a_group_widen_the_interval() -> None:
    rng = np.random.default_rng(2)
    true = np.repeat(np.arange(4), 40)
    groups = np.arange(160) // 8
    predicted = np.where(rng.random(20)[groups] < 0.6, true, (true + 1) % 4)
    _, single = statistics.balanced_accuracy(true, predicted, 4, names(np.arange(160)))
    _, grouped = statistics.balanced_accuracy(true, predicted, 4, names(groups))
    assert single
    assert grouped
    assert np.diff(grouped) > 2 * np.diff(single)


@st.composite
def labelled(draw: st.DrawFn) -> tuple[Array, Array, int, Array]:
    classes, n = draw(st.integers(1, 5)), draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    groups = rng.integers(draw(st.integers(1, n)), size=n)
    return rng.integers(classes, size=n), rng.integers(classes, size=n), classes, names(groups)


@given(labelled(), st.integers(0, 10**6))
@settings(max_examples=60)
def test_balanced_ranges_and_order(case: tuple[Array, Array, int, Array], seed: int) -> None:
    true, predicted, classes, groups = case
    value, interval = statistics.balanced_accuracy(*case)
    assert 0 <= value <= 1
    if interval is not None:
        assert 0 <= interval[0] <= value + 1e-12
        assert value - 1e-12 <= interval[1] <= 1
        assert interval[1] - interval[0] > 0
    order = np.random.default_rng(seed).permutation(true.size)
    again = statistics.balanced_accuracy(true[order], predicted[order], classes, groups[order])
    assert again[0] == pytest.approx(value)
    assert (again[1] is None) == (interval is None)
    if interval is not None:
        assert again[1] == pytest.approx(interval)


@pytest.mark.parametrize(
    ("classes", "n", "size", "level"),
    [("even", 156, 1, 1.2), ("even", 160, 4, 0), ("rare", 156, 1, 0), ("rare", 160, 4, 1.2)],
)
def test_balanced_interval_covers(classes: str, n: int, size: int, level: float) -> None:
    rng = np.random.default_rng(3)
    true = np.arange(n) % 4 if classes == "even" else np.repeat([0, 1, 2], [n - 40, 28, 12])
    rng.shuffle(true)
    groups = np.arange(n) // size
    means = level + np.linspace(-0.2, 0.2, true.max() + 1)
    expected = distributions.norm.cdf(means / sqrt(1.5)).mean()
    runs, missed = 300, 0
    for _ in range(runs):
        score = means[true] + rng.normal(0, sqrt(0.5), n)[groups] + rng.normal(size=n)
        interval = statistics.balanced_accuracy(
            true, np.where(score > 0, true, (true + 1) % 4), 4, names(groups)
        )
        low, high = interval[1] or (0, 1)
        missed += not low <= expected <= high
    assert missed / runs <= above(0.05, runs)


def test_chance_verdicts() -> None:
    true = np.arange(156) % 4
    alone = names(np.arange(156))
    assert statistics.judge_against_chance(true, true, 4, alone) == "above chance"
    assert statistics.judge_against_chance(true, (true + 1) % 4, 4, alone) == "below chance"
    assert statistics.judge_against_chance(true, np.zeros(156, int), 4, alone) == "at chance"
    wine = np.repeat([0, 1, 2], [30, 340, 74])
    assert (
        statistics.judge_against_chance(wine, np.ones(444, int), 3, names(np.arange(444)))
        == "at chance"
    )
    few = np.arange(40) % 20
    assert statistics.judge_against_chance(few, few, 20, names(np.arange(40))) == "above chance"


@pytest.mark.parametrize(
    ("right", "verdict"),
    [(31, "above chance"), (30, "at chance"), (20, "at chance"), (19, "below chance")],
)
def test_a_verdict_on_chance_is_two_sided_at_five_percent(right: int, verdict: str) -> None:
    """50 items of each of two classes, 50 said to be each: Fisher's exact test knows the level."""
    true = np.repeat([0, 1], 50)
    predicted = np.concatenate([np.arange(50) >= right, np.arange(50) < right]).astype(int)
    table = [[right, 50 - right], [50 - right, right]]
    level = min(
        distributions.fisher_exact(table, alternative=side).pvalue for side in ("greater", "less")
    )
    assert (level < 0.025) == (verdict != "at chance")
    assert level < 0.05
    found = statistics.judge_against_chance(true, predicted, 2, names(np.arange(100)))
    assert found == verdict


@pytest.mark.parametrize(
    ("n", "classes", "size", "alike"),
    [(40, 20, 1, 0), (160, 4, 1, 0), (160, 4, 4, 1), (80, 20, 4, 1), (156, 3, 13, 0.7)],
)
def test_a_predictor_blind_to_the_labels_is_at_chance(
    n: int, classes: int, size: int, alike: float
) -> None:
    """`alike`: share of the items whose label, and whose prediction, is their group's."""
    rng = np.random.default_rng(4)
    groups = np.arange(n) // size
    shares = np.array([0.15, 0.6, 0.25]) if classes == 3 else np.full(classes, 1 / classes)

    def draw() -> Array:
        common = rng.choice(classes, groups.max() + 1, p=shares)[groups]
        return np.where(rng.random(n) < alike, common, rng.choice(classes, n, p=shares))

    runs = 200
    verdicts = [
        statistics.judge_against_chance(draw(), draw(), classes, names(groups)) for _ in range(runs)
    ]
    assert np.mean([verdict != "at chance" for verdict in verdicts]) <= above(0.05, runs)


def test_a_weak_predictor_of_many_classes_is_found() -> None:
    rng = np.random.default_rng(5)
    true = np.arange(160) % 20
    found = [
        statistics.judge_against_chance(
            true,
            np.where(rng.random(160) < 0.15, true, rng.integers(20, size=160)),
            20,
            names(np.arange(160)),
        )
        for _ in range(100)
    ]
    assert found.count("above chance") >= 95


@pytest.mark.parametrize(
    ("true", "predicted", "groups"),
    [([], [], []), ([0, 1], [0], ["a", "b"]), ([0, 1], [0, 2], ["a", "b"]), ([0], [-1], ["a"])],
)
def test_malformed_labels_are_refused(true: list[int], predicted: list[int], groups: Any) -> None:
    case = np.array(true, int), np.array(predicted, int), 2, np.array(groups, str)
    for function in (statistics.balanced_accuracy, statistics.judge_against_chance):
        with pytest.raises(ValueError, match="labels"):
            function(*case)


# --- comparisons: forms ----------------------------------------------------------------------


def compare(case: dict[str, Any], **changes: Any) -> statistics.Comparison:
    return statistics.compare_runs(**{**case, **changes})


@st.composite
def pairs(draw: st.DrawFn) -> dict[str, Any]:
    seeds, n, classes = draw(st.integers(1, 5)), draw(st.integers(2, 30)), draw(st.integers(2, 4))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    one_split = draw(st.booleans())
    first = rng.integers(classes, size=n)
    true = [first if one_split else rng.integers(classes, size=n) for _ in range(seeds)]
    shares = rng.random(2)
    return {
        "baseline": [answers(rng, t, shares[0], classes) for t in true],
        "candidate": [answers(rng, t, shares[1], classes) for t in true],
        "true": true,
        "groups": [names(np.arange(n) // draw(st.integers(1, 3)) if n > 6 else np.arange(n))]
        * seeds,
        "metric": draw(st.sampled_from(["accuracy", "balanced_accuracy"])),
        "n_train": draw(st.integers(n, 10 * n)),
    }


@given(pairs(), st.integers(0, 10**6))
@settings(max_examples=100)
def test_comparison_forms(case: dict[str, Any], seed: int) -> None:
    found = compare(case)
    assert found.difference == pytest.approx(found.candidate_mean - found.baseline_mean, abs=1e-9)
    assert found.difference == pytest.approx(np.mean(found.per_seed), abs=1e-9)
    assert -1 <= found.difference <= 1
    assert found.covers
    if len(case["true"]) == 1:
        assert (found.ci95, found.p_value, found.seeds_needed) == (None, None, None)
    if found.ci95 is None or found.p_value is None:
        assert found.verdict == "no difference shown"
    else:
        low, high = found.ci95
        assert -1 <= low <= found.difference <= high <= 1
        assert low < high
        assert 0 < found.p_value <= 1
        shown = found.verdict != "no difference shown"
        assert shown == (found.p_value < 0.05) == (low > 0 or high < 0)
        assert found.verdict != "better" or low > 0
        assert found.verdict != "worse" or high < 0
        assert found.seeds_needed is None or 2 <= found.seeds_needed <= 1000

    swapped = compare(case, baseline=case["candidate"], candidate=case["baseline"])
    opposite = {"better": "worse", "worse": "better"}
    assert swapped.difference == pytest.approx(-found.difference, abs=1e-12)
    assert swapped.verdict == opposite.get(found.verdict, found.verdict)
    assert swapped.p_value == pytest.approx(found.p_value)

    orders = [np.random.default_rng(seed).permutation(t.size) for t in case["true"]]
    shuffled = {
        key: [array[order] for array, order in zip(case[key], orders, strict=True)]
        for key in ("baseline", "candidate", "true", "groups")
    }
    again = compare(case, **shuffled)
    assert again.per_seed == pytest.approx(found.per_seed)
    assert again.p_value == pytest.approx(found.p_value)


def one_split(seeds: int = 3, n: int = 100, **changes: Any) -> dict[str, Any]:
    true = np.arange(n) % 4
    case = {"true": [true] * seeds, "baseline": [true] * seeds, "candidate": [true] * seeds}
    groups = [names(np.arange(n))] * seeds
    return {**case, "groups": groups, "metric": "accuracy", "n_train": 300, **changes}


def test_equal_predictions_differ_by_nothing_but_prove_little() -> None:
    found = compare(one_split())
    assert (found.difference, found.p_value, found.seeds_needed) == (0, 1, None)
    assert found.verdict == "no difference shown"
    assert found.ci95 == pytest.approx((-0.028, 0.028), abs=0.001)  # some 3 of 100 items


def test_the_same_difference_in_each_seed_still_has_the_luck_of_items() -> None:
    true = np.arange(100) % 4
    for wrong, verdict in ((4, "no difference shown"), (20, "better")):
        worse = np.where(np.arange(100) < wrong, (true + 1) % 4, true)
        found = compare(one_split(baseline=[worse] * 3))
        assert found.per_seed == pytest.approx([wrong / 100] * 3)
        assert found.verdict == verdict
        # as many seeds as you like: the items stay the same
        assert found.seeds_needed == (None if wrong == 4 else 2)


def test_where_only_seeds_vary_it_is_a_paired_t_test() -> None:
    """Nested right answers among very many items: the items' part is small beside the seeds'."""
    n, seeds = 20_000, 10
    true = np.zeros(n, int)
    rng = np.random.default_rng(6)
    shares = np.clip(rng.normal([0.5, 0.62], 0.1, (seeds, 2)), 0, 1)
    spread = rng.permutation(n)
    runs = [[(spread >= share * n).astype(int) for share in pair] for pair in shares]
    case = one_split(seeds, n, true=[true] * seeds)
    found = compare(case, baseline=[r[0] for r in runs], candidate=[r[1] for r in runs])
    expected = distributions.ttest_1samp(found.per_seed, 0)
    assert found.p_value == pytest.approx(expected.pvalue, rel=0.1)
    assert found.ci95 == pytest.approx(expected.confidence_interval(), abs=0.003)


def test_different_splits_are_compared_as_nadeau_and_bengio_do() -> None:
    rng = np.random.default_rng(7)
    true = [rng.integers(4, size=400) for _ in range(5)]
    shares = rng.normal([0.5, 0.7], 0.08, (5, 2))
    case = one_split(5, 400, true=true, n_train=1200)
    runs = [
        [answers(rng, t, share, 4) for t, share in zip(true, column, strict=True)]
        for column in shares.T
    ]
    found = compare(case, baseline=runs[0], candidate=runs[1])
    error = np.std(found.per_seed, ddof=1) * sqrt(1 / 5 + 400 / 1200)
    assert found.p_value == pytest.approx(2 * distributions.t.sf(found.difference / error, 4))
    half = distributions.t.isf(0.025, 4) * error
    assert found.ci95 == pytest.approx((found.difference - half, found.difference + half))
    assert found.covers.endswith("several splits")


def test_equal_differences_over_splits_are_not_certain() -> None:
    true = [np.arange(40) % 2, (np.arange(40) + 1) % 2]
    baseline = [np.where(np.arange(40) == 7, 1 - t, t) for t in true]
    found = compare(one_split(2, 40, true=true, baseline=baseline, candidate=true))
    assert found.per_seed == pytest.approx([1 / 40] * 2)
    assert found.verdict == "no difference shown"


def test_what_is_covered_is_said() -> None:
    case = one_split()
    assert "one split" in compare(case).covers
    assert "groups" not in compare(case).covers
    grouped = compare(case, groups=[names(np.arange(100) // 4)] * 3)
    assert "one split" in grouped.covers
    assert "groups" in grouped.covers
    single = compare(case, groups=[names(np.zeros(100, int))] * 3)
    assert single.ci95 is None
    assert single.covers.startswith("nothing: ")
    assert compare(one_split(1)).covers.startswith("nothing: ")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"baseline": []}, "baseline"),
        ({"true": [], "baseline": [], "candidate": [], "groups": []}, "baseline"),
        ({"baseline": [np.zeros(99, int)] * 3}, "items"),
        ({"metric": "recall"}, "recall.*balanced_accuracy"),
        ({"n_train": 0}, "n_train 0"),
    ],
)
def test_malformed_pairs_are_refused(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        compare(one_split(**changes))


# --- comparisons: error rates ----------------------------------------------------------------


@dataclass(frozen=True)
class Regime:
    """What varies, as standard deviations of the latent score, and the test part."""

    seed: float = 0
    group: float = 0  # difficulty, common to the arms
    group_arm: float = 0
    item_arm: float = 0
    noise: float = 1
    n: int = 300
    size: int = 1
    shares: tuple[float, ...] = (0.25, 0.25, 0.25, 0.25)
    means: tuple[float, ...] = (0.2, 0.2, 0.2, 0.2)

    @property
    def true(self) -> Array:
        counts = np.diff(np.round(np.cumsum((0, *self.shares)) * self.n)).astype(int)
        labels = np.repeat(np.arange(counts.size), counts)
        return np.random.default_rng(0).permutation(labels)

    @property
    def groups(self) -> Array:
        return np.arange(self.n) // self.size

    def difference(self, effect: float, metric: str) -> float:
        """The true one: what very many seeds and items would show."""
        parts = (self.seed, self.group, self.group_arm, self.item_arm, self.noise)
        scale = sqrt(sum(part**2 for part in parts))
        means = np.array(self.means)
        gain = distributions.norm.cdf((means + effect) / scale)
        gain = gain - distributions.norm.cdf(means / scale)
        return float(gain.mean() if metric == "balanced_accuracy" else gain[self.true].mean())

    def draw(self, rng: np.random.Generator, runs: int, seeds: int) -> list[Array]:
        """Scores (runs, seeds, n) of baseline and candidate, before any effect of the arm."""

        def luck(scale: float, *shape: int) -> Array:
            return np.float32(scale) * rng.standard_normal((runs, *shape), np.float32)

        count, groups = int(self.groups.max()) + 1, self.groups
        base = np.array(self.means, np.float32)[self.true] + luck(self.group, 1, count)[..., groups]
        return [
            base
            + luck(self.seed, seeds, 1)
            + luck(self.group_arm, 1, count)[..., groups]
            + luck(self.item_arm, 1, self.n)
            + luck(self.noise, seeds, self.n)
            for _ in range(2)
        ]


def rare(**luck: Any) -> Regime:
    return Regime(n=400, shares=(0.1, 0.7, 0.2), means=(-0.3, 1.3, 0.3), **luck)


RUNS = 1000
REGIMES = {
    "seeds": (Regime(seed=0.15, group=0.5, n=300), "accuracy"),
    "seeds, rare class": (rare(seed=0.15, group=0.5), "balanced_accuracy"),
    "noise": (Regime(group=0.5, n=300), "accuracy"),
    "mixed": (Regime(seed=0.1, group=0.7, group_arm=0.15, item_arm=0.2), "accuracy"),
    "mixed, groups": (
        Regime(seed=0.12, group=0.7, group_arm=0.15, item_arm=0.2, size=4),
        "accuracy",
    ),
    "mixed, rare class": (
        rare(seed=0.1, group=0.7, group_arm=0.15, size=4),
        "balanced_accuracy",
    ),
    "items": (Regime(0.02, 0.7, 0.3, 0.3, 0.4, size=4), "accuracy"),
    "items, rare class": (
        rare(seed=0.02, group=0.7, group_arm=0.2, item_arm=0.4, noise=0.4, size=4),
        "balanced_accuracy",
    ),
}


def differences(regime: Regime, metric: str, scores: list[Array], effect: float) -> Array:
    """Mean difference of each run, (runs,)."""
    baseline, candidate = scores
    gain = (candidate > -effect).mean(1) - (baseline > 0).mean(1)
    if metric == "accuracy":
        return np.asarray(gain.mean(-1))
    classes = np.unique(regime.true)
    recalls = [gain[:, regime.true == c].mean(-1) for c in classes]
    return np.asarray(np.mean(recalls, axis=0))


def judge(regime: Regime, metric: str, scores: list[Array], effect: float) -> tuple[Array, Array]:
    """Differences and halves of the intervals, (runs,), by the core that `compare` calls."""
    true = regime.true if metric == "balanced_accuracy" else np.zeros_like(regime.true)
    cells = statistics._sort_into_cells(true, names(regime.groups))
    half = []
    for start in range(0, len(scores[0]), 250):
        baseline, candidate = (score[start : start + 250] for score in scores)
        items = (candidate > -effect).astype(float) - (baseline > 0)
        half.append(statistics._crossed_variance(items, cells).half_width(statistics.LEVEL))
    return differences(regime, metric, scores, effect), np.concatenate(half)


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy"])
def test_the_simulated_core_is_what_compare_does(metric: statistics.Metric) -> None:
    regime = REGIMES["mixed, rare class"][0]
    scores = regime.draw(np.random.default_rng(8), 5, 3)
    found, half = judge(regime, metric, scores, 0.2)
    for run in range(5):
        baseline, candidate = (
            list(np.where(score[run] > threshold, regime.true, (regime.true + 1) % 3))
            for score, threshold in zip(scores, (0, -0.2), strict=True)
        )
        groups = [names(regime.groups)] * 3
        seen = statistics.compare_runs(baseline, candidate, [regime.true] * 3, groups, metric, 1000)
        assert seen.difference == pytest.approx(found[run])
        assert seen.ci95 == pytest.approx((found[run] - half[run], found[run] + half[run]))


@pytest.mark.parametrize(("seeds", "errors"), [(3, 7), (10, 3.7)])
@pytest.mark.parametrize("name", REGIMES)
def test_error_rates(
    name: str, seeds: int, errors: float, record_property: Callable[[str, Any], None]
) -> None:
    """No difference: wrong 5 % at most. One of `errors` standard errors: covered and found."""
    regime, metric = REGIMES[name]
    scores = regime.draw(np.random.default_rng(9), RUNS, seeds)
    found, half = judge(regime, metric, scores, 0)
    false = np.mean(np.abs(found) > half)
    effect = 0.0
    for _ in range(3):  # the standard error depends on the effect, and so the effect on it
        wanted = errors * float(found.std())
        effect = optimize.brentq(lambda e, w: regime.difference(e, metric) - w, 0, 20, (wanted,))
        found = differences(regime, metric, scores, effect)
    found, half = judge(regime, metric, scores, effect)
    true = regime.difference(effect, metric)
    missed, power = np.mean(np.abs(found - true) > half), np.mean(found > half)
    for key, value in (("false", false), ("missed", missed), ("power", power)):
        record_property(key, round(float(value), 4))
    record_property("standard errors", round(float(true / found.std()), 2))
    assert false <= above(0.05, RUNS)
    assert missed <= above(0.05, RUNS)
    assert power >= 1 - above(0.1, RUNS)


@pytest.mark.parametrize("kind", ["noise", "seeds", "items"])
def test_error_rates_over_splits(kind: str, record_property: Callable[[str, Any], None]) -> None:
    """Each of 3 seeds draws a quarter of 240 items, by groups of 2; no true difference."""
    rng = np.random.default_rng(11)
    luck, item = {"noise": (0, 0), "seeds": (0.4, 0), "items": (0.05, 0.6)}[kind]
    runs, wrong, seeds = 120, 0, 3
    groups = np.arange(240) // 2
    for _ in range(runs):
        label = rng.integers(3, size=240)
        ease = 0.8 + rng.normal(0, 0.5, 120)[groups]
        advantage = rng.normal(0, item + 1e-9, (2, 120))[:, groups]
        drawn = [np.isin(groups, rng.choice(120, 30, replace=False)) for _ in range(seeds)]
        true = [label[part] for part in drawn]
        runs_of = [
            [
                np.where(
                    (ease + advantage[arm])[part] + luck * rng.normal() + rng.normal(size=60) > 0,
                    label[part],
                    (label[part] + 1) % 3,
                )
                for part in drawn
            ]
            for arm in (0, 1)
        ]
        teams = [names(groups[part]) for part in drawn]
        found = statistics.compare_runs(runs_of[0], runs_of[1], true, teams, "accuracy", 180)
        wrong += found.verdict != "no difference shown"
    record_property("false", wrong / runs)
    assert wrong / runs <= above(0.05, runs)


def draw_sides(rng: np.random.Generator, luck: float, better: float) -> statistics.SplitRuns:
    """Two sides of 3 seeds that each have another 60 of 240 items, in groups of 2, as test part."""
    groups = np.arange(240) // 2
    label, ease = rng.integers(3, size=240), 0.5 + rng.normal(0, 0.7, 120)[groups]
    sides = []
    for gain in (0.0, better):
        part = np.isin(groups, rng.choice(120, 30, replace=False))
        right = [
            ease[part] + gain + luck * rng.normal() + rng.normal(size=60) > 0 for _ in range(3)
        ]
        predicted = [np.where(r, label[part], (label[part] + 1) % 3) for r in right]
        sides.append(statistics.Runs(predicted, [label[part]] * 3, [names(groups[part])] * 3))
    return statistics.SplitRuns(*sides)


@pytest.mark.parametrize("luck", [0.0, 0.4])
def test_error_rates_between_splits(
    luck: float, record_property: Callable[[str, Any], None]
) -> None:
    rng, runs = np.random.default_rng(12), 200
    verdicts = [
        statistics.compare_splits(draw_sides(rng, luck, 0), "accuracy", 180).verdict
        for _ in range(runs)
    ]
    false = np.mean([v != "no difference shown" for v in verdicts])
    record_property("false", float(false))
    assert false <= above(0.05, runs)


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy"])
def test_sides_with_test_items_of_their_own_are_compared(metric: statistics.Metric) -> None:
    runs = draw_sides(np.random.default_rng(3), 0.1, 1.5)
    found = statistics.compare_splits(runs, metric, 180)
    back = statistics.compare_splits(
        statistics.SplitRuns(runs.candidate, runs.baseline), metric, 180
    )
    assert (found.verdict, back.verdict) == ("better", "worse")
    assert found.ci95
    assert found.p_value
    assert found.p_value < statistics.LEVEL
    assert back.ci95 == pytest.approx((-found.ci95[1], -found.ci95[0]))
    assert found.difference == pytest.approx(found.candidate_mean - found.baseline_mean)
    # A side against itself, unpaired, has twice its own square.
    alike = [statistics.compare_splits(statistics.SplitRuns(x, x), metric, 180) for x in runs]
    assert [(c.difference, c.verdict) for c in alike] == [(0, "no difference shown")] * 2
    squares = [((c.ci95[1] - c.ci95[0]) / 2) ** 2 for c in (*alike, found) if c.ci95]
    assert squares[2] == pytest.approx((squares[0] + squares[1]) / 2)
    plan = statistics.plan_seeds(runs, metric, 180, 0.3)
    assert plan
    assert plan.seeds
    alone = statistics.SplitRuns(*(statistics.Runs(*(x[:1] for x in side)) for side in runs))
    assert statistics.compare_splits(alone, metric, 180).ci95 is None


# --- seeds needed ----------------------------------------------------------------------------


def crossed(seeds: int, *variances: float, freedom: float) -> statistics._CrossedVariance:
    seed, item, both, least = (np.array(variance) for variance in variances)
    return statistics._CrossedVariance(seed, item, both, least, np.array(freedom), seeds)


def test_seeds_needed_is_the_power_of_a_paired_t_test_where_seeds_rule() -> None:
    from statsmodels.stats.power import TTestPower

    luck = crossed(3, 0.02**2 / 3, 1e-9, 1e-9, 1e-12, freedom=999)
    for difference in (0.08, 0.04, 0.02, 0.01):
        needed = statistics._seeds_needed(luck, difference)
        wanted = TTestPower().solve_power(difference / 0.02, alpha=0.05, power=0.8)
        assert needed == np.ceil(wanted)


def test_no_number_of_seeds_outdoes_the_luck_of_items() -> None:
    luck = crossed(3, 0.02**2, 0.02**2, 1e-9, 1e-12, freedom=99)
    assert statistics._seeds_needed(luck, 0.05) is None
    assert statistics._seeds_needed(luck, 0.07) is not None


def test_seeds_needed_do_what_they_promise() -> None:
    """Plan from the true variances, then simulate with that number of seeds."""
    regime, metric = Regime(seed=0.15, group=0.5, n=300), "accuracy"
    cells = statistics._sort_into_cells(np.zeros(300, int), names(regime.groups))
    effect = 0.25
    baseline, candidate = regime.draw(np.random.default_rng(12), 400, 20)
    items = (candidate > -effect).astype(float) - (baseline > 0)
    luck = statistics._crossed_variance(items, cells)
    parts = (float(np.mean(part)) for part in luck[:4])
    mean = crossed(20, *parts, freedom=float(np.mean(luck.degrees_of_freedom)))
    needed = statistics._seeds_needed(mean, regime.difference(effect, metric))
    assert needed is not None
    assert 5 <= needed <= 20
    for seeds, least, most in ((needed, 0.76, 0.88), (needed - 2, 0, 0.79)):
        scores = regime.draw(np.random.default_rng(13), RUNS, seeds)
        found, half = judge(regime, metric, scores, effect)
        assert least <= np.mean(found > half) <= most


# --- several comparisons at once -----------------------------------------------------------------


@given(st.lists(st.floats(1e-15, 1), min_size=1, max_size=30))
@settings(max_examples=12)
def test_adjusted_p_values_are_those_of_statsmodels(p_values: list[float]) -> None:
    from statsmodels.stats.multitest import multipletests

    found = statistics.adjust_p_values(p_values)
    assert found.holm == pytest.approx(multipletests(p_values, method="holm")[1])
    assert found.benjamini_hochberg == pytest.approx(multipletests(p_values, method="fdr_bh")[1])


def test_no_p_values_are_no_adjusted_ones() -> None:
    assert statistics.adjust_p_values([]) == ([], [])
