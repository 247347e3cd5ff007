"""Special cases that tie the methods to one another, and properties that hold for any input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mats_core.methods.layer import LayerStatistics
from mats_core.methods.table import METHODS
from tests.layer_cases import Case, close, enough, random_case, value, with_statistics
from tests.linear.test_cg import spread
from tests.method_cases import CASES, Identity, having

EXACT = {"iterations": 1000, "tolerance": 0, "damping": 0, "normalise": False}
seeds = st.integers(0, 10_000)
quick = settings(max_examples=12, deadline=None, derandomize=True, print_blob=True)


def run(layer, method, **more):
    """One layer through a method, its survey included."""
    row, layer, case = METHODS[method], enough(layer, method), CASES[method]
    options = row.options(**{**case.formula, **case.exact, **more})
    survey = row.survey(lambda: [layer], options) if row.survey else None
    return row.merge(layer, options, survey).value


def eye(size):
    return torch.eye(size, dtype=torch.float64)


def test_every_method_is_in_the_property_tests():
    assert set(CASES) == set(METHODS)


# Special cases ------------------------------------------------------------------------------------


@pytest.mark.parametrize("experts", [2, 3])
def test_kfac_with_identity_factors_is_the_average(experts):
    case = random_case(0, experts=experts).with_weights(*(1.0, 2.0, 4.0)[:experts])
    layer = with_statistics(
        case, input_gram=[eye(5)] * experts, output_gradient_gram=[eye(6)] * experts
    )
    close(value(layer, "kfac", **{**EXACT, "start": "zero"}), value(layer, "average"))


@pytest.mark.parametrize("experts", [2, 3])
def test_kfac_with_identity_output_factors_is_regmean(experts):
    case = random_case(1, experts=experts).with_weights(*(1.0, 2.0, 4.0)[:experts])
    layer = with_statistics(case, output_gradient_gram=[eye(6)] * experts)
    close(value(layer, "kfac", **EXACT), value(layer, "regmean", damping=0), 1e-8)


def test_kfac_with_diagonal_factors_is_fisher_merging_with_their_product():
    case = random_case(2)
    fishers = [
        torch.outer(b.diagonal(), a.diagonal())
        for b, a in zip(case.output_grams, case.grams, strict=True)
    ]
    layer = with_statistics(case, fisher=fishers)
    close(
        value(layer, "kfac", **{**EXACT, "off_diagonal": 0}),
        value(layer, "fisher", floor=0, normalise=False),
        1e-9,
    )


def test_regmean_with_diagonal_grams_is_fisher_merging_with_them():
    case = random_case(3)
    layer = with_statistics(case, fisher=[a.diagonal().expand(6, 5) for a in case.grams])
    close(
        value(layer, "regmean", damping=0, off_diagonal=0),
        value(layer, "fisher", floor=0, normalise=False),
    )


def test_equal_statistics_give_the_average():
    case = random_case(4).with_weights(1.0, 3.0, 2.0)
    layer = with_statistics(
        case,
        input_gram=case.grams[:1] * 3,
        output_gradient_gram=case.output_grams[:1] * 3,
        fisher=case.fishers[:1] * 3,
    )
    mean = value(layer, "average")
    close(value(layer, "fisher", floor=0, normalise=False), mean)
    close(value(layer, "regmean", damping=0), mean)
    close(value(layer, "kfac", **{**EXACT, "start": "zero"}), mean, 1e-8)
    # A huge damping drowns the statistics.
    close(value(case.layer, "regmean", damping=10), value(case.layer, "average"), 0.3)


@pytest.mark.parametrize("experts", [2, 4])
def test_task_arithmetic_by_one_over_the_number_of_experts_is_the_average(experts):
    layer = random_case(5, experts=experts).layer
    close(value(layer, "task_arithmetic", scaling=1 / experts), value(layer, "average"))


def test_kfac_is_exact_for_one_linear_layer_with_squared_loss():
    """Experts fitted by least squares merge into the fit of all the data at once.

    The loss of example n is ½ (y − W x)ᵀ S_m (y − W x); its Fisher is S_m ⊗ A_m.
    """
    case = random_case(6)
    generator = torch.Generator().manual_seed(6)
    outputs = [torch.randn(60, 6, dtype=torch.float64, generator=generator) for _ in range(3)]
    precisions = [spread(6, 60 + m, 10.0) for m in range(3)]
    fitted = tuple(
        torch.linalg.lstsq(x, y).solution.T for x, y in zip(case.inputs, outputs, strict=True)
    )
    layer = replace(with_statistics(case, output_gradient_gram=precisions), experts=fitted)
    rows, targets = [], []
    for x, y, s in zip(case.inputs, outputs, precisions, strict=True):
        root = np.linalg.cholesky(s.numpy()).T
        for xn, yn in zip(x.numpy(), y.numpy(), strict=True):
            rows.append(np.kron(root, xn[None]))  # root @ W @ xn on row-major vec W
            targets.append(root @ yn)
    joint = np.linalg.lstsq(np.vstack(rows), np.concatenate(targets), rcond=None)[0].reshape(6, 5)
    close(value(layer, "kfac", **EXACT), joint, 1e-8)
    # A merge is not the fit by accident: the average is far from it.
    assert float((value(layer, "average") - torch.from_numpy(joint)).norm()) > 0.05 * float(
        np.linalg.norm(joint)
    )


def test_two_models_agree_with_cg():
    case = random_case(7, experts=2)
    closed = value(case.layer, "kfac", **EXACT)
    # A weight of zero for a third, made-up expert forces the iterative way.
    third = replace(
        case.layer,
        experts=(*case.layer.experts, case.layer.base),
        weights=(1.0, 1.0, 0.0),
        labels=("a", "b", "c"),
        statistics=(*case.layer.statistics, case.layer.statistics[0]),
    )
    close(value(third, "kfac", **EXACT), closed, 1e-9)


# Properties ---------------------------------------------------------------------------------------


def permuted(layer, order):
    def pick(values):
        return tuple(values[i] for i in order)

    return replace(
        layer,
        experts=pick(layer.experts),
        weights=pick(layer.weights),
        labels=pick(layer.labels),
        statistics=pick(layer.statistics),
    )


# Of two experts both are taken, of three any number: a permutation must not change which ones.
@pytest.mark.parametrize("method", having("order"))
@quick
@given(seed=seeds, order=st.permutations(range(3)))
def test_the_order_of_the_experts_does_not_matter(method, seed, order):
    the_order_of_the_experts_does_not_matter(method, seed, order)


def the_order_of_the_experts_does_not_matter(method, seed, order=(2, 0, 1)):
    case = random_case(seed)
    if METHODS[method].weighted:
        case = case.with_weights(1.0, 2.0, 0.5)
    close(run(permuted(case.layer, order), method), run(case.layer, method), 1e-7)


@pytest.mark.parametrize("method", having("weights' scale"))
@quick
@given(seed=seeds, factor=st.sampled_from([1e-3, 0.5, 7.0, 1e3]))
def test_scaling_all_weights_scales_the_merge(method, seed, factor):
    scaling_all_weights_scales_the_merge(method, seed, factor)


def scaling_all_weights_scales_the_merge(method, seed, factor=7.0):
    layer = random_case(seed).layer
    scaled = replace(
        layer, base=factor * layer.base, experts=tuple(factor * w for w in layer.experts)
    )
    close(run(scaled, method), factor * run(layer, method), 1e-7)


@quick
@given(seed=seeds, t=st.floats(0, 1))
def test_two_experts_the_other_way_round_are_the_other_end_of_the_arc(seed, t):
    layer = random_case(seed, experts=2).layer
    turned = permuted(layer, (1, 0))
    close(run(turned, "slerp", t=1 - t), run(layer, "slerp", t=t), 1e-9)


@pytest.mark.parametrize("method", [n for n, case in CASES.items() if case.identical is not None])
@quick
@given(seed=seeds)
def test_identical_experts_come_back(method, seed):
    identical_experts_come_back(method, seed)


def identical_experts_come_back(method, seed):
    layer = random_case(seed).layer
    layer = replace(layer, experts=layer.experts[:1] * 3)
    options = CASES[method].identical
    assert options is not None
    close(run(layer, method, **options), layer.experts[0], 1e-8)


@pytest.mark.parametrize("method", having("base at scaling 0"))
@quick
@given(seed=seeds)
def test_a_scaling_of_zero_is_the_base(method, seed):
    a_scaling_of_zero_is_the_base(method, seed)


def a_scaling_of_zero_is_the_base(method, seed):
    layer = random_case(seed).layer
    close(run(layer, method, scaling=0), layer.base, 1e-12)


# Not of gradient matching: its scaling weighs the tasks against the prior.
@pytest.mark.parametrize("method", having("linear in scaling"))
@quick
@given(seed=seeds)
def test_the_update_is_linear_in_the_scaling(method, seed):
    the_update_is_linear_in_the_scaling(method, seed)


def the_update_is_linear_in_the_scaling(method, seed):
    layer = random_case(seed).layer
    half, whole = (run(layer, method, scaling=s) - layer.base for s in (0.5, 1.0))
    close(2 * half, whole, 1e-9)


@pytest.mark.parametrize("method", having("statistics' scale"))
@quick
@given(seed=seeds, factor=st.sampled_from([1e-6, 1e4]))
def test_the_scale_of_all_statistics_does_not_matter(method, seed, factor):
    the_scale_of_all_statistics_does_not_matter(method, seed, factor)


def the_scale_of_all_statistics_does_not_matter(method, seed, factor=1e4):
    case = random_case(seed)
    louder = with_statistics(
        case,
        input_gram=[factor * a for a in case.grams],
        output_gradient_gram=[factor * b for b in case.output_grams],
        fisher=[factor * f for f in case.fishers],
    )
    close(run(louder, method), run(case.layer, method), 1e-7)


# Not of SLERP: angles and lengths are seen from zero.
@pytest.mark.parametrize("method", having("translation"))
@quick
@given(seed=seeds)
def test_the_merge_lies_on_the_translated_family(method, seed):
    the_merge_lies_on_the_translated_family(method, seed)


def the_merge_lies_on_the_translated_family(method, seed):
    """Adding one matrix to base and experts adds it to the merge."""
    layer = random_case(seed).layer
    shift = random_case(seed + 1).layer.base
    moved = replace(layer, base=layer.base + shift, experts=tuple(w + shift for w in layer.experts))
    close(run(moved, method) - shift, run(layer, method), 1e-6)


@pytest.mark.parametrize("method", having("rotation"))
@quick
@given(seed=seeds)
def test_rotating_the_outputs_rotates_the_merge(method, seed):
    rotating_the_outputs_rotates_the_merge(method, seed)


def rotating_the_outputs_rotates_the_merge(method, seed):
    layer = random_case(seed).layer
    generator = torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64, generator=generator))[0]
    turned = replace(layer, base=q @ layer.base, experts=tuple(q @ w for w in layer.experts))
    close(run(turned, method), q @ run(layer, method), 1e-7)


CHECKS: dict[Identity, Callable[[str, int], None]] = {
    "order": the_order_of_the_experts_does_not_matter,
    "weights' scale": scaling_all_weights_scales_the_merge,
    "translation": the_merge_lies_on_the_translated_family,
    "rotation": rotating_the_outputs_rotates_the_merge,
    "statistics' scale": the_scale_of_all_statistics_does_not_matter,
    "base at scaling 0": a_scaling_of_zero_is_the_base,
    "linear in scaling": the_update_is_linear_in_the_scaling,
}


@pytest.mark.parametrize("method", [name for name, case in CASES.items() if case.bare])
def test_a_layer_without_any_statistics_merges_with_every_method(method):
    case: Case = random_case(9)
    bare = replace(case.layer, statistics=(), base_statistics=LayerStatistics())
    close(run(bare, method), run(bare, CASES[method].bare))
