"""Merge: steps after the merge, and weights by depth."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from pages.shared.controls import depth
from pages.shared.frame import Wanted
from pages.shared.work.runs import settings
from tests.pages.driving import kept, labelled, merge, press, sentences, settle, texts_of

Open = Callable[..., AppTest]


def add(app: AppTest, title: str) -> AppTest:
    menu = next(one for one in app.menu_button if one.label == "Add a step")
    return menu.click(title).run()


def names(app: AppTest) -> list[str]:
    """The chosen steps, as the page numbers them."""
    found = (heading.value.replace("\\", "") for heading in app.subheader)
    return [text for text in found if text[:1].isdigit() and " · " in text[:5]]


def beginning(open_app: Open, method: str = "task_arithmetic") -> AppTest:
    app = open_app()
    app.session_state["wanted"] = Wanted(method)
    return settle(app, "preparation")


def test_steps_are_added_moved_removed_merged_and_taken_back(open_app: Open):
    app = beginning(open_app)
    assert names(app) == []
    for title in ("Stretch", "Scale by depth (LiNeS)", "Stretch"):
        add(app, title)
    assert names(app) == ["1 · Stretch", "2 · Scale by depth (LiNeS)", "3 · Stretch"]
    first, second = (s for s in app.slider if s.label == "Scale")
    first.set_value(1.4).run()
    next(s for s in app.slider if s.label == "Scale" and s.key != first.key).set_value(0.5).run()
    labelled(app, "Last").set_value(2.0).run()
    assert second.key != first.key
    down = [b for b in app.button if b.label == "Down"]
    assert [b.disabled for b in down] == [False, False, True]
    down[0].click().run()
    assert names(app) == ["1 · Scale by depth (LiNeS)", "2 · Stretch", "3 · Stretch"]
    [b for b in app.button if b.label == "Remove"][-1].click().run()
    merge(app)
    assert sentences(app) == ""
    (run,) = kept()
    steps = ({"lines": {"first": 1.0, "last": 2.0}}, {"stretch": {"scale": 1.4}})
    assert run.report.after == steps
    assert "lines · stretch" in run.label
    said = "lines (first 1, last 2), stretch (scale 1.4)"
    assert settings(run)["after the merge"] == said
    assert not any("Settings changed" in m.value for m in app.markdown)
    [b for b in app.button if b.label == "Up"][-1].click().run()
    assert any("steps after the merge" in m.value for m in app.markdown)
    press(app, "Back to this run's")
    assert names(app) == ["1 · Scale by depth (LiNeS)", "2 · Stretch"]
    assert labelled(app, "Last").value == 2.0
    press(app, "Reset")
    assert names(app) == []


def test_a_curve_is_drawn_for_the_update_and_for_an_expert(open_app: Open):
    app = beginning(open_app)
    points = [s.label for s in app.slider if s.label.startswith("Block ")]
    assert points == ["Block 1 of 2, with the embeddings", "Block 2 of 2, with what follows"]
    labelled(app, points[0]).set_value(0.5).run()
    labelled(app, "Curve of").set_value("e1").run()
    assert labelled(app, points[0]).value == 1.0
    labelled(app, points[1]).set_value(1.5).run()
    merge(app)
    assert sentences(app) == ""
    (run,) = kept()
    assert run.report.by == (
        {"depth": [0.0, 0.0], "weight": 0.5}, {"depth": [1.0, 1.0], "weight": {"e1": 1.5}},
    )  # fmt: skip
    assert "depth 0: update × 0.5" in settings(run)["by layer"]
    labelled(app, points[1]).set_value(1.0).run()
    assert any("rules by layer" in m.value for m in app.markdown)
    press(app, "Back to this run's")
    labelled(app, "Curve of").set_value("e1").run()
    assert labelled(app, points[1]).value == 1.5
    assert not any("Settings changed" in m.value for m in app.markdown)


@pytest.mark.parametrize(
    ("sent", "values"),
    [
        ({"values": [0.5, 1.5000001], "serial": 3}, [0.5, 1.5]),
        ({"values": [0.5], "serial": 3}, [1.0, 1.0]),
        ({"values": [0.5, 9], "serial": 3}, [1.0, 1.0]),
        ({"values": [0.5, float("nan")], "serial": 3}, [1.0, 1.0]),
        ({"values": "ab", "serial": 3}, [1.0, 1.0]),
        (None, [1.0, 1.0]),
    ],
)
def test_what_the_drawn_curve_sends_is_taken_within_its_limits(
    monkeypatch: pytest.MonkeyPatch, sent: object, values: list[float]
):
    held: dict[str, Any] = {"picture": {"state": sent}, "a": 1.0, "b": 1.0}
    monkeypatch.setattr(depth.state, "value", held.get)
    monkeypatch.setattr(depth.state, "put", held.__setitem__)
    depth.dragged("picture", ["a", "b"])
    assert [held["a"], held["b"]] == values


def test_live_merges_where_a_step_or_a_point_is_moved(open_app: Open):
    app = beginning(open_app)
    app.toggle(key="live").set_value(True).run()
    settle(add(app, "Stretch"), "merging")
    labelled(app, "Block 2 of 2, with what follows").set_value(0.5).run()
    settle(app, "merging")
    assert sentences(app) == ""
    run = kept()[-1]
    assert run.draft
    assert run.report.after == ({"stretch": {"scale": 1.0}},)
    assert run.report.by == ({"depth": [1.0, 1.0], "weight": 0.5},)


def test_a_link_hands_steps_and_rules_over(open_app: Open):
    app = open_app()
    given = {
        "method": "kfac", "options": {}, "experts": ["e0", "e1", "e2"], "weights": {}, "rounds": 1,
        "after": ["svc", {"stretch": {"scale": 1.2}}],
        "by": [{"match": "*.attention.*", "options": {"damping": 0.4}}],
    }  # fmt: skip
    app.query_params["settings"] = json.dumps(given)
    settle(app, "preparation")
    assert names(app) == ["1 · Calibrate singular values (SVC)", "2 · Stretch"]
    assert "*.attention.*: damping 0.4" in texts_of(app)
    merge(app)
    assert kept()[0].report.by == ({"match": "*.attention.*", "options": {"damping": 0.4}},)
    assert kept()[0].report.after[1] == {"stretch": {"scale": 1.2}}
    press(app, "Remove this rule")
    assert "*.attention.*" not in texts_of(app)


@pytest.mark.parametrize(
    "wrong",
    [{"after": ["svx"]}, {"after": [{"stretch": {"scale": 99}}]}, {"by": [{"weight": 1}]},
     {"after": 3}],
)  # fmt: skip
def test_what_does_not_fit_is_a_sentence(open_app: Open, wrong: dict[str, object]):
    app = open_app()
    given = {"method": "average", "options": {}, "experts": [], "weights": {}, "rounds": 1}
    app.query_params["settings"] = json.dumps(given | wrong)
    settle(app, "preparation")
    assert any("do not fit" in info.value for info in app.info)


def test_a_calibration_takes_no_steps_and_no_curve_of_the_update(open_app: Open):
    app = beginning(open_app, "sequential")
    assert not any(one.label == "Add a step" for one in app.menu_button)
    assert labelled(app, "Curve of").options == ["e0", "e1", "e2"]
