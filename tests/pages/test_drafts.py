"""Runs in order: drafts apart, names and notes, a filter, several deleted, two on Inside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from mats_core.merging.pipeline import merge as merge_recipe
from mats_core.recipes.family_file import load_family
from pages.shared.work import runs
from tests.pages.driving import button, kept, labelled, merge, press, sentences, settle

Open = Callable[..., AppTest]
LIVE = "Live: merge at every change of a knob"


def make(family: Path, method: str, draft: bool = False, **settings: Any) -> runs.Run:
    collection = load_family(family)
    recipe = collection.recipe(method, settings.pop("options", {}), **settings)
    size = len(collection.experts)
    return runs.add(collection.name, size, recipe, merge_recipe(recipe), draft=draft)


def scaled(family: Path, scaling: float, draft: bool = False) -> runs.Run:
    return make(family, "task_arithmetic", draft, options={"scaling": scaling})


def listed(app: AppTest) -> list[int]:
    return list(app.dataframe[0].value["run"])


def test_live_makes_drafts_and_a_press_on_merge_keeps_one(open_app: Open):
    app = merge(open_app())
    labelled(app, LIVE).set_value(True).run()
    labelled(app, "Scaling").set_value(0.5).run()
    settle(app, "merging")
    pressed, live = kept()
    assert (pressed.draft, live.draft) == (False, True)
    assert live.label.endswith(" · draft")
    assert "A draft that Live has made" in " ".join(c.value for c in app.caption)
    merge(app)
    assert [run.draft for run in kept()] == [False, False]
    assert kept()[1].id == live.id


def test_drafts_push_out_drafts_alone(tiny_family: Path, open_app: Open, monkeypatch: Any):
    open_app()
    monkeypatch.setattr(runs, "MOST_DRAFTS", 2)
    first = scaled(tiny_family, 0.1)
    for number in range(4):
        scaled(tiny_family, 0.2 + number / 10, draft=True)
    assert [run.number for run in kept()] == [1, 4, 5]
    assert kept()[0].id == first.id
    scaled(tiny_family, 0.1, draft=True)
    assert not kept()[0].draft, "what was kept never becomes a draft"


def test_names_and_notes_stay_and_are_found(open_app: Open, tiny_family: Path):
    app = open_app("compare")
    for number in range(6):
        scaled(tiny_family, 0.1 + number / 10)
    settle(app, "preparation")
    by_label = {field.label: field for field in app.text_input}
    by_label["Name"].set_value("the loud one")
    app.text_area[0].set_value("twice as far")
    press(app, "Save")
    assert sentences(app) == ""
    run = kept()[-1]
    assert (run.title, run.note) == ("the loud one", "twice as far")
    assert run.label == "6 · the loud one"
    assert next(iter(app.dataframe[0].value["name and note"])) == "the loud one · twice as far"
    again = scaled(tiny_family, 0.6)
    assert (again.title, again.note) == (run.title, run.note), "merged again, they stay"
    labelled_text = next(field for field in app.text_input if field.label == "Filter")
    labelled_text.set_value("twice").run()
    assert listed(app) == [6]
    next(field for field in app.text_input if field.label == "Filter").set_value("0.3 task").run()
    assert listed(app) == [3]
    next(field for field in app.text_input if field.label == "Filter").set_value("zebra").run()
    assert "No run fits this filter." in [info.value for info in app.info]


def test_several_runs_and_all_drafts_are_deleted_in_a_press(open_app: Open, tiny_family: Path):
    app = open_app("compare")
    scaled(tiny_family, 0.1)
    for number in range(3):
        scaled(tiny_family, 0.2 + number / 10, draft=True)
    settle(app, "preparation")
    assert listed(app) == [1], "drafts are hidden"
    labelled(app, "3 drafts").set_value(True).run()
    assert listed(app) == [4, 3, 2, 1]
    press(app, "Delete all 3 drafts")
    assert [run.number for run in kept()] == [1]
    for number in range(2):
        scaled(tiny_family, 0.5 + number / 10)
    app.session_state["compared"] = [run.id for run in kept()]
    app.run()
    ticked = next(b for b in app.button if b.label.startswith("Delete the"))
    assert ticked.label == "Delete the 3 ticked runs"
    ticked.click().run()
    assert kept() == []
    assert sentences(app) == ""


def test_a_run_of_the_version_before_has_no_name_and_is_kept(open_app: Open, tiny_family: Path):
    open_app()
    run = scaled(tiny_family, 0.1)
    (file,) = runs.folder(run.family).glob("*.json")
    text = file.read_text("utf-8")
    for name in ('"draft": false, ', '"title": "", ', '"note": "", '):
        assert name in text
        text = text.replace(name, "")
    file.write_text(text, "utf-8")
    (old,) = kept()
    assert (old.draft, old.title, old.note) == (False, "", "")


@pytest.mark.parametrize("chosen", ["auto", "cpu"])
def test_the_device_is_shown_with_its_reason_and_reaches_the_recipe(open_app: Open, chosen: str):
    app = settle(open_app(), "preparation")
    device = next(b for b in app.button_group if b.label == "Device")
    assert device.options[0] == "auto"
    assert device.options[-1] == "cpu"
    said = " ".join(c.value.replace("\\", "") for c in app.caption)
    assert f"auto is {device.options[1]} here, chosen automatically; not here:" in said
    device.set_value(chosen).run()
    merge(app)
    assert kept()[0].recipe.device == chosen
    time = next(metric for metric in app.metric if metric.label == "Time")
    assert kept()[0].report.device in time.help
    assert kept()[0].report.device_reason in time.help


def test_symbols_keep_their_case_in_tooltips(open_app: Open):
    app = settle(open_app(), "preparation")
    labelled(app, "Method").set_value("kfac").run()
    helps = [w.help or "" for kind in (app.slider, app.select_slider, app.number_input)
             for w in kind]  # fmt: skip
    assert any("δ, Tikhonov damping" in text for text in helps)
    assert not any(text.startswith("Δ") for text in helps)
    assert button(app, "Merge")
