"""Compare: the list of runs, differences, settings, predicted loss and sweeps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from mats_core import figures
from mats_core.analysis import RANKS
from mats_core.evaluation.comparison import compare, normalised_interval
from mats_core.evaluation.scores import normalised_accuracy
from mats_core.merging.pipeline import merge
from mats_core.recipes.family_file import load_family, measure_all
from mats_core.recipes.sections import TRIED
from pages.shared.work import runs
from tests.pages.driving import kept, measured, press, sentences, settle, spec

Open = Callable[..., AppTest]
SWEEP, SETTINGS, LOSS, WHY = "Sweep two settings", "Settings", "Predicted loss", "Why"


def box(app: AppTest, label: str) -> Any:
    return next(w for w in (*app.selectbox, *app.multiselect, *app.toggle) if w.label == label)


def table_of(app: AppTest, index: int) -> Any:
    """A table's values: pandas' types are too wide for a type checker."""
    return app.dataframe[index].value


def texts(app: AppTest) -> str:
    return " ".join(m.value.replace("\\", "") for m in (*app.markdown, *app.info, *app.caption))


def make(family: Path, method: str, **settings: Any) -> runs.Run:
    """A finished run, kept as the Merge page keeps it."""
    collection = load_family(family)
    options = settings.pop("options", {})
    settings = {"evaluate": TRIED, **settings}
    recipe = collection.recipe(method, options, statistics=measure_all(collection), **settings)
    return runs.add(collection.name, len(collection.experts), recipe, merge(recipe))


@pytest.fixture
def compare_page(open_app: Open, tiny_family: Path) -> AppTest:
    """The page, prepared, with three runs; the last two differ in one setting."""
    app = open_app("compare")
    make(tiny_family, "average")
    make(tiny_family, "ties", options={"scaling": 0.5})
    make(tiny_family, "ties", options={"scaling": 3.0})
    return settle(app, "preparation")


def view(app: AppTest, name: str) -> AppTest:
    app.session_state["compare view"] = name
    return app.run()


# The list -----------------------------------------------------------------------------------------


def test_without_runs_the_page_says_what_to_do_and_still_sweeps(open_app: Open):
    app = settle(open_app("compare"), "preparation")
    assert sentences(app) == ""
    assert "no finished merge of this family yet" in texts(app)
    names = ["All methods", "Step by step", "Accuracy against size", "Intermediate tasks", SWEEP]
    names += ["Search", "Greedy soup"]
    assert [tab.label for tab in app.tabs] == names


def test_every_finished_run_is_listed_newest_first_with_its_interval(compare_page: AppTest):
    table = table_of(compare_page, 0)
    assert list(table["run"]) == [3, 2, 1]
    assert list(table["settings changed"]) == ["scaling 3.0", "scaling 0.5", "none"]
    for row, run in zip(table.itertuples(), reversed(kept()), strict=True):
        accuracy = run.report.normalised_accuracy
        assert accuracy is not None
        assert row.normalised == pytest.approx(100 * accuracy)
        low, high = normalised_interval(run.report.tasks)
        assert table["95 % interval"][row.Index] == f"{100 * low:.1f} – {100 * high:.1f}"
    assert "role" not in table.columns


def test_one_run_alone_is_shown_without_differences(open_app: Open, tiny_family: Path):
    app = open_app("compare")
    make(tiny_family, "average")
    settle(app, "preparation")
    assert sentences(app) == ""
    table = table_of(app, 1)
    assert list(table.columns) == ["1 · Average (baseline)"]
    assert "Tick another run" in texts(app)
    view(app, SETTINGS)
    assert "Average" in table_of(app, 1).to_string()
    assert not any(t.label == "Only what differs" for t in app.toggle)


def test_ticking_nothing_says_so(compare_page: AppTest):
    compare_page.session_state["compared"] = []
    runs.pin("Tiny three", kept()[0].id)  # another list widget
    compare_page.run()
    assert sentences(compare_page) == ""
    assert "Tick at least one run" in texts(compare_page)


def test_pinning_marks_the_baseline_and_everything_is_measured_against_it(compare_page: AppTest):
    box(compare_page, "With run").set_value(kept()[1].id).run()
    press(compare_page, "Pin as baseline")
    assert sentences(compare_page) == ""
    assert runs.pinned("Tiny three") == kept()[1].id
    assert list(table_of(compare_page, 0)["role"]) == ["", "baseline", ""]
    assert next(iter(table_of(compare_page, 1))).endswith("scaling 0.5 (baseline)")
    assert "the pinned run" in texts(compare_page)
    box(compare_page, "With run").set_value(kept()[1].id).run()
    press(compare_page, "Unpin")
    assert runs.pinned("Tiny three") is None


def test_deleting_a_run_forgets_it(compare_page: AppTest):
    box(compare_page, "With run").set_value(kept()[0].id).run()
    press(compare_page, "Delete this run")
    assert sentences(compare_page) == ""
    assert [run.number for run in kept()] == [2, 3]
    assert list(table_of(compare_page, 0)["run"]) == [3, 2]


def test_back_to_the_settings_of_an_earlier_run(compare_page: AppTest):
    box(compare_page, "With run").set_value(kept()[1].id).run()
    press(compare_page, "Back to these settings")
    assert sentences(compare_page) == ""
    assert compare_page.title[0].value == "Merge"
    slider = next(s for s in compare_page.slider if s.label == "Scaling")
    assert slider.value == 0.5
    assert box(compare_page, "Method").value == "ties"


# What sets runs apart -----------------------------------------------------------------------------


def test_table_holds_accuracy_difference_and_interval(compare_page: AppTest):
    first, second, third = kept()
    table = table_of(compare_page, 1)
    assert list(table.columns) == [f"{first.label} (baseline)", second.label, third.label]
    assert list(table.index) == ["e0", "e1", "e2", "all tasks, normalised"]
    found = compare(third.report.tasks, first.report.tasks, same_examples=True)
    assert found.mean is not None
    assert found.mean.paired
    for name, part in [*found.tasks.items(), ("all tasks, normalised", found.mean)]:
        cell = table[third.label][name].replace("−", "-")
        _, rest = cell.split(maxsplit=1)
        assert f"{100 * part.value:+.1f} ({100 * part.low:+.1f} to {100 * part.high:+.1f})" in rest
        assert ("▲" in rest, "▼" in rest) == (part.low > 0, part.high < 0)
    accuracy = third.report.tasks[0].merged.accuracy
    assert table[third.label]["e0"].startswith(f"{100 * accuracy:.1f} ")
    assert "answer by answer" in texts(compare_page)


def test_lines_and_differences(compare_page: AppTest):
    names = [trace.get("name") for trace in spec(compare_page)["data"]]
    assert names[0].endswith("(baseline)")
    assert len(names) == 3
    compare_page.session_state["compare lines"] = "Difference to the baseline"
    compare_page.run()
    assert sentences(compare_page) == ""
    traces = spec(compare_page)["data"]
    assert [trace["name"] for trace in traces] == [run.label for run in kept()[1:]]
    assert all("error_y" in trace for trace in traces)


def test_only_the_settings_that_differ(compare_page: AppTest):
    view(compare_page, SETTINGS)
    table = table_of(compare_page, 1)
    assert list(table.index) == ["method", "scaling"]
    assert list(table.loc["scaling"]) == ["–", "0.5", "3.0"]
    box(compare_page, "Only what differs").set_value(False).run()
    assert {"seed", "experts", "density"} <= set(table_of(compare_page, 1).index)


def test_a_run_of_fewer_experts_is_compared_on_the_tasks_in_common(
    compare_page: AppTest, tiny_family: Path
):
    make(tiny_family, "average", experts=("e0", "e2"))
    compare_page.session_state["compared"] = [run.id for run in kept()]
    compare_page.run()
    assert sentences(compare_page) == ""
    table = table_of(compare_page, 1)
    few = kept()[3]
    assert table[few.label]["e1"] == "–"
    assert "(" in table[few.label]["all tasks, normalised"]
    assert table_of(compare_page, 0)["settings changed"][0] == "2 experts"


# Why ----------------------------------------------------------------------------------------------


def test_why_is_answered_by_task_at_once_and_by_layer_when_it_is_predicted(compare_page: AppTest):
    second, first = kept()[1:]
    compare_page.session_state["explained"] = (first.id, second.id)
    app = settle(view(compare_page, WHY), "explaining")
    assert sentences(app) == ""
    found = compare(first.report.tasks, second.report.tasks, same_examples=True)
    traces = spec(app, 0)["data"]
    ordered = sorted(found.tasks, key=lambda name: -found.tasks[name].value)
    assert [t["name"] for t in traces] == [*ordered, "all tasks"]
    assert traces[0]["x"] == [found.tasks[ordered[0]].value]
    reasons = measured(app, first, "why", second.id)
    both, layers = spec(app, 1)["data"], spec(app, 2)["data"]
    assert {t["name"]: t["x"][0] for t in both} == pytest.approx(reasons.by_task)
    assert layers[0]["x"] == pytest.approx(list(reasons.by_layer.values()))
    assert found.mean is not None
    asks = (
        "Is {} better than {}?"
        if not found.mean.clear
        else ("Why is {} better than {}?" if found.mean.low > 0 else "Why is {} worse than {}?")
    )
    title = next(h.value for h in app.header if " than " in h.value).replace("\\", "")
    assert title == asks.format(first.label, second.label)
    assert "validation examples of 3 tasks" in texts(app)


def test_why_compares_the_best_with_the_baseline_and_any_two(compare_page: AppTest):
    runs.pin("Tiny three", kept()[1].id)
    app = settle(view(compare_page, WHY), "explaining")
    assert box(app, "better than").value == kept()[1].id
    others = [kept()[0], kept()[2]]
    best = max(others, key=lambda run: run.report.normalised_accuracy or 0)
    assert box(app, "Why is").value == best.id
    worst = min(others, key=lambda run: run.report.normalised_accuracy or 0)
    box(app, "Why is").set_value(worst.id).run()
    settle(app, "explaining")
    assert measured(app, best, "why", kept()[1].id) is not None
    assert measured(app, worst, "why", kept()[1].id) is not None


def test_why_says_what_it_needs(compare_page: AppTest):
    compare_page.session_state["compared"] = [kept()[0].id]
    runs.pin("Tiny three", kept()[0].id)  # another list widget
    view(compare_page, WHY)
    assert "Tick two runs" in texts(compare_page)


def change_files(monkeypatch: Any) -> None:
    """Have every run say that it was made of another expert `e1`."""
    real = runs.everything

    def other(family: str) -> list[runs.Run]:
        found = real(family)
        for run in found:
            run.report.fingerprints["e1"] = "something else"  # type: ignore[index]
        return found

    monkeypatch.setattr(runs, "everything", other)


def test_a_run_of_other_files_is_not_explained_and_not_tried_again(
    compare_page: AppTest, monkeypatch: Any
):
    change_files(monkeypatch)
    app = settle(view(compare_page, WHY), "explaining")
    assert "others in place of e1" in sentences(app)
    assert [b.label for b in app.button if b.key == "why start"] == ["Predict by layer"]


# Predicted loss -----------------------------------------------------------------------------------


def test_the_loss_of_the_run_that_merge_shows_is_predicted_first(compare_page: AppTest):
    compare_page.session_state["shown run"] = kept()[1].id
    assert box(view(compare_page, LOSS), "Run").value == kept()[1].id


def test_predicted_loss_beside_measured(compare_page: AppTest):
    view(compare_page, LOSS)
    box(compare_page, "Run").set_value(kept()[0].id).run()
    press(compare_page, "Predict and measure")
    settle(compare_page, "predicting")
    assert sentences(compare_page) == ""
    heat, points = spec(compare_page, 0)["data"], spec(compare_page, 1)["data"]
    assert heat[0]["type"] == "heatmap"
    assert heat[0]["x"] == ["e0", "e1", "e2"]
    assert [trace["name"] for trace in points] == ["e0", "e1", "e2"]
    found = measured(compare_page, kept()[0], "predicted loss")
    assert [trace["y"][0] for trace in points] == pytest.approx(list(found.measured))
    assert box(compare_page, "Run").value == kept()[0].id


def test_a_run_of_other_files_is_not_predicted(compare_page: AppTest, monkeypatch: Any):
    change_files(monkeypatch)
    view(compare_page, LOSS)
    press(compare_page, "Predict and measure")
    settle(compare_page, "predicting")
    said = sentences(compare_page)
    assert "others in place of e1. The files changed since this run; merge again" in said


# Sweeps -------------------------------------------------------------------------------------------


def start_sweep(app: AppTest, across: list[str], upwards: list[str]) -> AppTest:
    view(app, SWEEP)
    box(app, "Method").set_value("ties").run()
    for widget, values in zip(app.multiselect, (across, upwards), strict=True):
        widget.set_value(values)
    app.run()
    return press(app, "Sweep")


def test_a_sweep_fills_a_grid_and_its_best_point_goes_over_to_merge(
    compare_page: AppTest, open_app: Open
):
    app = start_sweep(compare_page, ["0.2", "1"], ["0", "1"])
    settle(app, "sweeping")
    assert sentences(app) == ""
    cells = app.session_state["sweep"].snapshot().result
    assert [(c.options["density"], c.options["scaling"]) for c in cells] == [
        (0.2, 0.0), (0.2, 1.0), (1.0, 0.0), (1.0, 1.0),
    ]  # fmt: skip
    data = spec(app)["data"]
    assert data[0]["z"] == [
        [cells[0].accuracy, cells[2].accuracy],
        [cells[1].accuracy, cells[3].accuracy],
    ]
    assert data[-1]["customdata"] == [0, 1, 2, 3]
    link = app.session_state["sweep"].name.removeprefix("sweep ")
    for named in (link, "0" * 20, None):
        again = open_app("compare")
        if named is not None:
            again.query_params["sweep"] = named
        again = view(settle(again, "preparation"), SWEEP)
        drawn = again.get("plotly_chart")
        assert bool(drawn) == (named == link), "after a reload, and for nobody who has no link"
        assert not drawn or spec(again)["data"][0]["z"] == data[0]["z"]
    point = box(app, "Point (or click one above)")
    assert cells[point.value].accuracy == max(c.accuracy for c in cells)
    point.set_value(1).run()
    press(app, "Use these settings")
    assert sentences(app) == ""
    assert app.title[0].value == "Merge"
    sliders = {s.label: s.value for s in app.slider}
    assert (sliders["Density"], sliders["Scaling"]) == (0.2, 1.0)
    assert len(kept()) == 3  # nothing was kept of the sweep


def test_values_of_ones_own_can_be_typed_and_bad_ones_are_sentences(compare_page: AppTest):
    app = view(compare_page, SWEEP)
    box(app, "Method").set_value("ties").run()
    app.session_state["sweep values Across ties density"] = ["0.2", "often"]
    app.run()
    assert "expected a number, found 'often'" in sentences(app)
    app.session_state["sweep values Across ties density"] = ["0.2", "7"]
    app.run()
    assert "less than or equal to 1" in sentences(app)
    app.session_state["sweep values Across ties density"] = []
    app.run()
    assert "at least one" in sentences(app)
    assert next(b for b in app.button if b.label == "Sweep").disabled


def test_a_cancelled_sweep_says_how_far_it_came(compare_page: AppTest):
    app = start_sweep(compare_page, ["0.2", "0.4", "0.6", "0.8"], ["0", "1", "2"])
    app.session_state["sweep"].cancel()
    settle(app, "sweeping")
    assert sentences(app) == ""
    assert "The sweep was stopped after" in texts(app)


def test_all_other_settings_can_be_those_of_a_run(compare_page: AppTest, tiny_family: Path):
    run = make(tiny_family, "ties", options={"scope": "tensor"}, experts=("e0", "e1"))
    view(compare_page, SWEEP)
    box(compare_page, "Method").set_value("ties").run()
    box(compare_page, "All other settings").set_value(run.id).run()
    app = start_sweep(compare_page, ["0.2"], ["1"])
    settle(app, "sweeping")
    request = app.session_state["sweep"].request
    assert request.recipe.options == {"scope": "tensor"}
    assert [entry.name for entry in request.recipe.experts] == ["e0", "e1"]


# Step by step -------------------------------------------------------------------------------------


def test_a_ladder_is_climbed_in_one_press_and_a_step_goes_over_to_merge(open_app: Open):
    app = view(settle(open_app("compare"), "preparation"), "Step by step")
    assert "Eₜ Eₜᵀ Δₜ" in app.table[0].value["what changes"].iloc[1]
    press(app, "Merge all 8 steps")
    settle(app, "climbing")
    assert sentences(app) == ""
    stands = app.session_state["ladder"].snapshot().result
    assert [len(stand.results) for stand in stands] == [3] * 8
    names = [trace["name"] for trace in spec(app)["data"]]
    assert names == ["e0", "e1", "e2", "<b>all tasks</b>"]
    table = app.table[0].value
    assert list(table.index) == [stand.rung.title for stand in stands]
    assert list(table["keeps"]) == [figures.percent(normalised_accuracy(s.results)) for s in stands]
    assert table["against the step before"].iloc[0] == ""
    assert all("points" in said for said in table["against the step before"].iloc[1:])
    assert kept() == []
    other = view(settle(open_app("compare"), "preparation"), "Step by step")
    assert other.table[0].value.equals(table), "another window finds what was measured"
    box(app, "Step").set_value(2).run()
    press(app, "Use these settings")
    assert sentences(app) == ""
    assert app.title[0].value == "Merge"
    assert box(app, "Method").value == "essential"
    assert {s.label: s.value for s in app.slider}["Scaling"] == 1.0


def test_the_number_of_examples_is_drawn_as_it_becomes_known(open_app: Open):
    app = settle(open_app("compare"), "preparation")
    app.session_state["ladder which"] = "Examples a task"
    app = view(app, "Step by step")
    assert "ΔₜᵀΔₜ" in app.table[0].value["what changes"].iloc[0]
    press(app, "Merge all 10 steps")
    settle(app, "climbing")
    assert sentences(app) == ""
    stands = app.session_state["ladder"].snapshot().result
    assert [len(stand.results) for stand in stands] == [3] * 10
    alone, steadied = spec(app)["data"]
    assert alone["x"] == steadied["x"] == ["0", "1", "2", "8", "32", "256"]
    means = [normalised_accuracy(stand.results) for stand in stands]
    assert alone["y"] == pytest.approx(means[:2] + means[3::2])
    assert steadied["y"] == pytest.approx([*means[:1], *means[2::2], means[-1]])
    said = app.table[0].value["difference"]
    assert str(said["8, steadied"]).endswith(" against 8")
    assert str(said["8"]).endswith(" against 2")
    box(app, "Step").set_value(2).run()
    press(app, "Use these settings")
    assert box(app, "Method").value == "sequential"


# Greedy soup --------------------------------------------------------------------------------------


def test_a_soup_is_kept_as_a_run_like_any_other(open_app: Open):
    app = view(settle(open_app("compare"), "preparation"), "Greedy soup")
    settle(press(app, "Choose experts"), "souping")
    assert sentences(app) == ""
    found = app.session_state["soup"].snapshot().result
    tried = found.soup.ingredients
    assert {one.name for one in tried} == {"e0", "e1", "e2"}
    (run,) = kept()
    assert [entry.name for entry in run.recipe.experts] == [
        entry.name for entry in found.soup.recipe.experts
    ]
    assert run.recipe.tuned is not None
    assert run.recipe.tuned.trials == 5
    best = max(one.together for one in tried if one.kept)
    charts = [spec(app, place)["data"] for place in range(len(app.get("plotly_chart")))]
    line = next(t for chart in charts for t in chart if t.get("name") == "the average so far")
    assert line["y"][-1] == pytest.approx(best)
    press(app, "Show it on Merge")
    assert app.session_state["shown_run"] == run.id


# Accuracy against size ----------------------------------------------------------------------------


def test_the_curve_of_sizes_is_drawn_in_one_press(open_app: Open):
    app = view(settle(open_app("compare"), "preparation"), "Accuracy against size")
    press(app, f"Merge {len(RANKS)} sizes")
    settle(app, "sizing")
    assert sentences(app) == ""
    points = app.session_state["sizes"].snapshot().result
    assert [point.rank for point in points] == [*RANKS, None]
    assert [len(point.results) for point in points] == [3] * len(points)
    bold = next(trace for trace in spec(app)["data"] if trace["name"] == "<b>all tasks</b>")
    assert bold["x"] == pytest.approx(sorted(point.size for point in points))
    assert kept() == []
