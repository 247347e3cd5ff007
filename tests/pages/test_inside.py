"""The Inside page: images and layers of a finished merge, and what can go wrong there."""

from __future__ import annotations

import io
import json
import re
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from mats_core import figures, tasks
from mats_core.analysis import NEAREST, stepping
from mats_core.checkpoints.files import Checkpoint
from mats_core.evaluation import evaluate
from mats_core.merging.pipeline import run as merge_again
from mats_core.models.modules import tensors_of
from mats_core.recipes import FeatureErrors
from mats_core.recipes.events import Finished
from mats_core.recipes.family_file import load_family
from mats_core.recipes.plan import open_inputs
from mats_core.recipes.sections import TRIED
from pages.shared.frame import Wanted
from pages.shared.views import layer_table
from pages.shared.views.answers import AFTER, choices, compared, story, title
from pages.shared.work import confusion, step_through
from pages.shared.work.shelf import Answers, Shelf
from tests.pages.driving import PATIENCE, kept, labelled, measured, press, sentences, settle

Open = Callable[..., AppTest]
JOBS = ("preparation", "looking", "looking ahead", "loading parts")


def specs(app: AppTest) -> list[dict[str, Any]]:
    return [json.loads(chart.proto.spec) for chart in app.get("plotly_chart")]


def words(app: AppTest) -> str:
    return " ".join(m.value.replace("\\", "") for m in (*app.markdown, *app.caption))


def headings(app: AppTest) -> str:
    return " ".join(heading.value.replace("\\", "") for heading in app.subheader)


def merged(open_app: Open, method: str = "average", **where: Any) -> AppTest:
    """A session that has merged and opened the page; the worker has finished."""
    app = open_app(**where)
    app.session_state["group 0"] = "weights"
    app.run()
    next(w for w in app.selectbox if w.label == "Method").set_value(method).run()
    settle(press(app, "Merge"), "preparation", "merging")
    app.switch_page("pages/inside.py")
    return settle(app, *JOBS)


def test_before_the_first_merge_the_page_says_what_to_do(open_app: Open):
    app = settle(open_app("inside"), "preparation")
    assert sentences(app) == ""
    assert "no merge of this family to look into yet" in app.info[0].value
    assert [link.proto.label for link in app.get("page_link")] == ["Go to Merge"]


def test_images_and_matrices_are_those_of_the_merge_itself(open_app: Open, tiny_family: Path):
    app = merged(open_app)
    assert sentences(app) == ""
    results = {r.name: r for r in kept()[0].report.tasks}
    worst = min(results, key=lambda n: results[n].merged.accuracy / results[n].finetuned.accuracy)
    assert app.session_state["inside task Tiny three"] == worst
    right = results[worst].merged.correct
    metrics = {metric.label: metric for metric in app.metric}
    assert metrics["Merge"].help == f"{right} of 24 validation images are right."
    lost, won = int(metrics["Lost"].value), int(metrics["Won"].value)
    assert won - lost == right - results[worst].finetuned.correct
    assert f"{worst} lost {lost} of 24 images" in words(app)
    before, after = specs(app)[:2]
    diagonal = sum(int(row[i] or 0) for i, row in enumerate(after["data"][0]["text"]))
    assert diagonal == right
    assert before["layout"]["xaxis"]["title"]["text"] == "what the expert says"
    choice = next(w for w in app.selectbox if w.label == "Show the images")
    assert choice.options[0] == f"Lost: right before, wrong after ({lost})"
    assert len(app.get("image")) == min(lost, 24)
    assert not app.warning, "made again, the merge is the same"


def test_another_group_and_a_cell_can_be_chosen(open_app: Open):
    app = merged(open_app)
    choice = next(w for w in app.selectbox if w.label == "Show the images")
    kinds = [option for option in choice.options if option.startswith("Merge: ")]
    assert kinds
    choice.select(kinds[0]).run()
    count = int(kinds[0].rpartition("(")[2].rstrip(")"))
    assert len(app.get("image")) == min(count, 24)
    assert any("shapes" in spec["layout"] for spec in specs(app)), "the cell is framed"


