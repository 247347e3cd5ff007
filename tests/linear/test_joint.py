"""Bases that diagonalise many Grams at once, and the preconditioner that they make, in float64."""

from __future__ import annotations

import pytest
import torch

from mats_core import linear
from mats_core.linear import Kronecker, Status, WeightedSum, cg, joint, joint_basis

N, M = 12, 9


def rotation(size: int, seed: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(size, size, dtype=torch.float64, generator=random))[0]


def commuting(size: int, seed: int, count: int = 3) -> list[torch.Tensor]:
    """Grams with one eigenbasis, whose eigenvalues differ from Gram to Gram."""
    vectors, random = rotation(size, seed), torch.Generator().manual_seed(seed)
    values = torch.rand(count, size, dtype=torch.float64, generator=random) ** 2 + 0.01
    return [(vectors * each) @ vectors.mT for each in values]


def apart(grams: list[torch.Tensor], basis: linear.JointBasis) -> float:
    """The share of off-diagonal energy of the Grams in a basis."""
    inner = torch.stack([basis.vectors.mT @ gram @ basis.vectors for gram in grams])
    inner -= torch.diag_embed(inner.diagonal(dim1=1, dim2=2))
    whole = torch.stack([basis.vectors.mT @ gram @ basis.vectors for gram in grams])
    return float(inner.norm() / whole.norm())


def test_grams_of_one_eigenbasis_are_diagonal_in_it():
    grams = commuting(N, 1)
    basis = joint_basis(grams, (0.2, 0.3, 0.5))
    assert apart(grams, basis) < 1e-10
    # Whitened by the weighted sum, damped as its docstring says.
    total = sum(w * gram for w, gram in zip((0.2, 0.3, 0.5), grams, strict=True))
    damped = linear.damped(torch.as_tensor(total), 0.1)
    unit = basis.vectors.mT @ damped @ basis.vectors
    torch.testing.assert_close(unit, torch.eye(N, dtype=torch.float64), atol=1e-9, rtol=0)


def test_rotations_find_the_basis_that_the_sum_does_not_tell():
    vectors = rotation(N, 2)
    values = torch.linspace(0.1, 2, N, dtype=torch.float64)
    grams = [(vectors * values) @ vectors.mT, (vectors * (2.1 - values)) @ vectors.mT]
    halves = (1.0, 1.0)  # their sum is a multiple of the identity: any basis diagonalises it
    assert apart(grams, joint_basis(grams, halves, share=1.0, steps=0)) > 0.1
    assert apart(grams, joint_basis(grams, halves, share=1.0, steps=60)) < 1e-6


def test_more_steps_leave_less_beside_the_diagonal():
    grams = [torch.cov(torch.randn(N, 40, dtype=torch.float64, generator=g)) for g in seeded(5)]
    left = [apart(grams, joint_basis(grams, (1.0,) * 5, share=1.0, steps=n)) for n in (0, 3, 12)]
    assert left[0] > left[1] > left[2] > 0


def seeded(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


@pytest.mark.parametrize("damping", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_the_diagonal_is_that_of_the_damped_operator_in_its_bases(damping, shift):
    a_s = [torch.cov(torch.randn(N, 40, dtype=torch.float64, generator=g)) for g in seeded(3)]
    b_s = [torch.cov(torch.randn(M, 40, dtype=torch.float64, generator=g)) for g in seeded(3)]
    weights = (0.5, 0.2, 0.3)
    a, b = joint_basis(a_s, weights), joint_basis(b_s, weights)
    terms = [
        Kronecker(linear.damped(y, damping), linear.damped(x, damping))
        for x, y in zip(a_s, b_s, strict=True)
    ]
    dense = WeightedSum(tuple(terms), weights).dense()
    dense = dense + shift * torch.eye(len(dense), dtype=torch.float64)
    t = torch.kron(b.vectors, a.vectors)
    expected = (t.mT @ dense @ t).diagonal().reshape(M, N)
    rhs = torch.randn(M, N, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    found = joint(a, b, weights, damping=damping, shift=shift)(rhs)
    turned = t @ ((t.mT @ rhs.reshape(-1)) / expected.reshape(-1))
    torch.testing.assert_close(found, turned.reshape(M, N), rtol=1e-9, atol=1e-12)


def test_blocks_that_commute_are_inverted_at_once():
    a_s, b_s, weights = commuting(N, 3), commuting(M, 4), (1.0, 2.0, 0.5)
    operator = WeightedSum(tuple(map(Kronecker, b_s, a_s)), weights)
    rhs = torch.randn(M, N, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    inverse = joint(joint_basis(a_s, weights), joint_basis(b_s, weights), weights)
    torch.testing.assert_close(operator.apply(inverse(rhs)), rhs, rtol=1e-8, atol=1e-8)
    sums = [linear.weighted_sum(each, weights) for each in (a_s, b_s)]
    known = linear.kronecker_inverse(*sums)
    assert known is not None
    start, how = torch.zeros_like(rhs), {"iterations": 200, "tolerance": 1e-9}
    once = cg(operator.apply, rhs, start, preconditioner=inverse, **how)
    several = cg(operator.apply, rhs, start, preconditioner=known, **how)
    assert once.status == several.status == Status.CONVERGED
    assert once.iterations <= 2 < several.iterations


def test_grams_of_zeros_have_a_basis():
    none = [torch.zeros(4, 4)] * 2
    basis = joint_basis(none, (1.0, 1.0))
    torch.testing.assert_close(basis.vectors @ basis.vectors.mT, torch.eye(4))
    assert bool(torch.isfinite(joint(basis, basis, (1.0, 1.0))(torch.ones(4, 4))).all())
