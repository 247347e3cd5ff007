"""Greedy soup: the order, what stays, and the recipe that comes out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from mats_core.analysis import IngredientDone, greedy_soup
from mats_core.cli import main
from mats_core.errors import InputError
from mats_core.merging import merge
from mats_core.recipes.recipe import Recipe, dump_recipe, parse_recipe
from mats_core.recipes.sections import Evaluation
from mats_core.system import drain
from tests.conftest import family_recipe


@pytest.fixture
def recipe(tiny_family: Path) -> Recipe:
    return parse_recipe(family_recipe(tiny_family, "ties", options={"density": 0.3}), tiny_family)


def accuracy(recipe: Recipe, members: list[str]) -> float:
    """Of the average of some experts, on the tasks of all of them."""
    experts = [
        entry.model_copy(update={"weight": float(entry.name in members)})
        for entry in recipe.experts
    ]
    update = {
        "method": "average", "options": {}, "experts": tuple(experts),
        "evaluate": Evaluation(split="validation", examples=15),
    }  # fmt: skip
    tasks = merge(recipe.model_copy(update=update)).tasks
    return sum(task.merged.value for task in tasks) / len(tasks)


def test_experts_are_added_from_the_best_and_stay_where_nothing_falls(recipe: Recipe):
    found = drain(greedy_soup(recipe, examples=15))
    alone = {one.name: accuracy(recipe, [one.name]) for one in found.ingredients}
    assert [one.alone for one in found.ingredients] == sorted(alone.values(), reverse=True)
    kept: list[str] = []
    best = 0.0
    for one in found.ingredients:
        assert one.alone == alone[one.name]
        assert one.together == accuracy(recipe, [*kept, one.name])
        assert one.kept == (one.together >= best)
        if one.kept:
            kept, best = [*kept, one.name], one.together
    assert found.accuracy == best
    assert [entry.name for entry in found.recipe.experts] == sorted(kept)
    assert (found.recipe.method, found.recipe.options) == ("average", {})
    assert {entry.weight for entry in found.recipe.experts} == {1.0}


def test_progress_rises_to_the_end(recipe: Recipe):
    events = list(greedy_soup(recipe, examples=5))
    fractions = [event.fraction for event in events if event.fraction is not None]
    assert fractions == sorted(fractions)
    done = [event for event in events if isinstance(event, IngredientDone)]
    assert len(done) == 3
    assert done[-1].fraction == 1


def test_without_tasks_there_is_nothing_to_choose_by(tiny_family: Path):
    content: dict[str, Any] = family_recipe(tiny_family, "average")
    experts = [{k: v for k, v in one.items() if k != "task"} for one in content["experts"]]
    content = {**content, "experts": experts}
    with pytest.raises(InputError, match="experts with tasks"):
        drain(greedy_soup(parse_recipe(content, tiny_family)))


def test_the_command_writes_a_recipe(recipe: Recipe, tmp_path: Path, capsys):
    file, out = tmp_path / "recipe.yaml", tmp_path / "soup.yaml"
    file.write_text(dump_recipe(recipe, absolute=True))
    assert main(["soup", str(file), "--examples", "5", "--output", str(out)]) == 0
    assert "stays" in capsys.readouterr().out
    assert parse_recipe(yaml.safe_load(out.read_text()), tmp_path).method == "average"
    assert main(["soup", str(file), "--output", str(out)]) == 2
    assert "--force" in capsys.readouterr().err
