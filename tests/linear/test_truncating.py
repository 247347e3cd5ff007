"""Updates in two factors, against numpy's singular values."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mats_core.linear import rounding_of, two_factors


def update(rows: int, columns: int, rank: int, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    left, right = draw.standard_normal((rows, rank)), draw.standard_normal((rank, columns))
    return left * np.linspace(3, 1, rank) @ right


@pytest.mark.parametrize("shape", [(24, 16), (16, 24), (20, 20)])
@pytest.mark.parametrize("rank", [1, 3, 16, 99])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_rank_keeps_the_leading_singular_values(shape, rank, dtype):
    full = update(shape[0], shape[1], min(shape))
    values = np.linalg.svd(full, compute_uv=False)
    found = two_factors(torch.tensor(full, dtype=dtype), rank)
    kept = min(rank, *shape)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    assert found.rank == kept
    assert found.energy == pytest.approx((values**2).sum(), rel=tolerance)
    assert found.lost / found.energy == pytest.approx(
        (values[kept:] ** 2).sum() / (values**2).sum(), abs=tolerance
    )
    left, values_kept, right = np.linalg.svd(full, full_matrices=False)
    nearest = (left[:, :kept] * values_kept[:kept]) @ right[:kept]
    assert np.allclose((found.left @ found.right).double(), nearest, atol=100 * tolerance)


@pytest.mark.parametrize("energy", [0.3, 0.9, 0.99, 1.0])
def test_an_energy_takes_the_fewest_directions_that_hold_it(energy):
    full = update(24, 16, 16)
    share = np.cumsum(np.linalg.svd(full, compute_uv=False) ** 2)
    share /= share[-1]
    found = two_factors(torch.tensor(full), energy=energy)
    assert found.rank == (16 if energy == 1 else int(np.argmax(share >= energy)) + 1)
    assert 1 - found.lost / found.energy >= energy - 1e-12
    bounded = two_factors(torch.tensor(full), rank=2, energy=energy)
    assert bounded.rank == min(2, found.rank)


def test_rounding_is_no_direction_and_low_rank_is_found():
    torch.manual_seed(0)
    weight, low = torch.randn(64, 48), torch.tensor(update(64, 48, 5) / 100, dtype=torch.float32)
    moved = (weight + low) - weight  # of full rank, by rounding
    found = two_factors(moved, rounding=rounding_of(weight, torch.float32))
    assert found.rank == 5
    torch.testing.assert_close(found.left @ found.right, low, rtol=0, atol=1e-6)


def test_no_update_has_no_factors():
    found = two_factors(torch.zeros(6, 5))
    assert (found.rank, found.lost, found.energy) == (0, 0, 0)
