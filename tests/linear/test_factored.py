"""Merging with Grams in factors against the same Grams as matrices."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mats_core.linear.factored import solve_factored
from mats_core.linear.lowrank import LowRank, matrix
from mats_core.linear.operators import Kronecker
from mats_core.methods.layer import Layer, LayerStatistics
from tests.layer_cases import close, merged, random_case

D_OUT, D_IN, TOKENS = 50, 60, 6


def layers(*, rest: float = 0.0, experts: int = 3, sides: str = "ab") -> tuple[Layer, Layer]:
    """The same layer with statistics in factors and as matrices; `sides`: which are in factors."""
    case = random_case(3, d_out=D_OUT, d_in=D_IN, experts=experts, tokens=TOKENS)

    def low(rows: Tensor) -> LowRank:
        return LowRank(rows / len(rows) ** 0.5, torch.tensor(rest).double().expand(rows.shape[1]))

    factors = [(low(x), low(g)) for x, g in zip(case.inputs, case.gradients, strict=True)]
    whole = tuple(
        LayerStatistics(input_gram=a.dense(), output_gradient_gram=b.dense(), input_mean=x.mean(0))
        for (a, b), x in zip(factors, case.inputs, strict=True)
    )
    thin = tuple(
        replace(
            own,
            **({"input_gram": a} if "a" in sides else {}),
            **({"output_gradient_gram": b} if "b" in sides else {}),
        )
        for own, (a, b) in zip(whole, factors, strict=True)
    )
    return replace(case.layer, statistics=thin), replace(case.layer, statistics=whole)


def test_a_block_in_factors_is_the_block():
    thin, whole = layers(rest=0.1)
    own, expected = thin.statistics[0], whole.statistics[0]
    assert own.output_gradient_gram is not None
    assert own.input_gram is not None
    block = Kronecker(own.output_gradient_gram, own.input_gram)
    assert block.in_factors
    dense = Kronecker(matrix(own.output_gradient_gram), matrix(own.input_gram))
    assert not dense.in_factors
    close(matrix(own.input_gram), expected.input_gram)
    close(block.apply(thin.base), dense.apply(thin.base))
    close(block.diagonal(), dense.diagonal())


@pytest.mark.parametrize("rest", [0.0, 0.05])
@pytest.mark.parametrize("options", [{}, {"off_diagonal": 0.9}, {"damping": 1e-3}])
def test_regmean_by_factors(rest, options):
    thin, whole = layers(rest=rest)
    fast, slow = merged(thin, "regmean", **options), merged(whole, "regmean", **options)
    assert fast.status == "closed form, by factors"
    assert slow.status == "closed form"
    close(fast.value - thin.base, slow.value - thin.base, 1e-9)


def test_regmean_by_factors_in_float32():
    thin, whole = layers()

    def narrow(layer: Layer) -> Layer:
        def low(own: LayerStatistics) -> LayerStatistics:
            f = own.input_gram
            if isinstance(f, LowRank):
                return LayerStatistics(input_gram=LowRank(f.factor.float(), f.rest.float()))
            return LayerStatistics(input_gram=None if f is None else f.float())

        return replace(
            layer,
            base=layer.base.float(),
            experts=tuple(e.float() for e in layer.experts),
            statistics=tuple(low(own) for own in layer.statistics),
        )

    exact = merged(whole, "regmean").value - whole.base
    close(merged(narrow(thin), "regmean").value - thin.base, exact, 3e-5)
    close(merged(narrow(whole), "regmean").value - thin.base, exact, 3e-5)


def test_regmean_forms_the_sum_where_factors_do_not_pay_or_it_is_singular():
    thin, whole = layers()
    singular = merged(thin, "regmean", damping=0)
    assert singular.status == "singular: nearest to the average"
    close(singular.value, merged(whole, "regmean", damping=0).value)
    thin, whole = layers(experts=6)  # 36 rows of 60
    found = merged(thin, "regmean")
    assert found.status == "closed form"
    close(found.value, merged(whole, "regmean").value)
    grams = [gram for own in thin.statistics if isinstance(gram := own.input_gram, LowRank)]
    assert len(grams) == 6
    assert solve_factored([g.damped(0.1) for g in grams], thin.shares, thin.base) is None


@pytest.mark.parametrize("sides", ["ab", "a", "b"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"off_diagonal": 0.9, "normalise": False},
        {"start": "regmean"},
        {"preconditioner": "none"},
        {"preconditioner": "jacobi"},
        {"anchor": 0.01},
    ],
)
def test_kfac_by_factors(sides, options):
    thin, whole = layers(rest=0.01, sides=sides)
    fast, slow = (
        merged(layer, "kfac", iterations=2000, tolerance=1e-10, **options)
        for layer in (thin, whole)
    )
    assert fast.status == slow.status == "converged"
    chosen = options.get("preconditioner", "kronecker, by inverses of factors")
    assert fast.details["preconditioner"] == chosen
    close(fast.value - thin.base, slow.value - thin.base, 1e-7)


def test_the_preconditioner_of_factors_is_that_of_matrices():
    thin, whole = layers()
    fast, slow = (merged(layer, "kfac", tolerance=1e-8).solution for layer in (thin, whole))
    assert fast is not None
    assert slow is not None
    assert abs(fast.iterations - slow.iterations) <= 1


@pytest.mark.parametrize("options", [{"rank": 40}, {"damping": 0, "iterations": 5}])
def test_kfac_without_a_path_of_its_own(options):
    thin, whole = layers()
    close(merged(thin, "kfac", **options).value, merged(whole, "kfac", **options).value, 1e-6)


def test_kfac_of_two_models_in_factors_iterates():
    thin, whole = layers(experts=2, rest=0.05)
    fast = merged(thin, "kfac", tolerance=1e-10, iterations=300)
    slow = merged(whole, "kfac")
    assert (fast.status, slow.status) == ("converged", "closed form")
    close(fast.value - thin.base, slow.value - thin.base, 1e-7)


@pytest.mark.parametrize("options", [{}, {"rank": 3}, {"centre": True}])
def test_essential_by_factors(options):
    thin, whole = layers()
    fast, slow = merged(thin, "essential", **options), merged(whole, "essential", **options)
    assert ("Grams in factors" in fast.status) == ("centre" not in options)
    assert "factors" not in slow.status
    close(fast.value - thin.base, slow.value - thin.base, 1e-6)


def test_essential_directions_leave_a_sketch_s_rest_out():
    with_rest, without = layers(rest=0.3)[0], layers()[0]
    assert torch.equal(merged(with_rest, "essential").value, merged(without, "essential").value)


def test_matching_takes_factors_too():
    thin, whole = layers()
    close(merged(thin, "kfac_matching").value, merged(whole, "kfac_matching").value, 1e-9)
