"""Spaces of low-rank updates, by independent oracles in float64 numpy and by identities."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from mats_core.methods import METHODS
from mats_core.methods.layer import Layer
from mats_core.methods.spaces import inside
from tests.methods.test_tsv_m import procrustes

OUT, IN = 9, 7
SPACES = ("knots", "core")
SPACED = [name for name, row in METHODS.items() if "space" in row.options.model_fields]


def low_rank_layer(
    ranks: tuple[int, ...], *, seed: int = 0, shape: tuple[int, int] = (OUT, IN), **more: Any
) -> Layer:
    """A layer whose experts' updates are products of random factors of these ranks."""
    random = torch.Generator().manual_seed(seed)

    def randn(*size: int) -> torch.Tensor:
        return torch.randn(*size, dtype=torch.float64, generator=random)

    m, n = shape
    pairs = tuple(
        (randn(m, rank), (1 + place) * randn(rank, n)) for place, rank in enumerate(ranks)
    )
    base = randn(m, n)
    return Layer(
        name="block.0.fc1.weight", base=base, experts=tuple(base + b @ a for b, a in pairs),
        weights=(1.0,) * len(ranks), labels=tuple(f"e{place}" for place in range(len(ranks))),
        is_matrix=True, factors=pairs, **more,
    )  # fmt: skip


def merged(layer: Layer, method: str, **options: Any) -> np.ndarray:
    row = METHODS[method]
    return (row.merge(layer, row.options(**options), None).value - layer.base).numpy()


# Oracles ------------------------------------------------------------------------------------------


def left_of(matrix: np.ndarray) -> np.ndarray:
    u, s, _ = np.linalg.svd(matrix, full_matrices=False)
    return u[:, s > 1e-9 * s[0]]


def by_hand(layer: Layer, space: str) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """U, what is merged of each expert, and Vᵀ."""
    assert layer.factors is not None
    pairs = [(b.numpy(), a.numpy()) for b, a in layer.factors]
    if space == "knots":
        u, s, vt = np.linalg.svd(np.hstack([b @ a for b, a in pairs]), full_matrices=False)
        kept = s > 1e-9 * s[0]
        blocks = [u[:, kept].T @ b @ a for b, a in pairs]  # which is Σ V_tᵀ, with exact zeros
        np.testing.assert_allclose(np.hstack(blocks), s[kept, None] * vt[kept], atol=1e-10)
        return u[:, kept], blocks, np.eye(layer.base.shape[1])
    u, v = left_of(np.hstack([b for b, _ in pairs])), left_of(np.vstack([a for _, a in pairs]).T)
    return u, [(u.T @ b) @ (a @ v) for b, a in pairs], v.T


def ties_by_hand(updates: list[np.ndarray], density: float) -> np.ndarray:
    trimmed = []
    for update in updates:
        count = max(1, int(density * update.size))
        least = np.sort(np.abs(update).ravel())[-count]
        trimmed.append(np.where(np.abs(update) >= least, update, 0))  # of zeros all are zero
    sign = np.sign(sum(trimmed))
    agree = [np.where(np.sign(one) == sign, one, 0) for one in trimmed]
    return sum(agree) / np.maximum(1, sum(one != 0 for one in agree))


