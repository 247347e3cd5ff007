"""The ways that tensors of a GPU take, on the CPU: the same answers, few kernels, few reads."""

from __future__ import annotations

import pytest
import torch

from benchmarks.performance import drawn
from benchmarks.performance.counting import counted, of_iteration, of_layer
from mats_core.errors import InputError
from mats_core.linear import (
    as_apart,
    as_numbers,
    decompositions,
    eigh_descending,
    is_apart,
    largest_triples,
    largest_triples_each,
    noted,
    operators,
    polar,
    streamed_thresholds,
)
from mats_core.linear.apart import copied, host
from mats_core.linear.cg import UNREAD, Solution, Status, cg
from mats_core.linear.operators import Kronecker, Stacked, WeightedSum, stacked
from mats_core.linear.preconditioners import jacobi
from mats_core.linear.selection_apart import ColumnApart
from mats_core.methods import METHODS
from mats_core.methods.essential_directions import essential_subspaces
from tests.layer_cases import close, enough, merged, random_case
from tests.linear.test_cg import problem
from tests.method_cases import CASES
from tests.operator_cases import A, B, in_factors, positive


@pytest.fixture(scope="module")
def layer():
    return drawn.layer(drawn.Wideness(24, 16, tasks=8))


def test_numbers_are_read_together_and_counted():
    assert not is_apart(torch.ones(1))
    with as_apart() as reads:
        assert is_apart(torch.ones(1))
        assert host([[torch.tensor(1.0), torch.tensor(2.5)], [torch.tensor(3.0)] * 2]) == [
            [1.0, 2.5], [3.0, 3.0],
        ]  # fmt: skip
        assert torch.equal(copied(torch.ones(2)), torch.ones(2))
    assert reads.count == 2
    assert not is_apart(torch.ones(1))


@pytest.mark.parametrize("method", list(CASES))
def test_every_method_gives_the_same_there(method):
    layer = enough(random_case(1, d_out=12, d_in=9).layer, method)
    options = {"seed": 3} if "seed" in METHODS[method].options.model_fields else {}
    expected = merged(layer, method, **options)
    with as_apart():
        found = merged(layer, method, **options)
    close(found.value, expected.value, 1e-6 if METHODS[method].solve else 1e-9)
    assert found.method == expected.method


# Conjugate gradients ------------------------------------------------------------------------------


def both(*arguments, **how) -> tuple[Solution, Solution]:
    slow = cg(*arguments, **how)
    with as_apart():
        return slow, cg(*arguments, **how)


def same(found: Solution, expected: Solution, tolerance: float = 1e-9) -> None:
    assert found.status == expected.status
    assert found.iterations == expected.iterations
    assert sorted(found.iterates) == sorted(expected.iterates)
    close(found.value, expected.value, tolerance)
    for series in ("residuals", "objectives", "distances", "errors"):
        told = getattr(found, series), getattr(expected, series)
        assert told[0] == pytest.approx(told[1], rel=1e-5, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("iterations", [0, 1, 7, 200])
@pytest.mark.parametrize("tolerance", [0.3, 1e-4, 1e-9])
def test_a_solve_ends_where_a_look_after_each_iteration_ends_it(iterations, tolerance):
    operator, rhs, start = problem(2)
    how = {"iterations": iterations, "tolerance": tolerance, "keep": range(0, 200, 3)}
    slow, fast = both(operator.apply, rhs, start, **how)
    same(fast, slow)


@pytest.mark.parametrize("error", [0.3, 1e-3])
def test_a_solve_ends_by_its_error_as_well(error):
    operator, rhs, start = problem(1)
    how = {"preconditioner": jacobi(operator.diagonal()), "origin": torch.zeros_like(rhs)}
    slow, fast = both(operator.apply, rhs, start, iterations=99, error=error, **how)
    same(fast, slow)
    assert fast.status == Status.CONVERGED


def test_breakdowns_are_noticed_at_their_iteration():
    rhs = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).double()
    values = torch.linspace(-1, 3, 24).double().reshape(6, 4)
    slow, fast = both(lambda x: values * x, rhs, torch.zeros_like(rhs), iterations=50)
    assert slow.status == Status.NOT_POSITIVE
    same(fast, slow)
    slow, fast = both(lambda x: x / 0.0, rhs, torch.zeros_like(rhs), iterations=50)
    assert fast.status == slow.status == Status.STAGNATED
    assert torch.equal(fast.value, slow.value)


