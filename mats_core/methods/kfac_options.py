"""Options of merging by K-FAC blocks."""

from __future__ import annotations

from typing import Literal

from .grams import POWERED, GramPower, Source
from .options import (
    Damping,
    ErrorGoal,
    FoldBias,
    Iterations,
    Normalise,
    Options,
    Rank,
    Share,
    Strength,
    Tolerance,
    option,
)
from .regmean import MEASURED
from .remaining import Remaining
from .singular_values import PUBLISHED, Svc
from .starts import STARTS

NORMALISED = "divide each task's A and B by their traces, so that no task dominates the operator"


class KfacOptions(Options):
    """Options of merging by K-FAC blocks."""

    gram: Source = "measured"
    gram_power: GramPower = option(1.0, source=POWERED)
    iterations: Iterations = option(50, source=MEASURED)
    tolerance: Tolerance = option(1e-3, source=MEASURED, more=True)
    error: ErrorGoal = None
    off_diagonal: Share = option(
        1.0,
        "λ, the factor of the off-diagonal entries of A and of B",
        source="arXiv 2312.04339",
        more=True,
    )
    damping: Damping = option(0.1, source=MEASURED)
    anchor: Strength = option(
        0.0,
        "μ, proximal pull towards the start, as a share of the operator's mean diagonal",
        more=True,
    )
    start: str = option(
        "average",
        "where CG starts: " + ", ".join(STARTS) + ", or the path of a checkpoint",
        source="arXiv 2312.04339 starts at task arithmetic",
        checkpoint=STARTS,
    )
    preconditioner: Literal["auto", "none", "jacobi", "kronecker", "joint"] = option(
        "auto",
        "what CG is preconditioned with; auto: kronecker where the system is damped or anchored, "
        "none where only plain CG lands on the solution nearest to the start; joint: bases in "
        "which all tasks' A, and all B, are nearly diagonal, half the iterations of kronecker once "
        "they are made, which they are once for every damping, tolerance and start; on failure "
        "plain CG takes over and says so",
        source="a fifth of the products for the same residual, measured on the sample family; "
        "published: none",
    )
    normalise: Normalise = option(True, NORMALISED, more=True)
    fold_bias: FoldBias = option(False, more=True)
    rank: Rank = option(
        None, "keep only so many eigen-directions of each task's B ⊗ A; all by default", more=True
    )
    remaining: Remaining = option("mean", more=True)
    svc: Svc = option(None, source=PUBLISHED)


def uses_kronecker(options: KfacOptions) -> bool:
    """Whether a preconditioner of Kronecker form is used: that of the sums, or the joint one.

    On its own only where the system is damped or anchored: elsewhere plain CG alone lands on the
    solution nearest to the start.
    """
    regular = options.damping > 0 or options.anchor > 0
    automatic = options.preconditioner == "auto" and regular and options.rank is None
    return options.preconditioner in ("kronecker", "joint") or automatic


def uses_joint(options: KfacOptions) -> bool:
    """Whether bases of all tasks' Grams are made: a truncated block has its task's alone."""
    return options.preconditioner == "joint" and options.rank is None
