"""Sparse task vectors: TIES (arXiv 2306.01708) and DARE (arXiv 2311.03099)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor

from .base import Layer, Merged, Options, option, weighted_sum


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


def ties(layer: Layer, options: TiesOptions, survey: tuple[float, ...] | None = None) -> Merged:
    """Trim, elect, average: W = W0 + λ τ.  `survey` holds one threshold an expert (global)."""
    updates = layer.updates
    thresholds = survey or tuple(threshold([update], options.density) for update in updates)
    trimmed = [
        torch.where(update.abs() >= limit, update, 0)
        for update, limit in zip(updates, thresholds, strict=True)
    ]
    merged = agree_and_average(trimmed, layer.weights)
    return Merged(
        layer.base + options.scaling * merged,
        "ties",
        details={"kept": [float((t != 0).double().mean()) for t in trimmed]},
    )


def global_thresholds(
    layers: Callable[[], Iterable[Layer]], options: TiesOptions
) -> tuple[float, ...] | None:
    """The magnitude that each expert's kept entries reach, over the whole model."""
    if options.scope == "tensor":
        return None
    first = next(iter(layers()))
    return tuple(
        streamed_threshold(
            lambda expert=expert: (layer.experts[expert] - layer.base for layer in layers()),
            options.density,
        )
        for expert in range(len(first.experts))
    )


def threshold(updates: list[Tensor], density: float) -> float:
    """The magnitude of the k-th largest entry, k = ⌊density · entries⌋ (at least 1)."""
    return streamed_threshold(lambda: updates, density)


def streamed_threshold(chunks: Callable[[], Iterable[Tensor]], density: float) -> float:
    """Exact k-th largest magnitude without holding or sorting the whole.

    Magnitudes of floating-point numbers order like their bit patterns, so a radix selection over
    16 bits at a time needs one histogram of 65,536 counts a pass (two passes for float32).
    """
    bits, integer = 32, torch.int32
    prefix, wanted, passed = 0, 0, 0
    while passed < bits:
        shift = bits - 16 - passed
        counts = torch.zeros(1 << 16, dtype=torch.int64)
        for chunk in chunks():
            if chunk.dtype == torch.float64 and bits == 32:
                return _restart_wide(chunks, density)
            pattern = chunk.abs().reshape(-1).cpu().contiguous().view(integer).long()
            if passed:
                pattern = pattern[(pattern >> (shift + 16)) == prefix]
            counts += torch.bincount((pattern >> shift) & 0xFFFF, minlength=1 << 16)
        if not passed:
            wanted = max(1, int(density * int(counts.sum())))
        above = counts.flip(0).cumsum(0)
        digit = int((above >= wanted).nonzero()[0])
        wanted -= int(above[digit - 1]) if digit else 0
        prefix = (prefix << 16) | ((1 << 16) - 1 - digit)
        passed += 16
    return float(torch.tensor(prefix, dtype=torch.int64).to(integer).view(torch.float32))


def _restart_wide(chunks: Callable[[], Iterable[Tensor]], density: float) -> float:
    """The same for float64, which has no streamed form here: magnitudes are partially sorted."""
    values = torch.cat([chunk.abs().reshape(-1).cpu() for chunk in chunks()])
    k = max(1, int(density * len(values)))
    return float(values.kthvalue(len(values) - k + 1).values)


def dare(layer: Layer, options: DareOptions, survey: Any = None) -> Merged:
    """Drop entries with probability p, rescale the rest by 1/(1 − p), combine."""
    seed = layer.seed if options.seed is None else options.seed
    rescaled = [
        update * keep_mask(update, options.drop, seed, layer.name, label) / (1 - options.drop)
        for update, label in zip(layer.updates, layer.labels, strict=True)
    ]
    if options.then == "ties":
        merged = agree_and_average(rescaled, layer.weights)
    else:
        weights = layer.weights if options.then == "task_arithmetic" else layer.shares
        merged = weighted_sum(rescaled, weights)
    return Merged(layer.base + options.scaling * merged, "dare")


def keep_mask(update: Tensor, drop: float, seed: int, name: str, label: str) -> Tensor:
    """Ones with probability 1 − p, drawn on the CPU from (seed, tensor, expert).

    The draw depends on neither the device nor the order of layers and experts.
    """
    key = hashlib.sha256(f"{seed}\0{name}\0{label}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(key[:7], "big"))
    uniform = torch.rand(update.shape, generator=generator)
    return (uniform >= drop).to(device=update.device, dtype=update.dtype)
