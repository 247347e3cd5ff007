"""The Learn page: picture and sliders in step, five steps, and lessons that set up other pages."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from streamlit.testing.v1 import AppTest

from mats_core import figures
from mats_core.analysis import TRAITS, reasons, toy, traits
from mats_core.analysis.spectra import KINDS
from mats_core.analysis.survey import LayerSurvey, Survey
from mats_core.evaluation import share
from mats_core.evaluation.scores import Score, TaskResult
from mats_core.merging.pipeline import merge as merged
from mats_core.methods.reference import describe
from mats_core.recipes.family_file import load_family
from pages.shared.frame import Wanted, caches, session, state
from pages.shared.learn import evidence, guide, lessons
from pages.shared.learn import scene as toy_state
from pages.shared.work.runs import Run
from tests.pages.driving import button, held, kept, press, sentences, settle

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
        asked = lesson.asked
        assert len(asked.of) == {"difference": 2, "part": 3, "examples": 4}.get(
            asked.kind, len(asked.of)
        )
        assert len(asked.guesses) == (len(TRAITS) + 1 if asked.kind == "reasons" else 3)
        assert all(lesson.setups[place].method for place in asked.of)


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
    guide.set_up(lessons.LESSONS[1].setups[3])
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
    monkeypatch.setattr("pages.shared.policy.SAMPLES", tiny_family)
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
        assert lessons.LESSONS[index].question in banner.radio[0].label
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
    assert lessons.LESSONS[0].question in banner.radio[0].label
    assert "(run 1)" not in text(banner), "the reader guesses before the numbers are shown"
    banner.radio[0].set_value(0).run()
    said = text(banner)
    share = run.report.normalised_accuracy
    assert share is not None
    assert f"**Average** (run 1): {100 * share:.1f} % of the experts' accuracy" in said
    assert "**ESM**: not merged yet" in said
    settle(banner, "lesson merges")  # the guess has begun what was missing
    assert [run.recipe.method for run in kept()] == ["average", "essential"]
    assert "**ESM** (run 2)" in text(banner)
    banner.button(key="lesson close").click().run()
    assert not banner.radio


def test_the_banner_says_what_is_missing_and_nothing_without_a_lesson(open_app: Open):
    open_app()
    banner = AppTest.from_function(banner_alone, default_timeout=60).run()
    banner.radio[0].set_value(1).run()
    assert "their numbers appear here" in text(banner)
    settle(banner, "lesson merges")
    assert "their numbers appear here" not in text(banner)
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
    younger = replace(
        run, report=replace(run.report, options={"scaling": run.report.options["scaling"]})
    )
    assert evidence.matches(younger, published), (
        "an option that it does not know was at its default"
    )


def test_a_lesson_under_way_is_found_by_another_window(open_app: Open):
    first, other = (settle(open_app(), "preparation") for _ in range(2))
    first.session_state["lesson"] = other.session_state["lesson"] = 3
    first.run()
    with held():
        press(first, "Run this lesson: 3 merges")
        other.run()
        job = first.session_state["lesson merges"]
        assert other.session_state["lesson merges"] is job
        assert button(other, "Run this lesson: 3 merges").disabled
    settle(other, "lesson merges")
    assert sentences(other) == ""
    assert len(kept()) == 3


def test_one_press_runs_a_lesson_and_its_answer_is_computed(open_app: Open):
    caches._surveys.clear()
    app = settle(open_app(), "preparation")
    app.session_state["lesson"] = 0
    app.run()
    next(b for b in app.button if b.label == "Run this lesson: 2 merges").click().run()
    settle(app, "lesson merges")
    assert sentences(app) == ""
    average, esm = kept()
    assert (average.recipe.method, esm.recipe.method) == ("average", "essential")
    assert average.report.left == esm.report.left == 0
    assert (app.session_state["shown run"], app.session_state["beside run"]) == (average.id, esm.id)
    assert not any("Run this lesson" in b.label for b in app.button)
    app.radio[0].set_value(5).run()
    settle(app, "surveying")
    assert sentences(app) == ""
    (inputs,) = [app.session_state["preparation"].snapshot().result.inputs]
    survey = caches.survey(inputs)
    assert survey is not None
    outcome = {r.name: share(r) for r in average.report.tasks}
    found = reasons(traits(survey, average.report.tasks), outcome)
    verdict = figures.reasons_verdict(found, "what a task keeps in Average")
    assert verdict in text(app)
    # Three tasks in any order are chance: none of the traits is a reason, and that was the guess.
    assert verdict.startswith("Nothing here correlates")
    assert "**As you guessed.**" in text(app)
    app.radio[0].set_value(0).run()
    assert "**Not what you guessed.**" in text(app)


# What the runs of a lesson answer -----------------------------------------------------------------


def score(right: int, of: int = 400) -> Score:
    return Score(right, of, "1" * right + "0" * (of - right))


def fake(run: Run, setup: lessons.Setup, right: list[int]) -> Run:
    """A run of a setup with so many right answers of 400 on each of its tasks."""
    usual = {field.name: field.default for field in describe(setup.method, len(run.recipe.experts))}
    tasks = tuple(
        TaskResult(f"e{m}", score(n), score(400), score(100)) for m, n in enumerate(right)
    )
    report = replace(run.report, tasks=tasks, options=usual | setup.options, split="validation")
    recipe = run.recipe.model_copy(update={"method": setup.method, "options": setup.options})
    return replace(run, recipe=recipe, report=report)


@pytest.fixture(scope="module")
def some_run(tiny_family: Path) -> Run:
    recipe = load_family(tiny_family).recipe("average", evaluate=False)
    return Run("id", 1, "Tiny three", 3, recipe, merged(recipe))


@pytest.mark.parametrize(
    ("lesson", "rights", "right", "said"),
    [
        (1, {0: 300, 1: 110, 2: 100}, {2}, "50.0 points"),
        (1, {0: 300, 1: 200, 2: 100}, {1}, "50 %"),
        (1, {0: 300, 1: 290, 2: 100}, {0}, "over Diagonal of A only"),
        (1, {0: 100, 1: 200, 2: 100}, set(), "There is no clear gain to divide"),
        (2, {0: 200, 1: 300}, {0}, "It rises: from 50 iterations to 200 iterations by +25.0"),
        (2, {0: 300, 1: 200}, {1}, "It falls"),
        (2, {0: 300, 1: 301}, {2}, "It does not change clearly"),
        (3, {1: 300, 2: 200}, {1}, "It falls: from 12 directions to 48 directions by −25.0"),
        (5, {0: 300, 1: 260, 2: 280, 3: 100}, {0}, "Eight alone has 80 %, Eight, steadied has 90"),
        (5, {0: 300, 1: 200, 2: 280, 3: 100}, {1}, "From Eight alone to Eight, steadied: +20.0"),
        (5, {0: 300, 1: 120, 2: 121, 3: 100}, {2}, "which may be chance"),
        (5, {0: 100, 1: 120, 2: 120, 3: 100}, set(), "There is no clear gain to divide"),
    ],
)
def test_answers_are_those_of_the_runs(
    some_run: Run, lesson: int, rights: dict[int, int], right: set[int], said: str
):
    one = lessons.LESSONS[lesson]
    runs = [fake(some_run, one.setups[place], [n] * 3) for place, n in rights.items()]
    found = evidence.finding(one, runs, None)
    assert found is not None
    assert found.right == right
    assert said in found.text
    assert "1,200 validation examples of 3 tasks" in found.text
    assert evidence.finding(one, runs[1:], None) is None, "a run is missing"


def test_a_lesson_on_examples_draws_what_they_decide(some_run: Run):
    lesson = lessons.LESSONS[5]
    runs = [fake(some_run, setup, [300 - 50 * place] * 3) for place, setup in
            enumerate(lesson.setups)]  # fmt: skip
    plain = evidence.finding(lesson, runs, None)
    assert plain is not None
    assert plain.drawn is None, "older reports have not recorded it"
    details = {"block": 0, "stage": 0, "input_width": 10, "directions": [2.0, 4.0, 4.0]}
    layer = replace(some_run.report.layers[0], details=details)
    runs[1] = replace(runs[1], report=replace(runs[1].report, layers=(layer,)))
    found = evidence.finding(lesson, runs, None)
    assert found is not None
    assert found.drawn is not None
    assert found.drawn.caption.startswith(found.text)
    assert "Of the 10 input directions of a layer these decide" in found.drawn.caption
    assert found.drawn.caption.endswith("Eight alone 40 %.")


def moved(norms: list[float]) -> Survey:
    """A survey of one layer in which tasks moved so far, and nothing else is known."""
    unknown = torch.full((len(norms), len(norms)), torch.nan)
    known = tuple(None for _ in norms)
    layer = LayerSurvey(
        "l", (2, 2), 1, 1.0, torch.tensor(norms), dict.fromkeys(KINDS, known), unknown[:2],
        unknown, unknown, unknown[0],
    )  # fmt: skip
    return Survey(tuple(f"e{m}" for m in range(len(norms))), (layer,))


def test_reasons_are_those_that_the_numbers_carry(some_run: Run):
    lesson = lessons.LESSONS[0]
    kept_of = [390, 380, 300, 280, 250, 200, 150, 120]
    run = fake(some_run, lesson.setups[0], kept_of)
    assert evidence.finding(lesson, [run], None) is None, "the survey is missing"
    long = evidence.finding(lesson, [run], moved([1.0, 2, 3, 4, 5, 6, 7, 8]))
    assert long is not None
    assert long.right == {0}
    assert "goes how far fine-tuning went (the more, the less" in long.text.replace("\\", "")
    mixed = evidence.finding(lesson, [run], moved([3.0, 8, 1, 6, 2, 7, 4, 5]))
    assert mixed is not None
    assert mixed.right == {len(TRAITS)}
    assert "Nothing here correlates" in mixed.text
    assert mixed.drawn is not None
    last = lessons.LESSONS[4]
    pair = [fake(some_run, last.setups[i], row) for i, row in ((1, [200] * 8), (2, kept_of))]
    gain = evidence.finding(last, pair, moved([8.0, 7, 6, 5, 4, 3, 2, 1]))
    assert gain is not None
    assert gain.right == {0}
    assert "what a task gains from All off to Tasks at 4" in gain.text
    assert "the more, the more" in gain.text
