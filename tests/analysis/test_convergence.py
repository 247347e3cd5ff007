"""Accuracy along the iterations: iterates put together, and the end equal to the merge itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mats_core.analysis.convergence import Trajectory, assemble, follow, grid
from mats_core.errors import InputError
from mats_core.merging.pipeline import run
from mats_core.recipes.events import Finished
from mats_core.recipes.recipe import Recipe, parse_recipe
from mats_core.system import Event, drain
from tests.conftest import family_recipe


def recipe(folder: Path, **options: object) -> Recipe:
    settings = {"iterations": 20, "tolerance": 0.0, **options}
    return parse_recipe(family_recipe(folder, "kfac", options=settings), folder)


def end(events) -> tuple[list[Event], Trajectory]:
    told: list[Event] = []
    return told, drain(events, told.append)


def test_grid_starts_at_zero_and_ends_at_the_last_iteration():
    assert grid(30) == (0, 1, 2, 5, 10, 20, 30)
    assert grid(50) == (0, 1, 2, 5, 10, 20, 50)
    assert grid(0) == (0,)


def test_last_point_equals_the_merge_and_the_first_its_start(tiny_family: Path):
    def accuracies(merged: Recipe, split: str = "validation") -> list[float]:
        settings = {"evaluate": {"split": split}}
        again = Recipe.model_validate({**merged.model_dump(), **settings, "folder": merged.folder})
        report = next(e for e in run(again) if isinstance(e, Finished)).report
        return [task.merged.accuracy for task in report.tasks]

    solved = recipe(tiny_family)
    before, trajectory = end(follow(solved, examples=None))
    assert [p.iteration for p in trajectory.points] == [0, 1, 2, 5, 10, 20]
    assert sum(e.text.startswith("Tested after iteration") for e in before) == 6
    last, first = trajectory.points[-1], trajectory.points[0]
    assert [r.merged.accuracy for r in last.results] == accuracies(solved)
    average = parse_recipe(family_recipe(tiny_family, "average"), tiny_family)
    assert [r.merged.accuracy for r in first.results] == accuracies(average)
    assert trajectory.split == "validation"
    assert last.normalised_accuracy == pytest.approx(
        sum(r.merged.accuracy / r.finetuned.accuracy for r in last.results) / 3
    )


def test_layers_that_stopped_keep_their_value_and_biases_are_unfolded():
    final = {"a.weight": torch.zeros(2, 3), "a.bias": torch.zeros(2), "b.weight": torch.ones(2, 2)}
    folded = torch.arange(8.0).reshape(2, 4)
    found = assemble(final, {"a.weight": {1: folded}, "b.weight": {0: torch.zeros(2, 2)}}, 1)
    assert torch.equal(found["a.weight"], folded[:, :3])
    assert torch.equal(found["a.bias"], folded[:, 3])
    assert torch.equal(found["b.weight"], torch.ones(2, 2))
    assert torch.equal(final["a.weight"], torch.zeros(2, 3)), "the merge itself is left alone"


def test_folded_biases_are_followed_too(tiny_family: Path):
    _, trajectory = end(follow(recipe(tiny_family, fold_bias=True), keep=(0, 3), examples=20))
    assert [p.iteration for p in trajectory.points] == [0, 3]
    assert trajectory.points[0].results[0].merged.examples == 20


def test_methods_without_iterations_are_refused(tiny_family: Path):
    average = parse_recipe(family_recipe(tiny_family, "average"), tiny_family)
    with pytest.raises(InputError, match=r"a method with iterations.*Choose 'kfac'"):
        next(iter(follow(average)))
