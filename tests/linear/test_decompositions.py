"""Decompositions against numpy, and what they promise of degenerate matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mats_core.linear import decompositions
from tests.layer_cases import close
from tests.operator_cases import positive


def test_eigh_descending():
    matrix = positive(6, 1)
    values, vectors = decompositions.eigh_descending(matrix, 4)
    assert values.tolist() == pytest.approx(np.linalg.eigvalsh(matrix.numpy())[::-1][:4])
    close(matrix @ vectors, vectors * values, 1e-12)


def test_float32_is_decomposed_in_float64():
    # Eigenvalues over eight orders of magnitude: float32 eigh would lose the small ones.
    matrix = torch.diag(torch.logspace(0, -8, 5))
    values, _ = decompositions.eigh_descending(matrix)
    assert values.dtype == torch.float32
    assert values.tolist() == pytest.approx(torch.logspace(0, -8, 5).tolist(), rel=1e-5)


def test_svd_and_polar():
    matrix = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    u, s, vt = decompositions.svd(matrix)
    close((u * s) @ vt, matrix, 1e-12)
    factor, values, by = decompositions.polar(matrix)
    assert by == "SVD"  # of what came in float64
    close(factor, u @ vt, 1e-12)
    close(values, s, 1e-12)
    close(factor.T @ factor, torch.eye(3).double(), 1e-12)


def test_polar_of_a_rank_deficient_matrix_is_a_partial_isometry():
    generator = torch.Generator().manual_seed(2)
    matrix = torch.randn(6, 2, dtype=torch.float64, generator=generator) @ torch.randn(
        2, 5, dtype=torch.float64, generator=generator
    )
    factor = decompositions.polar(matrix).factor
    singular = torch.linalg.svdvals(factor)
    assert singular.tolist() == pytest.approx([1, 1, 0, 0, 0], abs=1e-10)
    assert float(decompositions.polar(torch.zeros(3, 2))[0].abs().max()) == 0


def conditioned(rows: int, columns: int, condition: float, seed: int = 4) -> torch.Tensor:
    """A float64 matrix with singular values from 1 down to 1 / condition."""
    generator = torch.Generator().manual_seed(seed)
    size = min(rows, columns)
    u, v = (
        torch.linalg.qr(torch.randn(n, size, dtype=torch.float64, generator=generator))[0]
        for n in (rows, columns)
    )
    return (u * torch.logspace(0, -float(np.log10(condition)), size).double()) @ v.T


@pytest.mark.parametrize("shape", [(12, 30), (30, 12), (12, 12)])
def test_polar_by_gram_equals_the_svd(shape):
    exactly = conditioned(*shape, condition=3e3)
    exactly[:, 4] = 0
    exactly[7] = 0  # as directions in which nothing moves
    for matrix in (exactly, exactly[:, :9]):
        slow, fast = (
            decompositions.polar(matrix.float().double()),
            decompositions.polar(matrix.float()),
        )
        assert (slow.by, fast.by) == ("SVD", "Gram")
        close(fast.factor.double(), slow.factor, 2e-6)
        close(fast.values.double(), slow.values, 1e-6)


def test_polar_by_gram_of_a_badly_conditioned_matrix_is_as_good_as_its_entries():
    matrix = conditioned(200, 300, condition=9e4).float()
    fast, slow = decompositions.polar(matrix), decompositions.polar(matrix.double())
    assert (slow.by, fast.by) == ("SVD", "Gram")
    apart = (fast.factor.double() - slow.factor).norm(2)
    # What one rounding of the entries does to it is far more.
    rounded = matrix.double() * (1 + 2.0**-24 * torch.randn(200, 300, dtype=torch.float64,
                                 generator=torch.Generator().manual_seed(5)))  # fmt: skip
    moved = (decompositions.polar(rounded).factor - slow.factor).norm(2)
    assert apart < 2e-6
    assert apart < moved / 20


def test_a_matrix_that_is_mostly_weak_is_left_to_the_svd():
    matrix = conditioned(12, 30, condition=1e12).float()
    assert decompositions.polar(matrix).by == "SVD"
    assert decompositions.largest_triples(matrix, 12).by == "SVD"
    assert (
        decompositions.largest_triples(matrix, 4).by == "Gram"
    )  # the large ones alone are no trouble


@pytest.mark.parametrize("shape", [(40, 90), (90, 40), (60, 60)])
@pytest.mark.parametrize(("condition", "floor"), [(1e6, 0.0), (1e8, 0.0), (10.0, 0.2)])
def test_weak_directions_of_a_polar_factor_by_an_svd_of_their_own(shape, condition, floor):
    matrix = conditioned(*shape, condition=condition).float()
    matrix[:, 4], matrix[7] = 0, 0
    found = decompositions.polar(matrix, floor)
    assert found.by == "both"
    u, s, vt = np.linalg.svd(matrix.double().numpy(), full_matrices=False)
    kept = (s > 1e-10 * s[0]) & (s > floor)
    close(found.factor.double(), torch.from_numpy(u[:, kept] @ vt[kept]), 1e-6)
    values = torch.from_numpy(s)[: len(found.values)]
    torch.testing.assert_close(found.values.double(), values, rtol=1e-6, atol=1e-12)
    exactly = decompositions.polar(matrix.double(), floor)
    assert exactly.by == "SVD"
    close(found.factor.double(), exactly.factor, 1e-6)


def test_a_matrix_of_low_rank_has_a_partial_isometry_by_its_gram_too():
    generator = torch.Generator().manual_seed(2)
    whole = torch.randint(-8, 9, (30, 20), generator=generator).float()
    matrix = torch.cat([whole, whole[:, :5]], 1)  # no rounding
    found = decompositions.polar(matrix)
    assert found.by == "both"
    singular = torch.linalg.svdvals(found.factor.double())
    assert singular.tolist() == pytest.approx([1] * 20 + [0] * 5, abs=1e-6)
    close(found.factor.double(), decompositions.polar(matrix.double()).factor, 1e-6)


@pytest.mark.parametrize("shape", [(12, 30), (30, 12)])
def test_largest_triples_equal_those_of_the_svd(shape):
    matrix = conditioned(*shape, condition=1e3).float()
    slow, fast = (
        decompositions.largest_triples(matrix.double(), 5),
        decompositions.largest_triples(matrix, 5),
    )
    assert (slow.by, fast.by) == ("SVD", "Gram")
    assert fast.left.shape == (shape[0], 5)
    assert fast.right.shape == (5, shape[1])
    close(fast.values.double(), slow.values, 1e-6)
    close(((fast.left * fast.values) @ fast.right).double(), (slow.left * slow.values) @ slow.right,
          1e-6)  # fmt: skip
    close(fast.left.T @ fast.left, torch.eye(5), 1e-6)
    close(fast.right @ fast.right.T, torch.eye(5), 1e-6)
    everything = decompositions.largest_triples(matrix, 12)
    close((everything.left * everything.values) @ everything.right, matrix, 1e-6)


def test_solve_positive():
    matrix = positive(5, 3)
    right = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    result = decompositions.solve_positive(matrix, right)
    assert result is not None
    close(result @ matrix, right, 1e-12)
    assert decompositions.solve_positive(positive(5, 3, rank=3), right) is None
    assert decompositions.solve_positive(-matrix, right) is None
    assert decompositions.solve_positive(torch.full((5, 5), float("nan")).double(), right) is None


def test_pseudo_solve_is_the_nearest_solution():
    matrix = positive(5, 4, rank=3)
    generator = torch.Generator().manual_seed(4)
    hidden, anchor = (torch.randn(2, 5, dtype=torch.float64, generator=generator) for _ in range(2))
    right = hidden @ matrix
    result = decompositions.pseudo_solve(matrix, right, anchor)
    close(result @ matrix, right, 1e-10)
    inverse = torch.linalg.pinv(matrix, rtol=1e-10)
    close(result, anchor + (right - anchor @ matrix) @ inverse, 1e-10)


def test_exact_like_symmetric():
    value = torch.ones(2, dtype=torch.float16)
    assert decompositions.exact(value).dtype == torch.float64
    assert decompositions.like(decompositions.exact(value), value).dtype == torch.float16
    assert decompositions.symmetric(torch.tensor([[1.0, 2.0], [0.0, 1.0]])).tolist() == [
        [1, 1],
        [1, 1],
    ]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_singular_gram_in_float32_is_solved_like_the_exact_one(seed):
    """Rounding fills the null space with eigenvalues of 1e-8: they must not be inverted."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(12, 30, dtype=torch.float64, generator=generator)
    gram = x.T @ x / 12
    hidden, anchor = (
        torch.randn(4, 30, dtype=torch.float64, generator=generator) for _ in range(2)
    )
    right = hidden @ gram
    assert decompositions.solve_positive(gram.float(), right.float()) is None
    result = decompositions.pseudo_solve(gram.float(), right.float(), anchor.float())
    close(result, decompositions.pseudo_solve(gram, right, anchor), 1e-4)
    assert decompositions.singular_below(torch.float64) == 1e-12
