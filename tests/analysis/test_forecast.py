"""The forecast of conflicts: answers that a probe moves, without labels, statistics or method."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mats_core import figures, models, tasks
from mats_core.analysis.conflict import Conflicts
from mats_core.analysis.correlation import correlate_pairs
from mats_core.analysis.forecast import Forecast, forecasting
from mats_core.errors import InputError
from mats_core.evaluation import with_head
from mats_core.evaluation.comparison import Difference
from mats_core.evaluation.evaluate import asked
from mats_core.merging.pipeline import run
from mats_core.recipes.plan import open_inputs
from mats_core.recipes.recipe import Recipe, parse_recipe
from mats_core.system.stream import drain
from tests.conftest import family_recipe

NAMES = ("e0", "e1", "e2")
COUNT = 9


@pytest.fixture(scope="module")
def recipe(tiny_family: Path) -> Recipe:
    return parse_recipe(family_recipe(tiny_family, "average"), tiny_family)


def answers(directory: Path | None, tensors, split) -> np.ndarray:
    """Class probabilities in float64."""
    said = asked(directory, tensors, split).double().numpy()
    odds = np.exp(said - said.max(1, keepdims=True))
    return odds / odds.sum(1, keepdims=True)


def moved(recipe: Recipe, t: str, *names: str) -> float:
    """What merging these by TSV-M does to the answers of t, by a merge of its own."""
    experts = tuple(e for e in recipe.experts if e.name in names)
    update = {"experts": experts, "method": "tsv_m", "options": {}, "evaluate": False}
    inputs = open_inputs(own := recipe.model_copy(update=update))
    merged = drain(run(own, inputs=inputs)).tensors
    expert = next(e for e in inputs.family.experts if e.name == t)
    train = tasks.load(expert.task, root=recipe.folder).train
    rows = train.take(np.random.default_rng(recipe.seed).permutation(len(train))[:COUNT])
    whole = {expert.own(n): v for n, v in models.tensors_of(expert.checkpoint).items()}
    directory = expert.checkpoint.directory
    before = answers(directory, whole, rows)
    after = answers(directory, with_head(merged, inputs.family, expert), rows)
    return float(np.maximum(before - after, 0).sum(1).mean())  # is half of all that moves


def test_pairs_are_probes_of_two_against_the_expert(recipe: Recipe):
    said: list[str] = []
    found = drain(forecasting(recipe, examples=COUNT), lambda e: said.append(e.text))
    assert (found.way, found.tasks, found.examples) == ("pairs", NAMES, COUNT)
    assert any(text.startswith("Probe 3 of 3") for text in said)
    for t, s in (("e0", "e2"), ("e2", "e0"), ("e1", "e0")):
        value = found.moved[NAMES.index(t), NAMES.index(s)]
        assert value == pytest.approx(moved(recipe, t, t, s), abs=1e-6)
        assert 0 < value < 1
    assert np.isnan(found.moved.diagonal()).all()


def test_leaving_one_out_is_all_against_all_but_one(recipe: Recipe):
    found = drain(forecasting(recipe, "leave one out", examples=COUNT))
    expected = moved(recipe, "e2", *NAMES) - moved(recipe, "e2", "e0", "e2")
    assert found.moved[2, 1] == pytest.approx(expected, abs=1e-6)


def test_neither_method_nor_statistics_nor_labels_change_it(recipe: Recipe, monkeypatch):
    plain = drain(forecasting(recipe, examples=COUNT))
    bare = tuple(e.model_copy(update={"statistics": None}) for e in recipe.experts)
    other = {"experts": bare, "method": "task_arithmetic", "options": {"scaling": 0.1}}
    load = tasks.load

    def unlabelled(*args, **kwargs):
        task = load(*args, **kwargs)
        return replace(task, train=replace(task.train, labels=np.zeros_like(task.train.labels)))

    monkeypatch.setattr("mats_core.analysis.forecast.tasks.load", unlabelled)
    again = drain(forecasting(recipe.model_copy(update=other), examples=COUNT))
    np.testing.assert_array_equal(again.moved, plain.moved)


@pytest.mark.parametrize(("way", "count"), [("pairs", 1), ("leave one out", 2)])
def test_too_few_tasks_are_an_error(recipe: Recipe, way, count: int):
    few = recipe.model_copy(update={"experts": recipe.experts[:count]})
    with pytest.raises(InputError, match="experts with tasks"):
        next(forecasting(few, way))


def test_the_words_are_those_of_the_numbers():
    names = tuple("abcd")
    moved = np.array([[np.nan, 0.2, 0.05, 0.1], [0.01, np.nan, 0.0, 0.02],
                      [0.3, 0.1, np.nan, 0.4], [0.03, 0.0, 0.06, np.nan]])  # fmt: skip
    found = Forecast("pairs", names, moved, 64)
    alone = figures.forecast_matrix(found)
    assert "most: d moves 40.0 % of c" in alone.caption
    assert "64 inputs a task without their labels" in alone.caption
    assert "correlation" not in alone.caption
    assert len(alone.rows) == 12
    couples = [(i, j) for i in range(4) for j in range(4) if i != j]
    falls = {
        (names[i], names[j]): Difference(-moved[i, j], -moved[i, j] - 0.1, 0.1, paired=True)
        for i, j in couples
    }
    measured = Conflicts("pairs", names, falls, 200)
    assert found.explains(measured.values) == correlate_pairs(moved, moved)
    both = figures.forecast_matrix(found, measured)
    assert "goes with the measured falls of the accuracy: rank correlation +1.00" in both.caption
    traces: Any = both.figure.data
    heat = traces[0]
    assert heat.text[0][1] == "20.0"
    assert heat.text[0][0] == ""
