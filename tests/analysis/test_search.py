"""A search: its space, its trials, its journal, and what it comes to."""

from __future__ import annotations

import importlib
import math
import os
import random
import shutil
import sys
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from mats_core.analysis import (
    OBJECTIVES,
    Searched,
    SearchTrial,
    SearchTrialDone,
    Space,
    knobs_of,
    pareto,
    searching,
    with_values,
)
from mats_core.analysis.search_space import as_it_is, ladder, points
from mats_core.analysis.search_study import Study
from mats_core.analysis.search_trials import Here, Tried
from mats_core.errors import InputError
from mats_core.evaluation import Score, TaskResult, normalised_interval, share
from mats_core.merging import Event, merge, reads_of
from mats_core.methods import METHODS, describe
from mats_core.recipes import (
    Evaluation,
    Inputs,
    Recipe,
    Report,
    dump_recipe,
    open_inputs,
    parse_options,
    parse_recipe,
    still_tuned,
)
from mats_core.system import drain
from tests.conftest import family_recipe

MODULE = importlib.import_module("mats_core.analysis.search_trials")
RIGHT = 100_000  # examples of a toy's task, so that its accuracy is nearly any number


@pytest.fixture
def recipe(tiny_family: Path) -> Recipe:
    return parse_recipe(family_recipe(tiny_family, "ties"), tiny_family)


@pytest.fixture
def inputs(recipe: Recipe) -> Inputs:
    return open_inputs(recipe)


Toy = Callable[[Recipe], dict[str, float] | str]


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Callable[[Toy], list[Recipe]]:
    """Merges whose accuracies are a formula of the recipe; returns the recipes that were tried."""

    def install(formula: Toy) -> list[Recipe]:
        tried: list[Recipe] = []

        def attempt(recipe: Recipe, inputs: Inputs) -> Generator[Event, None, Any]:
            tried.append(recipe)
            yield Event(fraction=0.5, text="Merging")
            found = formula(recipe)
            if isinstance(found, str):
                return None, found
            whole = Score(RIGHT, RIGHT)
            results = tuple(
                TaskResult(name, Score(round(RIGHT * value), RIGHT), whole, Score(1, RIGHT))
                for name, value in found.items()
            )
            made = Report(recipe.method, {}, 0, "cpu", "", "float32", 0.0, (), results)
            return made, ""

        monkeypatch.setattr(MODULE, "attempt", attempt)
        return tried

    return install


def hill(recipe: Recipe) -> dict[str, float]:
    """Highest at density 0.7 and scaling 1.3; the scope makes no difference."""
    options = {"density": 0.2, "scaling": 1.0, **recipe.options}
    height = math.exp(-3 * (options["density"] - 0.7) ** 2 - (options["scaling"] - 1.3) ** 2)
    return {"e0": height, "e1": 0.9 * height}


def plain(trials: tuple[SearchTrial, ...]) -> list[SearchTrial]:
    """Without the time that they took."""
    return [replace(trial, seconds=0.0) for trial in trials]


# The space ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_searchable_by_what_it_declares(method: str, tiny_family: Path):
    recipe = parse_recipe(family_recipe(tiny_family, method), tiny_family)
    for field in describe(method):
        if field.kind == "text" and not field.checkpoint:
            continue
        values, ordered = ladder(recipe, field)
        assert len(set(values)) == len(values) >= 2, field.name
        for value in values:
            parse_options(method, {field.name: value})
        if ordered:
            assert list(values) == sorted(values)
            assert min(values) >= 0
        if field.control == "series":
            assert list(values) == field.series()
        elif field.control == "slider":
            step = field.step or 0  # a bound may be exclusive
            assert values[0] == pytest.approx(max(0, field.low or 0), abs=step)
            assert values[-1] == pytest.approx(field.high, abs=step)


def test_a_search_begins_with_the_recipe_as_it_is(tiny_family: Path, inputs: Inputs):
    content = family_recipe(tiny_family, "ties", options={"density": 0.123})
    content["experts"][1]["weight"] = 0.77  # type: ignore[index]
    recipe = parse_recipe(content, tiny_family)
    space = Space(weights=True, depths=2, after=("svc",))
    knobs = knobs_of(recipe, inputs, space)
    values = as_it_is(recipe, knobs)
    assert values["density"] == 0.123
    assert values["weight e1"] == 0.77
    assert with_values(recipe, knobs, values) == recipe
    (first,) = drain(searching(recipe, space, trials=1, examples=5, inputs=inputs)).trials
    assert first.values == values


