"""The Learn page: picture and sliders in step, five steps, and lessons that set up other pages."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from mats_core.analysis import toy
from mats_core.analysis.spectra import KINDS
from mats_core.methods.reference import describe
from pages.shared.frame import Wanted, session, state
from pages.shared.learn import evidence, guide, lessons
from pages.shared.learn import scene as toy_state
from tests.pages.driving import kept, sentences, settle

Open = Callable[..., AppTest]
LESSONS = range(len(lessons.LESSONS))


def picture(app: AppTest) -> dict[str, Any]:
    """What the component is given."""
    (element,) = app.get("bidi_component")
    return json.loads(element.proto.json or element.proto.mixed.json)


def go(app: AppTest, step: int) -> AppTest:
    app.session_state["toy wanted"] = step
    return app.run()


def slider(app: AppTest, label: str) -> Any:
    return next(w for w in (*app.slider, *app.select_slider) if w.label == label)


def text(app: AppTest) -> str:
    return " ".join(m.value for m in app.markdown).replace("\\", "")


def spec(app: AppTest) -> dict:
    return json.loads(app.get("plotly_chart")[0].proto.spec)


@pytest.mark.parametrize("step", range(5))
def test_every_step_opens_with_its_layers_and_its_figure(open_app: Open, step: int):
    app = go(open_app("learn"), step)
    assert sentences(app) == ""
    assert len(app.latex) == 1
    assert len(app.get("plotly_chart")) == (0 if step == 0 else 1)
    shown = picture(app)["show"]
    assert (shown["walk"], shown["essential"]) == (step == 2, step > 2)
    assert ("Next" in " ".join(b.label for b in app.button)) == (step < 4)


def test_next_leads_through_the_steps(open_app: Open):
    app = open_app("learn").run()
    assert app.header[0].value == "Two tasks"
    for title in ("Curvature", "Conjugate gradients", "Polar step", "Polarized scaling"):
        next(b for b in app.button if b.label == f"Next: {title}").click().run()
        assert app.header[0].value == title


def test_the_picture_shows_the_librarys_numbers(open_app: Open):
    app = go(open_app("learn"), 2)
    slider(app, "Damping δ").set_value(0.3)
    slider(app, "Anchor μ").set_value(0.1)
    slider(app, "CG iterations").set_value(1).run()
    given = picture(app)
    tasks = [
        toy.Task(t["name"], (t["x"], t["y"]), t["angle"], (t["a"], t["b"]))
        for t in given["state"]["tasks"]
    ]
    expected = toy.solutions(tasks)
    assert [one["name"] for one in given["found"]["solutions"]] == ["average", "Fisher", "full"]
    for one, own in zip(given["found"]["solutions"], expected, strict=True):
        assert one["point"] == list(own.point)
        assert one["losses"] == list(own.losses)
    walked = toy.walk(tasks, tuple(given["state"]["start"]), iterations=1, damping=0.3, anchor=0.1)
    assert given["found"]["walk"]["points"] == [list(p) for p in walked.points]
    assert len(given["found"]["walk"]["points"]) == 2
    assert given["show"]["target"]


def test_sliders_move_the_picture_and_the_figure(open_app: Open):
    app = go(open_app("learn"), 1)
    before = spec(app)["data"][0]["y"]
    slider(app, "B turned by (degrees)").set_value(15).run()
    assert picture(app)["state"]["tasks"][1]["angle"] == 15
    assert spec(app)["data"][0]["y"] != before
    slider(app, "Start of CG, parameter 2").set_value(-2.0).run()
    assert picture(app)["state"]["start"] == [-3.2, -2.0]
    assert sentences(app) == ""


def test_what_the_picture_sends_moves_the_sliders(open_app: Open):
    app = go(open_app("learn"), 1)
    sent = {**picture(app)["state"], "serial": 4}
    sent["tasks"][0] |= {"x": 1.25, "angle": 170, "a": 0.7}
    app.session_state["toy"] = sent
    app.run()
    assert slider(app, "A centre, parameter 1").value == 1.25
    assert slider(app, "A turned by (degrees)").value == 170
    assert slider(app, "A half-axis along").value == 0.7
    assert picture(app)["serial"] == 4


def test_presets_set_the_scene_and_the_scene_survives_another_page(open_app: Open):
    app = open_app("learn").run()
    pills = next(b for b in app.button_group if "Upright" in b.options)
    pills.set_value("Upright").run()
    assert [t["angle"] for t in picture(app)["state"]["tasks"]] == [0, 90]
    app.switch_page("pages/family.py").run()
    app.switch_page("pages/learn.py").run()
    assert [t["angle"] for t in picture(app)["state"]["tasks"]] == [0, 90]
    assert sentences(app) == ""


def test_every_preset_is_within_the_limits_of_the_sliders():
    for scene in toy_state.PRESETS.values():
        for task in scene["tasks"]:
            for field in toy_state.LIMITS:
                assert toy_state._within(field, task[field]) == pytest.approx(task[field])


# What a browser may send --------------------------------------------------------------------------


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty session without an app."""
    monkeypatch.setattr("streamlit.session_state", {})


