"""DC-Merge (arXiv 2603.06242): tasks meet in a basis that covers the directions of all of them.

Every task keeps its ⌊min(d)/T⌋ strongest singular directions.  The polar factors of all left and of
all right ones are a basis of each side that no task owns; in it each task is a small matrix, of
which the largest entries are kept, signs are elected, and the entries that agree averaged.  Of the
result only the blocks on the diagonal are left, which join a task's left directions to its right
ones.

For LoRA, whose few directions are of very unequal strength, the paper smooths the singular values
first: they keep their sum S and fall in a straight line,

    σ̂ᵢ = S wᵢ / Σⱼ wⱼ,   w from min(ρ, σ₁/σᵣ) for the first to 1 for the last

(the published code's `linear`, with ρ 5; ρ 1 makes them all alike, its `avg`).  Full fine-tunings
it leaves as they are.

Other parameters than matrices take the mean task vector, as in TSV-M.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..linear import Triples, largest_triples_each, polar
from .cost import Cost, Shape, gemm, polar_factor, svd_bytes
from .cost import averaged as averaged_cost
from .cost import largest_triples as triples_cost
from .layer import Layer, Merged, Show, mean_task_vector, unseen
from .method import Method, but_matrices, never
from .options import Options, option
from .spaces import InSpace, rounding
from .stages import TASK_MATRIX, Stage, outcome
from .ties import agree_and_average
from .tsv_m import SCALING, STRONGEST, above, said

COVER = {
    "P": "a basis for the outputs: the left singular vectors of all tasks, set at right angles",
    "Q": "one for the inputs: the right singular vectors of all tasks, set at right angles",
}
INSIDE = {
    **COVER,
    "Δ̂ₜ": "the strongest directions of the task matrix of expert t",
    "Mₜ": "Pᵀ Δ̂ₜ Q, which is what they are in these bases, with zeros for all but the largest "
    "entries",
}
MET = {
    **INSIDE,
    "M": "the mean of the Mₜ where they have the elected sign, in the blocks on the diagonal",
}


class DcOptions(Options):
    density: float = option(
        0.001,
        "share of each task's matrix in the common basis that is kept, largest entries first",
        above=0,
        high=1,
        source="arXiv 2603.06242",
    )
    scaling: float = option(
        3.0, SCALING, low=-6, high=6, step=0.1, source="validation split of the sample family"
    )
    smoothing: float | None = option(
        None,
        "ρ, by how much a task's strongest direction may exceed its weakest after smoothing: "
        "singular values on a straight line of the same sum, 1 for all alike; none: they stay. "
        "The paper smooths adapters only",
        low=1,
        high=100,
        step=1,
        source="arXiv 2603.06242: none for full fine-tunings; its code for LoRA: 1 or 5",
    )
    space: InSpace = "full"


def dc_merge(layer: Layer, options: DcOptions, survey: Any = None) -> Merged:
    """W = W0 + α P M Qᵀ."""
    if not layer.is_matrix:
        return mean_task_vector(layer, options.scaling)
    update, status = layer.remember(
        ("dc_merge", layer.signs, options.density, options.smoothing),
        lambda: dc_update(
            layer.signed_updates,
            options.density,
            rounding(layer),
            layer.show,
            smoothing=options.smoothing,
        ),
    )
    layer.show("sum", [update])
    return Merged(layer.base + options.scaling * update, "dc_merge", status=status)


def dc_update(
    updates: Sequence[Tensor],
    density: float,
    floor: float = 0.0,
    show: Show = unseen,
    *,
    smoothing: float | None = None,
) -> tuple[Tensor, str]:
    """`P M Qᵀ`, and how exact its parts were found.

    Directions with a singular value at or under `floor` are left out.
    """
    rank = max(1, min(updates[0].shape) // len(updates))
    triples = above(largest_triples_each(updates, rank), floor)
    if smoothing is not None:
        triples = [own._replace(values=smoothed(own.values, smoothing)) for own in triples]
    show("kept", ((own.left * own.values) @ own.right for own in triples))
    ways = [own.by for own in triples]
    if not any(len(own.values) for own in triples):
        return torch.zeros_like(updates[0]), said(ways)
    first = polar(torch.cat([own.left for own in triples], 1))
    second = polar(torch.cat([own.right for own in triples], 0))
    inside = [_largest(_inside(first.factor, own, second.factor), density) for own in triples]
    show("inside", inside)
    met = torch.block_diag(*_blocks(agree_and_average(inside, (1.0,) * len(inside)), triples))
    show("met", [met])
    return first.factor @ met @ second.factor, said([*ways, first.by, second.by])


def smoothed(values: Tensor, steepest: float) -> Tensor:
    """Positive singular values, largest first, on a straight line that falls to the last from
    `steepest` times it, or from as much more as the first is now; their sum stays."""
    if not len(values):
        return values
    first = min(steepest, float(values[0] / values[-1]))
    line = torch.linspace(first, 1, len(values), dtype=values.dtype, device=values.device)
    return values.sum() * line / line.sum()


def _inside(left: Tensor, own: Triples, right: Tensor) -> Tensor:
    """`Pᵀ Δ̂ Q` of a task's directions."""
    return (left.mT @ own.left * own.values) @ (own.right @ right.mT)


