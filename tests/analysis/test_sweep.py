"""A grid of merges: every point is the merge it says, and a bad point is a hole with a reason."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from mats_core.analysis.sweep import Axis, Cell, CellDone, best, knobs, suggested, sweep
from mats_core.errors import InputError
from mats_core.evaluation.comparison import normalised_interval
from mats_core.merging.pipeline import merge
from mats_core.methods.reference import describe
from mats_core.methods.table import METHODS
from mats_core.recipes.events import LayerDone
from mats_core.recipes.recipe import Recipe, parse_options, parse_recipe
from mats_core.recipes.sections import Evaluation
from tests.conftest import family_recipe


@pytest.fixture
def recipe(tiny_family: Path) -> Recipe:
    return parse_recipe(family_recipe(tiny_family, "ties"), tiny_family)


def cells(events) -> list[Cell]:
    return [event.cell for event in events if isinstance(event, CellDone)]


def test_every_cell_is_the_merge_with_its_options_on_validation_data(recipe: Recipe):
    x, y = Axis("scaling", (0.0, 0.5, 3.0)), Axis("density", (0.3, 1.0))
    found = cells(sweep(recipe, x, y, examples=20))
    assert [(c.x, c.y) for c in found] == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]
    for cell in found:
        options = {"scaling": x.values[cell.x], "density": y.values[cell.y]}
        assert cell.options == options
        alone = recipe.model_copy(
            update={
                "options": options,
                "evaluate": Evaluation(split="validation", examples=20),
            }
        )
        report = merge(alone)
        assert cell.accuracy == report.normalised_accuracy
        assert (cell.low, cell.high) == normalised_interval(report.tasks)
        assert cell.accuracy is not None
        assert cell.low < cell.accuracy < cell.high
    assert len({cell.accuracy for cell in found}) > 1
    assert found[0].accuracy == found[1].accuracy  # scaling 0 is the base, whatever the density


def test_other_options_stay_those_of_the_recipe(tiny_family: Path):
    content = family_recipe(tiny_family, "ties", options={"scope": "tensor", "density": 0.1})
    recipe = parse_recipe(content, tiny_family)
    one = cells(sweep(recipe, Axis("scaling", (2.0,)), Axis("density", (0.4,)), examples=20))
    wanted = {"scope": "tensor", "density": 0.4, "scaling": 2.0}
    still = Evaluation(split="validation", examples=20)
    same = merge(recipe.model_copy(update={"options": wanted, "evaluate": still}))
    assert one[0].accuracy == same.normalised_accuracy


def test_a_bad_point_is_a_hole_with_its_reason(tiny_family: Path):
    content = family_recipe(tiny_family, "gradient_matching", options={"prior": 1.0})
    del content["base_statistics"]
    recipe = parse_recipe(content, tiny_family)
    axes = Axis("prior", ("pretrained", 0.5)), Axis("scaling", (1.0,))
    hole, fine = cells(sweep(recipe, *axes, examples=10))
    assert hole.accuracy is None
    assert "base_statistics" in hole.reason
    assert fine.accuracy is not None
    assert fine.reason == ""


def test_an_error_of_torch_is_a_hole_too(recipe: Recipe, monkeypatch: pytest.MonkeyPatch):
    import torch

    module = importlib.import_module("mats_core.analysis.attempt")

    real = module.run

    def fragile(recipe: Recipe, **kwargs):
        if recipe.options["scaling"] == 2.0:
            raise torch.linalg.LinAlgError(  # type: ignore[reportPrivateImportUsage]
                "did not converge\nand more"
            )
        return real(recipe, **kwargs)

    monkeypatch.setattr(module, "run", fragile)
    axes = Axis("scaling", (1.0, 2.0)), Axis("density", (0.2,))
    fine, hole = cells(sweep(recipe, *axes, examples=10))
    assert fine.accuracy is not None
    assert hole.reason.endswith("did not converge")


def test_the_events_of_each_merge_pass_through_so_that_it_can_be_stopped(recipe: Recipe):
    axes = Axis("scaling", (1.0, 2.0)), Axis("density", (0.2,))
    events = sweep(recipe, *axes, examples=10)
    first = next(event for event in events if isinstance(event, LayerDone))
    assert first.index == 0
    events.close()  # type: ignore[reportPrivateImportUsage]
    assert list(events) == []


def test_best_is_the_first_of_the_highest():
    found = [
        Cell(0, 0, {}, 0.5),
        Cell(0, 1, {}, None, reason="failed"),
        Cell(1, 0, {}, 0.9),
        Cell(1, 1, {}, 0.9),
    ]
    assert best(found) is found[2]
    assert best(found[1:2]) is None


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (Axis("scaling", (1.0,)), Axis("scaling", (2.0,)), "two different options"),
        (Axis("scaling", ()), Axis("density", (0.2,)), "values to try"),
        (Axis("scalling", (1.0,)), Axis("density", (0.2,)), "Did you mean 'scaling'?"),
        (Axis("scaling", (1.0,)), Axis("density", (0.2, 7.0)), "sweep over 'density'"),
    ],
)
def test_what_is_wrong_everywhere_is_an_error_before_any_work(
    recipe: Recipe, x: Axis, y: Axis, message: str
):
    with pytest.raises(InputError) as caught:
        next(sweep(recipe, x, y))
    assert message in str(caught.value)


def test_a_family_without_tasks_and_a_method_without_statistics_are_errors(tiny_family: Path):
    content = family_recipe(tiny_family, "ties")
    for expert in content["experts"]:  # type: ignore[reportPrivateImportUsage]
        del expert["task"]
    axes = Axis("scaling", (1.0,)), Axis("density", (0.2,))
    with pytest.raises(InputError, match="experts with tasks"):
        next(sweep(parse_recipe(content, tiny_family), *axes))
    content = family_recipe(tiny_family, "regmean")
    for expert in content["experts"]:  # type: ignore[reportPrivateImportUsage]
        del expert["statistics"]
    axes = Axis("damping", (0.1,)), Axis("off_diagonal", (0.2,))
    with pytest.raises(InputError, match="statistics for every expert"):
        next(sweep(parse_recipe(content, tiny_family), *axes))


@pytest.mark.parametrize("method", METHODS)
def test_suggested_values_are_allowed_and_hold_the_default(method: str):
    for field in knobs(method):
        values = suggested(method, field)
        assert len(set(values)) == len(values) <= 5
        assert len(values) > 1 or len(field.choices) == 1
        for value in values:
            parse_options(method, {field.name: value})
        if field.default is not None:
            assert field.default in values
            numbers = [v for v in values if not isinstance(v, str)]
            assert numbers == sorted(numbers)
    assert {f.name for f in describe(method)} >= {f.name for f in knobs(method)}