def test_knobs_stand_in_the_recipe_where_its_grammar_has_them(recipe: Recipe, inputs: Inputs):
    space = Space(options=("density",), weights=True, depths=2, after=("lines", "svc"))
    knobs = knobs_of(recipe, inputs, space)
    values = {
        "density": 0.5, "weight e0": 0.4, "weight e2": 2.0, "depth 1": 0.5, "depth 2": 1.0,
        "after lines": True, "lines first": 0.3, "lines last": 1.7, "after svc": False,
    }  # fmt: skip
    made = with_values(recipe, knobs, values)
    assert made.options == {"density": 0.5}
    assert [entry.weight for entry in made.experts] == [0.4, 1.0, 2.0]
    assert [rule.model_dump(exclude_defaults=True) for rule in made.by] == [
        {"depth": (0.0, 0.0), "weight": 0.5}
    ]
    assert made.after == ({"lines": {"first": 0.3, "last": 1.7}},)
    assert parse_recipe(made.model_dump(exclude={"folder"}), made.folder) == made


def test_points_are_counted_with_steps_on_and_off(recipe: Recipe, inputs: Inputs):
    values = {"density": (0.1, 0.2, 0.3), "lines first": (0.5, 1.0), "lines last": (1.0, 2.0)}
    space = Space(options=("density", "scope"), after=("lines",), values=values)
    assert points(knobs_of(recipe, inputs, space)) == 3 * 2 * (1 + 2 * 2)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (Space(options=("densitty",)), "Did you mean 'density'"),
        (Space(after=("strech",)), "Did you mean 'stretch'"),
        (Space(depths=9), "1 to 2 parts"),
        (Space(rank=True), "'routed' or 'lora'"),
        (Space(options=()), "something to turn"),
        (Space(values={"scoope": (1,)}), "Did you mean 'scope'"),
        (Space(values={"density": (2.0,)}), "density"),
        (Space(weights=True, values={"weight e0": ("much",)}), "numbers"),
    ],
)
def test_a_space_that_is_none_is_refused(
    recipe: Recipe, inputs: Inputs, space: Space, message: str
):
    with pytest.raises(InputError, match=message):
        knobs_of(recipe, inputs, space)


def test_weights_of_a_method_without_weights_are_refused(tiny_family: Path, inputs: Inputs):
    recipe = parse_recipe(family_recipe(tiny_family, "essential"), tiny_family)
    with pytest.raises(InputError, match="treats them alike"):
        knobs_of(recipe, inputs, Space(weights=True))


# Trials -------------------------------------------------------------------------------------------


def test_every_number_is_that_of_a_merge_by_the_trials_recipe(recipe: Recipe, inputs: Inputs):
    space = Space(weights=True, depths=1, after=("lines",))
    found = drain(
        searching(recipe, space, trials=4, examples=12, objectives=("worst", "mean"), inputs=inputs)
    )
    assert len({trial.accuracy for trial in found.trials}) > 1
    for trial in found.trials:
        still = {"evaluate": Evaluation(split="validation", examples=12)}
        text = dump_recipe(found.recipe_of(trial).model_copy(update=still), absolute=True)
        report = merge(parse_recipe(yaml.safe_load(text)))
        assert trial.accuracy == report.normalised_accuracy
        assert (trial.low, trial.high) == normalised_interval(report.tasks)
        worst = min(report.tasks, key=share)
        assert (trial.worst, trial.task, trial.size) == (share(worst), worst.name, 1.0)
        (note,) = [one for one in report.warnings if "4 trials" in one]
        assert "at most 12 examples" in note
    assert found.best.worst == max(trial.worst or 0 for trial in found.trials)


def test_a_known_optimum_is_closer_than_by_chance(recipe: Recipe, inputs: Inputs, toy):
    toy(hill)
    found = drain(searching(recipe, Space(), trials=40, inputs=inputs))
    assert found.best.accuracy == pytest.approx(0.95, abs=0.01)
    assert found.recipe.options["density"] == pytest.approx(0.7, abs=0.1)
    assert found.recipe.options["scaling"] == pytest.approx(1.3, abs=0.1)
    generator = random.Random(0)
    drawn = [
        sum(hill(recipe.model_copy(update={"options": {
            "density": generator.randrange(21) / 20, "scaling": generator.randrange(61) / 20
        }})).values()) / 2 for _ in range(200)
    ]  # fmt: skip
    later = [trial.accuracy or 0 for trial in found.trials[20:]]
    assert sum(later) / len(later) > 1.5 * sum(drawn) / len(drawn)
    assert set(found.importance) == {"density", "scaling", "scope"}
    assert sum(found.importance.values()) == pytest.approx(1)
    assert found.importance["scope"] < 0.05
    assert list(found.importance.values()) == sorted(found.importance.values(), reverse=True)


