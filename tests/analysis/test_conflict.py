"""Measured conflicts: each is the paired difference of the two merges that it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mats_core import figures
from mats_core.analysis.conflict import Conflicts, conflicting
from mats_core.analysis.groups import merges
from mats_core.errors import InputError
from mats_core.evaluation.comparison import Difference, compare, difference
from mats_core.merging.pipeline import run
from mats_core.recipes.plan import open_inputs
from mats_core.recipes.recipe import Recipe, parse_recipe
from mats_core.recipes.sections import Evaluation
from mats_core.system.stream import drain
from tests.conftest import family_recipe

NAMES = ("e0", "e1", "e2")


@pytest.fixture(scope="module")
def recipe(tiny_family: Path) -> Recipe:
    return parse_recipe(family_recipe(tiny_family, "average"), tiny_family)


def alone(recipe: Recipe, *names: str):
    """Results by name of merging these and no others."""
    experts = tuple(e for e in recipe.experts if e.name in names)
    still = Evaluation(split="validation", examples=25)
    own = recipe.model_copy(update={"experts": experts, "evaluate": still})
    inputs = open_inputs(own)
    finished = drain(run(own, inputs=inputs))
    return {r.name: r for r in finished.report.tasks}


def test_pairs_are_merges_of_two_against_the_expert(recipe: Recipe):
    said: list[str] = []
    found = drain(conflicting(recipe, "pairs", examples=25), lambda e: said.append(e.text))
    assert found.tasks == NAMES
    assert len(found.measured) == 6
    assert any(text.startswith("Merge 3 of 3") for text in said)
    for t, s in (("e0", "e2"), ("e2", "e0"), ("e1", "e0")):
        one = alone(recipe, t, s)[t]
        assert found.measured[t, s] == difference(one.merged, one.finetuned, same_examples=True)
        assert found.measured[t, s].paired
        i, j = NAMES.index(t), NAMES.index(s)
        assert found.values[i, j] == found.measured[t, s].value
    assert np.isnan(found.values.diagonal()).all()


def test_leaving_one_out_is_all_against_all_but_one(recipe: Recipe):
    found = drain(conflicting(recipe, "leave one out", examples=25))
    everything = alone(recipe, *NAMES)
    without = alone(recipe, "e0", "e2")
    expected = compare([everything["e2"]], [without["e2"]], same_examples=True).tasks["e2"]
    assert found.measured["e2", "e1"] == expected
    assert (merges(8, "pairs"), merges(8, "leave one out")) == (28, 9)


@pytest.mark.parametrize(("way", "count"), [("pairs", 1), ("leave one out", 2)])
def test_too_few_tasks_are_an_error(tiny_family: Path, way, count: int):
    content = family_recipe(tiny_family, "average")
    content["experts"] = content["experts"][:count]  # type: ignore[index]
    with pytest.raises(InputError, match="experts with tasks"):
        next(conflicting(parse_recipe(content, tiny_family), way))


def test_the_words_are_those_of_the_numbers():
    tasks = tuple("abcd")
    values = np.array([[0, -0.2, 0.01, 0], [0.02, 0, 0, -0.01], [0, 0.1, 0, 0], [0.0, 0, -0.3, 0]])
    measured = {
        (t, s): Difference(v := float(values[i, j]), v - 0.05, v + 0.05, paired=True)
        for i, t in enumerate(tasks)
        for j, s in enumerate(tasks)
        if i != j
    }
    found = Conflicts("pairs", tasks, measured, 200)
    assert found.chance == pytest.approx(0.05)
    drawn = figures.conflict_matrix(found)
    assert "Lowest: c changes d by −30.0 points (−35.0 to −25.0)" in drawn.caption
    assert "of 12 differences 1 are clearly above zero and 2 clearly below" in drawn.caption
    assert "less than 5.0 points" in drawn.caption
    assert "Merges of two, against each expert alone" in drawn.caption
    assert drawn.caption.endswith("on at most 200 validation examples a task.")
    traces: Any = drawn.figure.data
    heat = traces[0]
    assert heat.text[0][1] == "<b>−20.0</b>"
    assert heat.text[0][2] == "+1.0"
    assert heat.z[0][0] is None
    assert len(drawn.rows) == 12
