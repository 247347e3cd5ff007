"""What a score is, and how sure it is: from labels and predicted classes, or from token losses.

Symbols: n examples, K classes; for class k, tp_k right answers, t_k examples that have it, p_k that
are taken for it.

    f1          2 tp / (t + p) of class 1, the positive one of two
    macro       mean of 2 tp_k / (t_k + p_k) over the classes that occur
    matthews    (n Σ tp_k − Σ t_k p_k) / √((n² − Σ p_k²)(n² − Σ t_k²)), 0 where undefined
                (Gorodkin, Computational Biology and Chemistry 28, 367–374, 2004)
    likelihood  exp(−Σ loss / Σ tokens): the geometric mean of the tokens' probabilities, one over
                the perplexity; between 0 and 1, and higher is better

The first three agree with scikit-learn (a test says so); they are written over counts here because
an interval needs them for hundreds of resamples at a time.
"""

from __future__ import annotations

import math

import numpy as np

from ..errors import InputError

RESAMPLES = 1000
Z = 1.959964  # of 95 %


def wilson(correct: float, examples: int, z: float = Z) -> tuple[float, float]:
    """Wilson's 95 % interval of a proportion."""
    if not examples:
        raise InputError("interval", expected="at least one example", found="none")
    p = correct / examples
    centre = (p + z * z / (2 * examples)) / (1 + z * z / examples)
    half = z / (1 + z * z / examples)
    half *= math.sqrt(p * (1 - p) / examples + z * z / (4 * examples**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def value(metric: str, labels: np.ndarray, predicted: np.ndarray) -> float:
    """A metric of class numbers (n,)."""
    cells, counts = _cells(labels, predicted)
    return float(_of_counts(metric, cells, counts[None].astype(float))[0])


def interval(
    metric: str, labels: np.ndarray, predicted: np.ndarray, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of a seeded bootstrap over the examples.

    Resampling examples is drawing the cells of the confusion matrix.  Where every answer is right
    (or wrong), one of the other kind is added to what is drawn from: a mistake that was not seen
    in n examples is not impossible.
    """
    cells, counts = _cells(labels, predicted)
    right = cells[:, 0] == cells[:, 1]
    total = int(counts.sum())
    if right.all() or not right.any():
        commonest, last = int(cells[counts.argmax(), 0]), int(cells.max())
        # Taken for another class that occurs; with one class alone, for the other of two.
        other = next((int(k) for k in cells[:, 0] if k != commonest), int(commonest == 0))
        # A right answer is one of the last class, for of two that is the positive one.
        cells = np.vstack([cells, [commonest, other] if right.all() else [last, last]])
        counts = np.append(counts, 1)
    shares = counts / counts.sum()
    drawn = np.random.default_rng(seed).multinomial(total, shares, size=RESAMPLES)
    found = _of_counts(metric, cells, drawn.astype(float))
    low, high = np.quantile(found, [0.025, 0.975])
    point = value(metric, labels, predicted)
    return min(float(low), point), max(float(high), point)


def likelihood(losses: np.ndarray, tokens: np.ndarray) -> tuple[float, tuple[float, float]]:
    """(value, 95 % interval) from each example's summed loss (nats) and its tokens (n,).

    The interval is that of a ratio of means by the delta method, on the scale of the loss.
    """
    total = float(tokens.sum())
    mean = float(losses.sum()) / total
    if not math.isfinite(mean):  # an answer that is no number: no token had any probability
        return 0.0, (0.0, 1.0)
    if len(losses) < 2:
        return math.exp(-mean), (0.0, 1.0)
    n = len(losses)
    spread = float(((losses - mean * tokens) ** 2).sum()) * n / (n - 1)
    half = Z * math.sqrt(spread) / total
    return math.exp(-mean), (math.exp(-mean - half), min(1.0, math.exp(-mean + half)))


def per_class(labels: np.ndarray, right: np.ndarray, classes: int) -> np.ndarray:
    """(K,): the share of each class's examples that are right; NaN for a class without any."""
    there = np.bincount(labels, minlength=classes).astype(float)
    found = np.bincount(labels, weights=right, minlength=classes)
    return np.divide(found, there, out=np.full(classes, np.nan), where=there > 0)


def _cells(labels: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cells of the confusion matrix that occur, (m, 2) as (true, predicted), and their counts."""
    if not len(labels):
        raise InputError("metric", expected="at least one example", found="none")
    return np.unique(np.stack([labels, predicted], 1), axis=0, return_counts=True)


def _of_counts(metric: str, cells: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """A metric of many confusion matrices at once: counts (resamples, m) of the cells (m, 2)."""
    classes = np.unique(cells)
    true, taken = (cells[:, [i]] == classes for i in (0, 1))  # (m, K)
    t, p = counts @ true, counts @ taken
    tp = counts @ (true & taken)
    if metric == "matthews":
        n = counts.sum(1)
        below = (n**2 - (p**2).sum(1)) * (n**2 - (t**2).sum(1))
        above = n * tp.sum(1) - (t * p).sum(1)
        return np.divide(above, np.sqrt(below), out=np.zeros_like(above), where=below > 0)
    f1 = np.divide(2 * tp, t + p, out=np.zeros_like(tp), where=t + p > 0)
    if metric == "macro":
        there = (t + p > 0) & (classes >= 0)  # answers of no class are none that occurs
        return f1.sum(1) / np.maximum(there.sum(1), 1)
    if metric == "f1":
        return f1[:, classes == 1].sum(1)
    raise ValueError(metric)