def test_one_seed_gives_one_search(recipe: Recipe, inputs: Inputs, toy):
    toy(hill)
    one, two, other = (
        drain(searching(recipe, trials=14, seed=seed, inputs=inputs)).trials for seed in (1, 1, 2)
    )
    assert plain(one) == plain(two)
    assert plain(one) != plain(other)
    assert one[0].values == other[0].values  # the recipe as it is


@pytest.mark.parametrize("at_once", [1, 3])
def test_a_search_that_was_killed_goes_on_as_if_it_had_not_been(
    recipe: Recipe, inputs: Inputs, toy, tmp_path: Path, at_once: int
):
    tried = toy(lambda recipe: "no such merge" if recipe.options.get("scope") else hill(recipe))
    settings: dict[str, Any] = {"trials": 14, "objectives": ("mean", "worst"), "inputs": inputs}
    space, journal = Space(after=("stretch",)), tmp_path / "search.journal"
    events = searching(recipe, space, journal=journal, at_once=at_once, **settings)
    copies, whole = list[Path](), None
    while whole is None:
        try:
            event = next(events)
        except StopIteration as end:
            whole = end.value
            break
        if round(14 * event.fraction, 6) in (0.5, 4.5) or (
            isinstance(event, SearchTrialDone) and event.trial.number == 12
        ):  # in a merge, in another one, and between two
            copies.append(tmp_path / f"copy {len(copies)}")
            shutil.copy(journal, copies[-1])
    assert len(copies) == 3
    assert {trial.reason for trial in whole.trials} == {"", "no such merge"}
    with copies[1].open("ab") as file:
        file.write(b'{"op_code": 8, "wor')  # and in a line of the journal
    for copy, done in zip(copies, (0, 4, 12), strict=True):
        tried.clear()
        found = drain(searching(recipe, space, journal=copy, resume=True, **settings))
        assert plain(found.trials) == plain(whole.trials)
        assert found.importance == whole.importance
        assert len(tried) == sum(not one.again for one in whole.trials[done:])
    tried.clear()
    assert plain(drain(searching(recipe, space, journal=copy, resume=True, **settings)).trials)
    assert not tried  # it is done


def test_what_is_drawn_depends_on_what_was_told_and_not_on_what_ended(
    recipe: Recipe, inputs: Inputs, toy
):
    """As long as all is drawn at random, it is what one after the other draws."""
    toy(hill)
    one, four = (
        drain(searching(recipe, trials=16, at_once=count, inputs=inputs)).trials for count in (1, 4)
    )
    assert plain(one)[:10] == plain(four)[:10]
    assert plain(one) != plain(four)
    numbers = list[int]()

    class Turned(Here):
        """Merges as soon as a trial is begun: later ones have ended before they are told."""

        results: ClassVar[dict[int, Tried]] = {}

        def begin(self, number: int, recipe: Recipe) -> None:
            super().begin(number, recipe)
            self.results[number] = drain(super().ended(number))
            numbers.append(number)

        def ended(self, number: int) -> Generator[Event, None, Tried]:
            yield Event()
            return self.results.pop(number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.import_module("mats_core.analysis.search"), "Here", Turned)
        again = drain(searching(recipe, trials=16, at_once=4, inputs=inputs)).trials
    assert plain(again) == plain(four)
    assert numbers == [trial.number for trial in four if not trial.again]


def test_a_journal_of_another_search_is_refused(recipe: Recipe, inputs: Inputs, toy, tmp_path):
    toy(hill)
    journal = tmp_path / "search.journal"
    settings: dict[str, Any] = {"trials": 2, "inputs": inputs, "journal": journal}
    drain(searching(recipe, **settings))
    with pytest.raises(InputError, match="no such file yet"):
        next(searching(recipe, **settings))
    for other, message in (({"seed": 3}, "seed"), ({"examples": 9}, "examples"),
                           ({"space": Space(weights=True)}, "knobs"),
                           ({"objectives": ("worst",)}, "objectives"),
                           ({"at_once": 2}, "at once")):  # fmt: skip
        with pytest.raises(InputError, match=message):
            next(searching(recipe, resume=True, **{**settings, **other}))
    changed = recipe.model_copy(update={"seed": 5})
    with pytest.raises(InputError, match="recipe"):
        next(searching(changed, resume=True, **settings))
    for content in ("no journal\n", "{}\n", "[1]\n", f"{'[' * 50_000}\n"):
        journal.write_text(content)
        for how in ("resume", "force"):
            with pytest.raises(InputError, match="that a search has written"):
                next(searching(recipe, **{how: True}, **settings))
        assert journal.read_text() == content


