"""An expert that is added later: from the sums of the others, the merge of all at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from mats_core.linear import LowRank
from mats_core.methods.layer import Earlier, Layer, LayerStatistics, Merged
from mats_core.methods.running import merge_running
from mats_core.methods.table import METHODS
from tests.layer_cases import SEEDS, random_case

WEIGHTS = (0.7, 2.0, 1.3)
EXACT = {"iterations": 500, "tolerance": 0}
KEEPING = [name for name, method in METHODS.items() if method.sums is not None]
CASES: list[tuple[str, dict[str, Any]]] = [
    ("average", {}),
    ("task_arithmetic", {"scaling": 0.4}),
    ("fisher", {}),
    ("fisher", {"normalise": False, "floor": 0.0}),
    ("regmean", {}),
    ("regmean", {"damping": 0.0, "normalise": True, "off_diagonal": 0.9}),
    ("regmean", {"gram": "update"}),
    ("kfac", EXACT),
    ("kfac", {**EXACT, "gram": "update", "damping": 0.1}),
    ("kfac", {**EXACT, "gram": "update-output", "anchor": 0.1, "start": "pretrained"}),
    ("kfac", {**EXACT, "start": "task_arithmetic", "normalise": False, "preconditioner": "none"}),
    ("kfac", {**EXACT, "rank": 20, "anchor": 0.05}),
]


def layer_of(seed: int, experts: int = 3) -> Layer:
    """A layer with everything measured."""
    case = random_case(seed, experts=experts)
    rows = zip(case.grams, case.output_grams, case.fishers, strict=True)
    statistics = tuple(
        LayerStatistics(input_gram=a, output_gradient_gram=b, fisher=f) for a, b, f in rows
    )
    return replace(case.layer, weights=WEIGHTS[:experts], statistics=statistics)


def merge(layer: Layer, name: str, options: dict[str, Any]) -> tuple[Merged, dict[str, Any]]:
    """The merge, and the sums that it hands on."""
    sums: dict[str, Any] = {}
    layer = replace(layer, hand_on=lambda key, value: sums.update({key: value.clone()}))
    method = METHODS[name]
    if method.normalises(method.options()):  # as the engine does
        layer.total("mean", layer.experts, layer.shares)
    return method.merge(layer, method.options(**options), None), sums


def some(layer: Layer, start: int, stop: int) -> Layer:
    """The same layer with some of its experts."""
    part = slice(start, stop)
    return replace(
        layer,
        experts=layer.experts[part],
        weights=layer.weights[part],
        labels=layer.labels[part],
        statistics=layer.statistics[part],
    )


def gram(sums: dict[str, Any], key: str) -> Any:
    if f"{key}.factor" in sums:
        return LowRank(sums[f"{key}.factor"], sums[f"{key}.rest"])
    return sums.get(key)


def added(layer: Layer, count: int, sums: dict[str, Any]) -> Layer:
    """The layer without its first `count` experts, of which the sums are left."""
    kinds = ("input_gram", "output_gradient_gram")
    each = [{kind: gram(sums, f"{kind}.{m}") for kind in kinds} for m in range(count)]
    earlier = Earlier(
        layer.weights[:count],
        layer.labels[:count],
        {key: value for key, value in sums.items() if "." not in key},
        tuple(LayerStatistics(**own) for own in each),
    )
    rest = some(layer, count, len(layer.experts))
    return replace(rest, weights=layer.weights, labels=layer.labels, earlier=earlier)


def test_every_method_that_keeps_sums_is_tried_here():
    assert {name for name, _ in CASES} == set(KEEPING)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("name", "options"), CASES)
def test_an_expert_that_is_added_equals_merging_all_at_once(name, options, seed):
    whole = layer_of(seed)
    at_once, _ = merge(whole, name, options)
    for count in (1, 2):
        _, sums = merge(some(whole, 0, count), name, options)
        later, _ = merge(added(whole, count, sums), name, options)
        torch.testing.assert_close(later.value, at_once.value, rtol=1e-9, atol=1e-11)
        assert later.method == at_once.method


@pytest.mark.parametrize(("name", "options"), CASES)
def test_experts_are_added_one_after_the_other(name, options):
    whole = layer_of(0)
    at_once, _ = merge(whole, name, options)
    _, sums = merge(some(whole, 0, 1), name, options)
    _, sums = merge(added(some(whole, 0, 2), 1, sums), name, options)
    later, _ = merge(added(whole, 2, sums), name, options)
    torch.testing.assert_close(later.value, at_once.value, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_sums_that_are_kept_change_no_byte_of_the_merge(name, options):
    layer, method = layer_of(1), METHODS[name]
    plain = method.merge(layer, method.options(**options), None)
    assert torch.equal(merge(layer, name, options)[0].value, plain.value)


@pytest.mark.parametrize("name", ["fisher", "regmean", "kfac"])
@pytest.mark.parametrize("bare", [0, 2])
def test_what_one_expert_has_no_statistics_of_takes_the_mean_either_way(name, bare):
    """Whether it is the expert that is added, or one of those before."""
    whole = layer_of(0)
    statistics = tuple(
        LayerStatistics() if m == bare else s for m, s in enumerate(whole.statistics)
    )
    whole = replace(whole, statistics=statistics)
    at_once, _ = merge(whole, name, {})
    _, sums = merge(some(whole, 0, 2), name, {})
    later, _ = merge(added(whole, 2, sums), name, {})
    assert at_once.method == later.method == "mean"
    torch.testing.assert_close(later.value, at_once.value, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("remaining", ["mean", "fisher", "block"])
def test_a_bias_that_takes_fisher_or_its_block(remaining):
    case = random_case(2, d_out=1)
    layer = replace(case.layer, weights=WEIGHTS, is_matrix=False)
    blocks = [x.T @ x / len(x) for x in case.inputs]
    statistics = tuple(
        LayerStatistics(fisher=f, block=b) for f, b in zip(case.fishers, blocks, strict=True)
    )
    layer = replace(layer, statistics=statistics)
    options = {"remaining": remaining}
    at_once, _ = merge(layer, "kfac", options)
    _, sums = merge(some(layer, 0, 2), "kfac", options)
    later, _ = merge(added(layer, 2, sums), "kfac", options)
    assert at_once.method == later.method == {"mean": "mean"}.get(remaining, remaining)
    torch.testing.assert_close(later.value, at_once.value, rtol=1e-9, atol=1e-11)


def test_grams_in_factors_stay_in_factors_beside_a_merge_by_kfac():
    """Of a layer wider than its calibration set is long, A is kept as its rows."""
    generator = torch.Generator().manual_seed(0)
    whole = layer_of(0)

    def narrow() -> LowRank:
        rows = torch.randn(2, 5, generator=generator, dtype=torch.float64)
        return LowRank(rows, torch.zeros(5, dtype=torch.float64))

    statistics = tuple(replace(own, input_gram=narrow()) for own in whole.statistics)
    whole = replace(whole, statistics=statistics)
    for name in ("kfac", "regmean"):
        options = EXACT if name == "kfac" else {}
        at_once, _ = merge(whole, name, options)
        _, sums = merge(some(whole, 0, 2), name, options)
        if name == "kfac":
            assert sums["input_gram.1.factor"].shape == (2, 5)
        later, _ = merge(added(whole, 2, sums), name, options)
        torch.testing.assert_close(later.value, at_once.value, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("weights", [(1.0, 2.0, 3.0), (-1.0, 2.0, 3.0), (-1.0, -1.0, 2.0)])
def test_running_statistics_count_experts_of_positive_weight(weights):
    whole = replace(layer_of(1), weights=weights)
    sums: dict[str, Any] = {}
    merge_running(replace(some(whole, 0, 2), hand_on=sums.__setitem__))
    later = merge_running(added(whole, 2, sums))
    torch.testing.assert_close(later.value, merge_running(whole).value, rtol=1e-12, atol=1e-14)


def test_options_that_need_every_expert_say_so():
    for name, options in (("regmean", {"iterations": 3}), ("kfac", {"start": "fisher"})):
        sums, method = METHODS[name].sums, METHODS[name]
        assert sums is not None
        assert sums.why_not(method.options(**options))
        assert not sums.why_not(method.options())
