"""DELLA (arXiv 2406.11617): the smaller a change, the likelier it is dropped at random.

The entries of each row are ranked by magnitude; the probability to be kept rises along the ranks
from `density` − ε to `density` + ε.  The options mean what they mean in mergekit, which rescales
what is left so that the L1 norm of the tensor stays; the paper divides each entry by its own
probability.  Rows are those of the first dimension; a vector is one row.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from ..linear import as_numbers
from .combining import COMBINED, Elect, Normalise, combined
from .cost import Cost, Shape, scattered
from .dare import drawn
from .layer import Layer, Merged
from .method import Method
from .options import Options, Signed, option
from .spaces import InSpace
from .stages import TASK_MATRIX, Stage, outcome

Rescale = Literal["l1", "probability", "none"]
KEPT = {
    "pₜ": "the probability to be kept: it rises with the rank of the entry's magnitude in its row, "
    "from density − epsilon to density + epsilon"
}
THINNED = {
    "Δ̃ₜ": "what is left of the task matrix of expert t, rescaled as the option `rescale` says",
    "zₜ": "a mask drawn at random: 1 with probability pₜ, else 0",
    "cₜ": "what the kept entries are multiplied by",
    **KEPT,
}


class DellaOptions(Options):
    density: float = option(
        0.7,
        "the mean probability with which an entry of a task vector is kept",
        low=0,
        high=1,
        step=0.05,
        source="validation split of the sample family",
    )
    epsilon: float = option(
        0.15,
        "ε, how far the probability of a row's largest and smallest entry is from the mean; no "
        "farther than to 0 or 1",
        low=0,
        high=0.5,
        step=0.01,
        source="mergekit 0.1.5",
    )
    scaling: Signed = option(
        1.0, "λ, the factor of the merged vector", source="validation split of the sample family"
    )
    rescale: Rescale = option(
        "l1",
        "what the kept entries are multiplied by: what restores the L1 norm of the tensor, one "
        "over the probability of each (as published), or nothing",
        source="mergekit 0.1.5; arXiv 2406.11617: probability",
    )
    elect: Elect = True
    normalise: Normalise = True
    seed: int | None = option(None, "seed of the masks; the recipe's seed by default", low=0)
    space: InSpace = "full"


def della(layer: Layer, options: DellaOptions, survey: Any = None) -> Merged:
    """W = W0 + λ τ, of what is left of the task vectors."""
    seed = layer.seed if options.seed is None else options.seed
    left = []
    for index, (update, label) in enumerate(zip(layer.updates, layer.labels, strict=True)):
        share = kept_share(update, options.density, options.epsilon)
        if layer.watch is not None:
            layer.watch("probability", index, share.to(update.dtype), layer.offset or 0)
        uniform = drawn(tuple(update.shape), seed, layer.name, label, layer.offset or 0)
        mask = as_numbers(uniform < share, update)
        left.append(_rescaled(update, mask, share, options.rescale))
    layer.show("rescaled", left)
    found = combined(left, layer, elect=options.elect, normalise=options.normalise)
    layer.show("sum", [found])
    return Merged(layer.base + options.scaling * found, "della")


def kept_share(update: Tensor, density: float, epsilon: float) -> Tensor:
    """The probability of each entry to be kept, in float32 on the CPU, in the update's shape."""
    window = min(epsilon, density, 1 - density)
    if update.numel() == 0 or window <= 0:
        return torch.full(update.shape, density)
    rows = update.detach().abs().cpu().reshape(update.shape[0] if update.ndim > 1 else 1, -1)
    last = rows.shape[1] - 1
    if last == 0:
        return torch.full(update.shape, density)  # neither the largest nor the smallest of a row
    order = rows.sort(dim=1, stable=True).indices
    steps = torch.linspace(density - window, density + window, last + 1)
    share = torch.empty(rows.shape)
    share.scatter_(1, order, steps.expand_as(share))
    return share.reshape(update.shape)


def _rescaled(update: Tensor, mask: Tensor, share: Tensor, rescale: Rescale) -> Tensor:
    masked = update * mask
    if rescale == "probability":
        # An entry that is never kept is zero, whatever it is divided by.
        return masked / share.clamp_min(torch.finfo(share.dtype).tiny).to(masked)
    if rescale == "l1":
        whole, kept = (float(value.abs().sum(dtype=torch.float64)) for value in (update, masked))
        return masked * (whole / kept) if kept > 0 else masked
    return masked


def cost(s: Shape, options: DellaOptions) -> Cost:
    # A number drawn and a number sorted for each entry of each expert.
    work = scattered(3.0 * s.experts * s.elements) + s.passes(20 * s.experts + 5)
    return Cost("merged", work, (s.experts + 9) * s.nbytes)


METHOD = Method(
    name="della",
    title="DELLA",
    group="task vectors",
    summary="Drops changes at random, small ones more often than large ones, and enlarges what is "
    "left.",
    formula=r"\tilde\Delta_m = c_m\, z_m \circ \Delta_m,\quad z_m \sim \mathrm{Bernoulli}(p_m),"
    r"\quad p_m = k - \varepsilon + 2\varepsilon\,\frac{\mathrm{rank}\,|\Delta_m| - 1}{n - 1}",
    source="arXiv 2406.11617",
    options=DellaOptions,
    merge=della,
    cost=cost,
    normalises=lambda options: options.normalise and not options.elect,
    stages=(
        TASK_MATRIX,
        Stage("probability", "Probability to be kept", "pₜ", KEPT, each=True),
        Stage("rescaled", "Thinned and enlarged", "Δ̃ₜ = cₜ zₜ ∘ Δₜ", THINNED, each=True),
        Stage("sum", "Combined", "τ", COMBINED),
        outcome("W = W₀ + λ τ", λ="the option scaling", **COMBINED),
    ),
    mergekit=lambda options: (
        "mergekit has a DELLA with the same probabilities, but it draws other masks: the same "
        "settings give another merge of the same kind."
    ),
)
