"""Whether two rows of numbers rise together: rank correlation, its interval, and chance.

    ρ          Spearman's: the correlation of the ranks, ties with their mean rank
    interval   95 %, by Fisher's z with the variance (1 + ρ²/2) / (n − 3) of ranks (Bonett & Wright,
               Psychometrika 65, 23–28, 2000)
    chance     the share of all orders of one row with a |ρ| as large, for up to `EXACT` numbers;
               beyond, of random ones, the given one among them (Phipson & Smyth, 2010)

Among several rows one correlates by luck: `holm` asks more of each of them (Holm, Scandinavian
Journal of Statistics 6, 65–70, 1979).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ..evaluation import metrics

K = TypeVar("K")
EXACT = 8  # numbers of which all orders are counted: 40,320
DRAWN = 9999  # orders of more numbers
LEVEL = 0.05  # chance below which a correlation is one
LEAST = 3  # numbers that have an order worth a number


@dataclass(frozen=True)
class Correlation:
    """A rank correlation.

    value       Spearman's ρ
    low, high   ends of its 95 % interval; −1 and 1 for three numbers
    chance      probability of one as large, either way, if nothing connected the two
    count       numbers in each row
    """

    value: float
    low: float
    high: float
    chance: float
    count: int

    @property
    def clear(self) -> bool:
        """Whether it is more than chance: at most one in twenty."""
        return self.chance <= LEVEL


def correlate(first: Sequence[float], second: Sequence[float]) -> Correlation | None:
    """The rank correlation of two rows of numbers, over the places where both are known (finite).

    None for fewer than three, and where one of them does not vary.
    """
    x, y = np.asarray(first, float), np.asarray(second, float)
    both = np.isfinite(x) & np.isfinite(y)
    x, y = ranks(x[both]), ranks(y[both])
    if len(x) < LEAST or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    value = float(_rho(x, y[None])[0])
    found = _rho(x, y[_orders(len(x))])
    return Correlation(value, *_interval(value, len(x)), _share(found, value), len(x))


def correlate_pairs(first: np.ndarray, second: np.ndarray) -> Correlation | None:
    """The rank correlation of two matrices (T, T) over all ordered pairs of different tasks.

    The pairs of a task are no independent numbers: chance is over orders of the tasks, rows and
    columns together (Mantel, Cancer Research 27, 209–220, 1967), and the interval counts T tasks.
    None for fewer than three tasks, and where a matrix does not vary or is not wholly known.
    """
    tasks = len(first)
    apart = ~np.eye(tasks, dtype=bool)
    x, y = first[apart], second[apart]
    known = np.isfinite(x).all() and np.isfinite(y).all()
    if tasks < LEAST or not known or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    ranked = np.zeros((tasks, tasks))
    ranked[apart] = ranks(y)
    moved = np.stack([ranked[np.ix_(order, order)][apart] for order in _orders(tasks)])
    value = float(_rho(ranks(x), ranks(y)[None])[0])
    chance = _share(_rho(ranks(x), moved), value)
    return Correlation(value, *_interval(value, tasks), chance, tasks)


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks (n,) from 1 on, smallest first; equal values share the mean of theirs."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts - 1) / 2)[places]


def holm(chances: Sequence[float]) -> list[float]:
    """Chances, each as large as it must count where all of them were looked at."""
    order = sorted(range(len(chances)), key=lambda i: chances[i])
    found, least = [0.0] * len(chances), 0.0
    for place, i in enumerate(order):
        least = max(least, min(1.0, (len(chances) - place) * chances[i]))
        found[i] = least
    return found


def clear_among(found: Mapping[K, Correlation]) -> tuple[K, ...]:
    """The keys of the correlations that are more than chance after `holm`, the surest first."""
    chances = dict(zip(found, holm([one.chance for one in found.values()]), strict=True))
    rare = [key for key, chance in chances.items() if chance <= LEVEL]
    return tuple(sorted(rare, key=lambda key: (chances[key], -abs(found[key].value))))


def _rho(x: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The correlation (k,) of x (n,) with each of the rows (k, n)."""
    x, rows = x - x.mean(), rows - rows.mean(1, keepdims=True)
    return rows @ x / np.sqrt((x * x).sum() * (rows * rows).sum(1))


def _orders(count: int) -> np.ndarray:
    """All orders of so many things (k, count), the given one among them, or random ones."""
    if count <= EXACT:
        return np.array(list(itertools.permutations(range(count))))
    generator = np.random.default_rng(0)
    drawn = [generator.permutation(count) for _ in range(DRAWN)]
    return np.array([np.arange(count), *drawn])


def _share(found: np.ndarray, value: float) -> float:
    return float((abs(found) >= abs(value) - 1e-9).mean())


def _interval(value: float, count: int) -> tuple[float, float]:
    if count <= LEAST:
        return -1.0, 1.0
    # Fisher's z of 1 is infinite, which would be certain of any few that are in one order: halfway
    # to the next ρ that so many ranks can have is as near as it is taken.
    most = 1 - 6 / (count**3 - count)
    near = max(-most, min(most, value))
    half = metrics.Z * math.sqrt((1 + near**2 / 2) / (count - 3))
    low, high = math.tanh(math.atanh(near) - half), math.tanh(math.atanh(near) + half)
    return min(low, value), max(high, value)
