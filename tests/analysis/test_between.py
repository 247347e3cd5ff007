"""The way between models: its ends are the models, and its middle is the mean of two."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mats_core import figures
from mats_core.analysis.between import Between, walking
from mats_core.analysis.predicted_loss import cross_entropy
from mats_core.errors import InputError
from mats_core.evaluation.evaluate import evaluate_expert
from mats_core.merging.pipeline import run
from mats_core.models.modules import tensors_of
from mats_core.recipes.plan import open_inputs
from mats_core.recipes.recipe import parse_recipe
from mats_core.system.stream import Event, drain
from mats_core.tasks.loading import load
from tests.conftest import family_recipe


def test_the_ends_are_the_models_and_the_middle_is_their_mean(tiny_family: Path):
    recipe = parse_recipe(family_recipe(tiny_family, "average", evaluate=False), tiny_family)
    inputs = open_inputs(recipe)
    merged, said = drain(run(recipe, inputs=inputs)).tensors, list[Event]()
    events = walking(recipe, merged, inputs=inputs, places=(-1, 0, 0.5, 1), examples=20)
    found = drain(events, said.append)
    assert found.tasks == ("e0", "e1", "e2")
    assert found.examples == (20, 20, 20)
    assert [e.fraction for e in said] == sorted(e.fraction for e in said)
    for row, expert in enumerate(inputs.family.experts):
        split = load(tiny_family / f"t{row}.npz").validation.first(20)
        own, base = tensors_of(expert.checkpoint), tensors_of(inputs.family.base)
        middle = {name: (own[name] + merged[name]) / 2 for name in inputs.family.shared}
        for column, encoder in enumerate((base, own, middle, merged)):
            score = evaluate_expert(encoder, inputs.family, expert, split)
            loss = cross_entropy(encoder, inputs.family, expert, split).mean()
            assert found.accuracy[row, column] == pytest.approx(score.accuracy)
            assert found.loss[row, column] == pytest.approx(loss, rel=1e-4)


def test_a_barrier_is_what_rises_above_the_straight_line():
    loss = np.array([[9.0, 0.0, 0.9, 1.0], [9.0, 0.0, 0.2, 1.0]])
    right = np.array([[0.1, 1.0, 0.8, 0.7], [0.1, 1.0, 0.9, 0.9]])
    found = Between(("a", "b"), (-1, 0, 0.5, 1), right, loss, (200, 150))
    assert found.barriers == pytest.approx({"a": 0.4, "b": 0.0})
    drawn = figures.way_between(found, figures.looks("ab"))
    assert "a falls furthest, by 30.0 points" in drawn.caption
    assert "rises on 1 of 2 ways, most for a: by 0.4 nats" in drawn.caption
    assert drawn.caption.endswith("Measured on 350 validation examples.")
    assert len(drawn.rows) == 8
    flat = figures.way_between(
        Between(("b",), (-1, 0, 0.5, 1), right[1:], loss[1:], (9,)), figures.looks("b"), "accuracy"
    )
    assert "On no way does the loss rise" in flat.caption
    assert "b falls furthest, by 10.0 points" in flat.caption
    still = Between(("b",), (-1, 0, 1), np.ones((1, 3)), np.zeros((1, 3)), (9,))
    said = figures.way_between(still, figures.looks("b")).caption
    assert "No task's accuracy falls from its expert to the merge. On no way" in said


def test_a_family_without_tasks_has_no_way(tiny_family: Path):
    content = family_recipe(tiny_family, "average", evaluate=False)
    for expert in content["experts"]:  # type: ignore[attr-defined]
        del expert["task"]
    recipe = parse_recipe(content, tiny_family)
    inputs = open_inputs(recipe)
    with pytest.raises(InputError, match="tasks with classes"):
        drain(walking(recipe, tensors_of(inputs.family.base), inputs=inputs))
