"""The directions in which a task's outputs move: step 1 of Essential Subspace Merging."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..linear import (
    Gram,
    LowRank,
    eigh_descending,
    essential_directions,
    exact,
    is_apart,
    left_directions,
    like,
    matrix,
    parts_at_once,
)
from ..system import forgetful

Remember = Callable[[Hashable, Callable[[], Any]], Any]
SHIFT_TOLERANCE = 1e-6  # of the largest eigenvalue: below it is the rounding of a float32 Gram


def shift_covariance(update: Tensor, gram: Tensor, mean: Tensor | None = None) -> Tensor:
    """`Δ A Δᵀ`, the second moment of the output shift `Δ x` (its covariance, given the mean).

    The published N/(N − 1) changes neither directions nor relative eigenvalues and is left out.
    """
    if mean is not None:
        gram = gram - torch.outer(mean, mean)
    return update @ gram @ update.mT


def essential_subspace(
    update: Tensor, gram: Gram, rank: int, mean: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """E_t (d_out, r) and eigenvalues λ (r,): the principal directions of the output shift.

    The expected squared error of `E Eᵀ Δ x` against `Δ x` is the sum of the discarded eigenvalues
    (the paper's theorem).  Directions in which no output moves (d_out > d_in, few tokens) are
    zero: rounding alone would choose them, and the 0.15th power would make it visible.
    """
    if mean is None and isinstance(gram, LowRank):
        values, vectors = essential_directions(update, gram, rank)
    else:
        values, vectors = _whole(exact(update), exact(matrix(gram)), rank, mean)
    moves = values > SHIFT_TOLERANCE * values[:1]
    return like(vectors * moves, update), like(values * moves, update)


def essential_subspaces(
    updates: Sequence[Tensor],
    grams: Sequence[Gram],
    rank: int,
    means: tuple[Tensor, ...] | None,
    remember: Remember = forgetful,
    subspace: Hashable = (),
) -> list[tuple[Tensor, Tensor]]:
    """`essential_subspace` of every task; on a GPU, of Grams that are matrices all at once.

    What was remembered of some of `subspace` is not computed again.
    """
    if is_apart(updates[0]) and (means or not any(isinstance(gram, LowRank) for gram in grams)):
        return remember(
            ("essential subspaces", subspace),
            functools.partial(_together, updates, grams, rank, means),
        )
    return [
        remember(
            ("essential subspace", index, subspace),
            functools.partial(essential_subspace, update, gram, rank, mean),
        )
        for index, (update, gram, mean) in enumerate(
            zip(updates, grams, means or (None,) * len(grams), strict=True)
        )
    ]


def _together(
    updates: Sequence[Tensor], grams: Sequence[Gram], rank: int, means: tuple[Tensor, ...] | None
) -> list[tuple[Tensor, Tensor]]:
    pairs: list[tuple[Tensor, Tensor]] = []
    size = max(updates[0].numel(), matrix(grams[0]).numel())
    for part in parts_at_once(len(updates), size):
        delta = torch.stack([exact(update) for update in updates[part]])
        second = torch.stack([exact(matrix(gram)) for gram in grams[part]])
        mean = torch.stack(means[part]) if means else None
        values, vectors = _whole(delta, second, rank, mean)
        moves = values > SHIFT_TOLERANCE * values[:, :1]
        found = like(vectors * moves[:, None], updates[0]), like(values * moves, updates[0])
        pairs.extend(zip(*found, strict=True))
    return pairs


def _whole(delta: Tensor, second: Tensor, rank: int, mean: Tensor | None) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors of `Δ A Δᵀ`, A less its mean's part where that is given; of one
    task or of a batch.

    For d_out > d_in by two decompositions of size d_in instead of one of d_out: with A = H Hᵀ they
    are the left directions of Δ H.
    """
    if mean is not None:
        wide = exact(mean)
        second = second - wide[..., :, None] * wide[..., None, :]
    if delta.shape[-2] <= delta.shape[-1]:
        return eigh_descending(shift_covariance(delta, second), rank)
    scale, basis = eigh_descending(second)
    half = basis * scale.clamp_min(0).sqrt()[..., None, :]
    return left_directions(delta @ half, rank, SHIFT_TOLERANCE)
