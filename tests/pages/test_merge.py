"""The page Merge: settings, runs, what is shown of them, and work in the background."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from mats_core.errors import InputError
from mats_core.methods.presets import PRESETS, Preset
from mats_core.methods.reference import describe
from mats_core.methods.table import METHODS
from mats_core.recipes.recipe import parse_options
from mats_core.system.folders import results_folder
from pages.shared.frame import Wanted
from pages.shared.work import merge as work
from pages.shared.work.jobs import Cancelled, Job
from pages.shared.work.runs import pinned, settings
from tests.pages.driving import (
    button,
    go_back,
    kept,
    labelled,
    merge,
    press,
    sentences,
    settle,
    shared,
    spec,
    texts_of,
)

Open = Callable[..., AppTest]


def test_first_merge_is_essential_and_shows_accuracy_against_expert_and_base(open_app: Open):
    app = merge(open_app())
    assert sentences(app) == ""
    assert [m.label for m in app.metric][:2] == ["Normalised accuracy", "Gap recovered"]
    assert app.metric[0].value.endswith("%")
    assert {"Accuracy", "Polarized scaling", "Layers", "Spectra", "Next"} == {
        tab.label for tab in app.tabs
    }
    names = {trace.get("name") for trace in spec(app)["data"]}
    assert {"expert", "pre-trained encoder", "1 · ESM"} <= names
    run = kept()[0]
    assert run.recipe.method == "essential"
    assert len(run.report.tasks) == 3


def test_a_scaling_follows_the_number_of_experts_until_it_is_turned(open_app: Open):
    app = open_app()

    def choose(*names: str) -> None:
        next(one for one in app.button_group if one.label == "Experts").set_value([*names]).run()

    (all_three, one) = (describe("essential", count)[0].default for count in (3, 1))
    assert all_three != one
    assert labelled(app, "Scaling").value == all_three
    choose("e0")
    assert labelled(app, "Scaling").value == one
    labelled(app, "Scaling").set_value(0.4).run()
    choose("e0", "e1", "e2")
    assert labelled(app, "Scaling").value == 0.4


def test_second_run_stands_beside_the_first_with_what_differs(open_app: Open):
    app = merge(open_app())
    labelled(app, "3 · layers").set_value(False).run()
    merge(app)
    first, second = kept()
    assert (first.number, second.number) == (1, 2)
    assert app.session_state["shown run"] == second.id
    assert app.session_state["beside run"] == first.id
    assert second.label == "2 · ESM · layer power 0.0"
    assert app.metric[0].delta.endswith("points")
    names = {trace.get("name") for trace in spec(app)["data"]}
    assert {first.label, second.label} <= names
    assert any("Settings changed" in m.value for m in app.markdown) is False


def test_a_run_pinned_on_compare_stands_beside_on_merge_in_other_sessions_too(open_app: Open):
    app = merge(open_app())
    labelled(app, "Scaling").set_value(0.5).run()
    merge(app)
    first, second = kept()
    app.switch_page("pages/compare.py").run()
    labelled(app, "With run").set_value(first.id).run()
    press(app, "Pin as baseline")
    app.switch_page("pages/merge.py").run()
    assert app.session_state["beside run"] == first.id
    fresh = open_app()
    fresh.query_params["run"] = second.id
    settle(fresh, "preparation")
    assert (fresh.session_state["shown run"], fresh.session_state["beside run"]) == (
        second.id,
        first.id,
    )
    assert fresh.metric[0].delta.endswith("points")


def test_no_difference_to_a_run_of_other_tasks_is_shown(open_app: Open):
    app = merge(open_app())
    app.session_state["experts Tiny three 0"] = ["e0", "e2"]
    merge(app)
    first, second = kept()
    assert app.session_state["beside run"] == first.id
    assert [m.delta for m in app.metric] == ["", "", "", ""]
    assert "on the 2 tasks that both have" not in texts_of(app), "these are all of its tasks"
    labelled(app, "Showing").set_value(first.id).run()
    labelled(app, "Compare with").set_value(second.id).run()
    assert "on the 2 tasks that both have" in texts_of(app)


def test_a_finished_merge_is_announced_wherever_one_is(
    open_app: Open, monkeypatch: pytest.MonkeyPatch
):
    said: list[str] = []
    monkeypatch.setattr("streamlit.toast", lambda text, **_: said.append(text.replace("\\", "")))
    merge(open_app())
    reached = kept()[0].report.normalised_accuracy
    assert reached is not None
    assert said == [f"1 · ESM: {100 * reached:.1f} % of the experts"]


def test_a_pinned_run_stays_beside(open_app: Open):
    app = merge(open_app())
    labelled(app, "3 · layers").set_value(False).run()
    labelled(merge(app), "Pin").set_value(True).run()
    labelled(app, "1 · tasks").set_value(False).run()
    merge(app)
    first, _, third = kept()
    assert app.session_state["shown run"] == third.id
    assert app.session_state["beside run"] == pinned("Tiny three") == first.id


def test_the_same_settings_are_one_run(open_app: Open):
    merge(merge(open_app()))
    assert [run.number for run in kept()] == [1]


def test_runs_survive_the_session(open_app: Open):
    merge(open_app())
    app = settle(open_app(), "preparation")
    assert not app.metric, "a new visitor is shown no run of another one"
    assert not any("Settings changed" in m.value for m in app.markdown)
    labelled(app, "Earlier merges on this machine").set_value(kept()[0].id).run()
    assert [m.label for m in app.metric][:1] == ["Normalised accuracy"]
    assert app.session_state["shown run"] == kept()[0].id


def test_a_file_that_is_no_run_is_passed_over(open_app: Open):
    app = merge(open_app())
    file = next(results_folder().glob("runs/*/*.json"))
    file.with_name("other.json").write_text("{")
    file.with_name("newer.json").write_text(file.read_text().replace('"format": 1', '"format": 9'))
    assert [run.number for run in kept()] == [1]
    assert sentences(app.run()) == ""


def test_conjugate_gradients_show_residuals_and_accuracy_along_the_iterations(open_app: Open):
    app = open_app()
    labelled(app, "Method").set_value("kfac").run()
    merge(app)
    app.session_state["result view"] = "Convergence"
    app.run()
    assert spec(app)["layout"]["yaxis"]["type"] == "log"
    assert spec(app)["layout"]["yaxis"]["dtick"] == 1
    app.session_state["trajectory length"] = 50
    press(app, "Trace the accuracy")
    settle(app, "tracing")
    assert sentences(app) == ""
    curves = spec(app, 1)["data"]
    assert [trace["name"] for trace in curves] == ["with these settings", "undamped"]
    assert curves[0]["x"] == ["0", "1", "2", "5", "10", "20", "50"]
    undamped = app.session_state["trajectories"][kept()[0].id]["undamped"]
    assert undamped.options["damping"] == 0


def test_the_film_shows_each_iteration_without_solving_again(
    open_app: Open, monkeypatch: pytest.MonkeyPatch
):
    app = open_app()
    labelled(app, "Method").set_value("kfac").run()
    merge(app)
    app.session_state["result view"] = "Convergence"
    app.session_state["trajectory length"] = 50
    app.run()
    press(app, "Trace the accuracy")
    settle(app, "tracing")

    def never(*arguments: object, **named: object):
        raise AssertionError("solved again")

    monkeypatch.setattr("mats_core.linear.cg", never)
    traced = app.session_state["trajectories"][kept()[0].id]["undamped"]
    for point in traced.points:
        labelled(app, "Iteration").set_value(point.iteration).run()
        assert sentences(app) == ""
        shown = [m for m in app.metric if m.label == "Normalised accuracy"][-1]
        assert shown.value == f"{100 * point.normalised_accuracy:.1f} %"
        moved = next(m for m in app.metric if m.label == "Distance to the start")
        assert (float(moved.value) == 0) == (point.iteration == 0)


def test_presets_set_every_knob_and_a_change_is_said(open_app: Open):
    app = merge(open_app())
    app.menu_button[0].click("MaTS as published").run()
    assert any("MaTS as published: K-FAC blocks" in i.value.replace("\\", "") for i in app.info)
    assert labelled(app, "Method").value == "kfac"
    assert labelled(app, "Damping").value == 0
    assert labelled(app, "Preconditioner").value == "none"
    assert any("Settings changed since this run" in m.value for m in app.markdown)
    press(app, "Back to this run's")
    assert labelled(app, "Method").value == "essential"
    assert not any("Settings changed since this run" in m.value for m in app.markdown)


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.title)
def test_every_preset_is_a_valid_recipe(preset: Preset):
    parse_options(preset.method, preset.options)


def rounds_of(app: AppTest) -> Any:
    return next((b for b in app.button_group if b.label == "Rounds of statistics"), None)


def test_a_second_round_is_asked_for_told_and_kept(open_app: Open, monkeypatch: pytest.MonkeyPatch):
    told: list[tuple[str, float, str]] = []
    tell = Job.tell

    def telling(job: Job, fraction: float, text: str, partial: Any = None) -> None:
        told.append((job.title, fraction, text))
        tell(job, fraction, text, partial)

    monkeypatch.setattr(Job, "tell", telling)
    app = open_app().run()
    app.menu_button[0].click("K-FAC, measured twice").run()
    assert rounds_of(app).value == 2
    merge(app)
    assert sentences(app) == ""
    (run,) = kept()
    assert (run.recipe.rounds, run.report.rounds) == (2, 2)
    assert run.label.startswith("1 · K-FAC · 2 rounds · ")
    steps = [(part, text) for title, part, text in told if title == "Merging by K-FAC block (MaTS)"]
    assert [part for part, _ in steps] == sorted(part for part, _ in steps)
    assert any("measuring statistics of e1 (2 of 3)" in text for _, text in steps)
    rounds_of(app).set_value(1).run()
    assert any("rounds of statistics 2 → 1" in m.value for m in app.markdown)
    merge(app)
    two, one = kept()
    assert one.id != two.id
    assert [settings(run)["rounds of statistics"] for run in (two, one)] == ["2", "1"]
    labelled(app, "Method").set_value("regmean").run()
    assert rounds_of(app) is not None
    groups = next(b for b in app.button_group if b.label.startswith("Method, by"))
    groups.set_value("task vectors").run()
    assert rounds_of(app) is None


def test_what_another_page_wants_is_taken_over(open_app: Open):
    app = open_app()
    app.session_state["wanted"] = Wanted(
        "task_arithmetic", {"scaling": 0.15}, ("e0", "e2"), {"e0": 2.0, "e2": 1.0}, seed=3,
        dtype="float64",
    )  # fmt: skip
    merge(app.run())
    (run,) = kept()
    assert run.recipe.method == "task_arithmetic"
    assert run.report.options["scaling"] == 0.15
    assert [(e.name, e.weight) for e in run.recipe.experts] == [("e0", 2.0), ("e2", 1.0)]
    assert (run.recipe.seed, run.recipe.dtype) == (3, "float64")


def test_a_link_opens_its_run_and_a_strange_one_is_a_sentence(open_app: Open):
    merge(open_app())
    app = open_app()
    app.query_params["run"] = kept()[0].id
    settle(app, "preparation")
    assert app.session_state["shown run"] == kept()[0].id
    strange = open_app()
    strange.query_params["run"] = "0123456789"
    settle(strange, "preparation")
    assert any("not made on this machine" in info.value for info in strange.info)


SETTINGS = {"method": "kfac", "options": {"damping": 0.5}, "experts": ["e0", "e2"]}
SETTINGS |= {"weights": {"e0": 2.0, "e2": 1.0}, "rounds": 1}


@pytest.mark.parametrize("e2", [1.0, 2.0])  # or weights that are equal, and not those by default
def test_an_address_hands_settings_over(open_app: Open, e2: float):
    app = open_app()
    more = {"weights": {"e0": 2.0, "e2": e2}, "seed": 3, "dtype": "float64"}
    app.query_params["settings"] = json.dumps(SETTINGS | more)
    settle(app, "preparation")
    merge(app)
    (run,) = kept()
    assert run.recipe.method == "kfac"
    assert run.report.options["damping"] == 0.5
    assert [(e.name, e.weight) for e in run.recipe.experts] == [("e0", 2.0), ("e2", e2)]
    assert (run.recipe.seed, run.recipe.dtype) == (3, "float64")


@pytest.mark.parametrize(
    "given",
    ["{", "3", "{}", json.dumps(SETTINGS | {"method": "kfak"}),
     json.dumps(SETTINGS | {"options": {"damping": -1}}),
     json.dumps(SETTINGS | {"dtype": "<b>"}), json.dumps(SETTINGS | {"seed": "x"})],
)  # fmt: skip
def test_settings_of_an_address_that_do_not_fit_are_a_sentence(open_app: Open, given: str):
    app = open_app()
    app.query_params["settings"] = given
    settle(app, "preparation")
    assert any("settings that do not fit" in info.value for info in app.info)


@pytest.mark.parametrize("page", ["compare", "inside", "export"])
def test_the_link_of_every_page_opens_its_run(open_app: Open, page: str):
    app = merge(open_app())
    labelled(app, "Scaling").set_value(0.5).run()
    merge(app)
    first, second = kept()
    fresh = open_app(page)
    fresh.query_params["run"] = first.id
    settle(fresh, "preparation")
    assert sentences(fresh) == ""
    if page == "compare":
        assert first.id in fresh.session_state["compared"]
    else:
        assert labelled(fresh, "Run").value == first.id
    assert second.id != first.id


def test_a_busy_browser_that_still_names_the_run_before_does_not_bring_it_back(open_app: Open):
    """It asks with the address that it had when the app had put another one into it already."""
    app = merge(open_app())
    labelled(app, "Scaling").set_value(0.5).run()
    merge(app)
    first, second = kept()
    app.query_params["run"] = first.id
    app.run()
    assert sentences(app) == ""
    assert app.session_state["shown run"] == second.id
    assert labelled(app, "Scaling").value == 0.5


def test_back_in_the_browser_brings_the_run_before(open_app: Open):
    app = merge(open_app())
    labelled(app, "Scaling").set_value(0.5).run()
    merge(app)
    first, _ = kept()
    go_back(app, run=first.id)
    assert app.session_state["shown run"] == first.id
    assert labelled(app, "Scaling").value != 0.5


def test_a_merge_whose_page_is_reloaded_is_found_again_and_kept(
    open_app: Open, monkeypatch: pytest.MonkeyPatch
):
    gate = threading.Event()
    merging = work.merge

    def held(*arguments: Any, **settings: Any) -> Any:
        gate.wait(60)
        return merging(*arguments, **settings)

    monkeypatch.setattr(work, "merge", held)
    app = settle(open_app(), "preparation")
    press(app, "Merge")
    named = app.query_params["run"]
    named = named if isinstance(named, str) else named[0]
    job = app.session_state["merging"]
    again = open_app()
    again.query_params["run"] = named
    again.run()
    assert again.session_state["merging"] is job, "with its progress"
    gate.set()
    settle(again, "preparation", "merging")
    assert [run.id for run in kept()] == [named]
    assert again.session_state["shown run"] == named
    assert [m.label for m in again.metric][:1] == ["Normalised accuracy"]


def test_live_merges_from_the_first_touch(open_app: Open):
    app = settle(open_app(), "preparation")
    labelled(app, "Live: merge at every change of a knob").set_value(True).run()
    assert "merging" not in app.session_state, "nothing was touched yet"
    labelled(app, "Scaling").set_value(0.5).run()
    settle(app, "merging")
    assert [run.report.options["scaling"] for run in kept()] == [0.5]


def test_live_merges_at_every_change(open_app: Open):
    app = merge(open_app())
    labelled(app, "Live: merge at every change of a knob").set_value(True).run()
    labelled(app, "Scaling").set_value(0.5).run()
    settle(app, "merging")
    assert [run.report.options["scaling"] for run in kept()] == [1.0, 0.5]


def test_a_quick_answer_is_refined_in_the_background(
    open_app: Open, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("mats_core.evaluation.examiner.ROUND", 8)
    monkeypatch.setattr("pages.shared.controls.settings.QUICK", 0.3)
    app = merge(open_app())
    until = time.monotonic() + 60
    while any("-" in t.merged.answers for t in kept()[0].report.tasks):
        assert time.monotonic() < until
        app.run()
    app.run()  # as the poll does when the job has ended
    assert any("all there are" in c.value for c in app.caption)
    assert [t.merged.examples for t in kept()[0].report.tasks] == [24, 24, 24], (
        "all validation examples"
    )


@pytest.mark.parametrize("view", ["Polarized scaling", "Layers", "Spectra"])
def test_every_view_of_a_result_opens(open_app: Open, view: str):
    app = merge(open_app())
    app.session_state["result view"] = view
    app.run()
    assert sentences(app) == ""
    assert app.get("plotly_chart") or app.dataframe


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gets_its_widgets_and_their_defaults_are_its_own(open_app: Open, method: str):
    app = open_app()
    app.session_state["group 0"] = METHODS[method].group
    app.run()
    labelled(app, "Method").set_value(method).run()
    if (count := METHODS[method].experts) is not None:
        app.session_state["experts Tiny three 0"] = [f"e{m}" for m in range(count)]
        app.run()
    merge(app)
    assert sentences(app) == ""
    run = kept()[0]
    assert run.recipe.method == method
    defaults = {field.name: field.default for field in describe(method, count or 3)}
    assert dict(run.report.options) == {**defaults, **METHODS[method].exploring}
    assert run.report.normalised_accuracy is not None


def test_a_method_for_two_refuses_three_with_a_sentence(open_app: Open):
    app = open_app()
    app.session_state["group 0"] = "weights"
    app.run()
    labelled(app, "Method").set_value("slerp").run()
    assert any("exactly 2 experts" in c.value for c in app.caption)
    assert "expected exactly 2 experts, found 3: e0, e1, e2" in sentences(app), "before any press"
    assert button(app, "Merge").disabled
    labelled(app, "Method").set_value("average").run()
    assert sentences(app) == "", "said of that method alone"
    assert not button(app, "Merge").disabled
    assert kept() == []


def test_reset_gives_every_knob_its_default(open_app: Open):
    app = open_app()
    labelled(app, "Power of 1 · tasks").set_value(0.5).run()
    labelled(app, "2 · dimensions").set_value(False).run()
    press(app, "Reset")
    assert labelled(app, "Power of 1 · tasks").value == 2.0
    assert labelled(app, "2 · dimensions").value is True


def test_merging_a_part_of_the_experts(open_app: Open):
    app = open_app()
    app.session_state["experts Tiny three 0"] = ["e0", "e2"]
    merge(app)
    report = kept()[0].report
    assert [task.name for task in report.tasks] == ["e0", "e2"]


def test_no_expert_at_all_is_a_sentence(open_app: Open):
    app = open_app()
    app.session_state["experts Tiny three 0"] = []
    app.run()
    assert "expected at least one expert to merge, found none" in sentences(app)
    assert button(app, "Merge").disabled


@pytest.mark.parametrize("why", [Cancelled(), InputError("the disk", found="it is full")])
@pytest.mark.parametrize("shown", [True, False])
def test_what_did_not_come_of_a_merge_is_not_named_by_the_address(
    why: Exception, shown: bool, open_app: Open, monkeypatch: pytest.MonkeyPatch
):
    app = settle(open_app(), "preparation")
    if shown:
        merge(app)
        labelled(app, "Scaling").set_value(0.0).run()

    def stopped(*args: Any, **more: Any) -> Any:
        raise why

    monkeypatch.setattr("pages.shared.work.merge.merge", stopped)
    settle(press(app, "Merge"), "merging")
    told = sentences(app) + " ".join(info.value for info in app.info)
    assert ("cancelled" if isinstance(why, Cancelled) else "the disk") in told
    assert len(kept()) == shown
    named = app.query_params.get("run", [])
    assert ([named] if isinstance(named, str) else named) == [run.id for run in kept()]


def test_the_headline_asks_why_and_leads_to_the_answer(open_app: Open):
    app = settle(open_app(), "preparation")
    merge(app)
    next(s for s in app.slider if s.label == "Scaling").set_value(0.0).run()
    merge(app)
    first, second = kept()
    question = next(b for b in app.button if b.key == "why")
    assert question.label.replace("\\", "").endswith(f"than {first.label}?")
    question.click().run()
    assert sentences(app) == ""
    assert app.title[0].value == "Compare"
    assert app.session_state["explained"] == (second.id, first.id)
    assert app.session_state["compare view"] == "Why"
    assert set(app.session_state["compared"]) == {first.id, second.id}


def test_next_leads_to_conflicts_by_the_settings_of_the_run(open_app: Open):
    app = settle(open_app(), "preparation")
    labelled(app, "Scaling").set_value(0.5).run()
    merge(app)
    (run,) = kept()
    app.session_state["result view"] = "Next"
    app.run()
    next(b for b in app.button if b.key == "next leave one out").click().run()
    assert sentences(app) == ""
    assert app.title[0].value == "Subspaces"
    assert labelled(app, "Merged by").value.id == run.id
    next(b for b in app.button if b.label == "Measure: 4 merges").click().run()
    request = app.session_state["conflicting"].request
    assert (request.method, request.options["scaling"], request.way) == (
        "essential", 0.5, "leave one out",
    )  # fmt: skip
    job = app.session_state["conflicting"]
    settle(app, "conflicting")
    assert shared(job.name).way == "leave one out"


def test_weights_are_numbers_beside_the_experts_and_all_1_are_none(open_app: Open):
    app = settle(open_app(), "preparation")
    app.session_state["group 0"] = "weights"
    merge(app.run())
    labelled(app, "e1").set_value(0.0).run()
    merge(app)
    plain, weighed = kept()
    assert [e.weight for e in plain.recipe.experts] == [1.0, 1.0, 1.0]
    assert [e.weight for e in weighed.recipe.experts] == [1.0, 0.0, 1.0]
