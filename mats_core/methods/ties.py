"""TIES (arXiv 2306.01708): sparse task vectors whose signs are elected."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..linear import BLOCK, host, is_apart, streamed_thresholds
from .cost import Cost, Shape, passes, selection
from .layer import Layer, Merged
from .method import Counterpart, Method, SurveyScope, every_tensor, never, small_pieces
from .options import Options, Signed, option
from .spaces import InSpace
from .stages import TASK_MATRIX, Stage, outcome

TRIMMED = {"Δ̂ₜ": "the task matrix of expert t, with zeros for all but its largest entries"}
ELECTED = {
    **TRIMMED,
    "σ": "the sign of each entry that has more mass",
    "sgn": "the sign: −1, 0 or 1",
}
AGREED = {
    **ELECTED,
    "τ": "the merged task matrix",
    "mean of": "the mean, by the weights αₜ",
    "with": "over the experts for which this holds",
}


class TiesOptions(Options):
    density: float = option(
        0.2,
        "share of each task vector that is kept, largest magnitudes first",
        above=0,
        high=1,
        step=0.05,
        source="arXiv 2306.01708: top 20 %",
    )
    scaling: Signed = option(
        1.0,
        "λ, the factor of the merged task vector",
        source="arXiv 2306.01708: 1 without validation data",
    )
    scope: Literal["global", "tensor"] = option(
        "global",
        "trim by magnitude over the whole model (as published) or within each tensor (as mergekit)",
        source="arXiv 2306.01708",
    )
    space: InSpace = "full"


def agree_and_average(updates: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Elect each coordinate's sign by total mass; average the entries that agree with it.

    An expert with a negative weight enters with its task vector negated.
    """
    return _agreed(torch.stack(list(updates)), weights)


def _agreed(updates: Tensor, weights: Sequence[float]) -> Tensor:
    """`agree_and_average` of the rows of `updates`, which are lost.

    Plain operations, on all experts together: `where` takes ten times the time of a product.
    """
    equal = len(set(weights)) == 1 and weights[0] > 0
    factors = updates.new_tensor(weights).reshape(-1, *[1] * (updates.ndim - 1))
    if not equal:
        updates *= factors
    elected = _summed(updates).sign_()
    # Magnitudes where the signs agree, zero elsewhere.
    total = _summed(updates.mul_(elected).clamp_min_(0))
    agreeing = updates.sign_() if equal else updates.sign_().mul_(factors.abs())
    # Where nobody agrees the total is zero, whatever it is divided by.
    mass = _summed(agreeing).clamp_min_(torch.finfo(updates.dtype).tiny)
    return total.mul_(elected).div_(mass)


def _summed(rows: Tensor) -> Tensor:
    """`rows.sum(0)`, in a third of the time for a few long rows."""
    first, *others = rows.unbind()
    total = first + others[0] if others else first.clone()
    for row in others[1:]:
        total += row
    return total


def ties(layer: Layer, options: TiesOptions, survey: Sequence[float] | None = None) -> Merged:
    """Trim, elect, average: W = W0 + λ τ.  `survey` holds one threshold an expert."""
    limits = survey or thresholds(lambda: [layer], options)
    value, kept = layer.base.new_empty(layer.base.shape), [0] * len(limits)
    below = [before(limit, value.dtype) for limit in limits]
    # A dozen operations on each entry: on blocks that stay in a processor's cache meanwhile.
    size = max(1, value.numel()) if is_apart(value) else BLOCK
    base, *experts = (one.reshape(-1).split(size) for one in (layer.base, *layer.experts))
    for ours, merged, *theirs in zip(base, value.view(-1).split(size), *experts, strict=True):
        trimmed = merged.new_empty(len(theirs), len(merged))
        for expert, limit, update in zip(theirs, below, trimmed, strict=True):
            torch.sub(expert, ours, out=merged)
            # Hard shrinking keeps what is beyond a limit, so it gets the number before ours.
            torch.hardshrink(merged, limit, out=update)
        kept = [count + more for count, more in zip(kept, _nonzero(trimmed), strict=True)]
        torch.add(ours, _agreed(trimmed, layer.weights), alpha=options.scaling, out=merged)
    _show(layer, below)
    entries = max(1, value.numel())
    return Merged(value, "ties", details={"kept": [count / entries for count in kept]})


