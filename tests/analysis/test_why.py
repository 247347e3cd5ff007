"""Why one merge is better: costs of both from the same statistics, and what they explain."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mats_core.analysis.predicted_loss import layer_costs, measured_layers
from mats_core.analysis.why import Why, explaining
from mats_core.evaluation.comparison import Difference
from mats_core.merging.pipeline import run
from mats_core.models.modules import tensors_of
from mats_core.recipes.plan import open_inputs
from mats_core.recipes.recipe import parse_recipe
from mats_core.system.stream import Event, drain
from tests.conftest import family_recipe


def test_costs_of_two_merges_by_layer_and_task(tiny_family: Path):
    recipe = parse_recipe(family_recipe(tiny_family, "average", evaluate=False), tiny_family)
    inputs = open_inputs(recipe)
    average = drain(run(recipe, inputs=inputs)).tensors
    own, said = tensors_of(inputs.family.experts[1].checkpoint), list[Event]()
    why = drain(explaining(inputs, own, average), said.append)
    assert why.layers == measured_layers(inputs)
    assert why.tasks == ("e0", "e1", "e2")
    assert len(said) == len(why.layers)
    for row, name in enumerate(why.layers):
        assert why.first[row].tolist() == layer_costs(inputs, own, name)
        assert why.second[row].tolist() == layer_costs(inputs, average, name)
    # The expert itself costs itself nothing, and the others more than the average does.
    assert why.first[:, 1] == pytest.approx(0)
    assert why.by_task["e1"] == pytest.approx(why.second[:, 1].sum())
    assert why.by_task["e1"] > 0 > why.by_task["e0"]
    assert sum(why.by_layer.values()) == pytest.approx(sum(why.by_task.values()))
    same = drain(explaining(inputs, average, average))
    assert set(same.by_layer.values()) == {0.0}


def test_without_statistics_there_is_nothing_to_say(tiny_family: Path):
    content = family_recipe(tiny_family, "average", evaluate=False)
    for expert in content["experts"]:  # type: ignore[attr-defined]
        del expert["statistics"]
    recipe = parse_recipe(content, tiny_family)
    inputs = open_inputs(recipe)
    average = drain(run(recipe, inputs=inputs)).tensors
    why = drain(explaining(inputs, average, average))
    assert why.layers == ()
    assert why.by_task == why.by_layer == {}


def parts(values: dict[str, float]) -> dict[str, Difference]:
    return {name: Difference(v, v - 0.1, v + 0.1, paired=True) for name, v in values.items()}


def test_what_is_explained_is_the_order_of_tasks_with_statistics():
    second = np.array([[1.0, 2.0, 3.0, 4.0, np.nan], [0.5, 0.5, 0.5, 0.5, np.nan]])
    why = Why(("l0", "l1"), tuple("abcde"), np.zeros((2, 5)), second)
    assert why.by_task == {"a": 1.5, "b": 2.5, "c": 3.5, "d": 4.5}
    assert why.by_layer == {"l0": 10.0, "l1": 2.0}
    found = why.explained(parts({"a": 0.1, "c": 0.2, "b": 0.3, "e": 9.0, "x": 1.0}))
    assert found is not None
    assert (found.value, found.count) == (pytest.approx(0.5), 3)
    assert why.explained(parts({"a": 0.1, "b": 0.2})) is None
