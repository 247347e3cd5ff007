"""K-FAC gradient matching against dense solves, and the methods it turns into."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from mats_core.methods.layer import LayerStatistics
from tests.layer_cases import SEEDS, close, merged, random_case, value, with_statistics

EXACT = {"iterations": 1000, "tolerance": 0.0, "damping": 0.0, "normalise": False}


def kron(case, index):
    return np.kron(case.output_grams[index].numpy(), case.grams[index].numpy())


def updates(case):
    return [(w - case.layer.base).numpy().ravel() for w in case.layer.experts]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("scaling", [0.4, 1.0])
def test_it_is_the_dense_solution_with_the_pretrained_block_as_prior(seed, scaling):
    case, other = random_case(seed).with_weights(1.0, 0.5, 2.0), random_case(seed + 50)
    prior = LayerStatistics(input_gram=other.grams[0], output_gradient_gram=other.output_grams[0])
    layer = replace(case.layer, base_statistics=prior)
    alphas = [scaling * a for a in (1.0, 0.5, 2.0)]
    h0, hs = kron(other, 0), [kron(case, m) for m in range(3)]
    left = h0 + sum(a * h for a, h in zip(alphas, hs, strict=True))
    right = sum(a * (h0 + h) @ d for a, h, d in zip(alphas, hs, updates(case), strict=True))
    expected = layer.base.numpy() + np.linalg.solve(left, right).reshape(layer.base.shape)
    found = merged(layer, "kfac_matching", scaling=scaling, prior="pretrained", **EXACT)
    close(found.value, expected, 1e-8)
    assert found.solution is not None
    close(found.solution.value, found.value, 0)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_number_is_a_share_of_the_mean_diagonal(seed):
    case = random_case(seed)
    hs = [kron(case, m) for m in range(3)]
    h0 = 0.3 * np.trace(sum(hs)) / len(hs[0]) * np.eye(len(hs[0]))
    right = sum((h0 + h) @ d for h, d in zip(hs, updates(case), strict=True))
    expected = np.linalg.solve(h0 + sum(hs), right).reshape(case.layer.base.shape)
    found = value(case.layer, "kfac_matching", prior=0.3, **EXACT)
    close(found, case.layer.base.numpy() + expected, 1e-8)


def test_a_large_prior_is_task_arithmetic_and_a_small_one_is_kfac_merging():
    layer = random_case(2).layer
    large = value(layer, "kfac_matching", prior=1e9, scaling=0.4, **EXACT)
    close(large, value(layer, "task_arithmetic", scaling=0.4), 1e-6)
    small = value(layer, "kfac_matching", prior=1e-12, **EXACT)
    close(small, value(layer, "kfac", **EXACT), 1e-6)


def test_normalised_tasks_count_the_same_however_large_their_gradients():
    case = random_case(3)
    louder = with_statistics(
        case, output_gradient_gram=[1e5 * case.output_grams[0], *case.output_grams[1:]]
    )
    close(value(louder, "kfac_matching"), value(case.layer, "kfac_matching"), 1e-9)


def test_iterates_are_those_of_the_weights():
    layer = replace(random_case(4).layer, keep=(0, 3))
    found = merged(layer, "kfac_matching", iterations=3, tolerance=0.0).solution
    assert found is not None
    close(found.iterates[0], torch.stack(layer.experts).mean(0))
    close(found.iterates[3], found.value)
    assert found.residuals[3] < found.residuals[0]


def test_without_the_pretrained_block_it_averages():
    layer = random_case(5).layer
    assert layer.base_statistics.input_gram is None
    assert merged(layer, "kfac_matching", prior="pretrained").treatment == "averaged"
