"""Averages and task arithmetic against their one-line formulas."""

from __future__ import annotations

import numpy as np
import pytest

from mats_core.merging.pipeline import run
from mats_core.recipes.events import Finished
from tests.layer_cases import SEEDS, close, merged, random_case, raw_recipe, value


@pytest.mark.parametrize("seed", SEEDS)
def test_average_is_the_mean(seed):
    layer = random_case(seed).layer
    close(value(layer, "average"), np.mean([w.numpy() for w in layer.experts], axis=0))
    assert merged(layer, "average").treatment == "averaged"


@pytest.mark.parametrize("seed", SEEDS)
def test_weighted_average_divides_by_the_sum_of_weights(seed):
    layer = random_case(seed).with_weights(1.0, 2.0, 5.0).layer
    w1, w2, w3 = (w.numpy() for w in layer.experts)
    close(value(layer, "average"), (w1 + 2 * w2 + 5 * w3) / 8)


@pytest.mark.parametrize("scaling", [0.0, 0.3, 1.0])
def test_task_arithmetic_adds_the_weighted_task_vectors(scaling):
    layer = random_case(3).with_weights(1.0, 0.5, 2.0).layer
    w0 = layer.base.numpy()
    d1, d2, d3 = (w.numpy() - w0 for w in layer.experts)
    expected = w0 + scaling * (d1 + 0.5 * d2 + 2 * d3)
    close(value(layer, "task_arithmetic", scaling=scaling), expected)


def test_a_weight_of_zero_leaves_the_expert_out():
    case = random_case(4)
    layer = case.with_weights(1.0, 0.0, 1.0).layer
    close(value(layer, "average"), (layer.experts[0] + layer.experts[2]) / 2)


def test_fedavg_weighs_by_training_examples(tmp_path):
    case = random_case(5)
    name = case.layer.name
    recipe = raw_recipe(
        tmp_path,
        {name: case.layer.base},
        [{name: w} for w in case.layer.experts],
        "average",
        weighting="examples",
    )
    counts = (100, 300, 600)
    entries = tuple(
        entry.model_copy(update={"examples": count})
        for entry, count in zip(recipe.experts, counts, strict=True)
    )
    *_, last = run(recipe.model_copy(update={"experts": entries}))
    assert isinstance(last, Finished)
    w1, w2, w3 = case.layer.experts
    close(last.tensors[name], 0.1 * w1 + 0.3 * w2 + 0.6 * w3)
