"""DARE (arXiv 2311.03099): most of each update dropped at random, the rest enlarged."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import torch
from torch import Tensor

from ..linear import as_numbers, weighted_sum
from .cost import Cost, Shape, scattered
from .layer import Layer, Merged
from .method import Method, every_tensor
from .options import Options, Signed, option
from .spaces import InSpace
from .stages import TASK_MATRIX, Stage, outcome
from .ties import agree_and_average

DRAWN_AT_ONCE = 1 << 20  # entries of a mask: another number, and DARE makes another merge


DROPPED = {
    "Δ̃ₜ": "what is left of the task matrix of expert t",
    "zₜ": "a mask drawn at random: 1 with probability 1 − p, else 0",
    "p": "the option drop",
}
COMBINED = {"τ": "what is left of all task matrices, combined as the option `then` says"}


class DareOptions(Options):
    drop: float = option(
        0.9,
        "p, the probability with which an entry of a task vector is dropped",
        low=0,
        high=0.99,
        step=0.05,
        source="arXiv 2311.03099",
    )
    scaling: Signed = option(
        0.3, "λ, the factor of the sum (task_arithmetic) or of the merged vector (average, ties)"
    )
    seed: int | None = option(None, "seed of the masks; the recipe's seed by default", low=0)
    then: Literal["task_arithmetic", "average", "ties"] = option(
        "task_arithmetic",
        "how the rescaled task vectors are combined; `ties` elects signs and trims no further",
    )
    space: InSpace = "full"


def dare(layer: Layer, options: DareOptions, survey: Any = None) -> Merged:
    """Drop entries with probability p, rescale the rest by 1/(1 − p), combine."""
    seed = layer.seed if options.seed is None else options.seed
    rescaled = [
        update
        * keep_mask(update, options.drop, seed, layer.name, label, layer.offset or 0)
        / (1 - options.drop)
        for update, label in zip(layer.updates, layer.labels, strict=True)
    ]
    layer.show("rescaled", rescaled)
    if options.then == "ties":
        found = agree_and_average(rescaled, layer.weights)
    else:
        weights = layer.weights if options.then == "task_arithmetic" else layer.shares
        found = weighted_sum(rescaled, weights)
    layer.show("sum", [found])
    return Merged(layer.base + options.scaling * found, "dare")


def keep_mask(
    update: Tensor, drop: float, seed: int, name: str, label: str, offset: int = 0
) -> Tensor:
    """Ones with probability 1 − p, drawn on the CPU from (seed, tensor, expert, piece).

    The draw depends on neither the device nor the order of layers, experts and pieces: a GPU's
    generator draws other numbers from the same seed, so the bits are drawn here and sent there.
    """
    uniform = drawn(tuple(update.shape), seed, name, label, offset)
    return as_numbers(uniform >= drop, update)


def drawn(shape: tuple[int, ...], seed: int, name: str, label: str, offset: int = 0) -> Tensor:
    """Numbers between 0 and 1, drawn on the CPU from (seed, tensor, expert, piece)."""
    piece = f"\0{offset}" if offset else ""
    key = hashlib.sha256(f"{seed}\0{name}\0{label}{piece}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(key[:7], "big"))
    return torch.rand(shape, generator=generator)


def cost(s: Shape, options: DareOptions) -> Cost:
    # Masks are drawn by a generator of their own, from the seed and the place: 1.5 times the time.
    drawn = scattered(1.5 * s.experts * s.elements)
    return Cost("merged", drawn + s.passes(16 * s.experts + 5), (s.experts + 7) * s.nbytes)


METHOD = Method(
    name="dare",
    title="DARE",
    group="task vectors",
    summary="Drops most of each expert's changes at random and enlarges the rest, so that "
    "they collide less.",
    formula=r"\tilde\Delta_m = \frac{z_m \circ \Delta_m}{1-p},\quad z_m \sim "
    r"\mathrm{Bernoulli}(1-p)",
    source="arXiv 2311.03099",
    options=DareOptions,
    merge=dare,
    cost=cost,
    pieces=every_tensor,
    piece=lambda options: DRAWN_AT_ONCE,
    stages=(
        TASK_MATRIX,
        Stage("rescaled", "Dropped and enlarged", "Δ̃ₜ = zₜ ∘ Δₜ / (1 − p)", DROPPED, each=True),
        Stage("sum", "Combined", "τ", COMBINED),
        outcome("W = W₀ + λ τ", λ="the option scaling", **COMBINED),
    ),
    normalises=lambda options: options.then == "average",
    mergekit=lambda options: (
        "mergekit has a DARE, but not this one: it rescales what is kept so that the L1 norm "
        "stays, where the paper divides by 1 − p, and it draws other masks."
    ),
)
