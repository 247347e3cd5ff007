"""What each method has to do with one layer, counted before it is done.

Symbols: a layer W (d_out, d_in), T experts, r directions a task.  Products are counted exactly
(2mnk operations), decompositions as such, and everything elementwise as so many times that a tensor
of the layer's size is read or written; constants in the counts are those passes, read off the code.
`tests/test_estimate.py` holds treatments and counts against real runs, method by method.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..linear import BLOCK, WORTH
from ..system import CALL, EIGH, GEMM, HISTOGRAM, RANDOM, STREAM, SVD, Work
from .average import AverageOptions
from .dare import DareOptions
from .essential import EssentialOptions
from .fisher import FisherOptions
from .gradient_matching import MatchingOptions
from .iso import IsoCtsOptions, IsoOptions
from .kfac import KfacOptions
from .kfac_matching import KfacMatchingOptions
from .layer import Treatment
from .regmean import RegMeanOptions
from .slerp import PIECE, SlerpOptions
from .task_arithmetic import ArithmeticOptions
from .ties import TiesOptions
from .tsv_m import TsvOptions

EXACT = "float64"  # what `linalg` decomposes and solves in
FALLS_BACK = 0.3  # of the polar factors; measured on the sample family: 15 of 48 in ESM


@dataclass(frozen=True)
class Shape:
    """One layer as a method finds it.

    size       the tensor's own shape (with a folded bias: one more column)
    experts    T
    dtype      of the arithmetic
    is_matrix  whether methods for linear layers apply
    measured   kinds of statistics that every expert has of it, among those that are read
    prior      whether the base's own Fisher is there
    ranks      rows of A and of B in factors, for methods that take them so; 0: a matrix
    """

    size: tuple[int, ...]
    experts: int
    dtype: str
    is_matrix: bool
    measured: frozenset[str] = frozenset()
    prior: bool = False
    ranks: tuple[int, int] = (0, 0)

    @property
    def elements(self) -> int:
        return math.prod(self.size)

    @property
    def width(self) -> int:
        """Bytes of a number."""
        return 8 if self.dtype == "float64" else 4

    @property
    def nbytes(self) -> int:
        return self.elements * self.width

    @property
    def rows(self) -> int:
        return self.size[0]

    @property
    def columns(self) -> int:
        return self.size[1]

    def passes(self, times: float) -> Work:
        """The layer's tensor read or written so many times; an operation does three at once."""
        return passes(self.nbytes, times)


@dataclass(frozen=True)
class Cost:
    """What a layer costs: its treatment, its work, and the bytes held beside its inputs."""

    treatment: Treatment
    work: Work = field(default_factory=Counter)
    nbytes: float = 0.0


def passes(nbytes: int, times: float) -> Work:
    return Counter({(STREAM, nbytes): times, (CALL,): times / 3})


def gemm(m: int, n: int, k: int, dtype: str, times: float = 1) -> Work:
    """(m, k) @ (k, n)."""
    return Counter({(GEMM, dtype): 2.0 * m * n * k * times, (CALL,): times})


def together(*parts: Work) -> Work:
    total: Work = Counter()
    for part in parts:
        total.update(part)
    return total


def times(work: Work, factor: float) -> Work:
    return Counter({key: amount * factor for key, amount in work.items()})


# Weights and task vectors -------------------------------------------------------------------------


def averaged(s: Shape, treatment: Treatment = "averaged") -> Cost:
    return Cost(treatment, s.passes(3 * s.experts), 2 * s.nbytes)


def average(s: Shape, options: AverageOptions) -> Cost:
    return averaged(s)


def slerp(s: Shape, options: SlerpOptions) -> Cost:
    """Three inner products, each of two tensors widened piece by piece, and a weighted sum."""
    pieces = math.ceil(s.elements / PIECE)
    widened = passes(8 * min(s.elements, PIECE), 12 * pieces)
    work = together(widened, s.passes(6 + 6), Counter({(CALL,): 6.0}))
    return Cost("merged", work, s.nbytes + 2 * 8 * min(s.elements, PIECE))


def task_arithmetic(s: Shape, options: ArithmeticOptions) -> Cost:
    return Cost("merged", s.passes(6 * s.experts + 5), 4 * s.nbytes)