def test_the_difference_and_the_pretrained_encoder(open_app: Open):
    app = merged(open_app)
    app.session_state["inside matrices"] = "Difference"
    app.session_state["inside before"] = "pre-trained encoder"
    app.run()
    assert sentences(app) == ""
    assert [metric.label for metric in app.metric][:2] == ["Pre-trained encoder", "Merge"]
    first = specs(app)[0]
    assert len([t for t in first["data"] if t["type"] == "heatmap"]) == 1
    assert "The merge has" in words(app)


def test_every_other_task_is_there_without_waiting(open_app: Open):
    app = merged(open_app)
    shelf: Shelf = app.session_state["inside shelf"]
    looked = shelf.get(kept()[0])
    assert looked is not None
    assert set(looked.answers) == {"e0", "e1", "e2"}
    next(w for w in app.selectbox if w.label == "Task").set_value("e1").run()
    assert "e1 lost" in words(app)
    assert not app.session_state["looking"].active


def test_loading_part_by_part(open_app: Open):
    app = merged(open_app)
    app.session_state["inside grain"] = "block"
    app.run()
    assert "4 parts, at most 11 states to test" in words(app)
    press(app, "Load the parts one by one")
    settle(app, *JOBS)
    assert sentences(app) == ""
    curves, steps = specs(app)[-2:]
    assert len(curves["data"]) == 3
    assert [len(trace["customdata"]) for trace in curves["data"]] == [5, 5, 5]
    assert steps["data"][0]["y"] == ["embeddings", "block 0", "block 1", "final norm"]
    assert "Mean over the tasks: from" in words(app)


def test_a_cancelled_loading_leaves_nothing_behind(open_app: Open):
    app = merged(open_app)
    app.session_state["inside grain"] = "matrix"
    app.run()
    press(app, "Load the parts one by one")
    app.session_state["loading parts"].cancel()
    settle(app, *JOBS)
    assert any("cancelled" in info.value for info in app.info)
    assert measured(app, kept()[-1], "parts") is None


def test_a_failure_is_a_sentence_and_can_be_tried_again(
    open_app: Open, monkeypatch: pytest.MonkeyPatch
):
    def broken(*args: object, **kwargs: object) -> object:
        raise ZeroDivisionError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr("pages.shared.work.again.opened", broken)
        app = merged(open_app)
        assert "stopped unexpectedly (ZeroDivisionError: a bug)" in sentences(app)
        assert not app.metric
    settle(press(app, "Try again"), *JOBS)
    assert sentences(app) == ""
    assert app.metric[0].label == "Expert"


@pytest.fixture
def copied(tiny_family: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_family, tmp_path / "copied"))


def test_files_that_changed_since_the_run_are_said(open_app: Open, copied: Path):
    app = merged(open_app, family=copied)
    shutil.copy(copied / "e1" / "model.safetensors", copied / "e0" / "model.safetensors")
    shutil.copy(copied / "e1" / "config.json", copied / "e0" / "config.json")
    shutil.copy(copied / "t1.npz", copied / "t0.npz")
    again = settle(open_app("inside", family=copied), *JOBS)
    assert "others in place of e0. The files changed since this run; merge again" in (
        sentences(again)
    )
    assert sentences(app) == ""


def test_a_family_without_tasks_says_so(open_app: Open, copied: Path):
    lines = (copied / "family.yaml").read_text().splitlines()
    (copied / "family.yaml").write_text("\n".join(line for line in lines if "task" not in line))
    app = merged(open_app, family=copied)
    assert sentences(app) == ""
    assert "name no tasks" in app.info[0].value
    assert not app.get("plotly_chart")


# Without the page ---------------------------------------------------------------------------------


