"""What merging by K-FAC blocks costs, a layer."""

from __future__ import annotations

import functools

from ..linear import JOINT_SHARE, WORTH
from ..system import Work
from .cost import (
    Cost,
    Shape,
    bound,
    calls,
    eigenbases,
    forms,
    gemm,
    inverses,
    joint_basis,
    operations,
    shared_basis,
    side,
    woodbury,
)
from .grams import costing
from .kfac_options import KfacOptions, uses_joint, uses_kronecker
from .layer import KFAC
from .remaining import remaining_cost
from .singular_values import svc_cost


def cost(s: Shape, options: KfacOptions) -> Cost:
    of_matrices = functools.partial(_cost, options=options)
    made = costing(s, options.gram, KFAC, of_matrices, power=options.gram_power)
    return svc_cost(s, made, options.svc)


def _cost(s: Shape, options: KfacOptions) -> Cost:
    if not s.is_matrix or not s.measured >= KFAC:
        return remaining_cost(s, options.remaining)
    if any(s.ranks) and options.rank is None:
        return _cost_in_factors(s, options)
    m, n, t = s.rows, s.columns, s.experts
    factors = (m * m + n * n) * s.width
    copies = t * factors
    product = gemm(m, n, m, s.dtype) + gemm(m, n, n, s.dtype)
    operator = product * t + s.passes(3 * t + 1)
    # The right-hand side and the first residual, for every damping, but for truncated blocks.
    work = operator * (3 if options.rank is None else 2) + s.passes(6 * t)
    for k in (m, n):
        work += forms(k, s, options.damping, options.off_diagonal, options.normalise)
    each = product * 0
    if options.rank is None and uses_kronecker(options):
        by_bases = uses_joint(options) or options.anchor
        if uses_joint(options):
            work += shared_basis(m, s) + shared_basis(n, s)
            # All tasks' Grams, being turned.
            copies += 3 * max(m, n) ** 2 * s.width * t * JOINT_SHARE
        else:
            work += eigenbases(m, n) if options.anchor else inverses(m, n, s)
        each = product * (2 if by_bases else 1)
        copies += 2 * factors
    if t == 2 and options.rank is None and not options.anchor:
        work += joint_basis(m) + joint_basis(n) + operator * 2
        return Cost("merged", work, copies + 8 * (6 * max(m, n) ** 2 + 6 * m * n))
    if options.rank is not None:  # a basis for each task, and twice the products in it
        work, operator = work + eigenbases(m, n) * t, operator * 2
    work += each + (operator + each + _vectors(s)) * iterations(options, t)
    return Cost("merged", work, copies + 12 * s.nbytes + 8 * 3 * max(m, n) ** 2)


def _vectors(s: Shape) -> Work:
    """Of an iteration: dot products, steps and the trace."""
    return s.passes(27) + calls(20.0)


def _cost_in_factors(s: Shape, options: KfacOptions) -> Cost:
    """The same with A or B or both in factors; the sums of both sides are inverted once."""
    m, n, t = s.rows, s.columns, s.experts
    sides = ((n, m, s.ranks[0]), (m, n, s.ranks[1]))
    operator = s.passes(3 * t + 1)
    inverted = each = s.passes(0)
    kept = 0
    for d, rows, k in sides:
        stacked = t * k if k and WORTH * t * k <= d else 0
        operator += side(rows, d, k, s) * t
        inverted += woodbury(d, stacked) if stacked else operations(float(d**3))
        each += side(rows, d, stacked, s)
        kept += (3 * 8 * stacked if stacked else 2 * 8 * d) * d + t * s.width * (k or d) * d
    iteration = operator + each + _vectors(s)
    work = operator * 2 + inverted + s.passes(6 * t) + iteration * iterations(options, t)
    return Cost("merged", work, kept + 13 * s.nbytes)


def iterations(options: KfacOptions, experts: int) -> float:
    """How many iterations CG will probably need, which is not known before.

    With the Kronecker preconditioner P of the mean factors, the eigenvalues of P⁻¹K are at most T
    (K is one of the T products that P sums, and P has the mean 1 of them); with the smallest taken
    as 1 the classical bound ½ √κ ln(2/ε) applies.  In joint bases half as many were measured.
    Without a preconditioner: the limit.
    """
    if options.rank is not None or not uses_kronecker(options):
        return options.iterations
    condition = experts / 4 if uses_joint(options) else experts
    return bound(options.iterations, options.error or options.tolerance, condition)
