"""Essential Subspace Merging by the clock: from Grams, against the published SVDs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mats_core.methods import EssentialOptions, essential_subspace, essential_update

from . import published
from .base import Line, Row, in_turns, relative, threads, timed

TASKS = 8
TOKENS = 1600  # 32 images of 50 tokens
# One block of a ViT-B/32: shape → (layers, of them with an input of their own).  Twelve in all.
BLOCK: Mapping[tuple[int, int], tuple[int, int]] = {
    (768, 768): (4, 2),  # query, key and value share their input
    (3072, 768): (1, 1),
    (768, 3072): (1, 1),
}
BLOCKS = 12


@dataclass(frozen=True)
class Moved:
    """One layer's updates Δ_t (d_out, d_in) and inputs X_t (tokens, d_in)."""

    updates: tuple[Tensor, ...]
    inputs: tuple[Tensor, ...]

    def grams(self) -> tuple[Tensor, ...]:
        """A_t, as the statistics pass keeps them."""
        return tuple(x.T @ x / len(x) for x in self.inputs)


def drawn(rows: int, columns: int, *, tasks: int = TASKS, tokens: int = TOKENS, seed: int = 0,
          device: str = "cpu") -> Moved:  # fmt: skip
    """Inputs with eigenvalues 1/i and updates with singular values 1/√i, in bases of their own."""
    generator = torch.Generator().manual_seed(seed)
    inner = min(rows, columns)

    def one() -> tuple[Tensor, Tensor]:
        left = torch.randn(rows, inner, generator=generator) / rows**0.5
        right = torch.randn(inner, columns, generator=generator) / columns**0.5
        update = (left * torch.arange(1, inner + 1) ** -0.5) @ right
        mixing = torch.randn(columns, columns, generator=generator) / columns**0.5
        scaled = torch.randn(tokens, columns, generator=generator)
        return update, scaled * torch.arange(1, columns + 1) ** -0.5 @ mixing

    pairs = [one() for _ in range(tasks)]
    return Moved(*(tuple(p[k].to(device) for p in pairs) for k in (0, 1)))


def decomposition() -> Sequence[Line]:
    """One task's essential subspace, given the Gram."""
    lines = []
    for shape in BLOCK:
        moved = drawn(*shape, tasks=1)
        update, x, gram = moved.updates[0], moved.inputs[0], moved.grams()[0]
        rank = shape[0] // TASKS

        def ours(update: Tensor = update, gram: Tensor = gram, rank: int = rank):
            return essential_subspace(update, gram, rank)

        def theirs(update: Tensor = update, x: Tensor = x, rank: int = rank):
            return published.essential_subspace(update, x, rank)

        exactly = published.essential_subspace(update.double(), x.double(), rank)[0]
        reference = exactly @ (exactly.T @ update.double())
        for count in (1, 2):
            with threads(count):
                fast, slow, (e, _), (theirs_e, _) = in_turns(ours, theirs, repeats=2, warm=False)
            lines.append(
                Line(
                    case=f"{shape[0]}×{shape[1]} (d_out×d_in), {TOKENS} tokens, "
                    f"{count} thread{'s' if count > 1 else ''}",
                    ours=fast,
                    theirs=slow,
                    goal=8 if shape[0] != shape[1] else None,
                    checks={
                        "error of our projected update": _error(e, update, reference),
                        "error of theirs": _error(theirs_e, update, reference),
                    },
                )
            )
    return lines


def _error(e: Tensor, update: Tensor, reference: Tensor) -> float:
    e = e.double()
    return relative(e @ (e.T @ update.double()), reference)


def merge(device: str = "cpu", goal: float = 3) -> Sequence[Line]:
    """A whole merge: every shape of a block once each way, times how often it occurs."""
    ours = theirs = grams = 0.0
    worst = 0.0
    for shape, (layers, inputs) in BLOCK.items():
        moved = drawn(*shape, device=device)
        seconds, found = timed(moved.grams, device)
        fast, slow, (update, _, _), reference = in_turns(
            lambda moved=moved, found=found: essential_update(
                moved.updates, found, None, EssentialOptions()
            ),
            lambda moved=moved: published.essential_update(moved.updates, moved.inputs),
            repeats=1,
            device=device,
            warm=device != "cpu",
        )
        ours += BLOCKS * (layers * fast + inputs * seconds)
        grams += BLOCKS * inputs * seconds
        theirs += BLOCKS * layers * slow
        worst = max(worst, relative(update, reference))
    return [
        Line(
            case=f"ViT-B/32, {TASKS} experts, {TOKENS} tokens a task, {device}, "
            f"{torch.get_num_threads()} threads",
            ours=ours,
            theirs=theirs,
            goal=goal,
            checks={"of ours for the Grams, s": grams, "largest difference of an update": worst},
            note=f"Every shape of a block was merged once and counted as often as it occurs in "
            f"{BLOCKS} blocks.",
        )
    ]


ROWS = (
    Row(
        "esm-subspace",
        "Essential subspace decomposition, given the Gram",
        "SVD of X Δᵀ in float32, as published",
        decomposition,
        minutes=1,
    ),
    Row(
        "esm",
        "ESM, steps 1–6 of a whole merge, the Grams included",
        "the published steps, SVD by SVD",
        merge,
        minutes=3,
    ),
)