def message(**changes: Any) -> dict[str, Any]:
    return {**json.loads(json.dumps(toy_state.PRESETS["Upright"])), "serial": 3, **changes}


@pytest.mark.usefixtures("alone")
def test_a_message_is_taken_over_within_the_limits():
    sent = message(start=[99, -99])
    sent["tasks"][0] |= {"x": 1.23456, "angle": 500, "b": 0.0001, "name": "<b>", "more": 1}
    toy_state.take(sent)
    scene = toy_state.current()
    assert scene["start"] == [toy_state.WIDE, -toy_state.HIGH]
    assert scene["tasks"][0] == {"name": "A", "x": 1.25, "y": 0.8, "angle": 179, "a": 2.4, "b": 0.2}
    assert scene["serial"] == 3


@pytest.mark.parametrize(
    "sent",
    [
        None, "x", {}, message(tasks=[]), message(tasks=3), message(start=[1]),
        message(start=["a", "b"]), message(origin=[float("nan"), 0]), message(serial=None),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("alone")
def test_any_other_message_is_left_alone(sent: Any):
    toy_state.put(toy_state.PRESETS["One valley"])
    before = json.dumps(session.toy)
    toy_state.take(sent)
    assert json.dumps(session.toy) == before


# Lessons ------------------------------------------------------------------------------------------


def test_every_setup_names_a_method_and_options_that_exist():
    for lesson in lessons.LESSONS:
        assert lesson.before.count(". ") >= 1, lesson.title  # two sentences
        assert lesson.question.endswith("?")
        assert lesson.setups[0].page == "merge"
        for setup in lesson.setups:
            assert (Path(lessons.__file__).parents[2] / f"{setup.page}.py").is_file()
            assert bool(setup.method) == (setup.page == "merge")
            if setup.method:
                fields = {field.name for field in describe(setup.method)}
                assert set(setup.options) <= fields
            assert set(setup.controls.values()) <= set(KINDS)


@pytest.mark.parametrize("index", LESSONS)
def test_a_card_opens_its_lesson_on_the_other_page(open_app: Open, index: int):
    app = open_app("learn").run()
    assert lessons.LESSONS[index].before in text(app)
    app.button(key=f"lesson {index}").click().run()
    assert sentences(app) == ""
    assert app.title[0].value == "Merge"
    assert app.session_state["lesson"] == index


@pytest.mark.usefixtures("alone")
def test_opening_leaves_the_preset_for_the_page():
    guide.open_lesson(2)
    assert session.wanted == Wanted("kfac", {"damping": 0.0, "iterations": 50})
    assert (session.lesson, session.lesson_goes_to) == (2, "merge")
    guide.set_up(lessons.LESSONS[1].setups[2])
    assert state.value("subspaces kind") == "input"
    assert session.lesson_goes_to == "subspaces"


def test_without_a_family_the_lessons_say_so_and_the_picture_still_works(
    open_app: Open, tmp_path: Path
):
    app = open_app("learn", tmp_path).run()
    assert sentences(app) == ""
    assert any("no family" in info.value for info in app.info)
    assert picture(app)["state"]["tasks"]


def banner_alone() -> None:
    from pages.shared.frame import families, session
    from pages.shared.learn import guide

    if not session.entered:
        session.entered, session.lesson = True, 0
    families.header("A page", "with the widgets of a page")
    guide.banner("Merge")


@pytest.fixture
def went(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Where `browser.go` was asked to go."""
    pages: list[str] = []
    monkeypatch.setattr("pages.shared.learn.guide.browser.go", pages.append)
    return pages


def test_the_banner_leads_to_setups_to_the_next_lesson_and_back(
    open_app: Open, tiny_family: Path, went: list[str], monkeypatch: pytest.MonkeyPatch
):
    open_app()
    monkeypatch.setattr("pages.shared.frame.families.SAMPLES", tiny_family)
    banner = AppTest.from_function(banner_alone, default_timeout=60).run()
    banner.button(key="lesson 0 setup 1").click().run()
    assert sentences(banner) == ""
    assert banner.session_state["wanted"].method == "essential"
    assert went == ["merge"]
    for index in LESSONS[1:]:
        banner.button(key="lesson next").click().run()
        assert sentences(banner) == ""
        assert banner.session_state["lesson"] == index
        assert banner.session_state["wanted"].method == lessons.LESSONS[index].setups[0].method
        assert lessons.LESSONS[index].question in text(banner)
    assert banner.button(key="lesson next").label == "Back to Learn"
    banner.button(key="lesson next").click().run()
    assert banner.session_state["lesson"] is None
    assert went[-1] == "learn"


def test_the_banner_asks_answers_with_the_runs_and_closes(open_app: Open):
    app = open_app()
    app.session_state["group 0"] = "weights"
    app.run()
    next(w for w in app.selectbox if w.label == "Method").set_value("average").run()
    next(b for b in app.button if b.label == "Merge").click().run()
    settle(app, "preparation", "merging")
    (run,) = kept()
    banner = AppTest.from_function(banner_alone, default_timeout=60).run()
    assert sentences(banner) == ""
    said = text(banner)
    assert lessons.LESSONS[0].question in said
    share = run.report.normalised_accuracy
    assert share is not None
    assert f"**Average** (run 1): {100 * share:.1f} % of the experts' accuracy" in said
    assert "**ESM**: not merged yet" in said
    banner.button(key="lesson close").click().run()
    assert lessons.LESSONS[0].question not in text(banner)


def test_the_banner_says_what_is_missing_and_nothing_without_a_lesson(open_app: Open):
    open_app()
    banner = AppTest.from_function(banner_alone, default_timeout=60).run()
    assert "their numbers appear here" in text(banner)
    for nothing in (None, 99, -1, "x"):
        banner.session_state["lesson"] = nothing
        assert "Lesson" not in text(banner.run())
        assert sentences(banner) == ""


def test_a_run_matches_a_setup_only_with_all_its_settings(open_app: Open):
    app = settle(open_app(), "preparation")
    next(b for b in app.button if b.label == "Merge").click().run()
    settle(app, "preparation", "merging")
    (run,) = kept()
    published, twelve = lessons.LESSONS[3].setups[:2]
    assert evidence.matches(run, published)
    assert not evidence.matches(run, twelve)
    assert not evidence.matches(run, lessons.LESSONS[0].setups[0])
    found = evidence.evidence(lessons.LESSONS[3], [run])
    assert "run 1" in found
    assert "**12 directions**: not merged yet" in found
