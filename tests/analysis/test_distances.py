"""Distances of merges from their experts, against flat vectors and known answers."""

from __future__ import annotations

import pytest
import torch

import mats_core
from mats_core.analysis.distances import measuring_distances
from mats_core.system.stream import drain
from tests.module_cases import family

EXPERTS = 3


@pytest.fixture(scope="module")
def found():
    base, experts = family("mlp", EXPERTS)
    merge = mats_core.merge_models(base, experts, heads=[], progress=False)
    weights = merge.inputs.family
    encoders = {
        "average": merge.tensors,
        "base": {name: weights.base.read(name) for name in merge.tensors},
        "e1": {name: weights.experts[1].checkpoint.read(name) for name in merge.tensors},
    }
    return base, experts, merge, drain(measuring_distances(weights, encoders))


def flat(state) -> torch.Tensor:
    return torch.cat([value.double().reshape(-1) for value in state.values()])


def test_distances_are_those_of_the_flat_weights(found):
    base, experts, merge, distances = found
    start, value = flat(base.state_dict()), flat(merge.state_dict())
    for name, expert in experts.items():
        own = flat(expert.state_dict())
        wanted = (value - own).norm() / (own - start).norm()
        assert distances.of("average")[name] == pytest.approx(float(wanted))


def test_the_base_is_at_one_and_an_expert_at_zero(found):
    *_, distances = found
    assert list(distances.of("base").values()) == pytest.approx([1.0] * EXPERTS)
    assert list(distances.by_layer("base").values()) == pytest.approx([1.0] * 6)
    assert distances.of("e1")["e1"] == 0
    assert distances.of("e1")["e0"] > 1  # unrelated changes are at right angles: about √2


def test_the_average_of_unrelated_experts_is_as_far_as_their_number_says(found):
    """‖Σ δ/T − δ_m‖² = (1 − 1/T) of ‖δ‖² for orthogonal δ of one length."""
    *_, distances = found
    for ratio in distances.of("average").values():
        assert ratio == pytest.approx((1 - 1 / EXPERTS) ** 0.5, rel=0.05)


def test_an_expert_that_is_the_base_is_no_distance_away():
    base, experts = family("mlp", 2)
    merge = mats_core.merge_models(
        base, {"same": base, "e0": experts["e0"]}, strangers=True, progress=False
    )
    distances = drain(measuring_distances(merge.inputs.family, {"m": merge.tensors}))
    assert distances.of("m")["same"] == 0
