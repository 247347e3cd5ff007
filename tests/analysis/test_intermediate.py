"""Intermediate tasks: pairs of a target and a donor, the weight, and the one test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mats_core.analysis import (
    Donated,
    Donation,
    DonationDone,
    Donations,
    donating,
    finally_asked,
    gained,
)
from mats_core.cli import main
from mats_core.errors import InputError
from mats_core.evaluation import Score, TaskResult
from mats_core.merging import merge
from mats_core.recipes import (
    Evaluation,
    Recipe,
    dump_recipe,
    load_recipe,
    parse_recipe,
    still_tuned,
)
from mats_core.system import drain
from tests.conftest import family_recipe


@pytest.fixture
def recipe(tiny_family: Path) -> Recipe:
    return parse_recipe(family_recipe(tiny_family, "average"), tiny_family)


def alone(recipe: Recipe, target: str, donor: str, weight: float, split: str) -> TaskResult:
    """The target's result of a merge by a recipe that is written by hand."""
    shares = {target: weight, donor: 1 - weight}
    experts = [
        entry.model_copy(update={"weight": shares[entry.name]})
        for entry in recipe.experts
        if entry.name in shares
    ]
    asked = Evaluation(split=split, examples=20 if split == "validation" else None)  # type: ignore[arg-type]
    report = merge(recipe.model_copy(update={"experts": tuple(experts), "evaluate": asked}))
    return next(task for task in report.tasks if task.name == target)


def test_every_point_is_a_merge_of_two_and_asks_the_target_alone(recipe: Recipe):
    settings: dict[str, Any] = {"targets": ["e1"], "weights": (0, 0.4, 1), "examples": 20}
    events = list(donating(recipe, **settings))
    found = [event.donation for event in events if isinstance(event, DonationDone)]
    assert [(one.target, one.donor) for one in found] == [("e1", "e0"), ("e1", "e2")]
    assert [event.fraction for event in events] == sorted(event.fraction for event in events)
    for one in found:
        for point in one.points:
            assert point.result is not None
            same = alone(recipe, "e1", one.donor, point.weight, "validation")
            assert point.result.merged == same.merged
            assert point.result.finetuned == same.finetuned
        last = one.points[-1].result
        assert last is not None
        assert last.merged.value == last.finetuned.value  # a mean with weight 1 is the expert


def test_the_chosen_merge_is_asked_the_test_examples(recipe: Recipe):
    found = drain(donating(recipe, targets=["e0"], donors=["e2"], weights=(0.3, 0.8), examples=20))
    (one,) = found.donations
    assert found.of("e0", "e2") is one is found.best_for("e0")
    assert one.best is not None
    chosen = found.recipe_for(one)
    assert still_tuned(chosen)
    result = drain(finally_asked(chosen, "e0"))
    assert result.merged == alone(recipe, "e0", "e2", one.best.weight, "test").merged
    assert gained(result).value == pytest.approx(result.merged.value - result.finetuned.value)


def test_of_equal_weights_the_one_nearest_to_the_expert_is_the_best():
    def result(right: int) -> TaskResult:
        return TaskResult("t", Score(right, 10), Score(7, 10), Score(1, 10))

    points = tuple(
        Donated(weight, None if right is None else result(right), "" if right else "failed")
        for weight, right in ((0.0, 8), (0.5, 8), (0.8, 6), (1.0, None))
    )
    one = Donation("t", "d", points)
    assert one.best is points[1]
    assert one.gain is not None
    assert one.gain.value == pytest.approx(0.1)
    none = Donation("t", "d", points[3:])
    assert none.best is none.gain is None
    assert Donations(None, (none,), None).best_for("t") is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("average", {"targets": ["e7"]}, "target with a task"),
        ("average", {"donors": ["e7"]}, "donor"),
        ("average", {"weights": (0.5, 1.5)}, "from 0 to 1"),
        ("average", {"targets": ["e0"], "donors": ["e0"]}, "another expert as its donor"),
        ("essential", {}, "treats them alike|treats"),
        ("sequential", {}, "calibrates"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_any_work(
    tiny_family: Path, method: str, settings: dict[str, Any], message: str
):
    recipe = parse_recipe(family_recipe(tiny_family, method), tiny_family)
    with pytest.raises(InputError, match=message):
        next(donating(recipe, **settings))


def test_the_command_prints_pairs_and_writes_the_best(recipe: Recipe, tmp_path: Path, capsys):
    file, out = tmp_path / "recipe.yaml", tmp_path / "best.yaml"
    file.write_text(dump_recipe(recipe, absolute=True))
    words = ["donors", str(file), "--targets", "e0", "--weights", "0.5,1", "--examples", "9"]
    assert main([*words, "--output", str(out), "--test"]) == 0
    said = capsys.readouterr().out
    assert "e0 with e2" in said
    assert "asked once" in said
    best = load_recipe(out)
    assert best.experts[0].name == "e0"
    assert best.tuned is not None
    assert main([*words, "--output", str(out)]) == 2
    assert "--force" in capsys.readouterr().err
    assert main([*words, "--weights", "half"]) == 2
