"""How a model's answers turn with the outputs of its layers, without labels.

    z, y    the logits of an input, and a layer's output (d_out,) at each of its tokens
    c       a random contrast of the logits: ±1 each, less their mean
    gₙ      ∂(cᵀ z) / ∂yₙ at token n, over the norm of all tokens' of this input
    B       Σ g gᵀ over inputs and tokens, of trace one

Gradients of a likelihood vanish where an expert is sure, as it is of its task; those of a contrast
do not, and with every input at the same length none of them decides for all.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from ..models import MASK

AT_ONCE = 8  # inputs: what lies between a model's layers is kept for all of them


def answer_grams(
    model: nn.Module, layers: Collection[str], batches: Sequence[Mapping[str, Tensor]], seed: int
) -> dict[str, Tensor]:
    """B (d_out, d_out) of each layer, by its module.

    layers   names of linear modules that are called once
    batches  what the model is called with
    seed     of the contrasts
    """
    random = torch.Generator().manual_seed(seed)
    found: dict[str, Tensor] = {}
    with _watched(model, layers) as outputs, torch.enable_grad():
        for batch in batches:
            for part in _parts(batch):
                size = len(next(iter(part.values())))
                logits = model(**part).logits
                (logits * _contrast(logits, part.get(MASK), random)).sum().backward()
                for name, output in outputs.items():
                    rows = _of_length_one(output, size)
                    found[name] = rows.mT @ rows + found.get(name, 0)
                outputs.clear()
    return {name: b / b.diagonal().sum().clamp_min(1e-30) for name, b in found.items()}


def _parts(batch: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    for at in range(0, len(next(iter(batch.values()))), AT_ONCE):
        yield {name: value[at : at + AT_ONCE] for name, value in batch.items()}


def _contrast(logits: Tensor, mask: Tensor | None, random: torch.Generator) -> Tensor:
    signs = torch.randint(0, 2, logits.shape, generator=random).to(logits) * 2 - 1
    found = signs - signs.mean(-1, keepdim=True)
    # A language model answers at every token; padding is none.
    return found * mask[..., None] if mask is not None and logits.dim() == 3 else found


def _of_length_one(output: Tensor, size: int) -> Tensor:
    """(inputs · tokens, d_out): an output's gradients, those of each input over their norm."""
    assert output.grad is not None
    each = output.grad.reshape(size, -1, output.shape[-1])
    return (each / each.norm(dim=(1, 2), keepdim=True).clamp_min(1e-30)).flatten(0, 1)


@contextlib.contextmanager
def _watched(model: nn.Module, layers: Collection[str]) -> Iterator[dict[str, Tensor]]:
    """The layers' outputs of a call by their modules, which keep gradients; no parameter does."""
    outputs: dict[str, Tensor] = {}
    asked = [(own, own.requires_grad) for own in model.parameters()]

    def note(name: str):
        def hook(module: nn.Module, inputs: object, output: Tensor) -> None:
            if output.requires_grad:
                output.retain_grad()
            else:
                output.requires_grad_()
            outputs[name] = output

        return hook

    handles = [model.get_submodule(name).register_forward_hook(note(name)) for name in layers]
    try:
        model.requires_grad_(False)
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
        for own, wanted in asked:
            own.requires_grad_(wanted)
