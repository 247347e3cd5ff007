"""SCE (arXiv 2408.07990): select what varies among experts, calculate their shares, erase the rest.

Within each tensor: only the entries in which the task vectors vary most are kept (select), each
expert counts by the mean square of what it has left (calculate), and in each entry those against
the sign of the sum are left out (erase).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from ..linear import streamed_thresholds, weighted_sum
from .cost import Cost, Shape, scattered
from .layer import Layer, Merged
from .method import Counterpart, Method, SurveyScope, every_tensor
from .options import Options, Share, option
from .spaces import InSpace
from .stages import TASK_MATRIX, Stage, outcome

MERGEKIT_FLOOR = 1e-6  # mergekit 0.1.5; no setting of it
SELECTED = {
    "Δ̂ₜ": "the task matrix of expert t, with zeros where the task matrices vary little",
}
COUNTED = {**SELECTED, "ηₜ": "the share of expert t: its mean square, of that of all"}
ERASED = {
    **COUNTED,
    "τ": "the merged task matrix",
    "mean of": "the mean, by the shares ηₜ",
    "sgn": "the sign: −1, 0 or 1",
    "Σₛ": "the sum over all experts s",
    "Δ̂ₛ": "the same of expert s",
    "with": "over the experts for which this holds",
}


class SceOptions(Options):
    select: Share = option(
        1.0,
        "share of the entries that is kept, of those in which the experts differ: where their task "
        "vectors vary most; mergekit's `select_topk`",
        source="mergekit 0.1.5",
    )
    floor: float = option(
        0.0,
        "mean squares whose sum is below this let all experts of the tensor count the same; 1e-6 "
        "in mergekit",
        low=0,
        high=1,
        source="arXiv 2408.07990",
        more=True,
    )
    space: InSpace = "full"


def sce(layer: Layer, options: SceOptions, survey: Sequence[float] | None = None) -> Merged:
    """W = W0 + τ.  `survey` holds the least variance that is kept and the experts' shares."""
    least, *shares = survey or surveyed(lambda: [layer], options)
    chosen = _selected(layer, least)
    layer.show("selected", chosen)
    layer.show("share", (layer.base.new_tensor(share) for share in shares))
    elected = weighted_sum(chosen, (1.0,) * len(chosen)).sign_()
    total, mass = torch.zeros_like(elected), torch.zeros_like(elected)
    for update, share in zip(chosen, shares, strict=True):
        agrees = (update * elected) > 0
        total.add_(update * agrees, alpha=share)
        mass.add_(agrees, alpha=share)
    # Where no expert counts the total is zero, whatever it is divided by.
    merged = total / mass.clamp_min_(torch.finfo(total.dtype).tiny)
    layer.show("agreed", [merged])
    return Merged(layer.base + merged, "sce", details={"shares": list(shares)})


def _selected(layer: Layer, least: float) -> list[Tensor]:
    """The task vectors, with zeros where their variance is below `least`."""
    updates = list(layer.signed_updates)
    if least > 0:
        keep = _variance(updates) >= least
        updates = [update * keep for update in updates]
    return updates


def _variance(updates: Sequence[Tensor]) -> Tensor:
    """Of each entry, over the experts."""
    return torch.stack(list(updates)).var(0, unbiased=False)


def surveyed(layers: Callable[[], Iterable[Layer]], options: SceOptions) -> tuple[float, ...]:
    """The least variance that is kept, and the share of each expert."""
    least = 0.0 if options.select == 1 else _least_variance(layers, options.select)
    squares: list[float] = []
    entries = 0
    for layer in layers():
        chosen = _selected(layer, least)
        own = [float(update.square().sum(dtype=torch.float64)) for update in chosen]
        squares = [a + b for a, b in zip(squares or [0.0] * len(own), own, strict=True)]
        entries += chosen[0].numel()
    total = sum(squares)
    if total == 0 or total / entries < options.floor:
        return (least, *(1 / len(squares) for _ in squares))
    return (least, *(square / total for square in squares))


def _least_variance(layers: Callable[[], Iterable[Layer]], select: float) -> float:
    """The variance that the chosen share of those above zero reaches; ∞ where it is no entry."""

    def above() -> Iterator[tuple[Tensor]]:
        for layer in layers():
            variance = _variance(list(layer.signed_updates))
            yield (variance[variance > 0],)

    differing = sum(len(variance) for (variance,) in above())
    rank = int(select * differing)
    if not rank:
        return math.inf
    return streamed_thresholds(above, (rank + 0.5) / differing)[0]


def surveys(options: SceOptions) -> SurveyScope:
    return "tensor"


def cost(s: Shape, options: SceOptions) -> Cost:
    work = s.passes(26 * s.experts + 10)
    if options.select < 1:
        work += scattered(2.0 * s.elements) + s.passes(12 * s.experts)
    return Cost("merged", work, (2 * s.experts + 7) * s.nbytes)


METHOD = Method(
    name="sce",
    title="SCE",
    group="task vectors",
    summary="Keeps what differs among the experts, lets each count by how much it changed, and "
    "leaves out what is against the majority.",
    formula=r"W = W_0 + \mathrm{mean}_\eta\{\hat\Delta_m : \mathrm{sgn}\,\hat\Delta_m = e\},\quad "
    r"e = \mathrm{sgn}\sum_s \hat\Delta_s,\quad \eta_m = \|\hat\Delta_m\|^2 / "
    r"\sum_s \|\hat\Delta_s\|^2",
    source="arXiv 2408.07990",
    options=SceOptions,
    merge=sce,
    cost=cost,
    survey=surveyed,
    surveys=surveys,
    pieces=every_tensor,
    piece=lambda options: 1 << 22,  # its tensor is read several times: in few pieces
    weighted=False,
    stages=(
        TASK_MATRIX,
        Stage("selected", "Where the experts differ most", "Δ̂ₜ", SELECTED, each=True),
        Stage(
            "share", "What the expert counts", "ηₜ", COUNTED, axes=("", ""),
            each=True,
        ),
        Stage("agreed", "Mean of what agrees", "τ = mean of Δ̂ₜ with sgn Δ̂ₜ = sgn Σₛ Δ̂ₛ", ERASED),
        outcome("W = W₀ + τ", **ERASED),
    ),
    mergekit=lambda options: mergekit(options),
)  # fmt: skip


def mergekit(options: SceOptions) -> Counterpart | str:
    """The same SCE for mergekit, which lets experts of small updates count the same."""
    if options.floor != MERGEKIT_FLOOR:
        return (
            "mergekit lets all experts count the same in a tensor whose mean squares sum to less "
            "than 1e-6, as small updates do; this SCE has no such limit at 1e-6. With the option "
            "floor: 1e-6 both are the same."
        )
    return Counterpart(
        "sce",
        "The same arithmetic: select is mergekit's select_topk.",
        {"select_topk": options.select},
        scaling=None,
    )
