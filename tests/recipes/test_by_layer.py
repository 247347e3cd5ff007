"""Weights and options by layer: what a rule is about, which one wins, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

import mats_core as mats
from mats_core.errors import InputError
from mats_core.estimating import estimate
from mats_core.merging import planned, run
from mats_core.methods import METHODS
from mats_core.recipes.by_layer import local_settings
from mats_core.recipes.plan import open_inputs
from mats_core.recipes.recipe import load_recipe, parse_recipe
from mats_core.system import drain
from tests.conftest import family_recipe

ATTENTION = "*.attention.*"


def recipe_of(folder, method="task_arithmetic", **settings):
    content = family_recipe(folder, method, evaluate=False, dtype="float64", output_dtype="float64")
    return parse_recipe({**content, **settings}, folder)


def merged(folder, method="task_arithmetic", **settings):
    finished = drain(run(recipe_of(folder, method, **settings)))
    return finished.report, {name: value.numpy() for name, value in finished.tensors.items()}


def blocks(name):
    return next((int(part) for part in name.split(".") if part.isdigit()), None)


@pytest.mark.parametrize("method", ["average", "ties", "kfac", "essential", "regmean"])
def test_options_and_weights_of_a_layer_are_those_of_a_merge_with_them(tiny_family, method):
    """In the last block another weight and option; elsewhere nothing changes: layer by layer the
    merges are those of recipes that have them everywhere."""
    option = {
        "ties": {"density": 0.9}, "kfac": {"damping": 0.7}, "essential": {"rank": 2},
        "regmean": {"damping": 0.6, "fold_bias": True},
    }.get(method, {})  # fmt: skip
    common = {"options": {"scope": "tensor"} if method == "ties" else {}}
    weights = {"e1": 0.25} if METHODS[method].weighted else {}
    rule: dict[str, Any] = {"depth": [1, 1], "match": "*encoder*", "options": option}
    rule |= {"weight": weights} if weights else {}
    report, found = merged(tiny_family, method, by=[rule], **common)
    _, plain = merged(tiny_family, method, **common)
    content: Any = family_recipe(tiny_family, method)["experts"]
    for entry in content:
        entry["weight"] = weights.get(entry["name"], 1.0)
    options = {**common["options"], **option}
    _, other = merged(tiny_family, method, experts=content, options=options)
    changed = [one.name for one in report.layers if "rules" in one.details]
    assert changed
    assert all(blocks(name) == 1 for name in changed)
    if method == "essential":  # whose layers are scaled by the norms of all
        assert any(not np.array_equal(found[name], plain[name]) for name in changed)
        return
    for name, value in found.items():
        expected = other if blocks(name) == 1 else plain
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


def test_a_number_is_a_factor_of_the_whole_update_and_later_rules_win(tiny_family):
    _, plain = merged(tiny_family, "tsv_m")
    rules = [
        {"match": "*", "weight": 0.5},
        {"match": ATTENTION, "weight": 2},
        {"match": "*.output.*", "weight": 0},
    ]
    report, found = merged(tiny_family, "tsv_m", by=rules)
    base = drain(run(recipe_of(tiny_family, after=[{"stretch": {"scale": 0}}]))).tensors
    told = {layer.name: layer for layer in report.layers}
    shared = [one.name for one in report.layers if one.treatment in ("merged", "averaged")]
    for name in shared:
        factor = 0.0 if ".output." in name else 2.0 if ".attention." in name else 0.5
        expected = factor * (plain[name] - base[name].numpy())
        np.testing.assert_allclose(found[name] - base[name].numpy(), expected, atol=1e-14)
        assert told[name].details["rules"] == [
            number
            for number, match in enumerate(("", ".attention.", ".output."), 1)
            if match in name
        ]


def test_a_factor_comes_before_the_steps_and_a_linear_method_takes_either_weight(tiny_family):
    rule, step = {"depth": [0, 0], "weight": 0.5}, {"stretch": {"scale": 3}}
    _, number = merged(tiny_family, by=[rule], after=[step])
    each = dict.fromkeys(("e0", "e1", "e2"), 0.5)
    _, named = merged(tiny_family, by=[{**rule, "weight": each}], after=[step])
    for name, value in number.items():
        np.testing.assert_allclose(value, named[name], atol=1e-14)


def test_patterns_are_read_with_and_without_the_models_prefix(tiny_family):
    recipe = recipe_of(tiny_family)
    plan = planned(recipe)
    names = plan.inputs.family.shared

    def about(match, depth=None):
        rule = {"match": match, "weight": 2, **({"depth": depth} if depth else {})}
        own = parse_recipe({**recipe.model_dump(), "by": [rule]}, tiny_family)
        settings = (own, names, plan.method, plan.options, plan.weights)
        return sorted(local_settings(*settings))

    bare = [name for name in names if name.startswith("vit.embeddings.")]
    assert bare
    assert about("embeddings.*") == about("vit.embeddings.*") == sorted(bare)
    assert about("*.layernorm_before.*", [0.5, 1]) == sorted(
        name for name in names if ".layernorm_before." in name and blocks(name) == 1
    )


@pytest.mark.parametrize(
    ("method", "rule", "said"),
    [
        ("average", {"match": "*.atention.*", "weight": 1}, "attention"),
        ("average", {"depth": [0.3, 0.6], "weight": 1}, "0, 1"),
        ("average", {"match": "*embed*", "depth": [1, 1], "weight": 1}, "no tensor called"),
        ("average", {"match": "*", "weight": {"e9": 1}}, "e9"),
        ("average", {"match": "*"}, "neither"),
        ("average", {"weight": 1}, "neither"),
        ("average", {"match": "*", "weight": {"e0": -9}}, "sum above zero"),
        ("task_arithmetic", {"match": "*", "weight": {"e0": 0, "e1": 0, "e2": 0}}, "only zeros"),
        ("kfac", {"match": "*", "options": {"dampin": 1}}, "damping"),
        ("kfac", {"match": "*", "options": {"damping": -1}}, "damping"),
        ("kfac", {"match": "*", "options": {"start": "base"}}, "one value together"),
        ("tsv_m", {"match": "*", "weight": {"e0": 0.5}}, "treats its experts alike"),
        ("ties", {"match": "*", "options": {"density": 0.5}}, "one value together"),
        ("essential", {"match": "*", "options": {"layer_power": 0}}, "layer_power"),
        ("sequential", {"match": "*", "options": {"damping": 0.2}}, "weights of experts"),
        ("sequential", {"match": "*", "weight": 0.5}, "weights of experts"),
    ],
)  # fmt: skip
def test_what_a_rule_cannot_be_is_told_at_the_door(tiny_family, method, rule, said):
    if method == "sequential" and "options" in rule:
        option = next(f for f in METHODS[method].options.model_fields if "damping" in f)
        rule = {**rule, "options": {option: 0.2}}
    with pytest.raises(InputError) as error:
        planned(recipe_of(tiny_family, method, by=[rule]))
    assert said in str(error.value)


def test_sums_are_not_kept_beside_rules(tiny_family, tmp_path):
    rules = [{"match": "*", "weight": 0.5}]
    with pytest.raises(InputError, match="where sums are kept"):
        planned(recipe_of(tiny_family, by=rules, keep_sums=True, output=str(tmp_path / "out")))


def test_it_is_told_and_written_and_estimated(tiny_family, tmp_path):
    rule = {"match": ATTENTION, "depth": [0.5, 1], "weight": {"e2": 0.5},
            "options": {"iterations": 1, "fold_bias": True}}  # fmt: skip
    out = tmp_path / "out"
    recipe = recipe_of(tiny_family, "kfac", by=[rule], output=str(out))
    report = drain(run(recipe)).report
    told = next(one for one in report.layers if "attention" in one.name and blocks(one.name) == 1)
    assert told.details["own weights"] == {"e2": 0.5}
    assert told.details["own options"] == {"iterations": 1, "fold_bias": True}
    assert told.iterations <= 1
    assert json.loads((out / "report.json").read_text("utf-8"))["by"] == [rule]
    assert load_recipe(out / "recipe.yaml").by == recipe.by
    assert "own weights or options" in (out / "README.md").read_text("utf-8")
    inputs = open_inputs(recipe)
    plain = estimate(inputs, recipe.model_copy(update={"by": ()}))
    found = estimate(inputs, recipe)
    assert found.flops < plain.flops
    assert sum(found.coverage.values()) == sum(report.coverage.values())


def test_weights_by_layer_of_a_calibration(tiny_family):
    options = {"examples": 8, "augment_to": 8}
    rule: dict[str, Any] = {"depth": [1, 1], "weight": {"e0": 3}}
    _, plain = merged(tiny_family, "sequential", options=options)
    report, found = merged(tiny_family, "sequential", options=options, by=[rule])
    differ = {name for name, value in found.items() if not np.array_equal(value, plain[name])}
    assert any(blocks(name) == 1 for name in differ)
    assert not any(blocks(name) == 0 for name in differ)
    assert report.by == ({"depth": [1.0, 1.0], "weight": {"e0": 3.0}},)


def test_models_in_memory_take_rules():
    base = {"layers.0.w.weight": torch.zeros(3, 3), "layers.1.w.weight": torch.zeros(3, 3)}
    expert = {name: torch.ones(3, 3) for name in base}
    found = mats.merge_models(base, [expert], by=[{"match": "layers.1.*", "weight": 0.5}],
                              progress=False)  # fmt: skip
    assert [float(value[0, 0]) for value in found.tensors.values()] == [1.0, 0.5]
