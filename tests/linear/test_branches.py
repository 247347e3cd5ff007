"""Branches in float64: what their factors keep, against the definition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mats_core.linear import discriminant, input_gate, output_branch, worth_factors

SEED = 3


def drawn(*shape: int, seed: int = SEED) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gram(size: int) -> Tensor:
    x = drawn(3 * size, size, seed=SEED + 1)
    return x.mT @ x / len(x)


@pytest.mark.parametrize("shape", [(6, 9), (9, 6)])
@pytest.mark.parametrize("weighted", [False, True])
def test_at_full_rank_a_branch_is_the_difference(shape, weighted):
    update = drawn(*shape)
    left, right = output_branch(update, min(shape), gram(shape[1]) if weighted else None)
    assert left.shape == (shape[0], min(shape))
    assert right.shape == (min(shape), shape[1])
    torch.testing.assert_close(left @ right, update)


@pytest.mark.parametrize("shape", [(6, 9), (9, 6)])
def test_its_directions_are_the_leading_eigenvectors(shape):
    update, a, rank = drawn(*shape), gram(shape[1]), 3
    left, right = output_branch(update, rank, a)
    vectors = torch.linalg.eigh(update @ a @ update.mT)[1].flip(1)[:, :rank]
    torch.testing.assert_close(left @ left.mT, vectors @ vectors.mT)
    torch.testing.assert_close(right, left.mT @ update)


def test_without_a_gram_it_is_the_truncated_svd():
    update = drawn(7, 5)
    u, s, vt = torch.linalg.svd(update, full_matrices=False)
    left, right = output_branch(update, 2)
    torch.testing.assert_close(left @ right, (u[:, :2] * s[:2]) @ vt[:2])


def test_no_other_directions_lose_less_on_the_inputs():
    update, a = drawn(6, 8), gram(8)

    def lost(left: Tensor) -> float:
        rest = update - left @ left.mT @ update
        return float((rest @ a @ rest.mT).trace())

    best = lost(output_branch(update, 2, a)[0])
    others = [torch.linalg.qr(drawn(6, 2, seed=seed))[0] for seed in range(50)]
    assert all(best <= lost(other) + 1e-12 for other in others)


@pytest.mark.parametrize("update", [torch.zeros(5, 4), torch.outer(torch.ones(5), torch.ones(4))])
def test_a_difference_of_smaller_rank_comes_back_whole(update):
    left, right = output_branch(update.double(), 3)
    torch.testing.assert_close(left @ right, update.double())
    torch.testing.assert_close(left.mT @ left, torch.eye(3, dtype=torch.float64))


def test_a_gate_answers_as_the_update_does():
    update, x = drawn(6, 4), drawn(4)
    whole = input_gate(update, 4, scaled=True)
    torch.testing.assert_close((whole @ x).norm(), (update @ x).norm() / update.norm())
    plain = input_gate(update, 2, scaled=False)
    torch.testing.assert_close(plain @ plain.mT, torch.eye(2, dtype=torch.float64))


def test_factors_are_worth_it_while_they_are_smaller():
    assert worth_factors(8, 8, 3)
    assert not worth_factors(8, 8, 4)


def test_a_discriminant_is_the_rule_of_the_nearest_mean_in_the_pooled_covariance():
    groups = [drawn(40, 4, seed=seed) @ drawn(4, 4, seed=9) + drawn(4, seed=20 + seed)
              for seed in range(3)]  # fmt: skip
    directions, offsets = discriminant(groups, shrinkage=0.0)
    means = torch.stack([group.mean(0) for group in groups])
    pooled = torch.stack([torch.cov(g.mT, correction=0) for g in groups]).mean(0)
    x = drawn(7, 4, seed=5)
    apart = x[:, None] - means
    distances = torch.einsum("ntd,de,nte->nt", apart, torch.linalg.inv(pooled), apart)
    scores = x @ directions.mT - offsets
    torch.testing.assert_close(scores - scores[:, :1], (distances[:, :1] - distances) / 2)


def test_a_discriminant_of_fewer_examples_than_numbers_is_finite():
    directions, offsets = discriminant([drawn(2, 6), drawn(2, 6, seed=8)])
    assert directions.isfinite().all()
    assert offsets.isfinite().all()


def test_a_discriminant_of_more_numbers_than_examples_is_that_of_the_dense_system():
    """Woodbury's identity against the system of all dimensions in float64."""
    groups = [drawn(4, 30), drawn(5, 30, seed=8), drawn(6, 30, seed=9)]
    directions, _ = discriminant(groups, shrinkage=0.2)
    means = torch.stack([g.mean(0) for g in groups])
    pooled = torch.stack([torch.cov(g.mT, correction=0) for g in groups]).mean(0)
    ridge = 0.2 * pooled.diagonal().mean() * torch.eye(30, dtype=pooled.dtype)
    expected = torch.linalg.solve(0.8 * pooled + ridge, (means - means.mean(0)).mT).mT
    torch.testing.assert_close(directions, expected)
