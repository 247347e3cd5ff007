"""K-FAC merging against dense solves of the Kronecker system in float64."""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from mats_core import linear
from mats_core.errors import InputError
from mats_core.merging.pipeline import run
from mats_core.methods.kfac import kfac_reads
from mats_core.methods.kfac_options import KfacOptions
from mats_core.methods.layer import Layer
from mats_core.methods.starts import STARTS
from mats_core.recipes.events import Finished
from tests.layer_cases import SEEDS, close, merged, random_case, raw_recipe, value, with_statistics

EXACT = {"iterations": 1000, "tolerance": 0.0, "damping": 0.0, "off_diagonal": 1.0,
         "normalise": False}  # fmt: skip


def formed(factor, *, off_diagonal=1.0, damping=0.0, normalise=False):
    factor = factor.numpy()
    if normalise:
        factor = factor / np.trace(factor)
    factor = off_diagonal * factor + (1 - off_diagonal) * np.diag(np.diag(factor))
    return factor + damping * np.trace(factor) / len(factor) * np.eye(len(factor))


def system(case, **forms):
    """The dense matrices α_m B_m ⊗ A_m and the right-hand side, of row-major vec."""
    terms = [
        a * np.kron(formed(out, **forms), formed(inner, **forms))
        for a, out, inner in zip(case.layer.shares, case.output_grams, case.grams, strict=True)
    ]
    right = sum(c @ w.numpy().ravel() for c, w in zip(terms, case.layer.experts, strict=True))
    return terms, right


def solved(case, **forms):
    terms, right = system(case, **forms)
    return np.linalg.solve(sum(terms), right).reshape(tuple(case.layer.base.shape))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("experts", [3, 5])
def test_kfac_equals_the_dense_kronecker_solve(seed, experts):
    case = random_case(seed, experts=experts)
    close(value(case.layer, "kfac", **EXACT), solved(case), 1e-9)


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("preconditioner", ["auto", "none", "jacobi", "kronecker", "joint"])
def test_every_start_and_preconditioner_ends_at_the_same_solution(start, preconditioner):
    case = random_case(1).with_weights(1.0, 2.0, 0.5)
    options = {**EXACT, "start": start, "preconditioner": preconditioner}
    close(value(case.layer, "kfac", **options), solved(case), 1e-8)


def test_where_each_start_is():
    case = random_case(2)
    layer = case.layer
    expected = {
        "zero": torch.zeros_like(layer.base),
        "pretrained": layer.base,
        "average": torch.stack(layer.experts).mean(0),
        "task_arithmetic": value(layer, "task_arithmetic"),
        "regmean": value(layer, "regmean", damping=0),
        "fisher": value(layer, "fisher"),
    }
    assert set(expected) == set(STARTS)
    for start, where in expected.items():
        close(value(layer, "kfac", **{**EXACT, "iterations": 0, "start": start}), where)


def test_regmean_start_uses_the_regularised_grams():
    layer = random_case(2).layer
    options = {**EXACT, "iterations": 0, "start": "regmean", "damping": 0.3, "off_diagonal": 0.8}
    close(value(layer, "kfac", **options), value(layer, "regmean", damping=0.3, off_diagonal=0.8))


@pytest.mark.parametrize(
    "forms",
    [
        {"off_diagonal": 0.7},
        {"damping": 0.1},
        {"normalise": True},
        {"off_diagonal": 0.5, "damping": 0.01, "normalise": True},
    ],
)
@pytest.mark.parametrize("experts", [2, 3])
def test_regularised_factors(forms, experts):
    case = random_case(3, experts=experts)
    close(value(case.layer, "kfac", **{**EXACT, **forms}), solved(case, **forms), 1e-8)


def test_normalise_makes_the_scale_of_a_task_irrelevant():
    case = random_case(4)
    loud = with_statistics(
        case, output_gradient_gram=[b * 100.0**m for m, b in enumerate(case.output_grams)]
    )
    options = {**EXACT, "normalise": True}
    close(value(loud, "kfac", **options), value(case.layer, "kfac", **options), 1e-8)