def ties(s: Shape, options: TiesOptions) -> Cost:
    blocks = max(1, s.elements // BLOCK)  # one after the other, in a processor's cache
    work = passes(s.nbytes // blocks, (30 * s.experts + 6) * blocks)
    if options.scope == "tensor":
        work = together(work, selection(s))
    return Cost("merged", work, (s.experts + 8) * s.nbytes)


def selection(s: Shape) -> Work:
    """The threshold of every expert: two histograms, or (float64) a partial sort."""
    sweeps = 2 * s.experts
    return Counter({(HISTOGRAM,): float(sweeps * s.elements), (CALL,): 8.0 * sweeps})


def dare(s: Shape, options: DareOptions) -> Cost:
    # Masks are drawn by a generator of their own, from the seed and the place: 1.5 times the time.
    drawn: Work = Counter({(RANDOM,): 1.5 * s.experts * s.elements})
    work = together(drawn, s.passes(16 * s.experts + 5))
    return Cost("merged", work, (s.experts + 7) * s.nbytes)


# Elementwise curvature ----------------------------------------------------------------------------


def fisher(s: Shape, options: FisherOptions) -> Cost:
    if "fisher" not in s.measured:
        return averaged(s)
    each = 26 + (5 if options.normalise else 0)
    return Cost("merged", s.passes(each * s.experts + 12), (s.experts + 8) * s.nbytes)


def gradient_matching(s: Shape, options: MatchingOptions) -> Cost:
    if "fisher" not in s.measured or (options.prior == "pretrained" and not s.prior):
        return averaged(s)
    return Cost("merged", s.passes(27 * s.experts + 15), 10 * s.nbytes)


# Input Grams and K-FAC blocks ---------------------------------------------------------------------


def remaining(s: Shape, choice: str) -> Cost:
    """A parameter without a block of its own: see `curvature.merge_remaining`."""
    n = s.elements
    if choice == "block" and "block" in s.measured:
        solve = Counter({(GEMM, EXACT): n**3 / 3 + 2.0 * n**2})
        work = together(solve, passes(n * n * s.width, 6.0 * s.experts + 12))
        return Cost("merged", work, (2 * s.experts * s.width + 4 * 8) * n * n)
    if choice in ("fisher", "block") and "fisher" in s.measured:
        return fisher(s, FisherOptions())
    return averaged(s)


def regmean(s: Shape, options: RegMeanOptions) -> Cost:
    if not s.is_matrix or "input_gram" not in s.measured:
        return remaining(s, options.remaining)
    m, n, t = s.rows, s.columns, s.experts
    if s.ranks[0] and WORTH * t * s.ranks[0] <= n:
        work = together(
            times(_side(m, n, s.ranks[0], s), t), _woodbury(n, t * s.ranks[0]),
            gemm(m, n, 2 * t * s.ranks[0], EXACT), s.passes(9 * t + 6),
        )  # fmt: skip
        copies = 3 * t * s.ranks[0] * n
        return Cost("merged", work, 3 * s.nbytes + 8 * (copies + 3 * m * n))
    work = together(
        _forms(n, s, options.damping, options.off_diagonal),
        gemm(m, n, n, s.dtype, t),
        passes(n * n * s.width, 3 * t),
        s.passes(9 * t + 6),
        _solve(m, n),
    )
    return Cost("merged", work, 2 * s.nbytes + t * n * n * s.width + 8 * (5 * n * n + 2 * m * n))


def _side(m: int, n: int, rank: int, s: Shape) -> Work:
    """X C with C (n, n) in factors, for m rows of X."""
    if not rank:
        return gemm(m, n, n, s.dtype)
    return together(gemm(m, rank, n, s.dtype), gemm(m, n, rank, s.dtype), s.passes(3))


def _woodbury(n: int, stacked: int) -> Work:
    """`lowrank.Woodbury`: the Gram of the rows, its Cholesky factor, a triangular solve."""
    counted = 3.0 * stacked**2 * n + stacked**3 / 3
    return together(Counter({(GEMM, EXACT): counted, (CALL,): 12.0}), passes(8 * stacked * n, 6))


def _solve(m: int, n: int) -> Work:
    """`linalg.solve_positive`: Cholesky of n×n for m right-hand sides."""
    triangular = Counter({(GEMM, EXACT): n**3 / 3 + 2.0 * m * n * n, (CALL,): 12.0})
    return together(triangular, passes(8 * n * n, 8))


def _forms(n: int, s: Shape, damping: float, off_diagonal: float, normalise: bool = False) -> Work:
    """Every task's regularised factor of size n."""
    each = (5 if damping else 0) + (6 if off_diagonal != 1 else 0) + (2 if normalise else 0)
    return passes(n * n * s.width, each * s.experts)


def kfac(s: Shape, options: KfacOptions) -> Cost:
    if not s.is_matrix or not {"input_gram", "output_gradient_gram"} <= s.measured:
        return remaining(s, options.remaining)
    m, n, t = s.rows, s.columns, s.experts
    if any(s.ranks) and options.rank is None:
        return _kfac_in_factors(s, options)
    factors = (m * m + n * n) * s.width
    product = together(gemm(m, n, m, s.dtype), gemm(m, n, n, s.dtype))
    operator = together(times(product, t), s.passes(3 * t + 1))
    work = together(
        times(operator, 3),  # the right-hand side, the first and the last residual
        *(_forms(k, s, options.damping, options.off_diagonal, options.normalise) for k in (m, n)),
        s.passes(6 * t),
    )
    copies = t * factors
    each = Counter[tuple[Any, ...]]()
    if kronecker(options):
        by_inverses = options.rank is None and not options.anchor
        work = together(work, _inverses(m, n, s) if by_inverses else _eigenbases(m, n))
        each = product if by_inverses else times(product, 2)
        copies += 2 * factors
    if t == 2 and options.rank is None and not options.anchor:
        work = together(work, *(_joint_basis(k) for k in (m, n)), times(operator, 2))
        return Cost("merged", work, copies + 8 * (6 * max(m, n) ** 2 + 6 * m * n))
    if options.rank is not None:  # a basis for each task, and twice the products in it
        work = together(work, times(_eigenbases(m, n), t))
        operator = times(operator, 2)
    vectors = together(s.passes(27), Counter({(CALL,): 20.0}))  # dot products, steps and the trace
    iteration = together(operator, vectors, each)
    work = together(work, each, times(iteration, iterations(options, t)))
    return Cost("merged", work, copies + 12 * s.nbytes + 8 * 3 * max(m, n) ** 2)


def _kfac_in_factors(s: Shape, options: KfacOptions) -> Cost:
    """The same with A or B or both in factors; the sums of both sides are inverted once."""
    m, n, t = s.rows, s.columns, s.experts
    sides = ((n, m, s.ranks[0]), (m, n, s.ranks[1]))
    operator = together(*(times(_side(rows, d, k, s), t) for d, rows, k in sides))
    operator = together(operator, s.passes(3 * t + 1))
    stacked = [(d, rows, t * k if k and WORTH * t * k <= d else 0) for d, rows, k in sides]
    inverses = together(
        *(_woodbury(d, k) if k else Counter({(GEMM, EXACT): float(d**3)}) for d, _, k in stacked)
    )
    each = together(*(_side(rows, d, k, s) for d, rows, k in stacked))
    vectors = together(s.passes(27), Counter({(CALL,): 20.0}))
    iteration = together(operator, each, vectors)
    work = together(
        times(operator, 3), inverses, s.passes(6 * t), times(iteration, iterations(options, t))
    )
    kept = sum((3 * 8 * k if k else 2 * 8 * d) * d for d, _, k in stacked)
    kept += t * s.width * sum((k or d) * d for d, _, k in sides)
    return Cost("merged", work, kept + 13 * s.nbytes)


def kfac_matching(s: Shape, options: KfacMatchingOptions) -> Cost:
    if not s.is_matrix or not {"input_gram", "output_gradient_gram"} <= s.measured:
        return remaining(s, options.remaining)
    m, n = s.rows, s.columns
    t = s.experts + (options.prior == "pretrained")
    factors = (m * m + n * n) * s.width
    both = together(gemm(m, n, m, s.dtype), gemm(m, n, n, s.dtype))
    operator = together(times(both, t), s.passes(3 * t + 1))
    each = together(operator, times(both, 2), s.passes(27), Counter({(CALL,): 25.0}))
    # Its operator is further from one Kronecker product: 10 to 30 iterations where the bound is 11.
    needed = min(options.iterations, 2 * _bound(options.iterations, options.tolerance, s.experts))
    work = together(
        times(operator, 3), _eigenbases(m, n), s.passes(8 * t),
        *(_forms(k, s, options.damping, 1.0, options.normalise) for k in (m, n)),
        times(each, needed),
    )  # fmt: skip
    return Cost("merged", work, t * factors + 14 * s.nbytes + 8 * 3 * max(m, n) ** 2)


def _inverses(m: int, n: int, s: Shape) -> Work:
    """`linear.kronecker_inverse`: sums of the factors, a Cholesky factor and an inverse of each."""
    inverted = Counter({(GEMM, EXACT): float(m**3 + n**3), (CALL,): 16.0})
    sums = (passes(k * k * s.width, 3 * s.experts + 12) for k in (m, n))
    return together(inverted, *sums)


def _eigenbases(m: int, n: int) -> Work:
    return together(Counter({(EIGH, m): 1.0}), Counter({(EIGH, n): 1.0}))


def kronecker(options: KfacOptions) -> bool:
    """Whether CG runs in the basis of the Kronecker preconditioner; the rule of `methods.kfac`."""
    regular = options.damping > 0 or options.anchor > 0
    chosen = options.preconditioner == "kronecker" or (options.preconditioner == "auto" and regular)
    return chosen and options.rank is None


def iterations(options: KfacOptions, experts: int) -> float:
    """How many iterations CG will probably need, which nobody knows before.

    With the Kronecker preconditioner P of the mean factors, the eigenvalues of P⁻¹K are at most T
    (K is one of the T products that P sums, and P has the mean 1 of them); with the smallest taken
    as 1 the classical bound ½ √κ ln(2/ε) applies.  Without one: the limit.
    """
    if not kronecker(options):
        return options.iterations
    return _bound(options.iterations, options.tolerance, experts)


def _bound(most: int, tolerance: float, experts: int) -> float:
    """At most `most`, and the classical bound for condition number T."""
    if not tolerance:
        return most
    return min(most, math.ceil(0.5 * math.sqrt(experts) * math.log(2 / min(1, tolerance))))


def _joint_basis(n: int) -> Work:
    """`solver._joint_basis`: a Cholesky factor, three triangular solves, an eigenbasis."""
    return Counter({(EIGH, n): 1.0, (GEMM, EXACT): n**3 * (1 / 3 + 3), (CALL,): 12.0})


# Singular values and essential subspaces ----------------------------------------------------------


def _svd(m: int, n: int, count: float = 1) -> Work:
    decomposition: Work = Counter({(SVD, m, n): count})
    return together(decomposition, times(passes(8 * m * n, 6), count))


def _polar(m: int, n: int, dtype: str) -> Work:
    """`linalg.polar`: by the Gram, and by an SVD after it where that was not well-conditioned."""
    by_svd = together(_svd(m, n), gemm(m, n, min(m, n), EXACT))
    if dtype == EXACT:
        return by_svd
    return together(_by_gram(m, n), times(by_svd, FALLS_BACK))


def _by_gram(m: int, n: int) -> Work:
    """The eigenbasis of the smaller side's Gram, `Q σ⁻¹ Qᵀ`, and its product with the matrix."""
    k = min(m, n)
    return together(_gram_basis(m, n), gemm(k, k, k, EXACT), gemm(m, n, k, EXACT))


def _gram_basis(m: int, n: int) -> Work:
    k = min(m, n)
    basis: Work = Counter({(EIGH, k): 1.0})
    return together(basis, gemm(k, k, max(m, n), EXACT), passes(8 * m * n, 8))


def _triples(m: int, n: int, rank: int, dtype: str, count: float) -> Work:
    """`linalg.largest_triples`: the other side's vectors are one product."""
    if dtype == EXACT:
        return _svd(m, n, count)
    return times(together(_gram_basis(m, n), gemm(m, n, rank, EXACT)), count)


def _svd_bytes(m: int, n: int) -> int:
    """U, σ, V and the workspace of one decomposition in float64, beside its argument."""
    k = min(m, n)
    return 8 * (2 * m * n + 2 * k * (m + n) + 4 * k * k)


def tsv_m(s: Shape, options: TsvOptions) -> Cost:
    if not s.is_matrix:
        return averaged(s)
    m, n, t = s.rows, s.columns, s.experts
    k = min(m, n)
    r = max(1, k // t) * t
    work = together(
        _triples(m, n, max(1, k // t), s.dtype, t), _polar(m, r, s.dtype), _polar(r, n, s.dtype),
        gemm(m, n, r, s.dtype), s.passes(3 * t + 8),
    )  # fmt: skip
    # Every task's own share of triples is kept until the last is there.
    kept = 2 * s.nbytes + 3 * r * (m + n) * s.width
    return Cost("merged", work, kept + _svd_bytes(m, n))


def iso_c(s: Shape, options: IsoOptions) -> Cost:
    if not s.is_matrix:
        return averaged(s)
    m, n, t = s.rows, s.columns, s.experts
    work = together(_polar(m, n, s.dtype), s.passes(6 * t + 8))
    return Cost("merged", work, 4 * s.nbytes + _svd_bytes(m, n))


def iso_cts(s: Shape, options: IsoCtsOptions) -> Cost:
    if not s.is_matrix:
        return averaged(s)
    m, n, t = s.rows, s.columns, s.experts
    rank = min(m, n)
    each = min(round((rank - int(rank * options.common)) / t), rank // t)
    common = rank - each * t
    work = together(
        _svd(m, n), _triples(m, n, each, s.dtype, t),
        times(gemm(m, n, common, s.dtype), 2 * t),
        _polar(m, rank, s.dtype), _polar(rank, n, s.dtype),
        gemm(m, n, rank, s.dtype), s.passes(12 * t + 8),
    )  # fmt: skip
    kept = 5 * s.nbytes + 3 * rank * (m + n) * s.width
    return Cost("merged", work, kept + _svd_bytes(m, n))


def essential(s: Shape, options: EssentialOptions) -> Cost:
    if not s.is_matrix:
        return averaged(s)
    if "input_gram" not in s.measured or (options.centre and "input_mean" not in s.measured):
        return tsv_m(s, TsvOptions())
    m, n, t = s.rows, s.columns, s.experts
    r = min(options.rank or max(1, m // t), m)
    if s.ranks[0] and not options.centre:
        return _essential_in_factors(s, r)
    if m <= n:
        subspace = together(gemm(m, n, n, EXACT), gemm(m, m, n, EXACT), Counter({(EIGH, m): 1.0}))
    else:
        subspace = together(
            times(gemm(m, n, n, EXACT), 2), gemm(m, min(r, n), n, EXACT),
            Counter({(EIGH, n): 2.0}),
        )  # fmt: skip
    each = together(
        subspace, gemm(r, n, m, s.dtype), s.passes(8), passes(8 * n * n, 5 if options.centre else 3)
    )
    work = together(
        times(each, t), _polar(m, r * t, s.dtype), _polar(r * t, n, s.dtype),
        gemm(m, n, r * t, s.dtype), s.passes(12),
    )  # fmt: skip
    side = min(m, n)
    decomposing = 8 * (2 * m * n + 2 * n * n + 4 * side * side)
    orthogonal = _svd_bytes(m, r * t) if m > n else _svd_bytes(r * t, n)
    kept = 3 * s.nbytes + 2 * t * r * (m + n) * s.width
    return Cost("merged", work, kept + max(decomposing, orthogonal))


def _essential_in_factors(s: Shape, r: int) -> Cost:
    """ESM where A has k rows: k directions a task at most."""
    m, n, t, k = s.rows, s.columns, s.experts, s.ranks[0]
    found = min(r, k)
    each = together(
        gemm(m, k, n, EXACT), gemm(k, k, m, EXACT), Counter({(EIGH, min(k, m)): 1.0}),
        gemm(m, found, k, EXACT), gemm(r, n, m, s.dtype), s.passes(8),
    )  # fmt: skip
    work = together(
        times(each, t), _polar(m, found * t, s.dtype), _polar(found * t, n, s.dtype),
        gemm(m, n, r * t, s.dtype), s.passes(12),
    )  # fmt: skip
    kept = 3 * s.nbytes + 2 * t * r * (m + n) * s.width
    widened = 8 * (m * n + 3 * t * r * max(m, n))
    return Cost("merged", work, kept + max(widened, _svd_bytes(found * t, max(m, n))))


COSTS: Mapping[str, Callable[[Shape, Any], Cost]] = {
    "average": average,
    "slerp": slerp,
    "task_arithmetic": task_arithmetic,
    "ties": ties,
    "dare": dare,
    "fisher": fisher,
    "regmean": regmean,
    "kfac": kfac,
    "tsv_m": tsv_m,
    "iso_c": iso_c,
    "iso_cts": iso_cts,
    "essential": essential,
    "gradient_matching": gradient_matching,
    "kfac_matching": kfac_matching,
}
