"""The Subspaces page: a survey in the background, a heatmap, and four views of one layer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

import mats_core as mats
from mats_core import figures
from pages.shared.controls import less
from pages.shared.frame import caches, keys, show, surveys
from pages.shared.views import survey
from pages.shared.work import merge
from pages.shared.work.jobs import Cancelled
from tests.pages.driving import sentences, settle, shared

Open = Callable[..., AppTest]


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    """Every test surveys for itself."""
    caches._surveys.clear()
    yield
    caches._surveys.clear()


def surveyed(open_app: Open, **more: Any) -> AppTest:
    """The page, with everything looked at."""
    return settle(settle(open_app("subspaces", **more), "preparation"), "surveying")


def specs(app: AppTest) -> list[dict]:
    return [json.loads(chart.proto.spec) for chart in app.get("plotly_chart")]


def labelled(app: AppTest, label: str) -> Any:
    kinds = (app.slider, app.selectbox, app.segmented_control)
    return next(w for kind in kinds for w in kind if w.label == label)


def captions(app: AppTest) -> str:
    return " ".join(m.value for m in app.markdown if m.value.startswith(":small["))


def at(app: AppTest, view: str) -> AppTest:
    app.session_state["subspaces view"] = view
    app.run()
    assert sentences(app) == ""
    return app


def test_heatmap_first_then_the_spectra_of_the_middle_layer(open_app: Open):
    app = surveyed(open_app)
    assert sentences(app) == ""
    heatmap, spectra, energy = specs(app)
    assert heatmap["data"][0]["x"] == ["e0", "e1", "e2"]
    assert len(heatmap["data"][0]["y"]) == 12
    assert all(v is not None for row in heatmap["data"][0]["z"] for v in row)
    assert [trace["name"] for trace in spectra["data"]] == ["e0", "e1", "e2"]
    assert spectra["layout"]["yaxis"]["dtick"] == 1
    assert [trace["name"] for trace in energy["data"]] == ["e0", "e1", "e2"]
    assert list(app.dataframe[0].value["task"]) == ["e0", "e1", "e2"]
    room = labelled(app, "Directions a task").value
    assert room in (24 // 3, 40 // 3)
    assert f"energy at {room}" in app.dataframe[0].value.columns


def test_detail_is_there_while_the_survey_runs(open_app: Open, monkeypatch: pytest.MonkeyPatch):
    from threading import Event

    go_on = Event()
    real = surveys.look_around

    def slow(*args: Any) -> Any:
        assert go_on.wait(60)
        return real(*args)

    monkeypatch.setattr(surveys, "look_around", slow)
    try:
        app = settle(open_app("subspaces"), "preparation")
        assert app.session_state["surveying"].active
        assert sentences(app) == ""
        assert [trace["name"] for trace in specs(app)[0]["data"]] == ["e0", "e1", "e2"]
        app = at(app, "Interference")
        assert any("as soon as every layer" in info.value for info in app.info)
    finally:
        go_on.set()
    settle(app, "surveying")
    assert specs(app)[0]["data"][0]["type"] == "heatmap"


@pytest.mark.parametrize("quantity", figures.QUANTITIES)
def test_every_quantity_has_its_heatmap(open_app: Open, quantity: str):
    app = surveyed(open_app)
    labelled(app, "Show").set_value(quantity).run()
    assert sentences(app) == ""
    alt = app.get("plotly_chart")[0].proto.alt
    assert figures.QUANTITIES[quantity].title in alt  # type: ignore[index]
    offered = {w.label for w in app.selectbox}
    assert ("Spectrum of" in offered) == (quantity in ("effective rank", "stable rank", "energy"))


def test_energy_follows_its_own_slider(open_app: Open):
    app = surveyed(open_app)
    labelled(app, "Show").set_value("energy").run()
    few = specs(app)[0]["data"][0]["z"]
    assert labelled(app, "Directions kept, r").value == 24 // 3
    labelled(app, "Directions kept, r").set_value(24).run()
    everything = specs(app)[0]["data"][0]["z"]
    assert all(
        a < b for x, y in zip(few, everything, strict=True) for a, b in zip(x, y, strict=True)
    )
    assert all(v == pytest.approx(1) for row in everything for v in row)


def test_a_click_on_a_cell_opens_its_layer_and_task(open_app: Open, monkeypatch):
    app = surveyed(open_app)
    point = specs(app)[0]["data"][1]["customdata"][4]
    assert point == [specs(app)[0]["data"][1]["customdata"][3][0], "e1"]
    # AppTest cannot click into a chart: the callback is called as Streamlit does.
    event = {"selection": {"points": [{"customdata": point}]}}
    state: dict[str, Any] = {"family chart": event}
    with monkeypatch.context() as patch:
        patch.setattr(st, "session_state", state)
        survey.follow("family chart", (keys.LAYER, keys.TASK))
    assert (state[keys.LAYER], state[keys.TASK]) == tuple(point)
    app.session_state[keys.LAYER], app.session_state[keys.TASK] = point
    app.run()
    assert labelled(app, "Layer").value == point[0]
    assert labelled(app, "Task").value == "e1"
    frame = specs(app)[0]["layout"]["shapes"][-1]
    assert (frame["x0"], frame["y0"]) == (0.5, 0.5)


@pytest.mark.parametrize(
    "event",
    [None, {}, {"selection": {"points": []}}, {"selection": {"points": [{"x": 1}]}},
     {"selection": {"points": [{"customdata": ["one"]}]}}],
)  # fmt: skip
def test_a_click_beside_the_cells_changes_nothing(event):
    assert survey.clicked(event) == ()


def test_overlap_of_all_pairs_and_the_angles_of_one(open_app: Open):
    app = at(surveyed(open_app), "Overlap")
    matrix, angles = specs(app)[1:]
    shown = matrix["data"][0]["z"]
    assert [shown[i][i] for i in range(3)] == [None, None, None]
    assert all(0 <= shown[i][j] <= 1 for i in range(3) for j in range(3) if i != j)
    assert [t["name"] for t in angles["data"]] == ["two random subspaces", "e0 and e1"]
    rank = labelled(app, "Directions a task").value
    assert len(angles["data"][1]["x"]) == rank
    # Both figures are of the same bases: the overlap is the mean squared cosine of the angles.
    from math import cos, radians

    mean = sum(cos(radians(a)) ** 2 for a in angles["data"][1]["y"]) / rank
    assert shown[0][1] == pytest.approx(mean, abs=1e-5)
    labelled(app, "Principal angles of e0 with").set_value("e2").run()
    assert specs(app)[2]["data"][1]["name"] == "e0 and e2"
    labelled(app, "Task").set_value("e2").run()
    assert specs(app)[2]["data"][1]["name"] == "e2 and e0", "a task is never its own partner"


def test_interference_by_layer_and_cosines(open_app: Open):
    app = at(surveyed(open_app), "Interference")
    for label, words in (
        ("sign conflict", "Unrelated tasks would have"),
        ("relative norm", "How far fine-tuning moved"),
        ("cosine", "right angle"),
        ("overlap", "essential directions"),
    ):
        labelled(app, "By layer").set_value(label).run()
        assert sentences(app) == ""
        assert [t["name"] for t in specs(app)[1]["data"]] == ["e0", "e1", "e2"]
        assert words in captions(app).replace("\\", "")
    assert specs(app)[2]["data"][0]["type"] == "heatmap"


def test_two_subspaces_side_by_side(open_app: Open):
    app = at(surveyed(open_app), "Protected directions")
    maps, along, concentration = specs(app)[1:]
    assert [t["name"] for t in maps["data"]] == ["Diagonal Fisher (Fisher merging)", "K-FAC (MaTS)"]
    assert len(along["data"]) == len(concentration["data"]) == 4
    labelled(app, "Left").set_value("identity").run()
    assert sentences(app) == ""
    identity = specs(app)[1]["data"][0]
    assert all(v == 0 for row in identity["z"] for v in row)
    labelled(app, "Right").set_value("identity").run()
    assert len(specs(app)[1]["data"]) == 1, "beside itself it is shown once"


def test_the_second_opening_finds_the_survey(open_app: Open):
    surveyed(open_app)
    again = settle(open_app("subspaces"), "preparation")
    assert "surveying" not in again.session_state
    assert specs(again)[0]["data"][0]["type"] == "heatmap"


def test_a_cancelled_survey_can_be_taken_up_again(open_app: Open, monkeypatch):
    def cancelled(*args: Any) -> Any:
        raise Cancelled

    with monkeypatch.context() as patch:
        patch.setattr(surveys, "look_around", cancelled)
        app = surveyed(open_app)
        assert "was cancelled" in sentences(app)
    next(b for b in app.button if b.label == "Look again").click().run()
    settle(app, "surveying")
    assert sentences(app) == ""


def test_a_failed_survey_is_a_sentence_and_can_be_tried_again(open_app: Open, monkeypatch):
    def broken(*args: Any) -> Any:
        raise ZeroDivisionError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(surveys, "look_around", broken)
        app = surveyed(open_app)
        assert "stopped unexpectedly (ZeroDivisionError: a bug)" in sentences(app)
    next(b for b in app.button if b.label == "Look again").click().run()
    settle(app, "surveying")
    assert sentences(app) == ""
    assert specs(app)[0]["data"][0]["type"] == "heatmap"


def test_without_statistics_what_needs_none_is_shown(
    open_app: Open, tiny_family: Path, tmp_path: Path
):
    family = Path(shutil.copytree(tiny_family, tmp_path / "bare"))
    lines = (family / "family.yaml").read_text().splitlines()
    (family / "family.yaml").write_text("\n".join(line for line in lines if "task" not in line))
    app = surveyed(open_app, family=family)
    assert sentences(app) == ""
    assert specs(app)[0]["data"][0]["type"] == "heatmap"
    assert "overlap" not in labelled(app, "Show").options
    assert any("no statistics of this layer" in info.value for info in app.info)
    app = at(app, "Protected directions")
    assert any("only the identity is known" in info.value for info in app.info)
    app = at(app, "Overlap")
    assert any("choose the task matrices" in info.value for info in app.info)
    labelled(app, "Spectrum of").set_value("task matrix").run()
    assert len(specs(app)) == 3
    app = at(app, "Interference")
    labelled(app, "By layer").set_value("overlap").run()
    assert any("needs statistics" in info.value for info in app.info)


def test_conflicts_are_measured_in_the_background_and_kept(open_app: Open):
    app = at(surveyed(open_app), "Interference")
    before = len(specs(app))
    assert "28 merges" not in [b.label for b in app.button]
    next(b for b in app.button if b.label == "Measure: 3 merges").click().run()
    job = app.session_state["conflicting"]
    settle(app, "conflicting")
    assert sentences(app) == ""
    found = shared(job.name)
    (measured,) = specs(app)[before:]
    assert measured["data"][0]["x"] == ["e0", "e1", "e2"]
    assert measured["data"][0]["z"][1][0] == pytest.approx(100 * found.values[1, 0])
    assert "validation examples a task" in captions(app)
    next(b for b in app.button if b.label == "Forecast").click().run()
    job = app.session_state["conflicting"]
    settle(app, "conflicting")
    expected = shared(job.name)
    early, _ = specs(app)[before:]
    assert early["data"][0]["z"][1][0] == pytest.approx(100 * expected.moved[1, 0])
    assert "without their labels" in captions(app)
    assert len(specs(at(surveyed(open_app), "Interference"))) == before + 2, "in another window too"
    labelled(app, "Compare").set_value("leave one out").run()
    assert len(specs(app)) == before
    assert any(b.label == "Measure: 4 merges" for b in app.button)


# Less of a task in a layer ------------------------------------------------------------------------


def less_link(app: AppTest) -> Any:
    return next(link.proto for link in app.get("page_link") if "less of" in link.proto.label)


def test_a_layer_leads_to_merge_with_less_of_its_task_there(open_app: Open):
    """The link holds Merge as it stands, and the rule; two of them are a quarter."""
    app = surveyed(open_app)
    layer, task = app.session_state[keys.LAYER], app.session_state[keys.TASK]
    sent = parse_qs(less_link(app).query_string)["settings"][0]
    given = json.loads(sent)
    assert given["method"] == "task_arithmetic"
    assert given["by"] == [{"match": layer, "weight": {task: 0.5}}]
    merging = open_app()
    merging.query_params["settings"] = sent
    settle(merging, "preparation")
    assert sentences(merging) == ""
    told = show.plain(f"{layer}: {task} × 0.5")
    assert any(told in one.value for one in merging.markdown)
    panel = next(one for one in merging.expander if one.label == "Weights by depth")
    assert panel.proto.expanded  # a rule that counts is seen
    request = merging.session_state["standing"]
    assert request.recipe().by[0].weight == {task: 0.5}
    merging.switch_page("pages/subspaces.py").run()
    settle(merging, "preparation", "surveying")
    merging.session_state[keys.LAYER], merging.session_state[keys.TASK] = layer, task
    merging.run()
    again = json.loads(parse_qs(less_link(merging).query_string)["settings"][0])
    assert again["by"] == [{"match": layer, "weight": {task: 0.25}}]
    assert again == given | {key: again[key] for key in ("by", "options", "dtype", "seed")}


def test_a_method_that_treats_all_alike_gives_way(open_app: Open, tiny_family: Path):
    app = surveyed(open_app)
    family = mats.load_family(tiny_family)
    app.session_state["standing"] = merge.Request(family, "tsv_m", {}, ("e0", "e1"))
    app.session_state[keys.TASK] = "e1"
    app.run()
    given = json.loads(parse_qs(less_link(app).query_string)["settings"][0])
    assert (given["method"], given["experts"]) == ("task_arithmetic", ["e0", "e1"])
    assert "lets all experts count alike" in less_link(app).help
    app.session_state[keys.TASK] = "e2"
    app.run()
    assert not [link for link in app.get("page_link") if "less of" in link.proto.label]
    assert "e2 is not among the experts" in " ".join(one.value for one in app.caption)


def test_other_rules_stay_and_names_are_no_patterns():
    other = {"depth": [0.0, 0.5], "weight": 0.7}
    rules = less.with_less((other,), "a[0].weight", "e0")
    assert rules == (other, {"match": "a[[]0].weight", "weight": {"e0": 0.5}})
    more = less.with_less(rules, "a[0].weight", "e1")
    assert more == (other, {"match": "a[[]0].weight", "weight": {"e0": 0.5, "e1": 0.5}})