def answers(expert: list[int], merge: list[int], labels: list[int]) -> Answers:
    """Three classes; an encoder is 90 % sure of what it says."""

    def sure(taken: list[int]) -> np.ndarray:
        return np.eye(3)[taken] * 0.85 + 0.05

    images = np.zeros((len(labels), 4, 4, 1), np.uint8)
    said = np.array(labels)
    return Answers("pets", ("cat", "dog", "cow"), images, said, sure(expert), sure(expert),
                   sure(merge))  # fmt: skip


def test_the_story_counts_what_was_lost_and_for_what():
    found = compared(answers([0, 0, 0, 1, 2], [1, 1, 0, 1, 2], [0, 0, 0, 1, 1]), "expert")
    text = story(found)
    assert "pets lost 2 of 5 images: 2 of them are cat taken for dog." in text
    assert "won 0 that the expert has wrong" in text
    assert "90 % sure (median), so these are not close calls" in text
    nothing = story(compared(answers([0, 1], [0, 1], [0, 1]), "expert"))
    assert nothing.endswith("lost 0 of 2 images. It won 0 that the expert has wrong.")


def test_choices_are_the_groups_the_common_mistakes_and_the_cell_clicked_on():
    found = compared(answers([0, 0, 0, 1, 2], [1, 1, 0, 1, 2], [0, 0, 0, 1, 1]), "expert")
    offered = choices(found, ("expert", 1, 2))
    assert offered == ["lost", "won", "wrong", (AFTER, 0, 1), (AFTER, 1, 2), ("expert", 1, 2)]
    assert title(found, (AFTER, 0, 1)) == "Merge: cat taken for dog (2)"
    assert title(found, (AFTER, 0, 0)) == "Merge: cat, right (1)"
    assert found.rows((AFTER, 0, 1)).tolist() == [0, 1]
    assert found.rows("wrong").tolist() == [4]


def test_the_shelf_keeps_two_runs(merge_run):
    shelf = Shelf()
    first, second, third = (replace(merge_run, id=str(i)) for i in range(3))
    place = shelf.put(first, {})
    assert shelf.put(first, {}) is place, "a run has one place"
    shelf.put(second, {})
    shelf.put(third, {})
    assert shelf.get(first) is None
    assert shelf.get(second) is not None
    assert shelf.get(third) is not None


@pytest.fixture(scope="module")
def merge_run(tiny_family: Path):
    """A finished run of the tiny family, without a page."""
    from pages.shared.work.runs import Run

    collection = load_family(tiny_family)
    recipe = collection.recipe("average", device="cpu", evaluate=TRIED)
    report = next(e for e in merge_again(recipe) if isinstance(e, Finished)).report
    return Run("abc", 1, collection.name, 3, recipe, report)


def test_made_again_a_run_answers_as_it_did(merge_run, tiny_family: Path):
    from pages.shared.work.prepare import Prepared

    collection = load_family(tiny_family)
    inputs = open_inputs(collection.recipe("average"))
    told: list[float] = []
    shelf = Shelf()

    def tell(fraction: float, text: str, partial: Any = None) -> None:
        told.append(fraction)

    prepared = Prepared(collection, inputs, {})
    confusion.look(shelf, merge_run, ["e2"], lambda: prepared, tell)
    looked = shelf.get(merge_run)
    assert looked is not None
    assert list(looked.answers) == ["e2"]
    found = looked.answers["e2"]
    own = tensors_of(Checkpoint.open(tiny_family / "e2"))
    task = tasks.load(tiny_family / "t2.npz")
    expert = inputs.family.experts[2]
    alone = evaluate.probabilities(own, inputs.family, expert, task.validation)
    assert (found.expert.argmax(1) == alone.argmax(1)).all()
    assert confusion.disagreements(merge_run, found) == 0
    assert told == sorted(told)
    wrong = replace(found, merged=np.roll(found.merged, 1, axis=1))
    assert confusion.disagreements(merge_run, wrong) > 0


# Flips --------------------------------------------------------------------------------------------


