"""Compare's search and its intermediate tasks: from the controls to Merge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from mats_core.recipes import as_tuned, load_family, still_tuned
from pages.shared.work import Request
from tests.pages.driving import kept, labelled, press, sentences, settle, shared, spec, texts_of

Open = Callable[..., AppTest]


@pytest.fixture
def page(open_app: Open) -> AppTest:
    return settle(open_app("compare"), "preparation")


def view(app: AppTest, name: str) -> AppTest:
    app.session_state["compare view"] = name
    return app.run()


def widget(app: AppTest, label: str) -> Any:
    kinds: tuple[Any, ...] = (
        app.selectbox, app.multiselect, app.number_input, app.get("button_group")
    )  # fmt: skip
    return next(one for kind in kinds for one in kind if one.label == label)


def test_a_search_goes_on_and_its_trial_goes_over_to_merge(page: AppTest):
    app = view(page, "Search")
    widget(app, "Method").set_value("ties").run()
    widget(app, "Besides").set_value(["Experts' weights"]).run()
    widget(app, "Look for").set_value(["mean", "worst"]).run()
    widget(app, "Trials").set_value(2).run()
    app = settle(press(app, "Search"), "searching")
    assert sentences(app) == ""
    found = app.session_state["search"].snapshot().result
    assert [one.number for one in found.trials] == [1, 2]
    assert spec(app)["data"][0]["customdata"] == [1, 2]
    widget(app, "Trials").set_value(4).run()
    assert "its trials count" in " ".join(one.value for one in app.caption)
    app = settle(press(app, "Go on"), "searching")
    again = app.session_state["search"].snapshot().result
    assert [one.accuracy for one in again.trials[:2]] == [one.accuracy for one in found.trials]
    chosen = again.trials[3]
    widget(app, "Trial (or click one above)").set_value(4).run()
    app = press(app, "Use these settings")
    assert app.title[0].value == "Merge"
    assert sentences(app) == ""
    assert labelled(app, "Density").value == chosen.values["density"]
    weights = [labelled(app, f"e{m}").value for m in range(3)]
    assert weights == [chosen.values[f"weight e{m}"] for m in range(3)]
    assert app.session_state["tuned"].trials == 4
    assert kept() == []  # nothing was kept of the search


def test_a_merge_says_how_it_was_chosen_until_something_is_changed(tiny_family: Path):
    collection = load_family(tiny_family)
    recipe = as_tuned(collection.recipe("ties", {"density": 0.5}), trials=4, examples=9)
    names = tuple(entry.name for entry in recipe.experts)
    options = recipe.parsed_options().model_dump()
    request = Request(collection, "ties", options, names, tuned=recipe.tuned)
    assert request.recipe().tuned == recipe.tuned
    assert still_tuned(request.recipe())
    for other in ({"options": {**options, "density": 0.55}}, {"seed": 1}, {"experts": names[:2]}):
        assert replace(request, **other).recipe().tuned is None


def test_a_search_for_nothing_is_told(page: AppTest):
    app = view(page, "Search")
    widget(app, "Method").set_value("average").run()
    assert "something to turn" in sentences(app)
    widget(app, "Besides").set_value(["Experts' weights"]).run()
    assert sentences(app) == ""
    widget(app, "Look for").set_value([]).run()
    assert "something to look for" in sentences(app)


def test_donors_are_measured_and_the_best_is_tested_once(page: AppTest):
    app = view(page, "Intermediate tasks")
    widget(app, "Target").set_value("e0").run()
    app = settle(press(app, "Measure: 22 merges"), "donating")
    assert sentences(app) == ""
    chart = spec(app)
    assert [one["name"] for one in chart["data"] if one["mode"] == "lines+markers"] == ["e1", "e2"]
    app = settle(press(app, "Final figure"), "donated")
    assert "Final figure, asked once: e0 with" in texts_of(app)
    assert "Final figure" not in [one.label for one in app.button]
    assert kept() == []
    assert shared("nothing of this name") is None
    press(app, "Use these settings")
    assert app.title[0].value == "Merge"
