"""Per-example gradients from what a layer saw: pure functions, no model.

Inputs x (examples, tokens, d_in) and output gradients g (examples, tokens, d_out) give the gradient
of each example's log-likelihood with respect to the layer's parameters; the diagonal Fisher is the
mean of their squares.  Symbols as in the package's text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv2d_weight

CHUNK_BYTES = 1 << 20  # of per-example weight gradients held at once: they fit a processor's cache
GPU_BYTES = 1 << 28  # the same on a GPU, which wants much at once
LARGE = 1 << 14  # elements of a weight from which one call an example is no matter


def linear_weight_square_sum(x: Tensor, g: Tensor) -> Tensor:
    """Σ_examples (Σ_tokens g xᵀ)²: (d_out, d_in)."""
    if x.shape[1] == 1:  # one token an example: the square of a product is a product of squares
        return (g[:, 0] ** 2).T @ (x[:, 0] ** 2)
    total = torch.zeros(g.shape[-1], x.shape[-1], dtype=x.dtype, device=x.device)
    on_cpu = x.device.type == "cpu"
    most = (CHUNK_BYTES if on_cpu else GPU_BYTES) // (total.numel() * total.itemsize)
    chunk = min(len(x), max(1, most))
    # One place for all gradients: fresh memory takes as long as the product.
    room = torch.empty(chunk, *total.shape, dtype=x.dtype, device=x.device)
    for start in range(0, len(x), chunk):
        part = slice(start, start + chunk)
        gradients = room[: len(x[part])]
        torch.bmm(g[part].transpose(1, 2), x[part], out=gradients)
        if total.numel() < LARGE or not on_cpu:
            total += gradients.square_().sum(0)
        else:
            for gradient in gradients:  # squared and added in one pass
                total.addcmul_(gradient, gradient)
    return total


def bias(g: Tensor) -> Tensor:
    """Per-example gradient of a bias: (examples, d_out)."""
    return g.sum(1)


def layer_norm_weight(x: Tensor, g: Tensor, epsilon: float) -> Tensor:
    """Per-example gradient of a LayerNorm's weight: (examples, d)."""
    normalised = functional.layer_norm(x, x.shape[-1:], eps=epsilon)
    return (g * normalised).sum(1)


def rms_norm_weight(x: Tensor, g: Tensor, module: nn.Module) -> Tensor:
    """Per-example gradient of an RMSNorm's weight: (examples, d); so too where it adds 1 to it."""
    epsilon = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    return (g * functional.rms_norm(x, x.shape[-1:], eps=epsilon)).sum(1)


def tied_square_sum(ids: Tensor, into: Tensor, x: Tensor, out: Tensor) -> Tensor:
    """Σ_examples (gradient of a table that embeds and predicts)²: (rows, d).

    ids (examples, tokens) with the gradients `into` (examples, tokens, d) of the rows that they
    took; inputs x (examples, places, d) of the product with the table, gradients `out` (examples,
    places, rows) of its outputs.
    """
    total = torch.zeros(out.shape[-1], x.shape[-1], dtype=x.dtype, device=x.device)
    for own_ids, own_into, own_x, own_out in zip(ids, into, x, out, strict=True):
        gradient = own_out.T @ own_x
        gradient.index_add_(0, own_ids, own_into)
        total += gradient.square_()
    return total


def embedding_square_sum(ids: Tensor, g: Tensor, rows: int) -> Tensor:
    """Σ_examples (gradient of an embedding table)²: (rows, d), from ids (examples, tokens)."""
    total = torch.zeros(rows, g.shape[-1], dtype=g.dtype, device=g.device)
    for example_ids, example_gradient in zip(ids, g, strict=True):
        distinct, where = example_ids.unique(return_inverse=True)
        summed = torch.zeros(len(distinct), g.shape[-1], dtype=g.dtype, device=g.device)
        summed.index_add_(0, where, example_gradient)
        total.index_add_(0, distinct, summed**2)
    return total


def unfolds(layer: nn.Conv2d) -> bool:
    """Whether `convolution_patches` applies; other convolutions go example by example."""
    named = isinstance(layer.padding, str)
    return layer.groups == 1 and layer.padding_mode == "zeros" and not named


def convolution_patches(x: Tensor, layer: nn.Conv2d) -> Tensor:
    """The patches that a convolution sees, as tokens: (examples, positions, channels · kh · kw)."""
    padding = layer.padding
    assert not isinstance(padding, str)  # `unfolds` said no
    patches = functional.unfold(x, layer.kernel_size, layer.dilation, padding, layer.stride)
    return patches.transpose(1, 2)


def convolution_square_sum(uses: Sequence[tuple[Tensor, Tensor]], layer: Any) -> Tensor:
    """Σ_examples (gradient of a convolution's weight)², in its shape, where patches do not serve.

    Of inputs (examples, channels, h, w) and output gradients of each of its calls; groups and
    paddings of any kind.
    """
    total = torch.zeros_like(layer.weight)
    for example in range(len(uses[0][0])):
        gradient = torch.zeros_like(layer.weight)
        for x, g in uses:
            padded, padding = x[example : example + 1], layer.padding
            if layer.padding_mode != "zeros" or isinstance(padding, str):
                mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
                around = layer._reversed_padding_repeated_twice
                padded, padding = functional.pad(padded, around, mode=mode), 0
            gradient += conv2d_weight(
                padded, list(layer.weight.shape), g[example : example + 1],
                layer.stride, padding, layer.dilation, layer.groups,
            )  # fmt: skip
        total += gradient.square_()
    return total


def channel_norm(x: Tensor, g: Tensor, layer: Any) -> tuple[Tensor, Tensor]:
    """Per-example gradients of weight and bias of a norm of channels: (examples, channels) each.

    x and g are (examples, channels, ...); a BatchNorm uses its running mean and variance.
    """
    if isinstance(layer, nn.GroupNorm):
        normed = functional.group_norm(x, layer.num_groups, eps=layer.eps)
    else:
        mean, variance = layer.running_mean, layer.running_var
        normed = functional.batch_norm(x, mean, variance, eps=layer.eps)
    scale, shift = g * normed, g
    return (scale.flatten(2).sum(2), shift.flatten(2).sum(2)) if g.ndim > 2 else (scale, shift)
