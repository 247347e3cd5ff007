"""Diagonal Fisher merging and gradient matching against elementwise numpy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from mats_core.methods.fisher import fisher_average, floored
from mats_core.methods.layer import LayerStatistics
from tests.layer_cases import SEEDS, close, merged, random_case, value, with_statistics


def numbers(case):
    w0 = case.layer.base.numpy()
    return w0, [w.numpy() for w in case.layer.experts], [f.numpy() for f in case.fishers]


@pytest.mark.parametrize("seed", SEEDS)
def test_fisher_is_the_weighted_elementwise_mean(seed):
    case = random_case(seed).with_weights(1.0, 2.0, 0.5)
    _, ws, fs = numbers(case)
    alphas = (1.0, 2.0, 0.5)
    above = sum(a * f * w for a, f, w in zip(alphas, fs, ws, strict=False))
    expected = above / sum(a * f for a, f in zip(alphas, fs, strict=False))
    close(value(case.layer, "fisher", floor=0, normalise=False), expected)


def test_fisher_floor_is_a_share_of_each_tensors_mean():
    case = random_case(1)
    _, ws, fs = numbers(case)
    fs = [np.maximum(f, 0.5 * f.mean()) for f in fs]
    expected = sum(f * w for f, w in zip(fs, ws, strict=False)) / sum(fs)
    close(value(case.layer, "fisher", floor=0.5, normalise=False), expected)


def test_fisher_normalise_divides_by_the_tensors_sum():
    case = random_case(2)
    _, ws, fs = numbers(case)
    fs = [f / f.sum() for f in fs]
    expected = sum(f * w for f, w in zip(fs, ws, strict=False)) / sum(fs)
    close(value(case.layer, "fisher", floor=0, normalise=True), expected)
    # Normalised, the scale of one task's Fisher says nothing.
    loud = with_statistics(case, fisher=[f * 10.0**m for m, f in enumerate(case.fishers)])
    close(value(loud, "fisher", floor=0, normalise=True), expected)


def test_fisher_takes_the_mean_where_nothing_was_measured():
    case = random_case(3)
    fishers = [f.clone() for f in case.fishers]
    for f in fishers:
        f[0, 0] = 0
    result = value(with_statistics(case, fisher=fishers), "fisher", floor=0, normalise=False)
    mean = torch.stack(case.layer.experts).mean(0)
    assert float(result[0, 0]) == pytest.approx(float(mean[0, 0]), rel=1e-12)
    weighted = [f * w for f, w in zip(fishers, case.layer.experts, strict=True)]
    total, above = torch.stack(fishers).mean(0), torch.stack(weighted).mean(0)
    close(fisher_average(total, above, mean), result)


def test_fisher_without_statistics_averages_and_says_so():
    case = random_case(4)
    result = merged(replace(case.layer, statistics=()), "fisher")
    assert result.treatment == "averaged"
    close(result.value, torch.stack(case.layer.experts).mean(0))


def test_floored_of_zeros_stays_zero():
    assert floored(torch.zeros(3), 0.1, normalise=True).tolist() == [0, 0, 0]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("scaling", [0.3, 1.0])
def test_gradient_matching_formula(seed, scaling):
    case = random_case(seed).with_weights(1.0, 0.5, 2.0)
    w0, ws, hs = numbers(case)
    assert case.layer.base_statistics.fisher is not None
    h0 = case.layer.base_statistics.fisher.numpy()
    alphas = [scaling * a for a in (1.0, 0.5, 2.0)]
    bar = h0 + sum(a * h for a, h in zip(alphas, hs, strict=False))
    expected = w0 + sum(
        a * (h0 + h) * (w - w0) / bar for a, h, w in zip(alphas, hs, ws, strict=False)
    )
    close(value(case.layer, "gradient_matching", scaling=scaling), expected)


def test_gradient_matching_with_a_numeric_prior():
    case = random_case(1)
    w0, ws, hs = numbers(case)
    bar = 0.7 + sum(hs)
    expected = w0 + sum((0.7 + h) * (w - w0) / bar for h, w in zip(hs, ws, strict=False))
    close(value(case.layer, "gradient_matching", prior=0.7), expected)


def test_gradient_matching_with_a_large_prior_is_task_arithmetic():
    layer = random_case(2).layer
    close(
        value(layer, "gradient_matching", prior=1e12, scaling=0.4),
        value(layer, "task_arithmetic", scaling=0.4),
        1e-9,
    )


def test_gradient_matching_with_a_vanishing_prior_is_fisher_merging():
    layer = random_case(3).with_weights(1.0, 3.0, 2.0).layer
    close(
        value(layer, "gradient_matching", prior=1e-13, scaling=0.4),
        value(layer, "fisher", floor=0, normalise=False),
        1e-8,
    )


def test_gradient_matching_with_equal_curvature():
    # H_0 = H_m = H: W0 + 2 Σ α_m Δ_m / (1 + Σ α_m); also the limit where nothing was measured.
    case = random_case(4)
    h = case.fishers[0]
    layer = with_statistics(case, fisher=[h] * 3)
    layer = replace(layer, base_statistics=LayerStatistics(fisher=h))
    expected = layer.base + 2 * sum(0.5 * d for d in layer.updates) / (1 + 1.5)
    close(value(layer, "gradient_matching", scaling=0.5), expected)
    zero = torch.zeros_like(h)
    layer = with_statistics(case, fisher=[zero] * 3)
    layer = replace(layer, base_statistics=LayerStatistics(fisher=zero))
    close(value(layer, "gradient_matching", scaling=0.5), expected)


def test_gradient_matching_with_equal_hessians_and_no_prior_is_the_average():
    case = random_case(5)
    layer = with_statistics(case, fisher=[case.fishers[0]] * 3)
    close(value(layer, "gradient_matching", prior=1e-13), value(layer, "average"), 1e-8)


def test_gradient_matching_scaling_zero_gives_the_base():
    layer = random_case(6).layer
    close(value(layer, "gradient_matching", scaling=0), layer.base)


def test_gradient_matching_averages_what_was_not_measured():
    layer = replace(random_case(7).layer, base_statistics=LayerStatistics())
    assert merged(layer, "gradient_matching").treatment == "averaged"
