"""Every page opens, does its work, and says in a sentence what is wrong."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from mats_core.merging.recipe import parse_options
from mats_core.methods.reference import describe
from mats_core.methods.table import METHODS
from mats_core.system.folders import results_folder
from pages.shared.controls.presets import PRESETS, Preset
from pages.shared.work.jobs import Job
from pages.shared.work.runs import differences
from tests.pages.conftest import kept, sentences, settle

Open = Callable[..., AppTest]


def press(app: AppTest, label: str) -> AppTest:
    return next(b for b in app.button if b.label == label).click().run()


def labelled(app: AppTest, label: str) -> Any:
    """The widget with this label, of whichever kind."""
    kinds = (app.slider, app.select_slider, app.selectbox, app.number_input, app.toggle)
    return next(w for kind in kinds for w in kind if w.label == label)


def spec(app: AppTest, index: int = 0) -> dict:
    return json.loads(app.get("plotly_chart")[index].proto.spec)


def merge(app: AppTest) -> AppTest:
    return settle(press(app, "Merge"), "preparation", "merging")


@pytest.mark.parametrize("page", ["merge", "subspaces", "family"])
def test_every_page_opens_while_the_family_is_prepared_and_after(open_app: Open, page: str):
    app = open_app(page).run()
    assert sentences(app) == ""
    settle(app, "preparation")
    assert sentences(app) == ""
    assert len(app.get("plotly_chart")) >= 1


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


def test_a_pinned_run_stays_beside(open_app: Open):
    app = merge(open_app())
    labelled(app, "3 · layers").set_value(False).run()
    labelled(merge(app), "Pin").set_value(True).run()
    labelled(app, "1 · tasks").set_value(False).run()
    merge(app)
    first, _, third = kept()
    assert app.session_state["shown run"] == third.id
    assert app.session_state["beside run"] == app.session_state["baseline"] == first.id


def test_the_same_settings_are_one_run(open_app: Open):
    merge(merge(open_app()))
    assert [run.number for run in kept()] == [1]


def test_runs_survive_the_session(open_app: Open):
    merge(open_app())
    app = settle(open_app(), "preparation")
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
    press(app, "MaTS as published")
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
    app = open_app()
    press(app, "K-FAC, measured twice")
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
    assert ("rounds of statistics", "2", "1") in differences(two, one)
    labelled(app, "Method").set_value("regmean").run()
    assert rounds_of(app) is not None
    groups = next(b for b in app.button_group if b.label.startswith("Method, by"))
    groups.set_value("task vectors").run()
    assert rounds_of(app) is None


def test_what_another_page_wants_is_taken_over(open_app: Open):
    app = open_app()
    app.session_state["wanted"] = {
        "method": "task_arithmetic", "options": {"scaling": 0.15}, "experts": ("e0", "e2"),
        "weights": {"e0": 2.0, "e2": 1.0}, "seed": 3, "dtype": "float64",
    }  # fmt: skip
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


def test_live_merges_at_every_change(open_app: Open):
    app = merge(open_app())
    labelled(app, "Live: merge at every change of a knob").set_value(True).run()
    labelled(app, "Scaling").set_value(0.5).run()
    settle(app, "merging")
    assert [run.report.options["scaling"] for run in kept()] == [1.5, 0.5]


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
    assert any("all there are" in c.value for c in app.caption)
    assert [t.merged.examples for t in kept()[0].report.tasks] == [60, 60, 60]


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
    merge(app)
    assert sentences(app) == ""
    run = kept()[0]
    assert run.recipe.method == method
    defaults = {field.name: field.default for field in describe(method)}
    assert dict(run.report.options) == defaults
    assert run.report.normalised_accuracy is not None


def test_a_method_for_two_refuses_three_with_a_sentence(open_app: Open):
    app = open_app()
    app.session_state["group 0"] = "weights"
    app.run()
    labelled(app, "Method").set_value("slerp").run()
    assert any("exactly 2 experts" in c.value for c in app.caption)
    merge(app)
    assert "expected exactly 2 experts, found 3: e0, e1, e2" in sentences(app)
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
    press(app, "Merge")
    assert "expected at least one expert to merge, found none" in sentences(app)


def test_cancelled_merge_leaves_nothing_behind(open_app: Open):
    app = press(open_app(), "Merge")
    app.session_state["merging"].cancel()
    settle(app, "merging")
    assert sentences(app) == ""
    assert any("cancelled" in info.value for info in app.info) or not kept()


def test_family_page_shows_tasks_and_their_accuracy(open_app: Open):
    app = settle(open_app("family"), "preparation")
    assert {"e0", "e1", "e2"} <= {s.value.replace("\\", "") for s in app.subheader}
    assert sum(m.label == "Expert" for m in app.metric) == 3


# What a person can get wrong ----------------------------------------------------------------------


@pytest.fixture
def broken(tiny_family: Path, tmp_path: Path) -> Path:
    """A copy of the family that may be damaged."""
    return Path(shutil.copytree(tiny_family, tmp_path / "broken"))


@pytest.mark.parametrize("page", ["merge", "subspaces", "family"])
def test_no_family_is_a_sentence(open_app: Open, tmp_path: Path, page: str):
    app = open_app(page, tmp_path).run()
    assert "There is no family of models to open" in sentences(app)
    assert "MATS_FAMILIES" in sentences(app)


def test_bad_yaml_is_a_sentence(open_app: Open, broken: Path):
    (broken / "family.yaml").write_text("name: [unclosed")
    assert "expected YAML" in sentences(open_app(family=broken).run())


def test_unknown_key_names_the_nearest(open_app: Open, broken: Path):
    text = (broken / "family.yaml").read_text().replace("experts:", "expert:")
    (broken / "family.yaml").write_text(text)
    assert "Did you mean 'experts'?" in sentences(open_app(family=broken).run())


def test_missing_checkpoint_is_a_sentence(open_app: Open, broken: Path):
    shutil.rmtree(broken / "e1")
    app = settle(open_app(family=broken), "preparation")
    assert "e1" in sentences(app)
    assert "Traceback" not in sentences(app)


def test_pickle_is_refused_with_the_way_out(open_app: Open, broken: Path):
    (broken / "e1" / "model.safetensors").rename(broken / "e1" / "pytorch_model.bin")
    app = settle(open_app(family=broken), "preparation")
    assert "safetensors" in sentences(app)


def test_other_shapes_are_a_sentence(open_app: Open, broken: Path):
    from tests.conftest import vit

    other = vit(4, [f"k{i}" for i in range(4)], seed=3)
    other.vit.embeddings.position_embeddings = type(other.vit.embeddings.position_embeddings)(
        other.vit.embeddings.position_embeddings[:, :5].clone()
    )
    other.save_pretrained(broken / "e1")
    app = settle(open_app(family=broken), "preparation")
    assert "position_embeddings" in sentences(app)


def test_a_family_without_tasks_still_merges_its_weights(open_app: Open, broken: Path):
    lines = (broken / "family.yaml").read_text().splitlines()
    kept = [line for line in lines if "task" not in line]
    (broken / "family.yaml").write_text("\n".join(kept))
    app = open_app(family=broken)
    app.session_state["group 0"] = "weights"
    app.run()
    merge(app)
    assert sentences(app) == ""
    assert any("not evaluated" in info.value for info in app.info)
    app.session_state["group 0"] = "statistics"
    app.run()
    labelled(app, "Method").set_value("fisher").run()
    merge(app)
    assert "statistics for every expert" in sentences(app)


def test_what_nobody_expected_is_a_sentence_too(open_app: Open, monkeypatch: pytest.MonkeyPatch):
    def broken_run(*args: object, **kwargs: object):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("pages.shared.work.merge.run_plan", broken_run)
    app = merge(open_app())
    assert "stopped unexpectedly (ZeroDivisionError: a bug)" in sentences(app)