def test_a_search_that_begins_anew_replaces_its_journal_when_all_else_is_right(
    recipe: Recipe, inputs: Inputs, toy, tmp_path: Path
):
    toy(hill)
    journal = tmp_path / "search.journal"
    settings: dict[str, Any] = {"trials": 2, "inputs": inputs, "journal": journal}
    drain(searching(recipe, **settings))
    written = journal.read_bytes()
    with pytest.raises(InputError, match="nonsense"):
        next(searching(recipe, Space(options=("nonsense",)), force=True, **settings))
    assert journal.read_bytes() == written
    again = drain(searching(recipe, seed=3, force=True, **settings))
    assert len(again.trials) == 2
    assert drain(searching(recipe, seed=3, resume=True, **settings)).trials == again.trials


def test_a_journal_is_a_file_apart_from_all_that_is_read(recipe: Recipe, toy, tmp_path: Path):
    toy(hill)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)  # which would be waited for, without end
    with pytest.raises(InputError, match="a pipe"):
        next(searching(recipe, trials=2, journal=pipe))
    held = recipe.model_copy(update={"base_statistics": str(tmp_path / "held")})
    (tmp_path / "held").touch()
    about: dict[str, Any] = {"seed": 0}
    with pytest.raises(InputError, match="found the statistics of the base"):
        Study.open((), (False,), about, {}, tmp_path / "held", resume=True, reads=reads_of(held))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"number":1', '"number":[1]'), ('"number":1', '"number":7'),
        ('"accuracy":', '"accuracy":{},"x":'),
        ('"values":{"density"', '"values":{"nonsense"'), ('"values":{', '"values":3,"x":{'),
        ('"record 0":{', '"record 0":["a"],"x":{'), ('"op_code":2', '"op_code":"2"'),
        ('"op_code":2', '"op_code":99'), ('"worker_id"', '"worker"'),
    ],
)  # fmt: skip
def test_a_damaged_journal_is_refused_in_a_sentence(
    recipe: Recipe, inputs: Inputs, toy, tmp_path: Path, before: str, after: str
):
    toy(hill)
    journal = tmp_path / "search.journal"
    settings: dict[str, Any] = {"trials": 2, "inputs": inputs, "journal": journal}
    settings["space"] = Space(options=("density",))
    drain(searching(recipe, **settings))
    first, _, rest = journal.read_text().partition("\n")
    changed = rest.replace(": ", ":").replace(before, after)
    assert changed != rest.replace(": ", ":")
    journal.write_text(f"{first}\n{changed}")
    with pytest.raises(InputError, match=r"journal .*expected (one that|trials)"):
        drain(searching(recipe, resume=True, **settings))


def test_the_budget_is_kept(recipe: Recipe, inputs: Inputs, toy, monkeypatch: pytest.MonkeyPatch):
    now = [0.0]
    monkeypatch.setattr(MODULE.time, "monotonic", lambda: now[0])

    def slow(recipe: Recipe) -> dict[str, float]:
        now[0] += 25
        return hill(recipe)

    tried = toy(slow)
    found = drain(searching(recipe, minutes=2, inputs=inputs))
    assert (len(found.trials), found.ended, now[0]) == (4, "minutes", 100)
    assert drain(searching(recipe, trials=3, minutes=2, inputs=inputs)).ended == "trials"
    tried.clear()
    events = list(searching(recipe, trials=5, inputs=inputs))
    assert len(tried) == 5
    fractions = [event.fraction for event in events]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1


def test_a_small_space_ends_when_all_of_it_was_tried(recipe: Recipe, inputs: Inputs, toy):
    tried = toy(hill)
    space = Space(options=("density", "scope"), values={"density": (0.2, 0.6, 0.9)})
    found = drain(searching(recipe, space, trials=80, inputs=inputs))
    assert found.ended == "points"
    assert len(tried) == 6
    assert {(trial.values["density"], trial.values["scope"]) for trial in found.trials} == {
        (density, scope) for density in (0.2, 0.6, 0.9) for scope in ("global", "tensor")
    }
    for trial in found.trials:
        if trial.again:
            assert trial.accuracy == found.trials[trial.again - 1].accuracy
    assert found.recipe.options == {"density": 0.6}
    assert found.recipe.tuned is not None
    assert found.recipe.tuned.trials == 6


