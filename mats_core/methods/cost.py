"""What one layer costs, counted before it is done: what the methods' `cost` functions are made of.

Symbols: a layer W (d_out, d_in), T experts, r directions a task.  Products are counted exactly
(2mnk operations), decompositions by their textbook operations, and everything elementwise as so
many times that a tensor of the layer's size is read or written; constants in the counts are those
passes, read off the code.
`tests/estimating` holds treatments and counts against real runs, method by method.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ..linear import JOINT_SHARE, JOINT_STEPS
from ..system import Work, speeds
from .layer import Treatment

EXACT = "float64"  # what `linalg` decomposes and solves in
SCATTERED = 24  # bytes that are moved in the time of one number that is drawn or sorted in
FALLS_BACK = 0.3  # of the polar factors; measured on the sample family: 15 of 48 in ESM


@dataclass(frozen=True)
class Shape:
    """One layer as a method gets it.

    size       shape of the tensor (with a folded bias: one more column)
    experts    T
    dtype      of the arithmetic
    is_matrix  whether methods for linear layers apply
    measured   kinds of statistics that every expert has of it, among those that are read
    prior      whether the Fisher of the base was measured
    ranks      rows of A and of B in factors, for methods that take them so; 0: a matrix
    low_rank   sum of the ranks of all experts' updates, where they are read in factors
    """

    size: tuple[int, ...]
    experts: int
    dtype: str
    is_matrix: bool
    measured: frozenset[str] = frozenset()
    prior: bool = False
    ranks: tuple[int, int] = (0, 0)
    low_rank: int | None = None

    @property
    def elements(self) -> int:
        """Number of elements of the tensor."""
        return math.prod(self.size)

    @property
    def width(self) -> int:
        """Bytes of a number."""
        return 8 if self.dtype == "float64" else 4

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor in the arithmetic's dtype."""
        return self.elements * self.width

    @property
    def rows(self) -> int:
        """d_out, the first dimension."""
        return self.size[0]

    @property
    def columns(self) -> int:
        """d_in, the second dimension."""
        return self.size[1]

    def passes(self, times: float) -> Work:
        """The layer's tensor read or written so many times; an operation does three at once."""
        return passes(self.nbytes, times)


@dataclass(frozen=True)
class Cost:
    """What merging one layer costs.

    treatment   what happens to it, as in the report
    work        operations, bytes moved and calls
    nbytes      bytes that are held beside its inputs
    """

    treatment: Treatment
    work: Work = field(default_factory=Work)
    nbytes: float = 0.0


# Kinds of work ------------------------------------------------------------------------------------


def calls(count: float) -> Work:
    """Operations on tensors, whatever their size."""
    return Work(calls=count)


def passes(nbytes: int, times: float) -> Work:
    """A tensor of so many bytes read or written so many times; an operation does three at once."""
    return Work(moved=times * max(0, nbytes - speeds.CACHE), calls=times / 3)


def operations(count: float, dtype: str = EXACT) -> Work:
    """Operations of products and of triangular solves."""
    return Work(products=count * (2 if dtype == EXACT else 1))


def gemm(m: int, n: int, k: int, dtype: str) -> Work:
    """(m, k) @ (k, n)."""
    return operations(2.0 * m * n * k, dtype) + calls(1)


def eigenbasis(n: int) -> Work:
    """A symmetric eigendecomposition."""
    return Work(decompositions=speeds.eigh_flops(n), calls=speeds.COLUMN * n)


def thin_svd(m: int, n: int) -> Work:
    """U, σ and V of m×n."""
    found = Work(decompositions=speeds.svd_flops(m, n), calls=speeds.COLUMN * min(m, n))
    return found + passes(8 * m * n, 6)


def scattered(count: float) -> Work:
    """Random numbers, or numbers that are sorted into a histogram."""
    return Work(moved=SCATTERED * count)


def selection(s: Shape) -> Work:
    """The threshold of every expert: two histograms, or (float64) a partial sort."""
    sweeps = 2 * s.experts
    return scattered(float(sweeps * s.elements)) + calls(8.0 * sweeps)


def averaged(s: Shape) -> Cost:
    """The weighted mean of the experts."""
    return Cost("averaged", s.passes(3 * s.experts), 2 * s.nbytes)


# Grams --------------------------------------------------------------------------------------------


def forms(n: int, s: Shape, damping: float, off_diagonal: float, normalise: bool = False) -> Work:
    """Every task's regularised factor of size n."""
    each = (5 if damping else 0) + (6 if off_diagonal != 1 else 0) + (2 if normalise else 0)
    return passes(n * n * s.width, each * s.experts)