def test_two_merges_are_compared_answer_by_answer_and_examples_stay_pinned(open_app: Open):
    app = merged(open_app)
    app.switch_page("pages/merge.py").run()
    app.session_state["group 0"] = "task vectors"
    app.run()
    next(w for w in app.selectbox if w.label == "Method").set_value("task_arithmetic").run()
    settle(press(app, "Merge"), "preparation", "merging")
    app.switch_page("pages/inside.py")
    settle(app, *JOBS)
    app.session_state["inside before"] = "other merge"
    settle(settle(app, *JOBS), *JOBS)
    assert sentences(app) == ""
    average, sum_ = kept()
    assert next(w for w in app.selectbox if w.label == "Other merge").value == average.id
    name = next(w for w in app.selectbox if w.label == "Task").value
    shelf = app.session_state["inside shelf"]
    own, beside = (shelf.get(run).answers[name] for run in (sum_, average))
    right, before = (a.merged.argmax(1) == a.labels for a in (own, beside))
    metrics = {m.label: m.value for m in app.metric}
    assert metrics["Lost"] == str(int((before & ~right).sum()))
    assert metrics["Won"] == str(int((~before & right).sum()))
    group = "won" if (~before & right).any() else "lost" if (before & ~right).any() else "wrong"
    next(w for w in app.selectbox if w.label == "Show the images").set_value(group).run()
    said = words(app)
    assert all(f"{who}: " in said for who in ("pre-trained", "expert", "other merge", "merge"))
    button = next(b for b in app.button if b.label == "Pin")
    row = int(str(button.key).split()[-1])
    button.click().run()
    app.session_state["inside before"] = "expert"
    app.run()
    assert app.session_state["pinned examples"] == {("Tiny three", name): (row,)}
    assert "Pinned images" in [s.value for s in app.subheader]
    app.button(key=f"pinned pin {name} {row}").click().run()
    assert "Pinned images" not in [s.value for s in app.subheader]


def test_one_run_alone_has_no_other(open_app: Open):
    app = merged(open_app)
    app.session_state["inside before"] = "other merge"
    app.run()
    assert sentences(app) == ""
    assert "no other merge" in app.info[0].value


# All layers in numbers ----------------------------------------------------------------------------


def test_the_layers_are_a_table_whose_row_opens_its_layer(open_app: Open):
    app = merged(open_app)
    press(app, "Tabulate the layers")
    settle(app, "tabulating")
    assert sentences(app) == ""
    rows = measured(app, kept()[-1], "layers")
    task = next(w for w in app.selectbox if w.label == "Task").value
    table: Any = app.dataframe[-1].value
    assert len(table) == len(rows)
    assert list(table["moved"]) == pytest.approx([100 * row.moved for row in rows])
    assert list(table[f"kept of {task}"]) == pytest.approx([100 * row.kept[task] for row in rows])
    assert "residual" not in table.columns, "the average solves nothing"
    best = max(rows, key=lambda row: row.mean_kept)
    assert f"({100 * best.mean_kept:.0f} %), least in" in words(app)


def test_a_chosen_row_shows_its_spectra_and_leads_to_subspaces(
    open_app: Open, monkeypatch: pytest.MonkeyPatch
):
    app = merged(open_app)
    press(app, "Tabulate the layers")
    settle(app, "tabulating")
    before = len(specs(app))
    # AppTest cannot choose rows of a table.
    monkeypatch.setattr(layer_table, "_table", lambda run, rows, task: rows[2].name)
    app.run()
    assert sentences(app) == ""
    chosen = measured(app, kept()[-1], "layers")[2].name
    assert app.session_state["subspaces layer"] == chosen
    assert [trace["name"] for trace in specs(app)[before]["data"]][:3] == ["e0", "e1", "e2"]
    assert "of this layer" in app.get("page_link")[-1].proto.label


# One layer, step by step --------------------------------------------------------------------------