def tsv_by_hand(updates: list[np.ndarray]) -> np.ndarray:
    rank = max(1, min(updates[0].shape) // len(updates))
    lefts, values, rights = [], [], []
    for update in updates:
        u, s, vt = np.linalg.svd(update, full_matrices=False)
        kept = s[:rank] > 1e-9 * s[0]
        lefts.append(u[:, :rank][:, kept])
        values.append(s[:rank][kept])
        rights.append(vt[:rank][kept])
    left, right = procrustes(np.hstack(lefts)), procrustes(np.vstack(rights))
    return left @ np.diag(np.concatenate(values)) @ right


def iso_by_hand(updates: list[np.ndarray]) -> np.ndarray:
    u, s, vt = np.linalg.svd(sum(updates), full_matrices=False)
    kept = s > 1e-9 * s[0]
    return s.mean() * u[:, kept] @ vt[kept]


@pytest.mark.parametrize("ranks", [(2, 2, 2), (1, 3, 2), (2, 0, 3), (8, 9, 7)])
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize(
    ("method", "options", "oracle"),
    [
        ("ties", {"density": 0.4, "scaling": 0.7}, lambda u: 0.7 * ties_by_hand(u, 0.4)),
        ("tsv_m", {"scaling": 0.7}, lambda u: 0.7 * tsv_by_hand(u)),
        ("iso_c", {"scaling": 0.7}, lambda u: 0.7 * iso_by_hand(u)),
    ],
)
def test_a_method_in_a_space_is_that_of_numpy(space, ranks, method, options, oracle):
    layer = low_rank_layer(ranks)
    u, updates, vt = by_hand(layer, space)
    found = merged(layer, method, space=space, **options)
    np.testing.assert_allclose(found, u @ oracle(updates) @ vt, atol=1e-10)


# Identities ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranks", [(2, 2, 2), (1, 4, 0), (9, 9, 9)])
@pytest.mark.parametrize(("space", "dense"), [("knots", True), ("knots", False), ("core", False)])
def test_a_sum_is_the_same_in_every_space(space, ranks, dense):
    """Nothing is lost on the way into a space and back."""
    layer = replace(low_rank_layer(ranks), weights=(1.0, -0.5, 2.0))
    small = inside(replace(layer, factors=None) if dense else layer, space)
    assert small is not None
    row = METHODS["task_arithmetic"]
    options = row.options.model_validate({"scaling": 0.4})
    there = row.merge(small.layer, options, None).value
    here = row.merge(layer, options, None).value - layer.base
    torch.testing.assert_close(small.back(there), here, rtol=0, atol=1e-12)
    for own, update in zip(small.layer.experts, layer.updates, strict=True):
        torch.testing.assert_close(small.back(own), update, rtol=0, atol=1e-12)


KEEPS: dict[str, dict[str, Any]] = {  # options with which one expert comes back as it is
    "ties": {"density": 1.0}, "dare": {"drop": 0.0, "scaling": 1.0}, "della": {"density": 1.0},
    "breadcrumbs": {"density": 1.0, "scaling": 1.0}, "consensus": {"tasks": 0, "scaling": 1.0},
    "sce": {}, "tsv_m": {"scaling": 1.0}, "dc_merge": {"density": 1.0, "scaling": 1.0},
}  # fmt: skip


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("method", KEEPS)
def test_one_expert_comes_back(method, space):
    layer = low_rank_layer((3,))
    found = merged(layer, method, space=space, **KEEPS[method])
    np.testing.assert_allclose(found, layer.updates[0].numpy(), atol=1e-10)


@pytest.mark.parametrize("method", SPACED)
@pytest.mark.parametrize("space", SPACES)
def test_experts_that_change_nothing_leave_the_base(method, space):
    assert not merged(low_rank_layer((0, 0)), method, space=space).any()
    zeros = replace(low_rank_layer((2, 2)), factors=None)
    zeros = replace(zeros, experts=(zeros.base, zeros.base))
    assert not merged(zeros, method, space="knots").any()


@pytest.mark.parametrize("method", SPACED)
@pytest.mark.parametrize("split", [3.0, -1.0])
def test_how_a_product_is_split_the_same_in_all_experts_does_not_matter(method, split):
    layer = low_rank_layer((2, 1, 2))
    assert layer.factors is not None
    other = replace(layer, factors=tuple((b * split, a / split) for b, a in layer.factors))
    for space in SPACES:
        one, two = (merged(own, method, space=space) for own in (layer, other))
        np.testing.assert_allclose(one, two, atol=1e-10)


@pytest.mark.parametrize("method", SPACED)
def test_factors_and_whole_updates_make_the_same_knots(method):
    layer = low_rank_layer((2, 1, 2))
    dense = merged(replace(layer, factors=None), method, space="knots")
    np.testing.assert_allclose(merged(layer, method, space="knots"), dense, atol=1e-9)


def test_knots_look_at_no_more_than_the_left_side():
    """Turning the outputs of base and experts turns the merge."""
    layer = low_rank_layer((2, 2))
    turn = torch.linalg.qr(torch.randn(OUT, OUT, dtype=torch.float64))[0]
    turned = replace(
        layer, base=turn @ layer.base, experts=tuple(turn @ one for one in layer.experts),
        factors=None,
    )  # fmt: skip
    for method in SPACED:
        expected = turn.numpy() @ merged(layer, method, space="knots")
        np.testing.assert_allclose(merged(turned, method, space="knots"), expected, atol=1e-9)


def test_of_independent_adapters_only_the_entries_and_the_mean_are_others():
    """TSV-M is the same in every space while the ranks have room; Iso-C's mean of the singular
    values is over those of the space, and not over zeros."""
    layer = low_rank_layer((2, 2), shape=(OUT, 8))
    whole = {method: merged(layer, method) for method in ("tsv_m", "iso_c")}
    for space in SPACES:
        np.testing.assert_allclose(merged(layer, "tsv_m", space=space), whole["tsv_m"], atol=1e-10)
        inner = merged(layer, "iso_c", space=space)
        np.testing.assert_allclose(inner, whole["iso_c"] * 8 / 4, atol=1e-10)
        assert np.abs(merged(layer, "ties", space=space) - merged(layer, "ties")).max() > 0.01


@pytest.mark.parametrize("method", SPACED)
def test_without_factors_a_core_is_merged_as_it_is_and_says_so(method):
    layer = replace(low_rank_layer((2, 2)), factors=None)
    row = METHODS[method]
    core = row.options.model_validate({"space": "core"})
    found = row.merge(layer, core, None)
    assert "an expert has no low-rank factors here" in found.status
    assert torch.equal(found.value, row.merge(layer, row.options(), None).value)
    vector = replace(layer, is_matrix=False)
    assert "space" not in row.merge(vector, core, None).status


def test_rounding_beside_a_low_rank_is_no_direction():
    """Weights in float32 leave noise in W − W₀, which is not counted among the directions."""
    exact = low_rank_layer((2, 2), shape=(40, 30))
    coarse = replace(
        exact, base=exact.base.float().double(), factors=None,
        experts=tuple(one.float().double() for one in exact.experts),
    )  # fmt: skip
    found = inside(coarse, "knots")
    assert found is not None
    assert found.layer.base.shape == (4, 30)
    one, two = (merged(own, "tsv_m", space="knots") for own in (exact, coarse))
    np.testing.assert_allclose(one, two, atol=1e-4)
