"""Grams of tokens: pure functions, no model.  Symbols as in the package's text."""

from __future__ import annotations

import torch
from torch import Tensor

from ..linear import self_product


def tokens_of(values: Tensor, examples: int, mask: Tensor | None = None) -> Tensor:
    """Layer inputs or output gradients as (examples, tokens, d), masked tokens set to zero.

    `values` is (examples, ..., d), or (examples · tokens, d) in example-major order.  `mask`
    (examples, tokens) applies where the number of tokens agrees; a pooled layer has one token.
    """
    tokens = values.reshape(examples, -1, values.shape[-1])
    if mask is not None and tokens.shape[1] == mask.shape[1]:
        tokens = tokens * mask[..., None].to(tokens.dtype)
    return tokens


def token_count(tokens: Tensor, mask: Tensor | None = None) -> int:
    """N: the number of real tokens in `tokens` (examples, tokens, d)."""
    if mask is not None and tokens.shape[1] == mask.shape[1]:
        return int(mask.sum())
    return tokens.shape[0] * tokens.shape[1]


def gram_sum(tokens: Tensor) -> Tensor:
    """Σ_n v_n v_nᵀ over the rows of (examples, tokens, d): (d, d)."""
    return self_product(tokens.reshape(-1, tokens.shape[-1]))


def with_bias(gram: Tensor, mean: Tensor) -> Tensor:
    """The input Gram of `x̃ = [x; 1]`: (d_in + 1, d_in + 1), so that `[W b]` is one matrix."""
    corner = torch.ones(1, 1, dtype=gram.dtype, device=gram.device)
    return torch.cat(
        [torch.cat([gram, mean[:, None]], 1), torch.cat([mean[None, :], corner], 1)], 0
    )