@pytest.mark.parametrize("anchor", [0.01, 1.0])
@pytest.mark.parametrize("experts", [2, 3])
@pytest.mark.parametrize("preconditioner", ["none", "jacobi", "kronecker", "joint"])
def test_the_anchor_is_a_proximal_term(anchor, experts, preconditioner):
    case = random_case(5, experts=experts).with_weights(*(1.0, 3.0, 2.0)[:experts])
    terms, right = system(case)
    matrix = np.sum(terms, axis=0)
    pull = anchor * np.mean(np.diag(matrix))
    start = case.layer.base.numpy().ravel()
    expected = np.linalg.solve(matrix + pull * np.eye(len(matrix)), right + pull * start)
    options = {**EXACT, "anchor": anchor, "start": "pretrained", "preconditioner": preconditioner}
    close(value(case.layer, "kfac", **options), expected.reshape(6, 5), 1e-8)


# Two models ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_two_models_are_solved_in_closed_form(seed):
    case = random_case(seed, experts=2).with_weights(1.0, 3.0)
    result = merged(case.layer, "kfac", **{**EXACT, "iterations": 0})
    assert result.status == "closed form"
    close(result.value, solved(case), 1e-10)
    assert result.solution is not None
    assert result.solution.residuals[-1] < 1e-10


def test_two_models_with_a_singular_operator_iterate_instead():
    case = random_case(6, experts=2, tokens=2)
    result = merged(case.layer, "kfac", **EXACT)
    assert "closed form" not in result.status
    terms, right = system(case)
    start = torch.stack(case.layer.experts).mean(0).numpy().ravel()
    nearest = start + np.linalg.pinv(sum(terms), rcond=1e-9) @ (right - sum(terms) @ start)
    close(result.value, nearest.reshape(6, 5), 1e-6)


# Truncation ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("rank", [3, 8, 30])
@pytest.mark.parametrize("start", ["average", "pretrained"])
def test_rank_keeps_the_top_directions_and_lands_nearest_to_the_start(seed, rank, start):
    case = random_case(seed)
    cut = []
    for term in system(case)[0]:
        eigenvalues, vectors = np.linalg.eigh(term)
        top, q = eigenvalues[-rank:], vectors[:, -rank:]
        cut.append((q * top) @ q.T)
    right = sum(c @ w.numpy().ravel() for c, w in zip(cut, case.layer.experts, strict=True))
    first = torch.stack(case.layer.experts).mean(0) if start == "average" else case.layer.base
    x0 = first.numpy().ravel()
    matrix = sum(cut)
    nearest = x0 + np.linalg.pinv(matrix, rcond=1e-10, hermitian=True) @ (right - matrix @ x0)
    result = value(case.layer, "kfac", **{**EXACT, "rank": rank, "start": start})
    close(result, nearest.reshape(6, 5), 1e-6)


def test_a_full_rank_is_no_truncation():
    case = random_case(7)
    close(value(case.layer, "kfac", **{**EXACT, "rank": 30}), solved(case), 1e-8)


# Traces, failures and fallbacks -------------------------------------------------------------------


def test_the_trace_is_that_of_the_system():
    case = random_case(8)
    result = merged(case.layer, "kfac", **{**EXACT, "iterations": 5, "start": "zero"})
    assert result.solution is not None
    assert result.solution.residuals[0] == pytest.approx(1.0)  # ‖b − K 0‖ / ‖b‖
    assert result.solution.iterations == 5
    assert result.status == "iteration limit"
    terms, right = system(case)
    error = np.linalg.norm(right - sum(terms) @ result.value.numpy().ravel())
    assert result.solution.residuals[-1] == pytest.approx(error / np.linalg.norm(right), rel=1e-6)


def test_a_failing_preconditioner_gives_way_to_plain_cg():
    case = random_case(9)
    # A Gram that is not positive semi-definite breaks the Kronecker preconditioner's promise.
    bad = with_statistics(case, output_gradient_gram=[-b for b in case.output_grams])
    result = merged(bad, "kfac", **{**EXACT, "preconditioner": "kronecker"})
    assert result.status == (
        "not positive semi-definite (plain CG after the kronecker preconditioner failed)"
    )
    # Nothing was gained: the start comes back.
    close(result.value, torch.stack(bad.experts).mean(0))


