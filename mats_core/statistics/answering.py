"""How strongly an expert's update answers to an input: what its layers' changes make of it.

    s_t(x) = mean over layers of log(‖Δ_t h‖² / ‖h‖²),   ‖Δ_t‖_F = 1

h     what the layer gets in the expert for input x, summed over its tokens without padding
Δ_t   the layer's update W_t − W_0

An update is made of the inputs that it was trained on, which it therefore stretches more than
others: among inputs of several tasks it recognises its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..models import MASK
from .stages import first

SMALLEST = 1e-30  # of a length: an input that a layer does not see at all


def answers(
    model: nn.Module, updates: Mapping[str, Tensor], batch: Mapping[str, Tensor], count: int
) -> Tensor:
    """s (count,) of the examples of a batch, float64; see the module's text.

    updates   a linear layer's module → Δ (d_out, d_in), not yet scaled; those that are zero are
              left out
    count     examples of the batch, of which each may be several sequences side by side
    """
    found: list[Tensor] = []
    with contextlib.ExitStack() as undo:
        for name, update in updates.items():
            size = float(update.norm())
            if size > 0:
                hook = _noting(update / size, batch.get(MASK), count, found)
                handle = model.get_submodule(name).register_forward_pre_hook(hook, with_kwargs=True)
                undo.callback(handle.remove)
        with torch.no_grad():
            model(**batch)
    return torch.stack(found).mean(0) if found else torch.zeros(count, dtype=torch.float64)


def _noting(update: Tensor, mask: Tensor | None, count: int, found: list[Tensor]) -> Any:
    def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
        given = first(args) if first(args) is not None else first(kwargs)
        assert given is not None
        found.append(answer(given, update, mask, count))

    return hook


def answer(given: Tensor, update: Tensor, mask: Tensor | None, count: int) -> Tensor:
    """log(‖Δ h‖² / ‖h‖²) (count,) of one layer's inputs (sequences, tokens, d_in), float64 on the
    CPU."""
    rows = given.reshape(-1, given.shape[-1])
    if mask is not None and mask.numel() == len(rows):
        rows = rows * mask.reshape(-1, 1).to(rows.dtype)
    made, before = (
        values.square().sum(-1).cpu().double().reshape(count, -1).sum(1).clamp_min(SMALLEST)
        for values in (rows @ update.mT, rows)
    )
    return (made / before).log()


def told_apart(scores: Tensor) -> Tensor:
    """Scores (experts, inputs) less their mean over the inputs, and then over the experts: how much
    more an expert answers to an input than the others do."""
    even = scores - scores.mean(1, keepdim=True)
    return even - even.mean(0)
