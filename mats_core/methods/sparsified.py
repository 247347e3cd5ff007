"""Sparse task vectors: TIES (arXiv 2306.01708) and DARE (arXiv 2311.03099)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from .base import (
    Layer,
    Merged,
    Options,
    SurveyScope,
    Updates,
    option,
    small_pieces,
    weighted_sum,
)
from .selection import BLOCK, streamed_thresholds

DRAWN_AT_ONCE = 1 << 20  # entries of a mask: another number, and DARE makes another merge


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


def agree_and_average(updates: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Elect each coordinate's sign by total mass; average the entries that agree with it."""
    elected = weighted_sum(updates, weights).sign_()
    total, mass, agrees = (torch.zeros_like(elected) for _ in range(3))
    for update, weight in zip(updates, weights, strict=True):
        agreeing = update * elected  # magnitudes where the signs agree, at most zero elsewhere
        total.add_(agreeing.clamp_min_(0), alpha=weight)
        mass.add_(torch.sign(agreeing, out=agrees), alpha=weight)
    # Where nobody agrees the total is zero, whatever it is divided by.
    return total.mul_(elected).div_(mass.add_(torch.eq(mass, 0, out=agrees)))


def ties(layer: Layer, options: TiesOptions, survey: Sequence[float] | None = None) -> Merged:
    """Trim, elect, average: W = W0 + λ τ.  `survey` holds one threshold an expert."""
    limits = survey or thresholds(lambda: [layer], options)
    value, kept = layer.base.new_empty(layer.base.shape), [0] * len(limits)
    below = [before(limit, value.dtype) for limit in limits]
    place = 0
    for base, *experts in _blocks(layer):
        merged = value.view(-1)[place : place + len(base)]
        # Hard shrinking keeps what is beyond a limit, so it gets the number before ours: a tenth
        # of the time of a comparison and a choice.
        trimmed = [
            functional.hardshrink(expert - base, limit)
            for expert, limit in zip(experts, below, strict=True)
        ]
        for index, update in enumerate(trimmed):
            kept[index] += int(torch.ne(update, 0, out=merged).sum())  # exact up to 2²⁴ ones
        tau = agree_and_average(trimmed, layer.weights)
        torch.add(base, tau, alpha=options.scaling, out=merged)
        place += len(base)
    entries = max(1, value.numel())
    return Merged(value, "ties", details={"kept": [count / entries for count in kept]})


def before(limit: float, dtype: torch.dtype) -> float:
    """The largest number of a dtype that is below `limit`."""
    return float(torch.nextafter(torch.tensor(limit, dtype=dtype), torch.tensor(-1.0, dtype=dtype)))


def _blocks(layer: Layer) -> Iterator[tuple[Tensor, ...]]:
    """W0 and every W_m, flat, in blocks that stay in a processor's cache for a dozen operations."""
    size = BLOCK if layer.base.device.type == "cpu" else 1 << 24
    flat = (value.reshape(-1).split(size) for value in (layer.base, *layer.experts))
    return zip(*flat, strict=True)


def thresholds(layers: Callable[[], Iterable[Layer]], options: TiesOptions) -> tuple[float, ...]:
    """The magnitude that each expert's kept entries reach, over all the layers given."""

    def blocks() -> Iterator[Updates]:
        for layer in layers():
            for base, *experts in _blocks(layer):
                yield Updates(base, tuple(experts))

    def whole() -> Iterator[Updates]:
        return (Updates(layer.base, layer.experts) for layer in layers())

    return streamed_thresholds(blocks, options.density, whole)


def ties_surveys(options: TiesOptions) -> SurveyScope:
    return "model" if options.scope == "global" else "tensor"


def ties_piece(options: TiesOptions) -> int:
    """Within a tensor, most of them at once: it is then read once for sample, count and merge."""
    return small_pieces(options) if options.scope == "global" else 1 << 22


def threshold(updates: list[Tensor], density: float) -> float:
    """The magnitude of the k-th largest entry, k = ⌊density · entries⌋ (at least 1)."""
    return streamed_thresholds(lambda: ([update] for update in updates), density)[0]


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