def test_failures_are_told_and_end_nothing_unless_all_fail(recipe: Recipe, inputs: Inputs, toy):
    toy(lambda recipe: "too dense" if recipe.options.get("density", 0) > 0.5 else hill(recipe))
    found = drain(searching(recipe, trials=12, inputs=inputs))
    failed = [trial for trial in found.trials if trial.accuracy is None]
    assert {trial.reason for trial in failed} == {"too dense"}
    assert found.best not in failed
    toy(lambda recipe: "never")
    with pytest.raises(InputError, match="never"):
        drain(searching(recipe, trials=3, inputs=inputs))


# What it comes to ---------------------------------------------------------------------------------


def trial(number: int, accuracy: float, worst: float, size: float) -> SearchTrial:
    return SearchTrial(number, {"k": number}, accuracy, worst=worst, size=size)


def test_the_front_holds_what_is_beaten_by_none():
    trials = (
        trial(1, 0.9, 0.5, 1.0), trial(2, 0.8, 0.7, 1.0), trial(3, 0.8, 0.6, 1.0),
        trial(4, 0.95, 0.5, 2.0), trial(5, 0.9, 0.5, 1.0), SearchTrial(6, {}, reason="failed"),
    )  # fmt: skip
    numbers = {
        ("mean",): [4], ("worst",): [2], ("mean", "worst"): [4, 2], ("worst", "mean"): [2, 4],
        ("mean", "size"): [4, 1], ("mean", "worst", "size"): [4, 1, 2],
    }  # fmt: skip
    for objectives, expected in numbers.items():
        assert [one.number for one in pareto(trials, objectives)] == expected


def test_size_is_an_objective_where_a_rank_is_a_knob(tiny_family: Path):
    recipe = parse_recipe(family_recipe(tiny_family, "average", routed={}), tiny_family)
    space = Space(rank=True, values={"routed rank": (0, 2)})
    found: Searched = drain(
        searching(recipe, space, objectives=("mean", "size"), trials=6, examples=8)
    )
    sizes = {one.values["routed rank"]: one.size for one in found.trials}
    assert sizes[0] == 1
    assert (sizes[2] or 0) > 1
    assert found.front[-1].values["routed rank"] == 0
    assert all(one.routed for one in map(found.recipe_of, found.trials))


def test_what_was_chosen_stays_true_as_long_as_it_is_not_changed(
    recipe: Recipe, inputs: Inputs, toy
):
    toy(hill)
    chosen = drain(searching(recipe, trials=3, inputs=inputs)).recipe
    assert still_tuned(chosen)
    assert not still_tuned(recipe)
    explicit = {**chosen.parsed_options().model_dump()}
    assert still_tuned(chosen.model_copy(update={"options": explicit, "device": "cpu"}))
    other = chosen.model_copy(update={"options": {**explicit, "scaling": 2.95}, "evaluate": False})
    assert not still_tuned(other)
    (note,) = [one for one in merge(other).warnings if "search" in one]
    assert "changed since" in note


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objectives": ("size",)}, "besides which 'size'"),
        ({"objectives": ("meen",)}, "Did you mean 'mean'"),
        ({"trials": 0}, "at least 1"),
        ({"at_once": 0}, "at least 1"),
        ({"engine": "rey"}, "Did you mean 'ray'"),
        ({"minutes": 0.0}, "more than 0"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_any_work(
    recipe: Recipe, settings: dict[str, Any], message: str
):
    with pytest.raises(InputError, match=message):
        next(searching(recipe, **settings))
    assert set(OBJECTIVES) == {"mean", "worst", "size"}


def test_without_tasks_there_is_nothing_to_choose_by(tiny_family: Path):
    content: dict[str, Any] = family_recipe(tiny_family, "ties")
    content["experts"] = [
        {name: value for name, value in one.items() if name != "task"} for one in content["experts"]
    ]
    with pytest.raises(InputError, match="experts with tasks"):
        next(searching(parse_recipe(content, tiny_family)))


def test_without_optuna_it_says_what_to_install(
    recipe: Recipe, inputs: Inputs, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match=r"extra \[search\]"):
        next(searching(recipe, inputs=inputs))
