"""Ladders: every rung is the merge that it says, every step a paired difference to the last."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from mats_core import figures
from mats_core.analysis.ladder import Stand, Stood, climb, of_rung, steps
from mats_core.errors import InputError
from mats_core.evaluation.comparison import compare
from mats_core.evaluation.scores import Score, TaskResult
from mats_core.merging.pipeline import merge
from mats_core.methods import LADDERS, METHODS, Ladder, Rung
from mats_core.recipes.recipe import parse_options, parse_recipe
from mats_core.recipes.sections import Evaluation
from mats_core.system.stream import drain
from tests.conftest import family_recipe

ESM, KFAC, _ = LADDERS


@pytest.mark.parametrize("ladder", LADDERS, ids=lambda ladder: ladder.title)
def test_rungs_are_merges_and_say_what_changes(ladder: Ladder):
    assert len({rung.title for rung in ladder.rungs}) == len(ladder.rungs)
    before = None
    for rung in ladder.rungs:
        options = parse_options(rung.method, rung.options)
        assert (rung.method, options, rung.rounds) != before, "a step changes something"
        before = (rung.method, options, rung.rounds)
        assert rung.change.endswith(".")


def test_esms_ladder_ends_at_its_defaults_one_option_at_a_time():
    assert parse_options("essential", ESM.rungs[-1].options) == METHODS["essential"].options()
    parsed = [parse_options(r.method, r.options).model_dump() for r in ESM.rungs[1:]]
    for one, next_ in itertools.pairwise(parsed):
        assert sum(one[name] != next_[name] for name in one) == 1


@pytest.mark.parametrize("ladder", LADDERS, ids=lambda ladder: ladder.title)
def test_every_stand_is_the_merge_of_its_rung_on_validation_data(tiny_family: Path, ladder):
    recipe = parse_recipe(family_recipe(tiny_family, "average"), tiny_family)
    said: list[Stand] = []

    def see(event) -> None:
        if isinstance(event, Stood):
            said.append(event.stand)

    stands = drain(climb(recipe, ladder, examples=15), see)
    assert tuple(said) == stands
    assert [stand.rung for stand in stands] == list(ladder.rungs)
    for stand in (*stands[::3], stands[-1]):
        still = Evaluation(split="validation", examples=15)
        alone = of_rung(recipe.model_copy(update={"evaluate": still}), stand.rung)
        assert stand.reason == ""
        assert stand.results == merge(alone).tasks
        assert {r.merged.examples for r in stand.results} == {15}


def result(name: str, right: int) -> TaskResult:
    return TaskResult(name, Score(right, 20, "1" * right + "0" * (20 - right)), Score(20, 20),
                      Score(5, 20))  # fmt: skip


def stand(title: str, *right: int, reason: str = "", against: str = "") -> Stand:
    results = tuple(result(f"t{i}", n) for i, n in enumerate(right))
    return Stand(Rung(title, "average", against=against), results, reason)


def test_a_step_is_measured_against_the_one_that_it_names():
    stands = [stand("1", 5, 5), stand("1, steadied", 9, 9, against="1"),
              stand("2", 7, 7, against="1"), stand("3", 8, 8, against="not merged")]  # fmt: skip
    _, steadied, second, third = steps(stands)
    assert steadied == compare(stands[1].results, stands[0].results, same_examples=True)
    assert second == compare(stands[2].results, stands[0].results, same_examples=True)
    assert third is None


@pytest.mark.parametrize("ladder", LADDERS, ids=lambda ladder: ladder.title)
def test_what_a_rung_is_compared_with_stands_before_it(ladder: Ladder):
    for place, rung in enumerate(ladder.rungs):
        assert rung.against in ("", *(before.title for before in ladder.rungs[:place]))


def test_a_step_is_measured_against_the_last_that_was_merged():
    stands = [stand("a", 5, 5), stand("b", reason="It failed."), stand("c", 20, 6)]
    first, second, third = steps(stands)
    assert first is second is None
    assert third == compare(stands[2].results, stands[0].results, same_examples=True)
    looks = figures.looks(["t0", "t1"])
    drawn = figures.ladder_lines(stands, looks, examples=20, of=4)
    assert drawn is not None
    assert "3 of 4 steps so far" in drawn.caption
    assert "a keeps 25.0 % of the experts' accuracy, c 65.0 %" in drawn.caption
    assert third is not None
    assert third.mean is not None
    assert f"Clearly better than the step before: c ({figures.points(third.mean)})" in drawn.caption
    assert "b could not be merged: It failed." in drawn.caption
    assert drawn.caption.endswith("Measured on at most 20 validation examples a task.")
    lines = {trace.name: list(trace.y) for trace in drawn.figure.data}  # type: ignore[attr-defined]
    assert lines == {"t0": [0.25, 1.0], "t1": [0.25, 0.3], "<b>all tasks</b>": [0.25, 0.65]}
    assert len(drawn.rows) == 4


def test_a_step_within_chance_is_said_to_be():
    stands = [stand("a", 10, 10), stand("b", 10, 11), stand("c", 0, 0)]
    drawn = figures.ladder_lines(stands, figures.looks(["t0", "t1"]), examples=20, of=3)
    assert drawn is not None
    assert "Clearly better than the step before: none; clearly worse: c (" in drawn.caption
    assert "may be chance: b. " in drawn.caption
    assert figures.ladder_lines([stands[0], stand("x")][1:], {}, examples=1, of=1) is None


def test_a_family_without_tasks_has_no_ladder(tiny_family: Path):
    content = family_recipe(tiny_family, "average")
    for expert in content["experts"]:  # type: ignore[attr-defined]
        del expert["task"]
    with pytest.raises(InputError, match="experts with tasks"):
        next(climb(parse_recipe(content, tiny_family), ESM))
