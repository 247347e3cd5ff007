"""Every operator against its dense matrix, and the regularised forms against torch.kron."""

from __future__ import annotations

import pytest
import torch

from mats_core.linear import matrix, operators
from mats_core.linear.operators import (
    InputGram,
    Kronecker,
    Operator,
    WeightedSum,
    damped,
    damped_products,
    off_diagonal_scaled,
    regularised,
    regularised_gram,
    trace_normalised,
    truncated,
)
from tests.layer_cases import close
from tests.operator_cases import OPERATORS, SHAPE, A, B, positive


@pytest.fixture(params=list(OPERATORS))
def operator(request) -> Operator:
    return OPERATORS[request.param]()


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(12))


def test_every_operator_is_enrolled():
    enrolled = {type(build()) for build in OPERATORS.values()}
    assert enrolled == set(Operator.__subclasses__())


def test_apply_is_the_dense_product(operator, x):
    dense = operator.dense().double()
    assert dense.shape == (12, 12)
    close(operator.apply(x), (dense @ x.reshape(-1)).reshape(SHAPE), 1e-12)


def test_apply_builds_the_dense_matrix_column_by_column(operator):
    columns = [operator.apply(row.reshape(SHAPE)).reshape(-1) for row in torch.eye(12).double()]
    close(torch.stack(columns, 1), operator.dense().double(), 1e-12)


def test_diagonal(operator):
    expected = operator.dense().double().diagonal()
    diagonal = operator.diagonal().double()
    assert diagonal.shape in (SHAPE, (12,))
    close(diagonal.reshape(-1), expected, 1e-12)


def test_spectrum_is_that_of_the_dense_matrix_largest_first(operator):
    expected = torch.linalg.eigvalsh(operator.dense().double()).flip(0)
    spectrum = operator.spectrum().double()
    assert spectrum.shape == (12,)
    torch.testing.assert_close(spectrum, expected, atol=1e-12, rtol=1e-10)


def test_symmetric_and_positive_semi_definite(operator, x):
    dense = operator.dense().double()
    torch.testing.assert_close(dense, dense.T, atol=1e-12, rtol=0)
    assert float(torch.linalg.eigvalsh(dense).min()) > -1e-12
    assert float((x * operator.apply(x)).sum()) >= -1e-12


def test_the_argument_is_left_alone(operator, x):
    before = x.clone()
    operator.apply(x)
    assert torch.equal(x, before)


def test_float32_stays_float32(x):
    assert Kronecker(B.float(), A.float()).apply(x.float()).dtype == torch.float32
    assert InputGram(A.float(), 4).dense().dtype == torch.float32


# Regularised forms --------------------------------------------------------------------------------


@pytest.mark.parametrize("damping", [0.0, 0.01, 3.0])
def test_damped_adds_a_share_of_the_mean_eigenvalue(damping):
    expected = A + damping * torch.linalg.eigvalsh(A).mean() * torch.eye(3).double()
    close(damped(A, damping), expected, 1e-12)


@pytest.mark.parametrize("damping", [0.0, 0.01, 3.0])
def test_damped_products_are_those_of_damped_blocks(damping):
    blocks = [Kronecker(positive(4, 20 + m), positive(3, 30 + m)) for m in range(3)]
    weights, xs = (1.0, 0.5, -2.0), torch.randn(3, 4, 3).double().unbind()
    constant, linear, square = damped_products(blocks, weights, xs)
    moved = WeightedSum(tuple(regularised(b, damping=damping) for b in blocks), weights)
    close(constant + damping * linear + damping**2 * square, moved.apply_each(xs), 1e-12)


@pytest.mark.parametrize("scale", [0.0, 0.3, 1.0])
def test_off_diagonal_scaling_leaves_the_diagonal(scale):
    scaled = off_diagonal_scaled(A, scale)
    for i in range(3):
        for j in range(3):
            expected = A[i, j] if i == j else scale * A[i, j]
            assert float(scaled[i, j]) == pytest.approx(float(expected), abs=1e-14)


def test_trace_normalised():
    assert float(torch.trace(trace_normalised(A))) == pytest.approx(1)
    assert torch.equal(trace_normalised(torch.zeros(2, 2)), torch.zeros(2, 2))


def test_regularised_acts_on_each_factor_by_itself():
    form = {"off_diagonal": 0.5, "damping": 0.1, "normalise": True}

    def by_hand(factor):
        factor = factor / torch.trace(factor)
        factor = 0.5 * factor + 0.5 * torch.diag(torch.diag(factor))
        return factor + 0.1 * torch.trace(factor) / len(factor) * torch.eye(len(factor)).double()

    both = regularised(Kronecker(B, A), **form)
    close(both.dense(), torch.kron(by_hand(B), by_hand(A)), 1e-12)
    close(matrix(regularised_gram(A, **form)), by_hand(A), 1e-12)
    assert regularised(Kronecker(B, A)) == Kronecker(B, A)


@pytest.mark.parametrize(
    ("kind", "rank"),
    # The eigenvalues of I ⊗ A come in fours: which of four are kept is nobody's promise.
    [*(("kronecker", rank) for rank in (1, 4, 9, 12, 50)), ("with ties", 4), ("with ties", 12)],
)
def test_truncated_keeps_the_top_directions_of_the_dense_matrix(kind, rank):
    full = Kronecker(B, A) if kind == "kronecker" else Kronecker(torch.eye(4).double(), A)
    eigenvalues, vectors = torch.linalg.eigh(full.dense())
    top, q = eigenvalues[-rank:], vectors[:, -rank:]
    close(truncated(full, rank).dense(), (q * top) @ q.T, 1e-11)


def test_truncated_counts_directions_even_where_they_tie():
    cut = truncated(Kronecker(torch.eye(4).double(), positive(3, 20)), 5)
    assert int(torch.linalg.matrix_rank(cut.dense(), rtol=1e-10)) == 5


def test_the_module_exports_what_the_tests_enrol():
    public = {name for name in vars(operators) if isinstance(getattr(operators, name), type)}
    assert {t.__name__ for t in Operator.__subclasses__()} <= public


@pytest.mark.parametrize("damping", [0.0, 1e-3, 0.03, 1.0])
@pytest.mark.parametrize("rank", [2, 5])
def test_effective_dimension_counts_eigenvalues_above_the_damping(damping, rank):
    tokens = torch.randn(rank, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    gram = tokens.mT @ tokens
    values = torch.linalg.eigvalsh(gram).clamp_min(0)
    expected = float((values / (values + damping * values.mean())).sum()) if damping else rank
    found = operators.effective_dimension(damped(gram, damping), damping)
    assert found == pytest.approx(expected, rel=1e-9)
    assert operators.effective_dimension(torch.zeros(4, 4), 0.1) == 0
