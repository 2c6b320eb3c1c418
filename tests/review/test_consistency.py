"""A review elsewhere: honest repeats are consistent, changes beyond the luck of training not."""

import numpy as np
import pytest

from facet.base.storage import read_csv
from facet.review import calibrate
from facet.review.consistency import (
    FALSE_ALARM,
    count_items,
    exact_differences,
    fit_variances,
    judge,
    read_metrics,
)
from tests.helpers import ROOT, words_of

TABLE = read_csv(ROOT / "tests/data/seeds.csv")


@pytest.mark.parametrize("reviews", [8, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.timeout(3600)
def test_honest_reviews_are_rarely_inconsistent_and_stated_changes_are_found(reviews: int) -> None:
    figures, items = read_metrics(TABLE), count_items(TABLE)
    for draw in (
        calibrate.draw_seeds(figures, 3),
        calibrate.simulate_seeds(figures, items, 3),
        calibrate.draw_seeds(figures, 2),
    ):
        alarms, found = calibrate.measure_errors(draw, items, reviews, seed=1)
        assert alarms <= 0.02  # 0.01 is promised: none of few
        assert found >= 0.85


def test_variances_are_moderated_by_what_all_of_them_say() -> None:
    rng = np.random.default_rng(0)
    freedoms = np.full(4000, 4.0)
    same = 2.5 * rng.chisquare(4, 4000) / 4
    size, freedom = fit_variances(same, freedoms, 4000)
    assert size == pytest.approx(2.5, rel=0.1)
    assert freedom > 20
    # Scaled inverse chi-squared: what the fit takes them for.
    spread = same * 6 / rng.chisquare(6, 4000)
    size, freedom = fit_variances(spread, freedoms, 4000)
    assert size == pytest.approx(2.5, rel=0.1)
    assert 4 < freedom < 6.5
    # Few of them do not show how alike they are: rather too little is taken over.
    few = spread[:30], freedoms[:30]
    assert fit_variances(*few, 15)[1] < fit_variances(*few, 1e12)[1]


def rows(shift: float = 0.0, seeds: int = 3) -> list[dict[str, str]]:
    """Figures of three experiments, those of one shifted."""
    rng = np.random.default_rng(seeds)
    return [
        {
            "run": f"{e}-{s}",
            "experiment": e,
            "seed": str(s),
            "head": "h",
            "n_test": "400",
            "accuracy": f"{value:.8g}",
            "balanced_accuracy": f"{value:.8g}",
            "chance": "0.5",
            "balanced_chance": "0.5",
        }
        for e, share in (("a", 0.7), ("b", 0.8), ("c", 0.9))
        for s in range(seeds)
        for value in [share + 0.01 * rng.normal() + (shift if e == "a" else 0)]
    ]


def verdicts(committed: list[dict[str, str]], here: list[dict[str, str]]) -> dict[str, str]:
    found = judge(read_metrics(committed), read_metrics(here), count_items(committed))
    return {j.experiment: j.verdict for j in found if j.metric == "balanced_accuracy"}


def test_a_shift_is_found_in_the_head_that_has_it() -> None:
    assert verdicts(rows(), rows()) == dict.fromkeys("abc", "consistent")
    assert verdicts(rows(), rows(0.3)) == {"a": "differs", "b": "consistent", "c": "consistent"}
    # A part of the runs is judged by the luck that all committed ones show.
    assert verdicts(rows(), rows(0.3)[:1]) == {"a": "differs"}
    # One seed on each side shows none: nothing is judged rather than called consistent.
    assert verdicts(rows(seeds=1), rows(seeds=1)) == dict.fromkeys("abc", "not judged")


def test_what_training_does_not_touch_has_to_be_equal() -> None:
    here = rows()
    assert exact_differences(rows(), here) == []
    here[0]["chance"], here[1]["run"], here[2]["n_test"] = "0.51", "d-0", "401"
    here[3]["accuracy"] = "0.1"  # which luck does touch
    chance, run, count = map(words_of, exact_differences(rows(), here))
    assert {"a-0", "h", "chance", "0.5", "0.51"} <= chance
    assert {"d-0", "h"} <= run
    assert {"a-2", "h", "n_test", "400", "401"} <= count


def test_the_table_of_seeds_is_enough_for_the_stated_error() -> None:
    assert 0 < FALSE_ALARM <= 0.01
    assert len({r["seed"] for r in TABLE}) >= 20