def _largest(matrix: Tensor, density: float) -> Tensor:
    """The matrix with zeros for all but the largest of its entries, at least one."""
    count = max(1, int(density * matrix.numel()))
    size = matrix.abs()
    return matrix * (size >= size.reshape(-1).topk(count).values[-1])


def _blocks(matrix: Tensor, triples: Sequence[Triples]) -> list[Tensor]:
    """The blocks on the diagonal, one of each task's directions."""
    sizes = [len(own.values) for own in triples]
    ends = [sum(sizes[: index + 1]) for index in range(len(sizes))]
    return [
        matrix[end - size : end, end - size : end] for end, size in zip(ends, sizes, strict=True)
    ]


def cost(s: Shape, options: DcOptions) -> Cost:
    if not s.is_matrix:
        return averaged_cost(s)
    m, n, t = s.rows, s.columns, s.experts
    each = max(1, min(m, n) // t)
    r = each * t
    work = triples_cost(m, n, each, s.dtype) * t + s.passes(3 * t + 8)
    work += polar_factor(m, r, s.dtype) + polar_factor(r, n, s.dtype)
    work += (gemm(r, each, m, s.dtype) + gemm(each, r, n, s.dtype) + gemm(r, r, each, s.dtype)) * t
    work += gemm(m, r, r, s.dtype) + gemm(m, n, r, s.dtype)
    kept = 2 * s.nbytes + (3 * r * (m + n) + (2 * t + 4) * r * r) * s.width
    return Cost("merged", work, kept + svd_bytes(m, n))


METHOD = Method(
    name="dc_merge",
    title="DC-Merge",
    group="task vectors",
    summary="Brings each task's strongest directions into a common basis and averages there what "
    "agrees in sign.",
    formula=r"W = W_0 + \alpha\, P M Q^\top,\quad M = \mathrm{diag}_T\,\mathrm{mean}\{\hat M_m : "
    r"\mathrm{sgn}\,\hat M_m = \sigma\},\quad M_m = P^\top \hat\Delta_m Q",
    source="arXiv 2603.06242",
    options=DcOptions,
    merge=dc_merge,
    cost=cost,
    pieces=but_matrices,
    stages=(
        TASK_MATRIX,
        Stage("kept", "Its strongest directions", "Δ̂ₜ = Uₜ diag(σₜ) Vₜᵀ",
              {**INSIDE, **STRONGEST}, each=True),
        Stage("inside", "In the common basis", "Mₜ", INSIDE,
              axes=("direction", "direction"), each=True),
        Stage("met", "What agrees", "M", MET, axes=("direction", "direction")),
        Stage("sum", "Merged task matrix", "P M Qᵀ", MET),
        outcome("W = W₀ + α P M Qᵀ", α="the option scaling", **MET),
    ),
    weighted=False,
    normalises=never,
)  # fmt: skip
