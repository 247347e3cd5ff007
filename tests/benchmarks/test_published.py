"""The baselines of the performance table give the published methods' answers."""

from __future__ import annotations

import pytest
import torch

from benchmarks.performance import drawn, essential, published
from benchmarks.performance.kfac import system, true_residual
from mats_core.methods.essential import EssentialOptions, essential_update
from mats_core.methods.kfac import kfac
from mats_core.methods.kfac_options import KfacOptions
from tests.layer_cases import close


def test_published_cg_equals_the_dense_solve():
    layer = drawn.layer(drawn.Wideness(6, 5, tasks=3), seed=1)
    blocks = system(layer)
    value, iterations = published.mats_cg(
        blocks, layer.experts, layer.base, residual=1e-6, iterations=500
    )
    assert 0 < iterations < 500
    # Row-major vec of B X A is (B ⊗ Aᵀ) vec X.
    matrix = torch.stack([torch.kron(b, a).double() for b, a in blocks]).sum(0)
    right = torch.stack([b @ w @ a for (b, a), w in zip(blocks, layer.experts, strict=True)]).sum(0)
    expected = torch.linalg.solve(matrix, right.double().reshape(-1)).reshape(6, 5)
    close(value.double(), expected, 1e-3)
    assert true_residual(blocks, layer.experts, value) < 2e-6


def test_published_cg_and_ours_meet():
    layer = drawn.layer(drawn.Wideness(12, 9, tasks=3))
    theirs, many = published.mats_cg(
        system(layer), layer.experts, layer.base, residual=1e-6, iterations=2000
    )
    options = KfacOptions(damping=1e-3, normalise=False, tolerance=1e-6, iterations=2000)
    ours = kfac(layer, options)
    assert ours.solution is not None
    assert ours.solution.iterations < many
    close(ours.value, theirs, 1e-3)


def test_published_cg_stops_where_it_is_told():
    layer = drawn.layer(drawn.Wideness(12, 9, tasks=3))
    _, iterations = published.mats_cg(
        system(layer), layer.experts, layer.base, residual=0.0, iterations=7
    )
    assert iterations == 7


@pytest.mark.parametrize(("rows", "columns"), [(12, 20), (20, 12)])
def test_published_esm_is_ours_to_rounding(rows, columns):
    moved = essential.drawn(rows, columns, tasks=3, tokens=64)
    updates = tuple(update.double() for update in moved.updates)
    inputs = tuple(x.double() for x in moved.inputs)
    theirs = published.essential_update(updates, inputs)
    grams = essential.Moved(updates, inputs).grams()
    ours, _, status = essential_update(updates, grams, None, EssentialOptions())
    assert status == "exact"
    close(ours, theirs, 1e-8)
    fast, _, _ = essential_update(moved.updates, moved.grams(), None, EssentialOptions())
    close(fast.double(), theirs, 1e-4)


def test_published_subspace_carries_the_shift():
    """The theorem: what is discarded of the shift is the sum of the discarded eigenvalues."""
    moved = essential.drawn(10, 14, tasks=1, tokens=64)
    update, x = moved.updates[0].double(), moved.inputs[0].double()
    e, values = published.essential_subspace(update, x, 4)
    shift = x @ update.T
    lost = float((shift - shift @ e @ e.T).square().sum()) / (len(x) - 1)
    every = published.essential_subspace(update, x, 10)[1]
    assert lost == pytest.approx(float(every[4:].sum()), rel=1e-9)
    assert values.tolist() == pytest.approx(every[:4].tolist())