def test_each_iteration_is_told_once_and_what_is_raised_ends_the_solve():
    operator, rhs, start = problem(0)
    told: list[int] = []
    with as_apart():
        cg(operator.apply, rhs, start, iterations=11, callback=lambda i, _: told.append(i))
        assert told == list(range(1, 12))
        with pytest.raises(KeyboardInterrupt):
            cg(operator.apply, rhs, start, iterations=11, callback=_stop)


def _stop(iteration: int, residual: float) -> None:
    raise KeyboardInterrupt


def test_little_is_run_past_the_end():
    operator, rhs, start = problem(2)
    asked: list[int] = []

    def matvec(x):
        asked.append(1)
        return operator.apply(x)

    with as_apart():
        solution = cg(matvec, rhs, start, iterations=200, tolerance=1e-6)
    assert solution.status == Status.CONVERGED
    assert len(asked) - 1 - solution.iterations < UNREAD // 2


# The operator -------------------------------------------------------------------------------------


def test_blocks_are_stacked_where_all_are_matrices_on_such_a_device(monkeypatch):
    blocks = Kronecker(B, A), Kronecker(positive(4, 8), positive(3, 9))
    operator = WeightedSum(blocks, (0.3, 2.0))
    mixed = WeightedSum((blocks[0], Kronecker(B, in_factors(3, 13))), (1.0, 1.0))
    assert stacked(operator) is operator
    with as_apart():
        found = stacked(operator)
        assert stacked(mixed) is mixed
        monkeypatch.setattr(operators, "STACKED", 49)
        assert stacked(operator) is operator
    assert isinstance(found, Stacked)
    close(found.dense(), operator.dense(), 1e-12)


# What is asked of the device ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preconditioner", "kernels"), [("none", 18), ("kronecker", 23), ("joint", 26)]
)
def test_an_iteration_of_kfac(layer, preconditioner, kernels):
    found = of_iteration(layer, "kfac", preconditioner=preconditioner, between=(2, 6))
    assert found.kernels <= kernels
    assert found.reads <= 1


def test_eight_iterations_are_read_at_once_while_the_end_is_far():
    # Alike and badly conditioned: no preconditioner ends it early.
    layer = drawn.layer(drawn.Wideness(24, 16, tasks=8))
    found = of_iteration(layer, "kfac", preconditioner="none", damping=0.0, between=(16, 32))
    assert found.reads == 1 / UNREAD


def test_ties_reads_its_sample_a_window_and_its_counts(layer):
    assert of_layer(layer, "ties").reads <= len(layer.experts) + 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("density", [0.0001, 0.2, 0.5, 1.0])
def test_thresholds_are_the_same_there(monkeypatch, dtype, density):
    monkeypatch.setattr(ColumnApart, "BINS", 64)
    generator = torch.Generator().manual_seed(0)
    columns = [
        torch.randn(count, generator=generator, dtype=torch.float64).to(dtype) * scale
        for count, scale in ((5000, 1.0), (5000, 1e-3))
    ]
    columns.append(torch.tensor([2.0, -2.0, 1.0, 0.0], dtype=dtype).repeat(1250))
    misled = columns[0].clone()
    misled[::33] *= 1e-6  # all that is drawn of a single chunk
    columns.append(misled)

    def chunks():
        return zip(*(column.split(700) for column in columns), strict=True)

    expected = streamed_thresholds(chunks, density)
    with as_apart():
        assert streamed_thresholds(chunks, density) == expected
    with as_apart():
        assert streamed_thresholds(lambda: [columns], density) == expected


def test_counting_sees_kernels_and_reads():
    value = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    assert counted(lambda: float((value @ value.mT).sum())).kernels == 2
    assert counted(lambda: float((value @ value.mT).sum())).reads == 1
    assert counted(lambda: value[value > 0]).reads == 1
    assert counted(lambda: value.mT.reshape(2, 2, 4)[0]).kernels == 0
    assert counted(lambda: host([[value.sum()]])).reads == 1
    assert counted(lambda: host([[value.sum()]]), apart=False).reads == 1