def stepped(open_app: Open, method: str, group: str) -> tuple[AppTest, Any]:
    app = open_app()
    app.session_state["group 0"] = group
    app.run()
    next(w for w in app.selectbox if w.label == "Method").set_value(method).run()
    settle(press(app, "Merge"), "preparation", "merging")
    app.switch_page("pages/inside.py")
    settle(app, *JOBS)
    layer = next(w for w in app.selectbox if w.label == "Layer to step through")
    layer.set_value(layer_name(app)).run()
    settle(app, "stepping")
    assert sentences(app) == ""
    (run,) = kept()
    return app, app.session_state["inside shelf"].get(run).steps[layer_name(app)]


def layer_name(app: AppTest) -> str:
    return "vit.encoder.layer.1.intermediate.dense.weight"


def test_a_layer_is_stepped_through_with_formulas_and_numbers(open_app: Open):
    app, found = stepped(open_app, "kfac", "statistics")
    said = headings(app)
    for number, stage in enumerate(found.stages, 1):
        assert f"{number}. {stage.title}" in said
    formulas = " ".join(h.proto.body for h in app.get("html"))
    assert 'title="Bₜ: the same of the gradients' in formulas
    assert formulas.count('tabindex="0"') >= 10
    maps = pictures(app)
    assert len(maps) == len(found.stages)
    window = found.seen["merged"][0].windows["moved"]
    told = re.findall(r"<title>output \d+, input \d+: ([^<]*)</title>", maps[-1])
    assert np.allclose(np.array(told, float).reshape(12, 12), window.values, rtol=1e-3, atol=1e-9)
    metrics = {m.label: m.value for m in app.metric}
    assert metrics["Residual"] == f"{found.residuals[-1]:.2e}"
    step = next(w for w in app.select_slider if w.label == "Step")
    step.set_value(0).run()
    metrics = {m.label: m.value for m in app.metric}
    assert metrics["Residual"] == f"{found.residuals[0]:.2e}"
    assert metrics["Output shifts kept"] == f"{100 * found.kept[0]:.1f} %"
    next(w for w in app.selectbox if w.label == "Expert").set_value("e2").run()
    assert "Input Gram · e2" in headings(app)


def pictures(app: AppTest) -> list[str]:
    """The still pictures on the page."""
    drawn = [json.loads(one.proto.json) for one in app.get("bidi_component") if one.proto.json]
    return [one["picture"] for one in drawn if "picture" in one]


def test_the_first_stage_is_shown_before_the_layer_is_merged(
    open_app: Open, monkeypatch: pytest.MonkeyPatch
):
    gate = threading.Event()

    def slowly(*given: Any, **more: Any) -> Any:
        gate.wait(PATIENCE)
        return stepping(*given, **more)

    monkeypatch.setattr("pages.shared.work.stepping.stepping", slowly)
    monkeypatch.setattr("pages.shared.views.stepping.SOON", 0.5)
    app = merged(open_app)
    next(w for w in app.selectbox if w.label == "Layer to step through").set_value(layer_name(app))
    app.run()
    assert sentences(app) == ""
    (first,) = pictures(app)
    assert "1. Task matrix · e0" in headings(app)
    assert any("merged once more" in info.value for info in app.info)
    gate.set()
    settle(app, "stepping")
    assert pictures(app)[0] == first
    assert len(pictures(app)) > 1
    assert not any("merged once more" in info.value for info in app.info)


def test_numbers_of_esm_stand_beside_its_matrices(open_app: Open):
    app, found = stepped(open_app, "essential", "statistics")
    metrics = {m.label: m.value for m in app.metric}
    assert metrics["What they keep of it"] == f"{found.seen['energy'][0].number:.4g}"
    assert metrics["Level 3: what the layer counts"] == (
        f"{found.seen['layer weight'][0].number:.4g}"
    )


