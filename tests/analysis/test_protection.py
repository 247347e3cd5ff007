"""What subspaces protect: every cost against the operator itself, applied to one direction."""

from __future__ import annotations

import pytest
import torch

from mats_core.analysis.protection import (
    SUBSPACES,
    layer_protection,
    operator,
    pair_costs,
    protection,
)
from mats_core.checkpoints.files import Checkpoint
from mats_core.errors import InputError
from mats_core.families.examine import examine
from mats_core.families.expert import Expert
from mats_core.linear.operators import Dense
from mats_core.statistics.store import Statistics
from tests.layer_cases import random_case


def built(subspace, seed=1, shape=(6, 5)):
    case = random_case(seed, d_out=shape[0], d_in=shape[1])
    c = operator(subspace, shape, a=case.grams[0], b=case.output_grams[0], fisher=case.fishers[0])
    assert c is not None
    return c, case.layer.updates[0]


@pytest.mark.parametrize("shape", [(6, 5), (4, 7)])
@pytest.mark.parametrize("subspace", SUBSPACES)
def test_costs_are_those_of_the_operator_applied_to_each_direction(subspace, shape):
    c, delta = built(subspace, shape=shape)
    found = protection(subspace, c, delta)
    u, s, vt = torch.linalg.svd(delta, full_matrices=False)
    dense = c.dense().double()
    mean = float(dense.diagonal().mean())
    size = min(shape)
    assert found.costs.shape == (size, size)
    for i in range(size):
        for j in range(size):
            d = torch.outer(u[:, i], vt[j])
            assert float(found.costs[i, j]) == pytest.approx(float((d * c.apply(d)).sum()) / mean)
    flat = delta.reshape(-1)
    assert found.change == pytest.approx(float(flat @ dense @ flat) / float(flat @ flat) / mean)
    assert found.strengths.tolist() == pytest.approx((s**2 / (s**2).sum()).tolist())
    assert found.along.tolist() == found.costs.diagonal().tolist()
    expected = torch.linalg.eigvalsh(dense).flip(0) / dense.trace()
    assert found.eigenvalues.tolist() == pytest.approx(expected.tolist(), abs=1e-12)


def test_identity_charges_the_same_everywhere():
    c, delta = built("identity")
    found = protection("identity", c, delta)
    assert torch.all(found.costs == 1)
    assert found.change == pytest.approx(1)
    assert found.needed(0.9) == 27  # of 30
    assert found.needed(1.0) == 30


def test_directions_needed_are_counted_on_the_sorted_spectrum():
    fisher = torch.tensor([[8.0, 0.0], [1.0, 1.0]])
    c = operator("diagonal Fisher", (2, 2), fisher=fisher)
    assert c is not None
    found = protection("diagonal Fisher", c, torch.eye(2))
    assert found.needed(0.8) == 1
    assert found.needed(0.9) == 2
    assert found.needed(0.95) == 3


def test_operators_need_their_statistics():
    a, b = torch.eye(3), torch.eye(2)
    assert operator("identity", (2, 3)) is not None
    assert operator("diagonal Fisher", (2, 3), a=a, b=b) is None
    assert operator("input Gram", (2, 3), b=b) is None
    assert operator("K-FAC", (2, 3), a=a) is None
    assert operator("K-FAC", (2, 3), a=a, b=b) is not None


def test_what_cannot_be_compared_is_an_error():
    c, delta = built("K-FAC")
    with pytest.raises(InputError, match="changed this layer"):
        protection("K-FAC", c, torch.zeros_like(delta))
    empty = operator("diagonal Fisher", (6, 5), fisher=torch.zeros(6, 5))
    assert empty is not None
    with pytest.raises(InputError, match="trace above zero"):
        protection("diagonal Fisher", empty, delta)
    with pytest.raises(TypeError, match="Dense"):
        pair_costs(Dense(torch.eye(4)), torch.eye(2), torch.eye(2))


def test_a_layer_of_a_family(tiny_family):
    experts = [Expert(f"e{m}", Checkpoint.open(tiny_family / f"e{m}")) for m in range(3)]
    family = examine(Checkpoint.open(tiny_family / "base"), experts)
    own = Statistics.open(tiny_family / "e0.stats.safetensors")
    name = next(n for n in family.shared if n.endswith("intermediate.dense.weight"))
    found = layer_protection(family, {"e0": own}, name, "e0")
    assert list(found) == list(SUBSPACES)
    assert all(p.costs.shape == (24, 24) for p in found.values())
    fisher = own.read(f"{name}.fisher", (40, 24))
    assert fisher is not None
    largest = float(fisher.max() / fisher.sum())
    assert float(found["diagonal Fisher"].eigenvalues[0]) == pytest.approx(largest)
    assert list(layer_protection(family, {"e0": own}, name, "e1")) == ["identity"]
    with pytest.raises(InputError, match="one of e0, e1, e2"):
        layer_protection(family, {}, name, "e9")