def test_kept_iterates_are_those_of_the_recursion():
    case = random_case(1)
    layer = replace(case.layer, keep=(0, 2))
    solution = merged(layer, "kfac", **{**EXACT, "iterations": 4}).solution
    assert solution is not None
    assert sorted(solution.iterates) == [0, 2]
    close(solution.iterates[2], value(case.layer, "kfac", **{**EXACT, "iterations": 2}))


def test_kfac_starts_from_a_checkpoint(tmp_path):
    case = random_case(2)
    name, module = case.layer.name, "block.0.fc1"
    statistics = [
        {f"{module}.input_gram": a, f"{module}.output_gradient_gram": b}
        for a, b in zip(case.grams, case.output_grams, strict=True)
    ]
    recipe = raw_recipe(
        tmp_path,
        {name: case.layer.base},
        [{name: w} for w in case.layer.experts],
        "kfac",
        {**EXACT, "iterations": 0, "start": "e1.safetensors"},
        statistics=statistics,
    )
    *_, last = run(recipe)
    assert isinstance(last, Finished)
    close(last.tensors[name], case.layer.experts[1])


def test_what_is_read_follows_the_options():
    assert kfac_reads(KfacOptions()) == {"input_gram", "output_gradient_gram"}
    assert "fisher" in kfac_reads(KfacOptions(start="fisher"))
    assert {"input_mean", "block"} <= kfac_reads(KfacOptions(fold_bias=True, remaining="block"))


def test_auto_preconditions_only_what_is_regular():
    case = random_case(2, experts=3).layer

    def trace(**options):
        found = merged(case, "kfac", **{"tolerance": 0.0, "iterations": 6, **options}).solution
        assert found is not None
        return found

    for regular in ({"damping": 0.1}, {"damping": 0.0, "anchor": 0.1}):
        automatic, named = trace(**regular), trace(**regular, preconditioner="kronecker")
        assert automatic.residuals == named.residuals
    for singular in ({"damping": 0.0}, {"rank": 4}):
        automatic, named = trace(**singular), trace(**singular, preconditioner="none")
        assert automatic.residuals == named.residuals


def remembering(layer: Layer) -> Layer:
    """The layer, which remembers as one of a merge among others does."""
    known: dict[Any, Any] = {}

    def remember(what: Any, compute: Any) -> Any:
        return known[what] if what in known else known.setdefault(what, compute())

    return replace(layer, remember=remember)


def test_another_damping_needs_no_product_with_the_experts_again(monkeypatch):
    counted = []

    def counting(*what):
        counted.append(what)
        return linear.damped_products(*what)

    module = importlib.import_module("mats_core.methods.kfac")
    monkeypatch.setattr(module, "damped_products", counting)
    fresh = random_case(2, experts=3).layer
    layer = remembering(fresh)
    for damping in (0.1, 0.3, 0.0):
        value(layer, "kfac", damping=damping)
        assert len(counted) == 2  # the experts', and the average's, once
    for damping in (0.1, 0.3, 0.0):
        again, anew = (value(which, "kfac", damping=damping) for which in (layer, fresh))
        assert torch.equal(again, anew)
    reweighted = value(replace(layer, weights=(1.0, 2.0, 3.0)), "kfac")
    assert torch.equal(reweighted, value(replace(fresh, weights=(1.0, 2.0, 3.0)), "kfac"))


def test_joint_bases_are_made_once_for_every_damping_and_change_no_byte(monkeypatch):
    made = []

    def counting(*what):
        made.append(what)
        return joint_basis(*what)

    joint_basis = linear.joint_basis
    monkeypatch.setattr(linear, "joint_basis", counting)
    fresh = random_case(2, experts=3).layer
    layer = remembering(fresh)
    settings = [{"damping": 0.1}, {"damping": 0.3}, {"damping": 0.1, "tolerance": 1e-5}]
    settings += [{"damping": 0.0}, {"anchor": 0.2}]
    found = [value(layer, "kfac", preconditioner="joint", **each) for each in settings]
    assert len(made) == 2  # of A, and of B
    for each, one in zip(settings, found, strict=True):
        assert torch.equal(one, value(fresh, "kfac", preconditioner="joint", **each))