def test_a_row_of_the_table_is_stepped_through(open_app: Open, monkeypatch: pytest.MonkeyPatch):
    app = merged(open_app)
    press(app, "Tabulate the layers")
    settle(app, "tabulating")
    monkeypatch.setattr(layer_table, "_table", lambda run, rows, task: rows[2].name)
    settle(app.run(), "stepping")
    (run,) = kept()
    looked = app.session_state["inside shelf"].get(run)
    assert set(looked.steps) == {measured(app, kept()[-1], "layers")[2].name}
    assert "W = Σₜ αₜ Wₜ / Σₜ αₜ" in re.sub(
        "<[^>]*>", "", " ".join(h.proto.body for h in app.get("html"))
    )
    # A choice of another layer stays, though the row is still chosen.
    layer = next(w for w in app.selectbox if w.label == "Layer to step through")
    settle(layer.set_value(layer_name(app)).run(), "stepping")
    assert set(looked.steps) == {measured(app, kept()[-1], "layers")[2].name, layer_name(app)}


def test_a_cell_of_the_map_of_layers_opens_its_layer_and_expert(open_app: Open):
    app = merged(open_app)
    press(app, "Tabulate the layers")
    settle(app, "tabulating")
    (run,) = kept()
    row = measured(app, kept()[-1], "layers")[2]
    key = f"layer map {run.id} None"
    drawn = next(c for c in app.get("plotly_chart") if key in c.proto.id)
    points = json.loads(drawn.proto.spec)["data"][1]
    picked = points["customdata"][2 * len(row.kept) + 1]
    assert picked == [row.name, "e1"]

    def click() -> None:
        import streamlit as st

        from pages.shared.frame import state
        from pages.shared.views import layer_table

        event = {"selection": {"points": [{"customdata": st.session_state["picked"]}]}}
        state.put("clicked", event)
        layer_table._follow("clicked")

    one = AppTest.from_function(click)
    one.session_state["picked"] = picked
    one.run()
    assert one.session_state["stepped layer"] == row.name
    assert one.session_state["stepping expert"] == "e1"


def test_nothing_is_merged_again_that_this_process_has_merged(
    open_app: Open, monkeypatch: pytest.MonkeyPatch
):
    def merge_again(*anything: Any, **named: Any) -> Any:
        raise AssertionError("the whole run was merged once more")

    monkeypatch.setattr("pages.shared.work.again.merge_again", merge_again)
    app, _ = stepped(open_app, "kfac", "statistics")
    assert sentences(app) == ""
    assert app.session_state["inside shelf"].get(kept()[0]).answers


def test_a_layer_is_opened_from_its_report_without_the_merged_tensors(open_app: Open):
    app, found = stepped(open_app, "kfac", "statistics")
    ready, shelf, (run,) = app.session_state["preparation"].outcome, Shelf(), kept()
    other = found.name.replace("layer.1", "layer.0")

    def quiet(fraction: float, text: str, partial: Any = None) -> None: ...

    step_through(shelf, run, other, ready, quiet)
    looked = shelf.get(run)
    assert looked is not None
    assert looked.steps[other].residuals[-1] < looked.steps[other].residuals[0]
    assert looked.made is None


# An example of the user's ------------------------------------------------------------------------


def test_an_image_dropped_in_is_answered_by_all_models(open_app: Open, tiny_family: Path):
    app = merged(open_app)
    task = str(next(w for w in app.selectbox if w.label == "Task").value)
    for name, content, said in (
        ("nothing.png", None, "expected an image file, found none"),
        ("broken.png", b"no image", "expected a picture that Pillow can read"),
    ):
        if content is not None:
            app.file_uploader[0].set_value((name, content, "image/png"))
        settle(press(app, "Ask all models"), "asking")
        assert said in sentences(app)
        assert "object at 0x" not in sentences(app)
    place = 7
    image = tasks.load(tiny_family / f"t{task[1]}.npz").validation.inputs[place]
    packed = io.BytesIO()
    Image.fromarray(image[:, :, 0]).save(packed, "png")
    app.file_uploader[0].set_value(("mine.png", packed.getvalue(), "image/png"))
    settle(press(app, "Ask all models"), "asking")
    assert sentences(app) == ""
    found = app.session_state["own example"].outcome()
    assert found.models == ("base", "e0", "e1", "e2", "this merge")
    (run,) = kept()
    answers = app.session_state["inside shelf"].get(run).answers[task]
    right = {"base": answers.pretrained, task: answers.expert, "this merge": answers.merged}
    for name, said in right.items():
        assert found.probabilities[found.models.index(name)] == pytest.approx(said[place], abs=1e-5)
    taken = found.classes[answers.merged[place].argmax()]
    share = f"{100 * answers.merged[place].max():.0f} %"
    assert f"this merge {taken} ({share})" in words(app)
    link = app.session_state["own example"].name.removeprefix("asked ")
    for named in (link, None):
        again = open_app("inside")
        again.query_params["run"] = run.id
        again.session_state[f"inside task {run.family}"] = "e2" if task != "e2" else "e1"
        if named is not None:
            again.query_params["asked"] = named
        again = settle(again, *JOBS)
        assert (f"this merge {taken} ({share})" in words(again)) == (named == link)