def side(m: int, n: int, rank: int, s: Shape) -> Work:
    """X C with C (n, n), or in factors of `rank` rows, for m rows of X."""
    if not rank:
        return gemm(m, n, n, s.dtype)
    return gemm(m, rank, n, s.dtype) + gemm(m, n, rank, s.dtype) + s.passes(3)


def cholesky_solve(m: int, n: int) -> Work:
    """`linear.solve_positive`: Cholesky of n×n for m right-hand sides."""
    return operations(n**3 / 3 + 2.0 * m * n * n) + calls(12.0) + passes(8 * n * n, 8)


def woodbury(n: int, stacked: int) -> Work:
    """`lowrank.Woodbury`: the Gram of the rows, its Cholesky factor, a triangular solve."""
    counted = 3.0 * stacked**2 * n + stacked**3 / 3
    return operations(counted) + calls(12.0) + passes(8 * stacked * n, 6)


def inverses(m: int, n: int, s: Shape) -> Work:
    """`linear.kronecker_inverse`: sums of the factors, a Cholesky factor and an inverse of each."""
    a, b = (passes(k * k * s.width, 3 * s.experts + 12) for k in (m, n))
    return operations(float(m**3 + n**3)) + calls(16.0) + a + b


def eigenbases(m: int, n: int) -> Work:
    """Those of a sum of `B ⊗ A`."""
    return eigenbasis(m) + eigenbasis(n)


def joint_basis(n: int) -> Work:
    """`linear.two_models`: a Cholesky factor, three triangular solves, an eigenbasis."""
    return eigenbasis(n) + operations(n**3 * (1 / 3 + 3)) + calls(12.0)


def shared_basis(n: int, s: Shape) -> Work:
    """`linear.joint_basis`: an eigenbasis of the sum, and its turning over all tasks' Grams."""
    k = round(JOINT_SHARE * n)
    inner = gemm(n, k, n, s.dtype) + gemm(k, k, n, s.dtype)
    turned = (gemm(k, k, k, s.dtype) * 2 + passes(k * k * s.width, 12)) * JOINT_STEPS
    solved = (operations(k**3 * (2 / 3 + 2), s.dtype) + gemm(k, k, k, s.dtype)) * JOINT_STEPS
    diagonals = gemm(n, n, n, s.dtype) + passes(n * n * s.width, 3)
    return eigenbasis(n) + (inner + turned + diagonals) * s.experts + solved


def bound(most: int, tolerance: float, condition: float) -> float:
    """Iterations of CG: at most `most`, and the classical bound for a condition number."""
    if not tolerance:
        return most
    return min(most, math.ceil(0.5 * math.sqrt(condition) * math.log(2 / min(1, tolerance))))


# Singular values ----------------------------------------------------------------------------------


def polar_factor(m: int, n: int, dtype: str) -> Work:
    """`linear.polar`: by the Gram, and by an SVD after it where that was not well-conditioned."""
    k = min(m, n)
    by_svd = thin_svd(m, n) + gemm(m, n, k, EXACT)
    if dtype == EXACT:
        return by_svd
    # The eigenbasis of the smaller side's Gram, `Q σ⁻¹ Qᵀ`, and its product with the matrix.
    by_gram = gram_basis(m, n) + gemm(k, k, k, EXACT) + gemm(m, n, k, EXACT)
    return by_gram + by_svd * FALLS_BACK


def gram_basis(m: int, n: int) -> Work:
    """The eigenbasis of the smaller side's Gram."""
    k = min(m, n)
    return eigenbasis(k) + gemm(k, k, max(m, n), EXACT) + passes(8 * m * n, 8)


def largest_triples(m: int, n: int, rank: int, dtype: str) -> Work:
    """`linear.largest_triples`: the other side's vectors are one product."""
    if dtype == EXACT:
        return thin_svd(m, n)
    return gram_basis(m, n) + gemm(m, n, rank, EXACT)


def two_factors(m: int, n: int, rank: int | None, energy: float, dtype: str) -> Work:
    """`linear.two_factors`: a sketch, the leading triples or all, and the factors' product."""
    kept = min(rank or m, m, n)
    probe = gemm(m, min(m, n) // 4, n, dtype) * 3
    some = rank is not None and energy == 1
    cut = largest_triples(m, n, kept, dtype) if some else thin_svd(m, n)
    return probe + cut + gemm(m, n, kept, dtype) + passes(4 * m * n, 12)


def svd_bytes(m: int, n: int) -> int:
    """U, σ, V and the workspace of one decomposition in float64, beside its argument."""
    k = min(m, n)
    return 8 * (2 * m * n + 2 * k * (m + n) + 4 * k * k)
