"""Sparse task vectors: TIES (arXiv 2306.01708) and DARE (arXiv 2311.03099)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from .base import Layer, Merged, Options, SurveyScope, option, weighted_sum


class TiesOptions(Options):
    density: float = option(
        0.2,
        "share of each task vector that is kept, largest magnitudes first",
        above=0,
        high=1,
        step=0.05,
        source="arXiv 2306.01708: top 20 %",
    )
    scaling: float = option(
        1.0,
        "λ, the factor of the merged task vector",
        low=0,
        high=3,
        step=0.05,
        source="arXiv 2306.01708: 1 without validation data",
    )
    scope: Literal["global", "tensor"] = option(
        "global",
        "trim by magnitude over the whole model (as published) or within each tensor (as mergekit)",
        source="arXiv 2306.01708",
    )


class DareOptions(Options):
    drop: float = option(
        0.9,
        "p, the probability with which an entry of a task vector is dropped",
        low=0,
        high=0.99,
        step=0.05,
        source="arXiv 2311.03099",
    )
    scaling: float = option(
        0.3,
        "λ, the factor of the sum (task_arithmetic) or of the merged vector (average, ties)",
        low=0,
        high=3,
        step=0.05,
    )
    seed: int | None = option(None, "seed of the masks; the recipe's seed by default", low=0)
    then: Literal["task_arithmetic", "average", "ties"] = option(
        "task_arithmetic",
        "how the rescaled task vectors are combined; `ties` elects signs and trims no further",
    )


def agree_and_average(updates: list[Tensor], weights: tuple[float, ...]) -> Tensor:
    """Elect each coordinate's sign by total mass; average the entries that agree with it."""
    elected = weighted_sum(updates, weights).sign()
    total, mass = torch.zeros_like(elected), torch.zeros_like(elected)
    for update, weight in zip(updates, weights, strict=True):
        agrees = (update.sign() == elected) & (update != 0)
        total += torch.where(agrees, update * weight, 0)
        mass += agrees * weight
    return total / torch.where(mass > 0, mass, 1)


def ties(layer: Layer, options: TiesOptions, survey: Sequence[float] | None = None) -> Merged:
    """Trim, elect, average: W = W0 + λ τ.  `survey` holds one threshold an expert."""
    limits = survey or thresholds(lambda: [layer], options)
    trimmed = [
        torch.where(update.abs() >= limit, update, 0)
        for update, limit in zip(layer.updates, limits, strict=True)
    ]
    merged = agree_and_average(trimmed, layer.weights)
    return Merged(
        layer.base + options.scaling * merged,
        "ties",
        details={"kept": [float((t != 0).double().mean()) for t in trimmed]},
    )


def thresholds(layers: Callable[[], Iterable[Layer]], options: TiesOptions) -> tuple[float, ...]:
    """The magnitude that each expert's kept entries reach, over all the layers given."""
    return streamed_thresholds(lambda: (layer.updates for layer in layers()), options.density)


def ties_surveys(options: TiesOptions) -> SurveyScope:
    return "model" if options.scope == "global" else "tensor"


def threshold(updates: list[Tensor], density: float) -> float:
    """The magnitude of the k-th largest entry, k = ⌊density · entries⌋ (at least 1)."""
    return streamed_thresholds(lambda: ([update] for update in updates), density)[0]


@dataclass
class Selection:
    """A radix selection under way: the leading bits found, and the rank among what shares them."""

    counts: Tensor
    prefix: int = 0
    wanted: int = 0


def streamed_thresholds(
    chunks: Callable[[], Iterable[Sequence[Tensor]]], density: float
) -> tuple[float, ...]:
    """Exact k-th largest magnitude of each column of `chunks`, without holding or sorting any.

    Magnitudes of floating-point numbers order like their bit patterns, so a radix selection over
    16 bits at a time needs one histogram of 65,536 counts a column and pass: two passes for
    float32, four for float64.
    """
    found: list[Selection] = []
    wide, passed = False, 0
    while passed < (64 if wide else 32):
        for own in found:
            own.counts.zero_()
        for chunk in chunks():
            found = found or [Selection(torch.zeros(1 << 16, dtype=torch.int64)) for _ in chunk]
            for own, values in zip(found, chunk, strict=True):
                wide = values.dtype == torch.float64
                _count(own, values, passed)
        for own in found:
            _narrow(own, density if not passed else None)
        passed += 16
    integer, real = (torch.int64, torch.float64) if wide else (torch.int32, torch.float32)
    return tuple(
        float(torch.tensor(own.prefix, dtype=torch.int64).to(integer).view(real)) for own in found
    )


def _count(own: Selection, values: Tensor, passed: int) -> None:
    """Add to the histogram of the 16 bits after the `passed` ones that are known."""
    wide = values.dtype == torch.float64
    shift = (64 if wide else 32) - 16 - passed
    pattern = values.abs().reshape(-1).cpu().contiguous()
    pattern = pattern.view(torch.int64 if wide else torch.int32).long()
    if passed:
        pattern = pattern[(pattern >> (shift + 16)) == own.prefix]
    own.counts += torch.bincount((pattern >> shift) & 0xFFFF, minlength=1 << 16)


def _narrow(own: Selection, density: float | None) -> None:
    """Fix the next 16 bits; the first time, `density` says which rank is wanted."""
    if density is not None:
        own.wanted = max(1, int(density * int(own.counts.sum())))
    above = own.counts.flip(0).cumsum(0)
    digit = int((above >= own.wanted).nonzero()[0])
    own.wanted -= int(above[digit - 1]) if digit else 0
    own.prefix = (own.prefix << 16) | ((1 << 16) - 1 - digit)


def dare(layer: Layer, options: DareOptions, survey: Any = None) -> Merged:
    """Drop entries with probability p, rescale the rest by 1/(1 − p), combine."""
    seed = layer.seed if options.seed is None else options.seed
    rescaled = [
        update
        * keep_mask(update, options.drop, seed, layer.name, label, layer.offset or 0)
        / (1 - options.drop)
        for update, label in zip(layer.updates, layer.labels, strict=True)
    ]
    if options.then == "ties":
        merged = agree_and_average(rescaled, layer.weights)
    else:
        weights = layer.weights if options.then == "task_arithmetic" else layer.shares
        merged = weighted_sum(rescaled, weights)
    return Merged(layer.base + options.scaling * merged, "dare")


def keep_mask(
    update: Tensor, drop: float, seed: int, name: str, label: str, offset: int = 0
) -> Tensor:
    """Ones with probability 1 − p, drawn on the CPU from (seed, tensor, expert, piece).

    The draw depends on neither the device nor the order of layers, experts and pieces.
    """
    piece = f"\0{offset}" if offset else ""
    key = hashlib.sha256(f"{seed}\0{name}\0{label}{piece}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(key[:7], "big"))
    uniform = torch.rand(update.shape, generator=generator)
    return (uniform >= drop).to(device=update.device, dtype=update.dtype)
