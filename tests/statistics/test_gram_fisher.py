"""The pure functions of `gram.py` and `fisher.py` against loops."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mats_core.statistics import fisher, gram
from tests.layer_cases import close


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_gram_sum_counts_every_token():
    tokens = draw(3, 4, 5)
    expected = sum(torch.outer(t, t) for example in tokens for t in example)
    close(gram.gram_sum(tokens), expected, 1e-12)


def test_a_large_gram_is_mirrored(monkeypatch):
    monkeypatch.setattr("mats_core.linear.products.MIRRORED", 3)
    tokens = draw(2, 4, 13)
    rows = tokens.reshape(8, 13)
    found = gram.gram_sum(tokens)
    close(found, rows.T @ rows, 1e-12)
    assert torch.equal(found, found.T)


@pytest.mark.parametrize("large", [1, 1 << 20])
@pytest.mark.parametrize("nbytes", [1, 1000, 1 << 20])
def test_gradients_of_examples_come_a_few_at_a_time(monkeypatch, large, nbytes):
    monkeypatch.setattr(fisher, "LARGE", large)
    monkeypatch.setattr(fisher, "CHUNK_BYTES", nbytes)
    x, g = draw(7, 3, 5), draw(7, 3, 4, seed=1)
    expected = torch.einsum("nti,ntj->nij", g, x).square().sum(0)
    close(fisher.linear_weight_square_sum(x, g), expected, 1e-12)


def test_tokens_of_and_token_count():
    values, mask = draw(2, 3, 4), torch.tensor([[1, 1, 0], [1, 0, 0]])
    masked = gram.tokens_of(values, 2, mask)
    assert float(masked[0, 2].abs().sum()) == float(masked[1, 1:].abs().sum()) == 0
    assert torch.equal(masked[0, :2], values[0, :2])
    assert gram.token_count(values, mask) == 3
    assert gram.token_count(values) == 6
    pooled = draw(2, 4)
    assert gram.tokens_of(pooled, 2, mask).shape == (2, 1, 4)
    assert gram.token_count(gram.tokens_of(pooled, 2), mask) == 2
    assert torch.equal(gram.tokens_of(values.reshape(6, 4), 2), values)


def test_with_bias_is_the_gram_of_inputs_with_a_one():
    x = draw(30, 4)
    extended = torch.cat([x, torch.ones(30, 1).double()], 1)
    close(gram.with_bias(x.T @ x / 30, x.mean(0)), extended.T @ extended / 30, 1e-12)


@pytest.mark.parametrize("tokens", [1, 3])
def test_linear_weight_square_sum(tokens, monkeypatch):
    x, g = draw(5, tokens, 4), draw(5, tokens, 3, seed=1)
    expected = sum(sum(torch.outer(g[n, t], x[n, t]) for t in range(tokens)) ** 2 for n in range(5))
    close(fisher.linear_weight_square_sum(x, g), expected, 1e-12)
    monkeypatch.setattr(fisher, "CHUNK_BYTES", 1)  # one example at a time
    close(fisher.linear_weight_square_sum(x, g), expected, 1e-12)


def test_layer_norm_weight_and_bias():
    layer = nn.LayerNorm(4).double()
    x, g = draw(3, 2, 4), draw(3, 2, 4, seed=1)
    weights = fisher.layer_norm_weight(x, g, layer.eps)
    for n in range(3):
        layer.zero_grad()
        (layer(x[n]) * g[n]).sum().backward()
        assert layer.weight.grad is not None
        assert layer.bias.grad is not None
        close(weights[n], layer.weight.grad, 1e-9)
        close(fisher.bias(g)[n], layer.bias.grad, 1e-12)


def test_embedding_square_sum_adds_up_repeated_tokens_before_squaring():
    ids = torch.tensor([[1, 1, 3], [0, 3, 3]])
    g = draw(2, 3, 4)
    expected = torch.zeros(5, 4).double()
    for n in range(2):
        gradient = torch.zeros(5, 4).double()
        for t in range(3):
            gradient[ids[n, t]] += g[n, t]
        expected += gradient**2
    close(fisher.embedding_square_sum(ids, g, 5), expected, 1e-12)


@pytest.mark.parametrize("settings", [{"stride": 2}, {"padding": 1}, {"dilation": 2}])
def test_convolution_patches_make_a_linear_layer(settings):
    layer = nn.Conv2d(2, 3, 3, bias=False, **settings).double()
    x = draw(2, 2, 8, 8)
    patches = fisher.convolution_patches(x, layer)
    as_linear = patches @ layer.weight.reshape(3, -1).T
    close(as_linear.transpose(1, 2).detach(), layer(x).flatten(2).detach(), 1e-12)