# A map --------------------------------------------------------------------------------------------


def test_the_map_travels_is_searched_and_names_neighbours(open_app: Open):
    app = merged(open_app)
    press(app, "Draw the map")
    settle(app, "mapping", "travelling")
    assert sentences(app) == ""
    found = measured(app, kept()[-1], "whole map")
    charts = app.get("plotly_chart")
    drawn = json.loads(charts[-1].proto.spec)
    assert [frame["name"] for frame in drawn["frames"]] == [f"{s:g}" for s in found.stations]
    circles = [t for t in drawn["data"] if t["marker"]["symbol"] == "circle"]
    assert [t["name"] for t in circles] == ["e0", "e1", "e2"]
    next(w for w in app.text_input if w.label == "Search the map").set_value("e1 kind 2").run()
    matches = int(found.search("e1 kind 2").sum())
    assert 0 < matches < len(found.task)
    assert f"{matches} of {len(found.task)} examples match." in words(app)
    choice = next(w for w in app.selectbox if w.label == "Neighbours of")
    assert len(choice.options) == matches
    place = int(np.flatnonzero(found.search("e1 kind 2"))[0])
    choice.set_value(place).run()
    assert sentences(app) == ""
    table: Any = app.dataframe[-1].value
    assert list(table["under merge"]) == list(range(1, NEAREST + 1))
    near = list(found.nearest(place, "merge"))
    for model in ("base", "e0", "e1", "e2"):
        assert list(table[f"under {model}"]) == found.ranks(place, model)[near].tolist()
    assert "nearest neighbours under the base are still" in words(app)
    alike = sum(
        (found.task[i], found.label[i]) == (found.task[place], found.label[place])
        for i in found.nearest(place, "e1")
    )
    assert f"{alike} under its expert e1" in words(app)
    next(w for w in app.selectbox if w.label == "Nearest under").set_value("e2").run()
    table = app.dataframe[-1].value
    assert list(table["under e2"]) == list(range(1, NEAREST + 1))


def test_the_first_picture_of_a_map_does_not_wait_for_the_rest(
    open_app: Open, monkeypatch: pytest.MonkeyPatch
):
    app = merged(open_app)
    monkeypatch.setattr("pages.shared.views.feature_map._finished", lambda *anything: None)
    press(app, "Draw the map")
    settle(app, "mapping")
    assert sentences(app) == ""
    drawn = json.loads(app.get("plotly_chart")[-1].proto.spec)
    assert [frame["name"] for frame in drawn["frames"]] == ["0", "1"]
    found = measured(app, kept()[-1], "map")
    next(w for w in app.selectbox if w.label == "Neighbours of").set_value(3).run()
    assert sentences(app) == ""
    assert list(app.dataframe[-1].value)[2:] == ["under merge", "under base"]
    assert not found.experts


# The way between ----------------------------------------------------------------------------------


def test_the_way_between_is_walked_in_the_background(open_app: Open):
    app = merged(open_app)
    before = len(specs(app))
    press(app, "Walk the way")
    settle(app, "walking")
    assert sentences(app) == ""
    found = measured(app, kept()[-1], "way between")
    lines = specs(app)[before]["data"]
    assert [line["name"] for line in lines] == ["e0", "e1", "e2"]
    assert [line["y"] for line in lines] == [pytest.approx(row) for row in found.loss.tolist()]
    assert f"{sum(found.examples):,} validation examples" in words(app)