def _show(layer: Layer, below: Sequence[float]) -> None:
    """Hand over what the blocks have overwritten: trimmed task matrices, signs, their mean."""
    if layer.watch is None:
        return
    pairs = zip(layer.updates, below, strict=True)
    trimmed = torch.stack([torch.hardshrink(update, limit) for update, limit in pairs])
    layer.show("trimmed", trimmed)
    factors = trimmed.new_tensor(layer.weights).reshape(-1, *[1] * layer.base.ndim)
    layer.show("signs", [_summed(trimmed * factors).sign()])
    layer.show("agreed", [_agreed(trimmed.clone(), layer.weights)])


def _nonzero(rows: Tensor) -> list[int]:
    """How many entries of each row are not zero."""
    if is_apart(rows):
        return list(map(int, host([list(torch.count_nonzero(rows, 1))])[0]))
    return [int(np.count_nonzero(row != 0)) for row in rows.numpy()]  # a third of the time


def before(limit: float, dtype: torch.dtype) -> float:
    """The largest number of a dtype that is below `limit`."""
    real = np.float64 if dtype == torch.float64 else np.float32
    return float(np.nextafter(real(limit), real(-1)))


def thresholds(layers: Callable[[], Iterable[Layer]], options: TiesOptions) -> tuple[float, ...]:
    """The magnitude that each expert's kept entries reach, over all the layers given."""
    return streamed_thresholds(lambda: (layer.updates for layer in layers()), options.density)


def ties_surveys(options: TiesOptions) -> SurveyScope:
    return "model" if options.scope == "global" else "tensor"


def ties_piece(options: TiesOptions) -> int:
    """Within a tensor, most of them at once: it is then read once for sample, count and merge."""
    return small_pieces(options) if options.scope == "global" else 1 << 22


def cost(s: Shape, options: TiesOptions) -> Cost:
    blocks = max(1, s.elements // BLOCK)  # one after the other, in a processor's cache
    work = passes(s.nbytes // blocks, (30 * s.experts + 6) * blocks)
    if options.scope == "tensor":
        work += selection(s)
    return Cost("merged", work, (s.experts + 8) * s.nbytes)


def mergekit(options: TiesOptions) -> Counterpart | str:
    """The same TIES for mergekit, where each tensor is trimmed by itself."""
    if options.scope != "tensor":
        return (
            "mergekit trims within each tensor; this TIES trims over the whole model, as "
            "published. With the option scope: tensor both are the same."
        )
    return Counterpart(
        "ties",
        "The same arithmetic: density is the share that is kept within each tensor.",
        {"normalize": True, "lambda": options.scaling},
        each={"density": options.density},
        weights="positive",
    )


METHOD = Method(
    name="ties",
    title="TIES",
    group="task vectors",
    summary="Keeps each expert's largest changes, elects a sign for every parameter, and "
    "averages those that agree.",
    formula=r"W = W_0 + \lambda\, \mathrm{mean}\, \mathcal{M},\quad "
    r"\mathcal{M} = \{\hat\Delta_m : \mathrm{sgn}\,\hat\Delta_m = \sigma\},\quad "
    r"\sigma = \mathrm{sgn}\sum_s \hat\Delta_s",
    source="arXiv 2306.01708",
    options=TiesOptions,
    merge=ties,
    cost=cost,
    survey=thresholds,
    surveys=ties_surveys,
    pieces=every_tensor,
    piece=ties_piece,
    normalises=never,
    stages=(
        TASK_MATRIX,
        Stage("trimmed", "Trimmed task matrix", "Δ̂ₜ", TRIMMED, each=True),
        Stage("signs", "Elected signs", "σ = sgn Σₜ αₜ Δ̂ₜ", ELECTED),
        Stage("agreed", "Mean of what agrees", "τ = mean of Δ̂ₜ with sgn Δ̂ₜ = σ", AGREED),
        outcome("W = W₀ + λ τ", λ="the option scaling", **AGREED),
    ),
    mergekit=mergekit,
)
