"""Where tasks get in each other's way, before anything is merged: signs, angles, subspaces.

Symbols as in `spectra.py`; Δ_t is the task matrix of task t, T the number of tasks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from .spectra import overlap, principal_angles


def sign_conflict(updates: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """How much of each task's change goes against the majority: (T,) of entries, (T,) of mass.

    Each entry elects its sign by total mass, `γ = sign(Σ_t Δ_t)`, as TIES does (arXiv 2306.01708,
    here without trimming).  Of a task's nonzero entries the first number is the share whose sign is
    not γ, the second the share of `Σ |Δ_t|` in these entries.  A task that changed nothing has 0.
    """
    elected = torch.stack([update.double() for update in updates]).sum(0).sign()
    entries, mass = [], []
    for update in updates:
        magnitude = update.abs().double()
        against = (update.sign() != elected) & (update != 0)
        entries.append(float(against.sum()) / max(1, int((update != 0).sum())))
        total = float(magnitude.sum())
        mass.append(float(magnitude[against].sum()) / total if total > 0 else 0.0)
    return _exact(entries), _exact(mass)


def _exact(numbers: list[Any]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def chance_conflict(tasks: int) -> tuple[float, float]:
    """The `sign_conflict` of unrelated tasks: independent normal entries of one variance.

    An entry and the sum over T tasks correlate with ρ = 1/√T, so their signs differ with
    probability arccos(ρ)/π; the mass in these entries is (1 − ρ)/2.
    """
    rho = 1 / math.sqrt(tasks)
    return math.acos(rho) / math.pi, (1 - rho) / 2


def cosines(updates: Sequence[Tensor]) -> Tensor:
    """(T, T): cosine between the task vectors; 0 beside a task that changed nothing."""
    flat = [update.reshape(-1).double() for update in updates]
    unit = [v / v.norm() if float(v.norm()) > 0 else v for v in flat]
    return _exact([[float(v @ w) for w in unit] for v in unit]).clamp(-1, 1)


def overlaps(bases: Mapping[str, Tensor], rank: int) -> Tensor:
    """The `overlap` of the first `rank` directions of every two tasks: (T, T), in their order.

    Unrelated subspaces of d dimensions have rank/d.  Raises `InputError` for a rank of zero.
    """
    if rank < 1:
        raise InputError("rank of the subspaces", expected="at least 1", found=str(rank))
    kept = [basis[:, :rank] for basis in bases.values()]
    return _exact([[overlap(e, f) for f in kept] for e in kept])


def others_mean(pairs: Tensor) -> Tensor:
    """The mean of each task over its pairs with the other tasks: (..., T) from (..., T, T)."""
    tasks = pairs.shape[-1]
    own = pairs.diagonal(dim1=-2, dim2=-1)
    return (pairs.sum(-1) - own) / max(1, tasks - 1)


def unrelated_angles(size: int, rank: int, seed: int = 0) -> Tensor:
    """Principal angles of two random subspaces with `rank` of `size` dimensions, by chance.

    One seeded draw: for the sizes of a layer they hardly vary.
    """
    generator = torch.Generator().manual_seed(seed)
    first, second = (
        torch.linalg.qr(torch.randn(size, rank, dtype=torch.float64, generator=generator))[0]
        for _ in range(2)
    )
    return principal_angles(first, second)
