"""Several merges in one job: what is left of it is what the merges to come are expected to take."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from mats_core.analysis import Axis
from mats_core.analysis.attempt import quietly
from mats_core.estimating import estimate
from mats_core.methods import LADDERS
from pages.shared.work import LadderRequest, SweepRequest, run_ladder
from pages.shared.work.prepare import Prepared
from pages.shared.work.several import seconds, turns
from pages.shared.work.sweep import run_sweep
from tests.pages.work.test_again import prepared_from

ESM = LADDERS[0]


@pytest.fixture(scope="module")
def prepared(tiny_family: Path) -> Prepared:
    return prepared_from(tiny_family)


class Watcher:
    """A job's `tell` that notes how far the whole is whenever one of its merges is finished."""

    def __init__(self) -> None:
        self.ends, self.known = [0.0], 0

    def __call__(self, fraction: float, text: str, partial: Any = None) -> None:
        if partial and len(partial) > self.known:
            self.known = len(partial)
            self.ends.append(fraction)

    @property
    def shares(self) -> list[float]:
        return [after - before for before, after in pairwise(self.ends)]


def expected(recipes: list[Any], prepared: Prepared) -> list[float]:
    """Each merge's share of the whole, from the estimates as a page shows them."""
    tried = [quietly(recipe, 5) for recipe in recipes]
    costs = [estimate(prepared.inputs, recipe, examples={}).seconds for recipe in tried]
    return [cost / sum(costs) for cost in costs]


def test_a_ladder_is_as_far_as_the_work_of_its_steps(prepared):
    recipe = prepared.collection.recipe("average", statistics=prepared.files)
    watcher = Watcher()
    run_ladder(LadderRequest(prepared.collection.name, recipe, ESM, 5), prepared, watcher)
    tried = [
        recipe.model_copy(update={"method": rung.method, "options": rung.options})
        for rung in ESM.rungs
    ]
    assert watcher.shares == pytest.approx(expected(tried, prepared))
    first, *others = watcher.shares
    assert first < min(others), "the sum needs no decomposition: it is the cheapest step"


def test_a_sweep_too(prepared):
    recipe = prepared.collection.recipe("kfac", statistics=prepared.files)
    watcher, x, y = Watcher(), Axis("iterations", (1, 50)), Axis("damping", (0.1,))
    request = SweepRequest(prepared.collection.name, recipe, x, y, {}, 5)
    run_sweep(request, prepared, watcher)
    options = [{"iterations": n, "damping": d} for n in x.values for d in y.values]
    tried = [recipe.model_copy(update={"options": one}) for one in options]
    assert watcher.shares == pytest.approx(expected(tried, prepared))
    assert watcher.shares[0] < watcher.shares[1], "50 iterations take more than one"


def test_merges_of_a_lesson_or_a_board_tell_where_the_whole_is(prepared):
    recipes = [
        prepared.collection.recipe(method, options, statistics=prepared.files)
        for method, options in (("average", {}), ("kfac", {"iterations": 50}), ("dare", {}))
    ]
    said: list[tuple[float, str]] = []

    def tell(fraction: float, text: str, partial: object = None) -> None:
        said.append((fraction, text))

    for step in turns(tell, recipes, prepared):
        step(0.0, "begins")
        step(1.0, "done")
    costs = [seconds(recipe, prepared) for recipe in recipes]
    ends = [said[i][0] for i in (1, 3, 5)]
    assert ends == pytest.approx([sum(costs[: k + 1]) / sum(costs) for k in range(3)])
    assert costs[1] > costs[0]
    assert said[2:4] == [(ends[0], "Merge 2 of 3: begins"), (ends[1], "Merge 2 of 3: done")]


def test_a_merge_that_is_refused_takes_no_time(prepared):
    two = prepared.collection.recipe("average").model_copy(update={"method": "slerp"})
    entries = two.experts * 2
    assert seconds(two.model_copy(update={"experts": entries}), prepared) == 0.0