# Block by block -----------------------------------------------------------------------------------


def test_a_calibration_is_shown_at_once_and_filmed_on_a_press(
    open_app: Open,
):
    app = settle(open_app(), "preparation")
    app.session_state["wanted"] = Wanted("sequential", {"examples": 16})
    app.run()
    settle(press(app, "Merge"), "preparation", "merging")
    app.switch_page("pages/inside.py")
    settle(app, *JOBS)
    assert sentences(app) == ""
    (run,) = kept()
    errors = FeatureErrors.recorded(run.report)
    assert errors is not None
    mean = next(t for s in specs(app) for t in s["data"] if t.get("name") == "<b>all tasks</b>")
    assert mean["y"] == pytest.approx(list(errors.means))
    assert "3 states to test" in words(app)
    press(app, "Test it block by block")
    settle(app, *JOBS, "filming")
    assert sentences(app) == ""
    film = measured(app, kept()[-1], "film")
    assert [frame.block for frame in film.frames] == [0, 1, 2]
    assert "Without calibration they are" in words(app)
    shown = {metric.label: metric.value for metric in app.metric}
    assert shown["Feature error here"] == figures.percent(film.calibrated.means[-1])
    assert shown["Normalised accuracy"] == figures.percent(film.frames[-1].normalised_accuracy)
    labelled(app, "Blocks calibrated").set_value(0).run()
    shown = {metric.label: metric.value for metric in app.metric}
    assert shown["Without calibration"] == figures.percent(film.started.means[0])
    assert shown["Normalised accuracy"] == figures.percent(film.frames[0].normalised_accuracy)
    settle(press(app, "Tabulate the layers"), "tabulating")
    assert sentences(app) == ""
    assert not [title for title in app.dataframe[-1].value.columns if "kept" in title]
    far = figures.percent(errors.means[-1], 0)
    assert f"not on those of the experts, from which they are {far} away" in words(app)


def test_other_methods_have_no_film_and_older_runs_say_why(open_app: Open):
    app = merged(open_app)
    assert "Block by block" not in [header.value for header in app.header]
    (run,) = kept()
    older = replace(run, recipe=run.recipe.model_copy(update={"method": "sequential"}))

    def alone(run: object) -> None:
        from pages.shared.views import film

        film.section(None, run, None)  # type: ignore[arg-type]

    page = AppTest.from_function(alone, kwargs={"run": older}).run()
    assert "Merge again" in page.info[0].value


def test_the_inputs_that_an_expert_chose_are_shown_with_all_scores(
    open_app: Open, tiny_family: Path
):
    app = settle(open_app(), "preparation")
    options = {"examples": 12, "inputs": "pile", "candidates": 60, "augment_to": 0}
    app.session_state["wanted"] = Wanted("sequential", options)
    app.run()
    settle(press(app, "Merge"), "preparation", "merging")
    app.switch_page("pages/inside.py")
    settle(app, *JOBS)
    assert sentences(app) == ""
    (run,) = kept()
    (record, *_) = run.report.inputs
    labelled(app, "Task").set_value("e0").run()
    assert "e0 took 12 of 60 inputs of the pile" in words(app)
    (cells,) = [
        s for s in specs(app) if s["layout"]["yaxis"].get("title", {}).get("text") == "input"
    ]
    assert cells["data"][0]["z"] == [pytest.approx(one.scores) for one in record.first]
    press(app, "Show the first 12")
    settle(app, *JOBS, "choosing")
    assert sentences(app) == ""
    shown = measured(app, kept()[-1], "chosen inputs", "e0")
    for split, one in zip(shown, record.first, strict=True):
        expected = tasks.load(one.source, root=tiny_family).train.inputs[one.row]
        assert np.array_equal(split.inputs, expected[None])
    assert f"e0 {record.first[0].scores[0]:+.2f}" in words(app)
