"""Calibrated singular values, by the paper's formula in numpy and by what must come of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from mats_core.methods.kfac_options import KfacOptions
from mats_core.methods.layer import Merged
from mats_core.methods.singular_values import calibrated_update, with_svc
from mats_core.methods.table import METHODS
from tests.layer_cases import SEEDS, close, merged, random_case, value

UPDATE = {"gram": "update", "iterations": 500, "tolerance": 0.0, "damping": 0.2}


def by_formula(update, updates, floor):
    """γ_r = T / Σ_t max(α, s_rt), direction by direction."""
    left, values, right = np.linalg.svd(update, full_matrices=False)
    total = np.zeros_like(update)
    for u, sigma, v in zip(left.T, values, right, strict=True):
        s = [sigma * v @ (d.T @ u) / ((d.T @ u) @ (d.T @ u)) for d in updates]
        total += len(updates) / sum(max(floor, one) for one in s) * sigma * np.outer(u, v)
    return total


def deltas(layer):
    return [update.numpy() for update in layer.updates]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("method", ["kfac", "kfac_matching"])
def test_it_is_the_papers_formula_after_the_merge(seed, method):
    layer = random_case(seed).layer
    plain = value(layer, method, **UPDATE) - layer.base
    found = value(layer, method, **UPDATE, svc=0.3) - layer.base
    close(found, by_formula(plain.numpy(), deltas(layer), 0.3), 1e-9)
    assert float((found - plain).norm()) > 0.01 * float(plain.norm())


@pytest.mark.parametrize("floor", [0.05, 0.3, 1.0])
def test_one_expert_and_equal_experts_come_back(floor):
    update = random_case(1).layer.updates[0]
    for count in (1, 3):
        shares = (1 / count,) * count
        close(calibrated_update(update, [update] * count, shares, floor), update, 1e-10)


def test_of_experts_that_share_no_direction_the_mean_becomes_the_sum():
    """Each direction is one expert's, of which the mean carries a T-th."""
    updates = [torch.zeros(6, 5, dtype=torch.float64) for _ in range(3)]
    for place, update in enumerate(updates):
        update[2 * place, place], update[2 * place + 1, place] = 1.0 + place, 0.5
    total = sum(updates[1:], updates[0])
    found = calibrated_update(total / 3, updates, (1 / 3,) * 3, 1 / 3)
    close(found, total, 1e-10)


def test_no_direction_grows_by_more_than_the_inverse_of_the_floor():
    layer = random_case(2).layer
    small = 1e-3 * layer.mean_update
    found = calibrated_update(small, list(layer.updates), layer.magnitudes, 0.25)
    close(found, 4 * small, 1e-9)


def test_iterates_are_calibrated_as_the_value_is():
    layer = replace(random_case(3).layer, keep=(0, 2))
    plain, found = (merged(layer, "kfac", **UPDATE, **more) for more in ({}, {"svc": 0.3}))
    assert plain.solution is not None
    assert found.solution is not None
    assert found.status == f"{plain.status}, singular values calibrated"
    for step, before in plain.solution.iterates.items():
        expected = by_formula((before - layer.base).numpy(), deltas(layer), 0.3)
        close(found.solution.iterates[step] - layer.base, expected, 1e-9)
    assert torch.equal(found.solution.value, found.value)


def test_a_negative_weight_counts_the_expert_negated():
    layer = random_case(4).with_weights(1.0, 1.0, -0.2).layer
    mean = layer.mean_update
    found = with_svc(layer, Merged(layer.base + mean, "kfac"), 0.3).value - layer.base
    signed = [sign * d for sign, d in zip((1, 1, -1), layer.updates, strict=True)]
    close(found, calibrated_update(mean, signed, [1 / 1.8, 1 / 1.8, 0.2 / 1.8], 0.3), 1e-10)


def test_experts_cannot_be_added_to_it_later():
    kfac = METHODS["kfac"]
    assert kfac.sums is not None
    assert "every expert" in kfac.sums.why_not(KfacOptions(svc=0.3))
    assert not kfac.sums.why_not(KfacOptions())


def test_vectors_stay_as_they_are():
    layer = random_case(5).layer
    flat = replace(
        layer, base=layer.base[0], experts=tuple(w[0] for w in layer.experts), is_matrix=False
    )
    close(value(flat, "kfac", **UPDATE, svc=0.3), value(flat, "kfac", **UPDATE), 1e-12)
