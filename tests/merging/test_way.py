"""One way through: opened once, judged at the door, and one stream of events to the end."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator

import pytest

import mats_core
from mats_core import api
from mats_core.analysis import Axis, convergence, loading, predicting, surveying, sweep
from mats_core.checkpoints.files import Checkpoint
from mats_core.errors import InputError
from mats_core.merging import pipeline
from mats_core.recipes import plan
from mats_core.recipes.events import Examined, Finished, Iteration, LayerDone, TrialDone
from mats_core.recipes.family_file import load_family, measuring_all
from mats_core.recipes.plan import complete, open_inputs, with_statistics
from mats_core.recipes.recipe import parse_recipe
from mats_core.statistics import MeasureSettings
from mats_core.system.stream import Event, drain
from tests.conftest import family_recipe


@pytest.fixture
def calls(monkeypatch) -> Counter[str]:
    """How often checkpoints are opened, families examined, and plans made."""
    counted: Counter[str] = Counter()
    opened, examined, prepared = Checkpoint.open, plan.examine, plan.prepare

    def counting(name, real):
        def call(*given, **named):
            counted[name] += 1
            return real(*given, **named)

        return call

    monkeypatch.setattr(Checkpoint, "open", counting("open", opened))
    monkeypatch.setattr(plan, "examine", counting("examine", examined))
    monkeypatch.setattr(pipeline, "prepare", counting("prepare", prepared))
    return counted


def recipe_of(tiny_family, method="kfac", **settings):
    return parse_recipe({**family_recipe(tiny_family, method), **settings}, tiny_family)


def test_a_merge_opens_every_file_once_and_is_planned_once(tiny_family, tmp_path, calls):
    recipe = recipe_of(tiny_family, output=str(tmp_path / "out"), evaluate={"examples": 10})
    report = drain(api.run(recipe)).report
    assert report.coverage["merged"] > 0
    # A base and three experts, the statistics of each; and what was written, to be tested.
    assert calls == {"open": 4 + 4 + 1, "examine": 1, "prepare": 1}


def test_files_that_are_open_are_not_opened_again(tiny_family, calls):
    recipe = recipe_of(tiny_family, evaluate={"examples": 10})
    inputs = open_inputs(recipe)
    calls.clear()
    drain(api.run(recipe, inputs=inputs))
    drain(convergence.follow(recipe, inputs=inputs, keep=(0, 1), examples=10))
    drain(predicting(recipe, inputs=inputs, examples=10))
    assert calls == {"prepare": 3}


def test_headers_that_were_judged_are_read_on(tiny_family):
    recipe = recipe_of(tiny_family, "regmean")
    headers, whole = open_inputs(recipe, contents=False), open_inputs(recipe)
    assert not headers.looked_through
    found = complete(headers, recipe)
    assert found.looked_through
    assert found.family.base is headers.family.base
    assert found.family == whole.family
    assert found.notes == whole.notes
    assert complete(found, recipe) is found


def test_statistics_are_put_on_files_that_are_open(tiny_family, calls):
    bare = recipe_of(tiny_family, "average")
    experts = tuple(entry.model_copy(update={"statistics": None}) for entry in bare.experts)
    inputs = open_inputs(bare.model_copy(update={"experts": experts}))
    assert inputs.statistics == (None, None, None)
    calls.clear()
    found = with_statistics(inputs, bare)
    assert [own is not None for own in found.statistics] == [True] * 3
    assert found.family is inputs.family
    assert calls == {"open": 4}  # the statistics' files, of the base, too
    wrong = bare.model_copy(update={"experts": bare.experts[:1] + bare.experts[:1] * 2})
    with pytest.raises(InputError, match="another checkpoint"):
        with_statistics(inputs, wrong)


def test_an_unfinished_merge_is_not_thrown_away_unasked(tiny_family, tmp_path):
    recipe = recipe_of(tiny_family, "average", output=str(tmp_path / "out"), evaluate=False)
    events = api.run(recipe, resume=True)
    for event in events:
        if isinstance(event, LayerDone) and event.index == 3:
            break
    events.close()
    with pytest.raises(InputError, match="no unfinished merge beside it"):
        next(api.run(recipe))
    assert drain(api.run(recipe, resume=True)).report.coverage["averaged"] > 0


def forwards(events: Iterator[Event]) -> list[Event]:
    """All events of a job, whose fractions never go backwards and whose texts say something."""
    seen = list(events)
    fractions = [event.fraction for event in seen]
    assert fractions == sorted(fractions)
    assert fractions[0] >= 0
    assert fractions[-1] <= 1
    assert all(event.text for event in seen)
    return seen


JOBS = {
    "merge": lambda recipe, inputs: pipeline.run(recipe, inputs=inputs),
    "rounds": lambda recipe, inputs: pipeline.run(
        recipe.model_copy(update={"rounds": 3}), inputs=inputs
    ),
    "search": lambda recipe, inputs: pipeline.run(
        recipe.model_copy(update={"search": {"damping": (0.1, 0.3)}, "rounds": 2}), inputs=inputs
    ),
    "sweep": lambda recipe, inputs: sweep(
        recipe, Axis("damping", (0.1, 0.3)), Axis("iterations", (1, 2)), inputs=inputs, examples=5
    ),
    "film": lambda recipe, inputs: convergence.follow(
        recipe, inputs=inputs, keep=(0, 1, 2), examples=5
    ),
    "predicted loss": lambda recipe, inputs: predicting(recipe, inputs=inputs, examples=5),
}


@pytest.mark.parametrize("name", JOBS)
def test_no_job_goes_backwards(tiny_family, name):
    recipe = recipe_of(tiny_family, options={"iterations": 3}, evaluate={"examples": 5})
    seen = forwards(JOBS[name](recipe, open_inputs(recipe)))
    assert seen[0].fraction < 0.2
    assert seen[-1].fraction > 0.8
    assert len({event.fraction for event in seen}) > 5


def test_loading_survey_and_measuring_do_not_go_backwards_either(
    tiny_family, tmp_path, monkeypatch
):
    recipe = recipe_of(tiny_family, "average", evaluate=False)
    inputs = open_inputs(recipe)
    merged = drain(pipeline.run(recipe, inputs=inputs)).tensors
    events = loading.load(
        recipe, merged, inputs=inputs, grain="block", orderings=("input first",), examples=5
    )
    assert forwards(events)[-1].fraction == 1.0
    names = [n for n, role in inputs.family.roles.items() if role == "matrix"][:2]
    assert len(forwards(surveying(inputs.family, {}, names))) == 6
    monkeypatch.setenv("MATS_CACHE", str(tmp_path))
    steps = measuring_all(load_family(tiny_family), MeasureSettings(examples=5))
    assert forwards(steps)[-1].fraction == 1.0


def test_iterations_are_told_while_a_layer_is_solved(tiny_family):
    recipe = recipe_of(tiny_family, options={"iterations": 4}, evaluate=False)
    events = list(pipeline.run(recipe))
    told = [event for event in events if isinstance(event, Iteration)]
    for layer, steps in itertools.groupby(told, key=lambda event: event.layer):
        report = next(e.layer for e in events if isinstance(e, LayerDone) and e.layer.name == layer)
        found = [(step.iteration, step.residual) for step in steps]
        assert found == list(enumerate(report.residuals))[1:]
        assert found
    position = events.index(told[0])
    later = next(e for e in events[position:] if isinstance(e, LayerDone))
    assert later.layer.name == told[0].layer, "told before its layer is done"


def test_a_merge_is_stopped_within_an_iteration(tiny_family, monkeypatch):
    made: list[int] = []
    real = mats_core.linear.operators.WeightedSum.apply
    monkeypatch.setattr(
        mats_core.linear.operators.WeightedSum,
        "apply",
        lambda self, x: made.append(1) or real(self, x),
    )
    recipe = recipe_of(tiny_family, options={"iterations": 50}, evaluate=False)
    drain(pipeline.run(recipe))
    whole = len(made)
    events = pipeline.run(recipe)
    for event in events:
        if isinstance(event, Iteration) and event.iteration == 2:
            break
    events.close()
    stopped = len(made) - whole
    assert 0 < stopped < whole / 2
    drain(pipeline.run(recipe))
    assert len(made) == 2 * whole + stopped, "nothing was at work after it was closed"


def test_a_search_tells_its_trials_and_none_of_their_layers(tiny_family):
    recipe = recipe_of(
        tiny_family, "task_arithmetic", search={"scaling": [0.1, 0.4]}, evaluate={"examples": 10}
    )
    events = list(pipeline.run(recipe))
    first = next(index for index, event in enumerate(events) if isinstance(event, Examined))
    assert all(type(event) is Event for event in events[:first])
    events = events[first + 1 :]
    last = max(index for index, event in enumerate(events) if isinstance(event, TrialDone))
    assert all(type(event) in (Event, TrialDone) for event in events[: last + 1])
    assert events[0].text == "Trial 1 of 2: testing the expert e0"
    assert isinstance(events[-1], Finished)