# Decompositions of all tasks ----------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(12, 8), (8, 12), (9, 9)])
def test_triples_of_all_are_those_of_each(monkeypatch, shape):
    generator = torch.Generator().manual_seed(0)
    matrices = [torch.randn(shape, generator=generator) for _ in range(3)]
    # One of zeros and one too ill-conditioned for its Gram go the slow way.
    matrices += [torch.zeros(shape), torch.ones(shape)]
    expected = [largest_triples(matrix, 3) for matrix in matrices]
    with as_apart():
        found = largest_triples_each(matrices, 3)
        monkeypatch.setattr(decompositions, "AT_ONCE", 2 * matrices[0].numel())
        parts = largest_triples_each(matrices, 3)
    assert [own.by for own in expected] == ["Gram"] * 3 + ["SVD"] * 2
    for own, part, slow in zip(found, parts, expected, strict=True):
        assert own.by == part.by == slow.by
        assert own.values.shape == slow.values.shape
        assert torch.allclose(own.values, slow.values, atol=1e-6)
        product = (slow.left * slow.values) @ slow.right
        assert torch.allclose((own.left * own.values) @ own.right, product, atol=1e-5)
        assert torch.allclose((part.left * part.values) @ part.right, product, atol=1e-5)


def test_a_polar_factor_with_rows_of_zeros_or_none():
    generator = torch.Generator().manual_seed(0)
    for rows in (0, 2, 6):
        matrix = torch.randn(6, 4, generator=generator)
        matrix[:rows] = 0
        expected = polar(matrix)
        with as_apart():
            found = polar(matrix)
        assert found.by == expected.by
        close(found.factor, expected.factor, 1e-5)
        assert torch.allclose(found.values, expected.values, atol=1e-6)


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_what_is_not_finite_in_a_batch_is_refused(broken):
    matrices = torch.stack([torch.eye(3), torch.eye(3) * broken])
    with pytest.raises(InputError, match="finite"):
        eigh_descending(matrices)


def test_a_matrix_of_a_batch_that_fails_is_taken_by_another_routine(monkeypatch):
    once = torch.linalg.eigh
    refused: list[int] = []

    def eigh(matrix):
        if matrix.ndim > 2:
            refused.append(1)
            raise RuntimeError("no batch today")
        return once(matrix)

    monkeypatch.setattr(torch.linalg, "eigh", eigh)
    batch = torch.stack([positive(4, 1), positive(4, 2)])
    with noted() as notes:
        values, vectors = eigh_descending(batch)
    assert refused
    assert notes == ["eigh of each matrix by itself"]
    close((vectors * values[:, None]) @ vectors.mT, batch, 1e-12)


@pytest.mark.parametrize("shape", [(24, 16), (16, 24)])
@pytest.mark.parametrize("centre", [False, True])
def test_essential_subspaces_of_all_are_those_of_each(monkeypatch, shape, centre):
    layer = drawn.layer(drawn.Wideness(*shape, tasks=4))
    grams = layer.grams("input_gram")
    assert grams is not None
    generator = torch.Generator().manual_seed(0)
    means = tuple(0.1 * torch.randn(shape[1], generator=generator) for _ in grams)
    asked = layer.updates, grams, 4, means if centre else None
    expected = essential_subspaces(*asked)
    with as_apart():
        found = essential_subspaces(*asked)
        monkeypatch.setattr(decompositions, "AT_ONCE", 1)
        parts = essential_subspaces(*asked)
    for slow, *others in zip(expected, found, parts, strict=True):
        for directions, values in others:
            assert torch.allclose(values, slow[1], rtol=1e-4, atol=1e-9)
            projector = slow[0] @ slow[0].mT
            assert torch.allclose(directions @ directions.mT, projector, atol=1e-3)


@pytest.mark.parametrize(("method", "reads"), [("tsv_m", 12), ("essential", 12)])
def test_a_layer_of_decompositions(layer, method, reads):
    assert of_layer(layer, method).reads <= reads


# Masks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (1,), (8,), (3, 7), (0, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_masks_travel_as_bits(shape, dtype):
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(0)) > 0.5
    with as_apart():
        found = as_numbers(mask, torch.empty(0, dtype=dtype))
    assert found.dtype == dtype
    assert torch.equal(found, mask.to(dtype))


@pytest.mark.parametrize("method", ["dare", "della"])
def test_what_is_dropped_is_the_same_there(method):
    layer = random_case(1, d_out=12, d_in=9).layer
    with as_apart():
        found = merged(layer, method, seed=3)
    assert torch.equal(found.value, merged(layer, method, seed=3).value)
