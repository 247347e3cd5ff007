"""The k-th largest magnitude against a full sort, on every way that leads there."""

from __future__ import annotations

import pytest
import torch

from mats_core.linear import selection
from mats_core.linear.selection import streamed_thresholds
from mats_core.linear.updates import Updates
from mats_core.methods import ties
from tests.layer_cases import merged, random_case

DENSITIES = [0.0001, 0.2, 0.5, 1.0]


def drawn(count: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, generator=generator, dtype=torch.float64).to(dtype)


def sorted_out(values: torch.Tensor, density: float) -> float:
    ordered = values.abs().reshape(-1).sort(descending=True).values
    return float(ordered[max(1, int(density * len(ordered))) - 1])


class Passes:
    """Chunks, and how often they were asked for."""

    def __init__(self, *columns: torch.Tensor, size: int = 700) -> None:
        self.columns, self.size, self.count = columns, size, 0

    def __call__(self):
        self.count += 1
        return zip(*(column.split(self.size) for column in self.columns), strict=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("density", DENSITIES)
def test_a_sample_and_one_pass_find_it(monkeypatch, dtype, density):
    monkeypatch.setattr(selection, "BLOCK", 256)
    columns = drawn(40_000, dtype), drawn(40_000, dtype, 1) * 1e-3
    chunks = Passes(*columns)
    assert streamed_thresholds(chunks, density) == tuple(sorted_out(c, density) for c in columns)
    assert chunks.count == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("density", [0.2, 0.5, 0.9])
def test_a_histogram_finds_it_where_there_is_too_much_to_hold(monkeypatch, dtype, density):
    monkeypatch.setattr(selection, "HELD", 50)
    monkeypatch.setattr(selection, "BINS", 64)
    monkeypatch.setattr(selection, "BLOCK", 100)
    values = drawn(5000, dtype)
    chunks = Passes(values)
    assert streamed_thresholds(chunks, density) == (sorted_out(values, density),)
    assert chunks.count > 2


@pytest.mark.parametrize("density", [0.2, 0.5, 0.9])
def test_a_sample_that_misleads_costs_a_pass_and_no_more(density):
    values = drawn(20_000, torch.float32)
    values[:: selection.STRIDE] *= 1e-6  # all that is drawn of a single chunk
    chunks = Passes(values, size=len(values))
    assert streamed_thresholds(chunks, density) == (sorted_out(values, density),)
    assert chunks.count == 3


def test_a_large_sample_is_thinned(monkeypatch):
    monkeypatch.setattr(selection, "DRAWN", 40)
    values = drawn(30_000, torch.float32)
    for size in (100, 7000, 30_000):
        assert streamed_thresholds(Passes(values, size=size), 0.2) == (sorted_out(values, 0.2),)


def test_equal_magnitudes_and_zeros():
    values = torch.tensor([2.0, -2.0, 1.0, 0.0]).repeat(3000)
    for density, expected in ((0.1, 2.0), (0.5, 2.0), (0.6, 1.0), (0.9, 0.0)):
        assert streamed_thresholds(Passes(values), density) == (expected,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_task_matrices_are_subtracted_block_by_block(monkeypatch, dtype):
    monkeypatch.setattr(selection, "BLOCK", 64)
    base = drawn(3000, dtype).reshape(50, 60)
    experts = tuple(base + drawn(3000, dtype, seed).reshape(50, 60) for seed in (1, 2))
    updates = Updates(base, experts)
    expected = tuple(sorted_out(expert - base, 0.3) for expert in experts)
    assert streamed_thresholds(lambda: [updates], 0.3) == expected
    every = [value.tolist() for value in updates.every(7, 3)]
    assert every == [u.reshape(-1)[3::7].tolist() for u in (updates[0], updates[1])]


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (1.0, 3.0, 0.5), (0.0, 2.0, 1.0)])
def test_ties_in_blocks_is_ties_at_once(monkeypatch, weights):
    layer = random_case(5, d_out=9, d_in=11).with_weights(*weights).layer
    whole = merged(layer, "ties", density=0.4, scope="tensor")
    monkeypatch.setattr(ties, "BLOCK", 8)
    blocks = merged(layer, "ties", density=0.4, scope="tensor")
    assert torch.equal(whole.value, blocks.value)
    assert whole.details == blocks.details
