"""TIES against a naive full sort, DARE against the statistics of its masks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from mats_core.linear import streamed_thresholds
from mats_core.merging.pipeline import run
from mats_core.methods.dare import DareOptions, keep_mask
from mats_core.methods.ties import (
    TiesOptions,
    agree_and_average,
    thresholds,
    ties_surveys,
)
from mats_core.recipes.events import Finished
from tests.layer_cases import SEEDS, close, merged, random_case, raw_recipe, value


def naive_ties(updates, density, weights, thresholds=None):
    """Sort all magnitudes, trim, elect by total mass, average those that agree."""
    trimmed = []
    for m, update in enumerate(updates):
        if thresholds is None:
            ordered = np.sort(np.abs(update).ravel())[::-1]
            limit = ordered[max(1, int(density * len(ordered))) - 1]
        else:
            limit = thresholds[m]
        trimmed.append(np.where(np.abs(update) >= limit, update, 0))
    result = np.zeros_like(updates[0])
    for index in np.ndindex(result.shape):
        entries = [t[index] for t in trimmed]
        sign = np.sign(sum(w * e for w, e in zip(weights, entries, strict=False)))
        agreeing = [
            (w, e) for w, e in zip(weights, entries, strict=False) if e != 0 and np.sign(e) == sign
        ]
        if agreeing:
            result[index] = sum(w * e for w, e in agreeing) / sum(w for w, _ in agreeing)
    return result


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("density", [0.1, 0.35, 1.0])
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (1.0, 3.0, 0.5)])
def test_ties_within_a_tensor_equals_the_naive_one(seed, density, weights):
    layer = random_case(seed).with_weights(*weights).layer
    updates = [u.numpy() for u in layer.updates]
    expected = layer.base.numpy() + 0.7 * naive_ties(updates, density, weights)
    close(value(layer, "ties", density=density, scaling=0.7, scope="tensor"), expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_ties_trims_over_the_whole_model(tmp_path, dtype):
    cases = [random_case(7), random_case(8, d_out=4, d_in=9)]
    names = ["a.weight", "b.weight"]
    # One tensor's updates are ten times the other's: trimming globally keeps mostly those.
    base = {n: c.layer.base for n, c in zip(names, cases, strict=False)}
    experts = [
        {
            n: c.layer.base + factor * c.layer.updates[m]
            for n, c, factor in zip(names, cases, (10, 1), strict=False)
        }
        for m in range(3)
    ]
    recipe = raw_recipe(tmp_path, base, experts, "ties", {"density": 0.3}, dtype=dtype)
    *_, last = run(recipe)
    assert isinstance(last, Finished)
    updates = [[(e[n] - base[n]).numpy() for n in names] for e in experts]
    limits = []
    for own in updates:
        ordered = np.sort(np.abs(np.concatenate([u.ravel() for u in own])))[::-1]
        limits.append(ordered[int(0.3 * len(ordered)) - 1])
    if dtype == "float32":
        limits = [limit * (1 - 1e-5) for limit in limits]
    for index, name in enumerate(names):
        expected = naive_ties([u[index] for u in updates], 0.3, (1, 1, 1), limits)
        close(
            last.tensors[name], base[name].numpy() + expected, 1e-12 if dtype == "float64" else 1e-6
        )


def test_ties_surveys_the_model_or_the_tensor():
    layer = random_case(0).layer
    assert ties_surveys(TiesOptions(scope="tensor")) == "tensor"
    assert ties_surveys(TiesOptions()) == "model"
    found = thresholds(lambda: [layer], TiesOptions(density=0.5))
    assert found == pytest.approx(
        [float(u.abs().reshape(-1).sort(descending=True).values[14]) for u in layer.updates]
    )


def test_ties_reports_the_share_kept():
    layer = random_case(1).layer
    details = merged(layer, "ties", density=0.2, scope="tensor").details
    assert details["kept"] == pytest.approx([6 / 30] * 3)


def test_ties_entries_that_cancel_exactly_stay_at_the_base():
    update = torch.tensor([[1.0, -2.0]])
    assert agree_and_average([update, -update], (1.0, 1.0)).tolist() == [[0, 0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("density", [0.0001, 0.2, 0.5, 1.0])
def test_threshold_is_the_kth_largest_magnitude(dtype, density):
    generator = torch.Generator().manual_seed(11)
    chunks = [torch.randn(n, generator=generator).to(dtype) for n in (1000, 7, 500)]
    chunks[1][:3] = 0
    ordered = torch.cat(chunks).abs().sort(descending=True).values
    expected = float(ordered[max(1, int(density * 1507)) - 1])
    assert streamed_thresholds(lambda: ([one] for one in chunks), density) == (expected,)


def test_threshold_with_repeated_and_subnormal_magnitudes():
    values = torch.tensor([1e-40, -1e-40, 0.0, 2.0, 2.0, -2.0, 1.0])
    for k in range(1, 8):
        expected = float(values.abs().sort(descending=True).values[k - 1])
        assert streamed_thresholds(lambda: [[values]], (k + 0.01) / 7) == (expected,)


# DARE ---------------------------------------------------------------------------------------------


def test_masks_keep_the_announced_share():
    update = torch.ones(400, 500)
    for drop in (0.1, 0.5, 0.9):
        share = float(keep_mask(update, drop, 0, "w", "a").mean())
        # Five standard deviations of a binomial proportion over 200,000 draws.
        assert abs(share - (1 - drop)) < 5 * (drop * (1 - drop) / 200_000) ** 0.5


def test_masks_are_independent_between_experts_tensors_and_seeds():
    update = torch.ones(300, 300)
    masks = [
        keep_mask(update, 0.5, seed, name, label).reshape(-1)
        for seed, name, label in ((0, "w", "a"), (1, "w", "a"), (0, "v", "a"), (0, "w", "b"))
    ]
    correlations = torch.corrcoef(torch.stack(masks)) - torch.eye(4)
    assert float(correlations.abs().max()) < 5 / 300


def test_masks_are_determined_by_seed_tensor_and_expert():
    layer = random_case(0).layer
    close(value(layer, "dare", seed=3), value(layer, "dare", seed=3), 0)
    assert not torch.equal(value(layer, "dare", seed=3), value(layer, "dare", seed=4))
    # The recipe's seed is the default.
    close(value(replace(layer, seed=9), "dare"), value(layer, "dare", seed=9), 0)


def test_the_rescaled_task_vector_is_unbiased():
    layer = replace(random_case(1).layer, experts=random_case(1).layer.experts[:1],
                    weights=(1.0,), labels=("a",))  # fmt: skip
    draws = torch.stack(
        [value(layer, "dare", drop=0.6, scaling=1, seed=s) - layer.base for s in range(3000)]
    )
    update = layer.updates[0]
    deviation = update.abs() * (0.6 / 0.4) ** 0.5 / 3000**0.5
    assert bool(((draws.mean(0) - update).abs() < 5 * deviation).all())
    # Each entry is either dropped or enlarged, nothing else.
    ratio = (draws / update).reshape(-1)
    assert bool((ratio.abs().lt(1e-9) | (ratio - 1 / 0.4).abs().lt(1e-9)).all())


@pytest.mark.parametrize("then", ["task_arithmetic", "average", "ties"])
def test_dare_without_dropping_is_the_method_that_follows(then):
    layer = random_case(2).with_weights(1.0, 2.0, 0.5).layer
    result = value(layer, "dare", drop=0, scaling=0.5, then=then)
    if then == "ties":
        expected = value(layer, "ties", density=1, scaling=0.5, scope="tensor")
    elif then == "average":
        expected = layer.base + 0.5 * (value(layer, "average") - layer.base)
    else:
        expected = value(layer, "task_arithmetic", scaling=0.5)
    close(result, expected)
    assert DareOptions().then == "task_arithmetic"


def test_dare_combines_what_the_masks_left():
    layer = random_case(3).with_weights(1.0, 2.0, 0.5).layer
    masks = [
        keep_mask(u, 0.5, 5, layer.name, n)
        for u, n in zip(layer.updates, layer.labels, strict=False)
    ]
    left = [2 * m.numpy() * u.numpy() for m, u in zip(masks, layer.updates, strict=False)]
    summed = sum(w * u for w, u in zip((1, 2, 0.5), left, strict=False))
    close(value(layer, "dare", drop=0.5, seed=5, scaling=0.3), layer.base.numpy() + 0.3 * summed)
    elected = naive_ties(left, 1.0, (1, 2, 0.5))
    result = value(layer, "dare", drop=0.5, seed=5, scaling=0.3, then="ties")
    close(result, layer.base.numpy() + 0.3 * elected)
