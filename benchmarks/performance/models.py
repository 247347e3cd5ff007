"""Estimates for whole language models from measured layers: shapes, operations, bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

RANKS = (128, 512, 1024)


@dataclass(frozen=True)
class Decoder:
    """The matrices of a decoder's layers (rows, columns, how many a layer), and its depth.

    Embedding and output are left out: they have no output-gradient Gram and take the mean.
    """

    name: str
    layers: int
    shapes: tuple[tuple[int, int, int], ...]

    @property
    def parameters(self) -> int:
        """Of the layers' matrices."""
        return self.layers * sum(rows * columns * n for rows, columns, n in self.shapes)


def llama(name: str, layers: int, width: int, inner: int, keys: int | None = None) -> Decoder:
    """q, k, v, o; gate, up; down.  `keys`: rows of k and v, where query heads share them."""
    own = keys or width
    attention = ((width, width, 4),) if own == width else ((width, width, 2), (own, width, 2))
    return Decoder(name, layers, (*attention, (inner, width, 2), (width, inner, 1)))


LLAMAS = (
    llama("7B", 32, 4096, 11008),
    llama("30B", 60, 6656, 17920),
    llama("70B", 80, 8192, 28672, keys=1024),
)
# What no single machine of ours holds, and `cluster.py` simulates.
GIANTS = (LLAMAS[-1], llama("405B", 126, 16384, 53248, keys=1024))


def side_bytes(size: int, rank: int | None) -> int:
    """Bytes of one Gram, float32: whole, or `rank` rows and the rest where that is less."""
    return 4 * (size * size if rank is None or 2 * rank > size else rank * size + 1)


def statistics_bytes(model: Decoder, rank: int | None) -> int:
    """A and B of every matrix of one expert; without Fishers, which are as large as the weights."""
    return model.layers * sum(
        n * (side_bytes(rows, rank) + side_bytes(columns, rank))
        for rows, columns, n in model.shapes
    )


def work(method: str, rows: int, columns: int, tasks: int, rank: int, iterations: float) -> float:
    """What a method's time goes by on one matrix: operations of its leading products, or (average)
    numbers that pass.

        average     5 M m n, elementwise
        regmean     M products with A (4 k n m each), and Woodbury of M k rows (4 M k n m + ...)
        kfac        (iterations + 3) times M products with A and B, and Woodbury twice an iteration
        essential   F Δᵀ (2 k m n) and Eᵀ Δ (2 r m n) of every task, E C of M r directions, and
                    polar factors of the M k that are not zero; r = m / M
    """
    m, n, stacked = rows, columns, tasks * rank
    small = 2.0 * stacked**2 * n + stacked**3 / 3
    product = 4.0 * rank * m * n
    # K-FAC
    operator = 2 * tasks * product
    preconditioner = 2 * 4.0 * stacked * m * n
    sides = small + 2.0 * stacked**2 * m + stacked**3 / 3
    # essential subspaces
    polars = sum(4.0 * stacked**2 * size + 10.0 * stacked**3 for size in (m, n))
    directions = tasks * max(1, m // tasks)
    return {
        "average": 5.0 * tasks * m * n,
        "regmean": tasks * product + small + 4.0 * stacked * m * n,
        "kfac": (iterations + 3) * operator + (iterations + 1) * preconditioner + sides,
        "essential": 2.0 * stacked * m * n + 4.0 * directions * m * n + polars,
    }[method]


@dataclass(frozen=True)
class Rate:
    """A measured matrix: seconds for so much `work`."""

    method: str
    rows: int
    columns: int
    seconds: float
    work: float
    iterations: int = 0


def estimate(model: Decoder, method: str, rates: Sequence[Rate], *, tasks: int, rank: int) -> float:
    """Seconds for all layers' matrices, at the mean rate and iterations of those measured."""
    own = [rate for rate in rates if rate.method == method]
    pace = sum(rate.seconds for rate in own) / sum(rate.work for rate in own)
    iterations = sum(rate.iterations for rate in own) / len(own)
    each = sum(n * work(method, m, k, tasks, rank, iterations) for m, k, n in model.shapes)
    return model.layers * each * pace