def test_the_report_says_what_was_preconditioned_with():
    case = random_case(2, experts=3).layer

    def said(**options):
        return merged(case, "kfac", **options).details["preconditioner"]

    assert said(damping=0.1) == "kronecker, by inverses"
    assert said(damping=0.1, anchor=0.1) == "kronecker, by eigenbases"
    assert said(damping=0.0) == "none"
    assert said(damping=0.1, preconditioner="jacobi") == "jacobi"
    assert said(damping=0.1, rank=4) == "none"
    assert said(damping=0.1, rank=4, preconditioner="kronecker") == "kronecker, by eigenbases"
    assert said(damping=0.1, preconditioner="joint") == "joint bases"
    assert said(damping=0.1, rank=4, preconditioner="joint") == "kronecker, by eigenbases"


def test_inverses_and_eigenbases_make_the_same_iterates(monkeypatch):
    case = random_case(2, experts=3).layer
    options = {"damping": 0.1, "tolerance": 0.0, "iterations": 6}
    fast = merged(case, "kfac", **options)
    monkeypatch.setattr(linear, "kronecker_inverse", lambda *sums: None)
    slow = merged(case, "kfac", **options)
    assert slow.details["preconditioner"] == "kronecker, by eigenbases"
    assert fast.solution is not None
    assert slow.solution is not None
    assert fast.solution.residuals == pytest.approx(slow.solution.residuals, rel=1e-6)
    close(fast.value, slow.value, 1e-8)


# Negative weights ---------------------------------------------------------------------------------


def outweighed(method, place, amount, experts=3):
    """A layer whose last expert, of negative weight, is curved by `amount` in column `place` and by
    1 elsewhere, as the others are; and the smallest eigenvalue of its system, densely."""
    case = random_case(3, experts=experts).with_weights(*(1.0,) * (experts - 1), -0.5)
    curved = torch.eye(5, dtype=torch.float64)
    curved[place, place] = amount
    inner = [torch.eye(5, dtype=torch.float64)] * (experts - 1) + [curved]
    outer = [torch.eye(6, dtype=torch.float64)] * experts
    layer = with_statistics(case, input_gram=inner, output_gradient_gram=outer)
    dense = sum(
        weight * np.kron(b, a) for weight, b, a in zip(layer.weights, outer, inner, strict=True)
    )
    if method == "kfac_matching":
        layer = replace(layer, base_statistics=layer.statistics[0])
        dense = dense + 1e-6 * np.eye(30)
    return layer, float(np.linalg.eigvalsh(dense).min())


@pytest.mark.parametrize("iterations", [0, 1, 50])
@pytest.mark.parametrize("place", [0, 4])
@pytest.mark.parametrize(("amount", "experts"), [(9.0, 3), (3.9, 3), (4.1, 3), (7.0, 4), (1.0, 4)])
@pytest.mark.parametrize("method", ["kfac", "kfac_matching"])
def test_a_diagonal_that_turns_negative_is_noticed_before_the_first_iteration(
    method, iterations, place, amount, experts
):
    layer, smallest = outweighed(method, place, amount, experts)
    own = {"prior": 1e-6, "scaling": 1.0} if method == "kfac_matching" else {"anchor": 0.0}
    options = {"damping": 0.0, "normalise": False, "iterations": iterations, **own}
    if smallest < 0:
        with pytest.raises(InputError, match=r"negative weights .*expert2"):
            value(layer, method, **options)
    else:
        assert bool(value(layer, method, **options).isfinite().all())
    assert (smallest < 0) == (amount * 0.5 > experts - 1)


def test_an_anchor_that_is_strong_enough_keeps_the_system_definite():
    layer, smallest = outweighed("kfac", 2, 9.0)
    assert smallest < 0
    options = {"damping": 0.0, "normalise": False}
    with pytest.raises(InputError, match="negative weights"):
        value(layer, "kfac", **options, anchor=0.1)
    assert bool(value(layer, "kfac", **options, anchor=10.0).isfinite().all())
