"""Conjugate gradients against dense float64 solves; statuses, traces and preconditioners."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mats_core import linear
from mats_core.linear.cg import Status, cg
from mats_core.linear.decompositions import eigh_descending
from mats_core.linear.operators import Kronecker, WeightedSum
from mats_core.linear.two_models import two_models
from tests.layer_cases import SEEDS, close
from tests.operator_cases import positive

SHAPE = (5, 4)


def spread(size: int, seed: int, condition: float) -> torch.Tensor:
    """A positive definite matrix of the given condition number."""
    generator = torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64, generator=generator))[0]
    return (q * torch.logspace(0, -float(np.log10(condition)), size).double()) @ q.T


def problem(seed: int, tasks: int = 3):
    terms = tuple(
        Kronecker(positive(5, 10 * seed + m), positive(4, 100 + 10 * seed + m))
        for m in range(tasks)
    )
    operator = WeightedSum(terms, (1.0, 0.5, 2.0)[:tasks])
    generator = torch.Generator().manual_seed(seed)
    rhs, start = (torch.randn(SHAPE, dtype=torch.float64, generator=generator) for _ in range(2))
    return operator, rhs, start


def residual_of(matvec, rhs, x):
    """The relative residual, by its definition."""
    return float((rhs - matvec(x)).norm() / rhs.norm())


def dense_solve(operator, rhs):
    return torch.linalg.solve(operator.dense(), rhs.reshape(-1)).reshape(rhs.shape)


@pytest.mark.parametrize("seed", SEEDS)
def test_cg_equals_the_dense_solve(seed):
    operator, rhs, start = problem(seed)
    solution = cg(operator.apply, rhs, start, iterations=200)
    assert solution.status == Status.CONVERGED
    close(solution.value, dense_solve(operator, rhs), 1e-12)
    assert residual_of(operator.apply, rhs, solution.value) < 1e-13


def test_cg_ends_within_the_number_of_distinct_eigenvalues():
    rhs = torch.randn(SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    values = torch.tensor([1.0, 2.0, 5.0]).double()[torch.arange(20).reshape(SHAPE) % 3]
    solution = cg(lambda x: values * x, rhs, torch.zeros_like(rhs), iterations=50)
    assert solution.iterations == 3
    close(solution.value, rhs / values, 1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_trace_follows_its_definitions(seed):
    operator, rhs, start = problem(seed)
    solution = cg(operator.apply, rhs, start, iterations=8, keep=range(9))
    assert len(solution.residuals) == len(solution.objectives) == len(solution.distances) == 9
    assert sorted(solution.iterates) == list(range(9))
    assert torch.equal(solution.iterates[0], start)
    for index, x in solution.iterates.items():
        residual = float((rhs - operator.apply(x)).norm() / rhs.norm())
        assert solution.residuals[index] == pytest.approx(residual, rel=1e-6, abs=1e-13)
        objective = float(0.5 * (x * operator.apply(x)).sum() - (rhs * x).sum())
        assert solution.objectives[index] == pytest.approx(objective, rel=1e-9)
        assert solution.distances[index] == pytest.approx(float((x - start).norm()), abs=1e-12)
    # CG minimises the objective over growing subspaces.
    assert all(a >= b for a, b in zip(solution.objectives, solution.objectives[1:], strict=False))
    assert torch.equal(solution.value, solution.iterates[8])


def test_every_iterate_minimises_over_its_krylov_space():
    operator, rhs, start = problem(1)
    solution = cg(operator.apply, rhs, start, iterations=4, keep=(4,))
    matrix, b, x0 = operator.dense(), rhs.reshape(-1), start.reshape(-1)
    krylov = [b - matrix @ x0]
    for _ in range(3):
        krylov.append(matrix @ krylov[-1])
    basis = torch.linalg.qr(torch.stack(krylov, 1))[0]
    y = torch.linalg.solve(basis.T @ matrix @ basis, basis.T @ (b - matrix @ x0))
    close(solution.iterates[4].reshape(-1), x0 + basis @ y, 1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_consistent_singular_system_lands_nearest_to_the_start(seed):
    operator = WeightedSum(
        (Kronecker(positive(5, seed, rank=2), positive(4, seed + 1, rank=2)),
         Kronecker(positive(5, seed + 2, rank=1), positive(4, seed + 3))), (1.0, 1.0),
    )  # fmt: skip
    matrix = operator.dense()
    generator = torch.Generator().manual_seed(seed)
    start, hidden = (torch.randn(SHAPE, dtype=torch.float64, generator=generator) for _ in range(2))
    rhs = operator.apply(hidden)
    solution = cg(operator.apply, rhs, start, iterations=200)
    shift = (rhs - operator.apply(start)).reshape(-1)
    nearest = start + (torch.linalg.pinv(matrix, rtol=1e-10) @ shift).reshape(SHAPE)
    close(solution.value, nearest, 1e-9)
    assert solution.status == Status.CONVERGED


# Statuses -----------------------------------------------------------------------------------------


def test_iteration_limit_and_tolerance():
    operator, rhs, start = problem(0)
    limited = cg(operator.apply, rhs, start, iterations=2)
    assert limited.status == Status.ITERATION_LIMIT
    assert limited.iterations == 2
    rough = cg(operator.apply, rhs, start, iterations=200, tolerance=1e-3)
    assert rough.status == Status.CONVERGED
    assert rough.residuals[-1] <= 1e-3 < rough.residuals[-2]
    assert cg(operator.apply, rhs, start, iterations=0).value.equal(start)


def test_a_start_at_the_solution_takes_no_iterations():
    operator, rhs, _ = problem(0)
    solution = cg(operator.apply, rhs, dense_solve(operator, rhs), iterations=10)
    assert (solution.status, solution.iterations) == (Status.CONVERGED, 0)


def test_a_right_hand_side_of_zero():
    operator, rhs, start = problem(0)
    solution = cg(operator.apply, torch.zeros_like(rhs), start, iterations=100)
    assert solution.status == Status.CONVERGED
    assert float(solution.value.abs().max()) < 1e-12


def test_not_positive_is_a_status_and_the_best_iterate_comes_back():
    operator, rhs, start = problem(1)
    solution = cg(lambda x: -operator.apply(x), rhs, start, iterations=50)
    assert solution.status == Status.NOT_POSITIVE
    assert torch.equal(solution.value, start)
    # Indefinite: some steps may be taken first; what comes back is no worse than the start.
    sign = torch.ones(SHAPE).double()
    sign[0, 0] = -1
    solution = cg(lambda x: sign * x, rhs, torch.zeros_like(rhs), iterations=50)
    assert solution.status == Status.NOT_POSITIVE
    assert residual_of(lambda x: sign * x, rhs, solution.value) <= solution.residuals[0]


def test_rounding_in_the_null_space_is_no_negative_curvature():
    # Solved as far as float32 goes; what is left of the residual lies where K is zero.
    operator = Kronecker(positive(5, 3, rank=3).float(), positive(4, 4, rank=2).float())
    generator = torch.Generator().manual_seed(8)
    hidden, start = (torch.randn(SHAPE, generator=generator) for _ in range(2))
    rhs = operator.apply(hidden)
    solution = cg(operator.apply, rhs, start, iterations=500)
    assert solution.status in (Status.STAGNATED, Status.CONVERGED)
    assert residual_of(operator.apply, rhs, solution.value) < 1e-5


def test_not_positive_preconditioner():
    operator, rhs, start = problem(1)
    solution = cg(operator.apply, rhs, start, iterations=50, preconditioner=lambda r: -r)
    assert solution.status == Status.NOT_POSITIVE


def test_an_inconsistent_system_stagnates_with_a_finite_value():
    # b has a part outside the range of K, which no X reaches.
    values = torch.ones(SHAPE).double()
    values[0, 0] = 0
    rhs = torch.ones(SHAPE).double()
    solution = cg(lambda x: values * x, rhs, torch.zeros_like(rhs), iterations=50)
    assert solution.status == Status.STAGNATED
    assert bool(torch.isfinite(solution.value).all())
    left = residual_of(lambda x: values * x, rhs, solution.value)
    assert left == pytest.approx(min(solution.residuals))
    assert 1 / 20**0.5 <= left < 0.25


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_stagnate(poison):
    operator, rhs, start = problem(2)
    calls = []

    def matvec(x):
        calls.append(1)
        return operator.apply(x) * (poison if len(calls) == 4 else 1)

    solution = cg(matvec, rhs, start, iterations=50)
    assert solution.status == Status.STAGNATED
    assert bool(torch.isfinite(solution.value).all())


# Preconditioners ----------------------------------------------------------------------------------


def hard_problem(tasks: int = 3):
    """Tasks whose factors nearly agree, with a condition number of 1e4 for each factor."""
    a, b = spread(12, 1, 1e4), spread(10, 2, 1e4)
    terms = tuple(
        Kronecker(b + 1e-3 * m * spread(10, 20 + m, 1e2) * b.max(), a * (1 + m))
        for m in range(tasks)
    )
    operator = WeightedSum(terms, (1.0,) * tasks)
    rhs = torch.randn(10, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    return operator, operator.apply(rhs), torch.zeros_like(rhs)


def test_kronecker_preconditioner_needs_fewer_iterations_for_the_same_answer():
    operator, rhs, start = hard_problem()
    a_sum = torch.stack([t.a for t in operator.terms]).sum(0)  # type: ignore[attr-defined]
    b_sum = torch.stack([t.b for t in operator.terms]).sum(0)  # type: ignore[attr-defined]
    exact = dense_solve(operator, rhs)
    plain = cg(operator.apply, rhs, start, iterations=5000, tolerance=1e-9)
    better = cg(
        operator.apply, rhs, start, iterations=5000, tolerance=1e-9,
        preconditioner=linear.kronecker(eigh_descending(a_sum), eigh_descending(b_sum)),
    )  # fmt: skip
    assert better.status == Status.CONVERGED
    assert better.iterations < plain.iterations / 4
    close(better.value, exact, 1e-4)


def test_jacobi_preconditioner_needs_fewer_iterations_on_a_badly_scaled_system():
    operator, rhs, start = problem(1)
    scales = torch.logspace(0, 3, 20).double().reshape(SHAPE)

    def matvec(x):
        return scales * operator.apply(scales * x)

    diagonal = scales**2 * operator.diagonal()
    plain = cg(matvec, rhs, start, iterations=2000, tolerance=1e-9)
    better = cg(
        matvec, rhs, start, iterations=2000, tolerance=1e-9, preconditioner=linear.jacobi(diagonal)
    )
    assert better.iterations < plain.iterations / 2
    expected = dense_solve(operator, rhs / scales) / scales
    close(better.value, expected, 1e-6)


def test_kronecker_preconditioner_inverts_a_single_task_at_once():
    b, a = spread(5, 3, 1e3), spread(4, 4, 1e3)
    term = Kronecker(b, a)
    rhs = torch.randn(SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    bases = eigh_descending(a), eigh_descending(b)
    precondition = linear.kronecker(*bases)
    close(term.apply(precondition(rhs)), rhs, 1e-8)
    shifted = linear.kronecker(*bases, shift=0.5)
    close(term.apply(shifted(rhs)) + 0.5 * shifted(rhs), rhs, 1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_preconditioner_by_inverses_is_the_one_by_eigenbases(dtype):
    a, b = spread(7, 3, 1e3), spread(5, 4, 1e4)
    fast = linear.kronecker_inverse(a.to(dtype), b.to(dtype))
    assert fast is not None
    rhs = torch.randn(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    exactly = torch.linalg.solve(b, rhs) @ torch.linalg.inv(a)
    close(fast(rhs.to(dtype)).double(), exactly, 1e-10 if dtype == torch.float64 else 2e-3)
    close(linear.kronecker(eigh_descending(a), eigh_descending(b))(rhs), exactly, 1e-10)


def test_no_inverse_of_what_its_precision_cannot_invert():
    good = spread(5, 4, 10)
    assert linear.kronecker_inverse(spread(7, 3, 1e8).float(), good.float()) is None
    assert linear.kronecker_inverse(spread(7, 3, 1e8), good) is not None
    assert linear.kronecker_inverse(positive(7, 3, rank=3), good) is None


def test_jacobi_divides_by_the_diagonal_and_survives_zeros():
    diagonal = torch.tensor([[2.0, 0.0], [4.0, 6.0]])
    result = linear.jacobi(diagonal)(torch.ones(2, 2))
    assert result.reshape(-1).tolist() == pytest.approx([0.5, 1 / 3, 0.25, 1 / 6])
    assert bool(torch.isfinite(linear.jacobi(torch.zeros(2, 2))(torch.ones(2, 2))).all())


# Two models ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("weights", [(0.5, 0.5), (1.0, 3.0)])
def test_two_models_equals_the_dense_kronecker_solve(seed, weights):
    operator, rhs, start = problem(seed, tasks=2)
    first, second = operator.terms
    assert isinstance(first, Kronecker)
    assert isinstance(second, Kronecker)
    solution = two_models(first, second, weights, rhs, start)
    assert solution is not None
    assert solution.status == Status.CLOSED_FORM
    dense = weights[0] * first.dense() + weights[1] * second.dense()
    close(solution.value, torch.linalg.solve(dense, rhs.reshape(-1)).reshape(SHAPE), 1e-10)
    matvec = WeightedSum(operator.terms, weights).apply
    assert residual_of(matvec, rhs, solution.value) == pytest.approx(
        solution.residuals[-1], abs=1e-14
    )
    assert solution.residuals[-1] < 1e-11
    assert len(solution.residuals) == len(solution.objectives) == 2


def test_two_models_where_each_sees_what_the_other_does_not():
    # Both factors of both tasks are singular, the operator is not: B1 ⊗ A1 + I ⊗ A2 …
    first = Kronecker(torch.eye(5).double(), positive(4, 1, rank=2))
    second = Kronecker(positive(5, 2), torch.eye(4).double())
    rhs = torch.randn(SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    solution = two_models(first, second, (1.0, 1.0), rhs, rhs)
    assert solution is not None
    dense = first.dense() + second.dense()
    close(solution.value, torch.linalg.solve(dense, rhs.reshape(-1)).reshape(SHAPE), 1e-10)


def test_two_models_refuses_a_singular_operator():
    rhs = torch.ones(SHAPE).double()
    low = Kronecker(positive(5, 1, rank=2), positive(4, 2))
    assert two_models(low, low, (0.5, 0.5), rhs, rhs) is None
    # A1 + A2 and B1 + B2 are regular here, but B1 ⊗ A1 + B2 ⊗ A2 is not.
    e1, e2 = (
        torch.diag(torch.tensor([1.0, 0.0])).double(),
        torch.diag(torch.tensor([0.0, 1.0])).double(),
    )
    rhs = torch.ones(2, 2).double()
    assert two_models(Kronecker(e1, e1), Kronecker(e2, e2), (0.5, 0.5), rhs, rhs) is None


def test_the_callback_hears_every_iteration_and_can_end_the_solve():
    operator, rhs, start = problem(1)
    heard = []
    solution = cg(
        operator.apply, rhs, start, iterations=5, callback=lambda i, r: heard.append((i, r))
    )
    assert heard == list(enumerate(solution.residuals))[1:]

    def stop(iteration, residual):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cg(operator.apply, rhs, start, iterations=5, callback=stop)


# The error of the update --------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_the_estimated_error_is_the_true_one_where_the_preconditioner_is_the_inverse(seed):
    operator, rhs, start = problem(seed)
    inverse = torch.linalg.inv(operator.dense())
    origin = torch.ones_like(start)

    def exactly(r):
        return (inverse @ r.reshape(-1)).reshape(r.shape)

    found = cg(operator.apply, rhs, start, iterations=1, preconditioner=exactly, origin=origin)
    solution = dense_solve(operator, rhs).numpy()
    first = start.numpy()
    expected = np.linalg.norm(first - solution) / np.linalg.norm(first - origin.numpy())
    assert found.errors[0] == pytest.approx(expected, rel=1e-10)
    assert found.errors[1] < 1e-12
    assert len(found.errors) == len(found.residuals)


def damped_problem(seed: int):
    """A damped K-FAC system of three tasks, its preconditioner, and its solution."""
    terms = tuple(
        Kronecker(
            linear.damped(positive(5, 10 * seed + m), 0.1),
            linear.damped(positive(4, 100 + 10 * seed + m), 0.1),
        )
        for m in range(3)
    )
    shares = (1 / 3,) * 3
    operator = WeightedSum(terms, shares)
    sums = [linear.weighted_sum([getattr(one, side) for one in terms], shares) for side in "ab"]
    rhs = problem(seed)[1]
    return operator, rhs, linear.kronecker_inverse(*sums), dense_solve(operator, rhs)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("goal", [0.1, 0.02, 1e-3])
def test_cg_stops_where_the_update_is_estimated_to_be_near(seed, goal):
    operator, rhs, inverse, solution = damped_problem(seed)
    origin = torch.zeros(())
    how = {"preconditioner": inverse, "origin": origin, "error": goal, "tolerance": 0.9}
    found = cg(operator.apply, rhs, torch.zeros_like(rhs), iterations=100, **how)
    assert found.status == Status.CONVERGED
    assert np.isnan(found.errors[0])  # X is at the origin
    assert found.errors[-1] <= goal
    assert all(estimate > goal for estimate in found.errors[1:-1])
    true = float((found.value - solution).norm() / solution.norm())
    assert true < 3 * goal


def test_without_a_preconditioner_the_tolerance_holds():
    operator, rhs, start = problem(1)
    how = {"iterations": 200, "tolerance": 1e-3}
    asked = cg(operator.apply, rhs, start, error=0.5, origin=torch.zeros(()), **how)
    plain = cg(operator.apply, rhs, start, **how)
    assert asked.residuals == plain.residuals
    assert asked.errors == ()


def test_an_error_told_does_not_change_the_iterations():
    operator, rhs, inverse, _ = damped_problem(1)
    how = {"iterations": 20, "tolerance": 1e-6, "preconditioner": inverse}
    told = cg(operator.apply, rhs, torch.zeros_like(rhs), origin=torch.zeros(()), **how)
    untold = cg(operator.apply, rhs, torch.zeros_like(rhs), **how)
    assert torch.equal(told.value, untold.value)
    assert told.residuals == untold.residuals
    assert untold.errors == ()
