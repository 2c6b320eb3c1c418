"""Made-up stand-ins for the wine quality table: its columns, shares and repeats, not its wines."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

# Rows, and how many of them repeat an earlier one, of each colour and quality (bad: 3-4, ok: 5-6,
# good: 7-9), counted in the real table (Cortez et al. 2009, UCI 186).
ROWS = {
    "red": {"bad": (63, 0), "ok": (1319, 207), "good": (217, 33)},
    "white": {"bad": (183, 10), "ok": (3655, 692), "good": (1060, 235)},
}


class Spread(NamedTuple):
    """Where a colour's reading lies: bad and good wines are shifted, in units of `spread`."""

    middle: float
    spread: float
    bad: float
    good: float


class Reading(NamedTuple):
    """How one reading is distributed."""

    decimals: int
    logarithmic: bool  # spread in natural logarithms: skewed readings
    low: float
    high: float
    red: Spread
    white: Spread


# Statistics of the real table, rounded.
READINGS = {
    "fixed_acidity": Reading(
        1, True, 3.8, 15.9, Spread(8.1, 0.20, -0.3, 0.3), Spread(6.8, 0.125, 0.4, -0.2)
    ),
    "volatile_acidity": Reading(
        2, True, 0.08, 1.58, Spread(0.5, 0.36, 0.9, -0.7), Spread(0.26, 0.34, 0.8, -0.1)
    ),
    "citric_acid": Reading(
        2, False, 0, 1.66, Spread(0.27, 0.20, -0.5, 0.5), Spread(0.33, 0.12, -0.2, 0)
    ),
    "residual_sugar": Reading(
        1, True, 0.6, 65.8, Spread(2.3, 0.35, 0, 0.2), Spread(4.1, 0.91, -0.3, -0.2)
    ),
    "chlorides": Reading(
        3, True, 0.009, 0.611, Spread(0.082, 0.34, 0.1, -0.4), Spread(0.043, 0.34, 0.2, -0.5)
    ),
    "free_sulfur_dioxide": Reading(
        0, True, 1, 289, Spread(13, 0.68, -0.4, -0.2), Spread(30, 0.56, -1, 0)
    ),
    "total_sulfur_dioxide": Reading(
        0, True, 6, 440, Spread(37, 0.71, -0.5, -0.4), Spread(130, 0.34, -0.4, -0.3)
    ),
    "density": Reading(
        4, False, 0.987, 1.039, Spread(0.9968, 0.0019, 0, -0.4), Spread(0.994, 0.003, 0.2, -0.6)
    ),
    "pH": Reading(
        2, False, 2.72, 4.01, Spread(3.31, 0.15, 0.5, -0.1), Spread(3.19, 0.15, -0.1, 0.2)
    ),
    "sulphates": Reading(
        2, True, 0.22, 2, Spread(0.64, 0.22, -0.5, 0.6), Spread(0.48, 0.22, -0.2, 0)
    ),
    "alcohol": Reading(
        1, True, 8, 14.9, Spread(10.3, 0.10, -0.2, 1), Spread(10.4, 0.11, -0.3, 0.8)
    ),
}
# Tenths: correlations within a colour and quality, both colours pooled, in the order of READINGS.
CORRELATION = (
    (10, -1, 4, 1, 1, -1, 0, 4, -5, 0, -1),
    (-1, 10, -2, 1, 0, -1, 1, 0, 0, -1, 0),
    (4, -2, 10, 1, 1, 0, 1, 2, -3, 1, -1),
    (1, 1, 1, 10, 1, 3, 3, 7, -1, 0, -2),
    (1, 0, 1, 1, 10, 1, 2, 3, -1, 1, -4),
    (-1, -1, 0, 3, 1, 10, 7, 2, 0, 1, -2),
    (0, 1, 1, 3, 2, 7, 10, 4, 0, 1, -4),
    (4, 0, 2, 7, 3, 2, 4, 10, -1, 1, -7),
    (-5, 0, -3, -1, -1, 0, 0, -1, 10, 1, 1),
    (0, -1, 1, 0, 1, 1, 1, 1, 1, 10, 0),
    (-1, 0, -1, -2, -4, -2, -4, -7, 1, 0, 10),
)


def _wines(rng: np.random.Generator, color: str) -> pd.DataFrame:
    """All wines of one colour, in no order."""
    mix = np.linalg.cholesky(np.array(CORRELATION) / 10)
    parts = []
    for quality, (rows, repeats) in ROWS[color].items():
        # einsum adds up in one order whatever the number of cores.
        z = np.einsum("ij,kj->ik", rng.standard_normal((rows - repeats, len(mix))), mix)
        part = pd.DataFrame(z, columns=list(READINGS))
        for name, reading in READINGS.items():
            place: Spread = getattr(reading, color)
            shift = {"bad": place.bad, "ok": 0.0, "good": place.good}[quality]
            off = place.spread * (part[name] + shift)
            value = place.middle * np.exp(off) if reading.logarithmic else place.middle + off
            part[name] = value.clip(reading.low, reading.high).round(reading.decimals)
        part["quality"], part["color"] = quality, color
        parts += [part, part.iloc[rng.integers(len(part), size=repeats)]]
    wines = pd.concat(parts)
    return wines.iloc[rng.permutation(len(wines))]


def make(folder: Path) -> None:
    """Write wine_quality.csv: 11 readings, `quality` (bad, ok, good), `color` (red, white).

    6,497 rows, 1,599 red and then 4,898 white; 1,177 repeat an earlier row exactly.
    """
    rng = np.random.default_rng(186)
    wines = pd.concat([_wines(rng, color) for color in ROWS])
    wines.to_csv(folder / "wine_quality.csv", index=False, lineterminator="\n")
