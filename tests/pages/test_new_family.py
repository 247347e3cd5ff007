"""New family: picked, kept, edited, duplicated and removed on the page, with no file by hand."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from mats_core import tasks
from mats_core.checkpoints import stated_classes
from mats_core.cli.main import main
from mats_core.export import notebook
from mats_core.methods import METHODS, WITHOUT_DATA
from mats_core.recipes import FeatureErrors, load_family
from pages.shared.frame import Wanted, show
from pages.shared.work import export as takeaway
from tests.export.test_notebook import execute
from tests.pages.driving import button, kept, labelled, measured, merge, press, sentences, settle

Open = Callable[..., AppTest]


@pytest.fixture
def root(tiny_family: Path, tmp_path: Path) -> Path:
    """Three folders of models, called as a trainer calls them, and no family."""
    for name, to in (("base", "start"), ("e0", "run-a"), ("e1", "run-b")):
        shutil.copytree(tiny_family / name, tmp_path / "my models" / to)
    return tmp_path / "my models"


@pytest.fixture
def went(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Where `browser.go` was asked to go."""
    pages: list[str] = []
    monkeypatch.setattr("pages.shared.views.new_family.browser.go", pages.append)
    return pages


def box(app: AppTest, kind: str, label: str) -> Any:
    return next(w for w in getattr(app, kind) if w.label.startswith(label))


def ticks(app: AppTest) -> dict[str, bool]:
    """Expert → whether its box is ticked."""
    return {w.label.replace("\\", ""): w.value for w in app.checkbox}


def said(app: AppTest) -> str:
    shown = [*app.markdown, *app.caption, *app.info, *app.warning, *app.checkbox]
    return " ".join(getattr(e, "value" if hasattr(e, "body") else "label") for e in shown).replace(
        "\\", ""
    )


def begun(open_app: Open, root: Path) -> AppTest:
    app = press(open_app("family", root).run(), "New family")
    assert not app.exception, [e.value for e in app.exception]
    return app


def test_three_folders_become_a_merge_in_three_presses(open_app: Open, root: Path, went: list[str]):
    app = open_app("family", root).run()
    assert "There is no family of models to open" in sentences(app)
    press(app, "New family")
    assert sentences(app) == ""
    assert labelled(app, "Base").value == str(root / "start")
    assert ticks(app) == {"run-a": True, "run-b": True}
    assert box(app, "text_input", "Name").value == "my models"
    press(app, "Save and go to Merge")
    assert went == ["merge"]
    file = root / "my-models" / "family.yaml"
    assert "base: ../start\n" in file.read_text()
    assert [one.model for one in load_family(file).experts] == ["../run-a", "../run-b"]
    app.switch_page("pages/merge.py")
    app = settle(app, "preparation")
    assert sentences(app) == ""
    assert labelled(app, "Family of models").value == "my-models"
    assert labelled(app, "Method").value == WITHOUT_DATA
    merge(app)
    assert sentences(app) == ""
    (run,) = kept("my models")
    assert run.recipe.method == WITHOUT_DATA


def test_without_tasks_what_needs_data_is_grey_and_says_why(open_app: Open, root: Path, went):
    app = press(begun(open_app, root), "Save and go to Merge")
    app.switch_page("pages/merge.py").run()
    groups = box(app, "segmented_control", "Method, by what it needs")
    assert groups.options == ["Weights", "Task vectors", ":gray[Statistics]"]
    words = " ".join(c.value.replace("\\", "") for c in app.caption)
    assert "Statistics in grey" in words
    assert "no expert names a task" in words
    groups.set_value("statistics").run()
    labelled(app, "Method").set_value("kfac").run()
    assert button(app, "Merge").disabled
    assert "statistics for every expert" in sentences(app)
    assert METHODS["kfac"].requires(METHODS["kfac"].options())


def test_another_base_offers_other_experts_and_unticking_leaves_one_out(
    open_app: Open, root: Path, tiny_family: Path, went
):
    shutil.copytree(tiny_family / "e2", root / "more" / "far away")
    app = begun(open_app, root)
    assert ticks(app) == {"run-a": True, "run-b": True, "far away": False}, "of the folder alone"
    labelled(app, "Base").set_value(str(root / "run-a")).run()
    assert set(ticks(app)) == {"start", "run-b", "far away"}
    labelled(app, "Base").set_value(str(root / "start")).run()
    next(w for w in app.checkbox if "run-b" in w.label).uncheck().run()
    press(app, "Save and go to Merge")
    (file,) = root.glob("*/family.yaml")
    assert [one.name for one in load_family(file).experts] == ["run-a"]


def test_an_expert_proposes_its_base(open_app: Open, root: Path, went):
    app = begun(open_app, root)
    box(app, "segmented_control", "Begin with").set_value("one of the experts").run()
    labelled(app, "Expert").set_value(str(root / "run-b")).run()
    assert sentences(app) == ""
    assert "Its base: **start**" in said(app)
    assert ticks(app)["run-b"]


def test_names_and_folders_that_are_taken_are_other_ones(open_app: Open, root: Path, went):
    press(begun(open_app, root), "Save and go to Merge")
    app = begun(open_app, root)
    name = box(app, "text_input", "Name")
    assert name.value == "my models 2"
    name.set_value("MY MODELS").run()
    assert button(app, "Save and go to Merge").disabled
    assert "that of another family" in said(app)
    box(app, "text_input", "Name").set_value(" ").run()
    assert button(app, "Save and go to Merge").disabled
    box(app, "text_input", "Name").set_value("my/models").run()
    press(app, "Save and go to Merge")
    assert sorted(p.parent.name for p in root.glob("*/family.yaml")) == ["my-models", "my-models-2"]
    assert load_family(root / "my-models-2").name == "my/models"


def test_what_is_added_meanwhile_is_listed_after_a_press(
    open_app: Open, root: Path, tiny_family: Path
):
    app = begun(open_app, root)
    shutil.copytree(tiny_family / "e2", root / "run-c")
    app.run()
    assert "run-c" not in ticks(app)
    press(app, "Search again")
    assert ticks(app)["run-c"]
    press(app, "Cancel")
    assert not app.checkbox


def test_a_family_of_the_page_is_edited_duplicated_and_removed(open_app: Open, root: Path, went):
    app = press(begun(open_app, root), "Save and go to Merge")
    settle(app, "preparation")
    press(app, "Edit")
    assert labelled(app, "Base").value == str(root / "start")
    next(w for w in app.checkbox if "run-a" in w.label).uncheck().run()
    press(app, "Save and go to Merge")
    file = root / "my-models" / "family.yaml"
    assert [one.name for one in load_family(file).experts] == ["run-b"]
    app.run()
    press(app, "Duplicate")
    assert ticks(app) == {"run-a": False, "run-b": True}
    assert box(app, "text_input", "Name").value == "my models (copy)"
    press(app, "Save and go to Merge")
    copy = root / "my-models-copy" / "family.yaml"
    assert load_family(copy).experts == load_family(file).experts
    app.run()
    press(app, "Remove")
    assert not copy.exists()
    assert file.is_file()
    assert (root / "run-b" / "model.safetensors").is_file()
    assert "was removed" in said(app)


def test_a_family_by_hand_is_duplicated_and_never_changed(
    open_app: Open, tiny_family: Path, tmp_path
):
    root = Path(shutil.copytree(tiny_family, tmp_path / "by hand"))
    app = settle(open_app("family", root), "preparation")
    assert not [b for b in app.button if b.label in ("Edit", "Remove")]
    assert "it was written or changed by hand" in said(app)
    press(app, "Duplicate")
    assert ticks(app) == {"e0": True, "e1": True, "e2": True}
    assert labelled(app, "Examples of e0").value == "as it is"


def test_examples_are_proposed_by_the_classes_of_the_head(
    open_app: Open, root: Path, tiny_family: Path, went
):
    for name in ("t0", "t1", "t2"):
        shutil.copy(tiny_family / f"{name}.npz", root)
    rows = "".join(f"picture {k},{'no' if k % 2 else 'yes'}\n" for k in range(20))
    (root / "answers.csv").write_text("text,label\n" + rows)
    app = begun(open_app, root)
    assert labelled(app, "Examples of run-a").value == str(root / "t0.npz")
    assert labelled(app, "Examples of run-b").value == str(root / "t1.npz")
    labelled(app, "Examples of run-b").set_value("no examples").run()
    press(app, "Save and go to Merge")
    family = load_family(root / "my-models")
    assert [one.task for one in family.experts] == ["../t0.npz", None]
    app.switch_page("pages/family.py")
    app = settle(app, "preparation")
    assert sentences(app) == ""
    assert len(app.metric) == 2, "the expert and the base are tested before any merge"


def test_a_table_is_shown_and_its_classes_are_mapped_to_the_head(
    open_app: Open, tmp_path: Path, went
):
    from tests.text_cases import text_family

    text_family(tmp_path / "texts")
    root = tmp_path / "texts"
    for file in (*root.glob("*.yaml"), *root.glob("*.jsonl*")):
        file.unlink()
    rows = "".join(f"w{k} w1,{'bad' if k % 2 else 'good'},{k % 5}\n" for k in range(40))
    (root / "mood.csv").write_text("text,mood,stars\n" + rows)
    app = begun(open_app, root)
    expert = next(iter(ticks(app)))
    labelled(app, f"Examples of {expert}").set_value(str(root / "mood.csv")).run()
    assert not app.exception
    assert labelled(app, "Label").value in ("mood", "stars")
    labelled(app, "Label").set_value("mood").run()
    table = next(d.value for d in app.dataframe if "mood" in d.value)
    assert list(table["mood"]) == ["good", "bad", "good", "bad", "good"]
    assert "Classes of the file: bad, good. Of the head:" in said(app)


def test_a_model_of_the_hub_is_asked_for_by_a_press_and_a_refusal_is_a_sentence(
    open_app: Open, root: Path, monkeypatch: pytest.MonkeyPatch
):
    import huggingface_hub

    asked: list[str] = []

    def refused(self: object, repo: str, **how: object) -> None:
        asked.append(repo)
        raise ConnectionError("Connection refused")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", refused)
    app = begun(open_app, root)
    box(app, "text_input", "A model of the Hugging Face hub").set_value("org/name").run()
    assert asked == [], "nothing is asked before the press"
    press(app, "Ask huggingface.co how large it is")
    assert asked == ["org/name"]
    assert "an answer of huggingface.co" in sentences(app)
    assert not [b for b in app.button if b.label.startswith("Download")]


def test_a_download_names_size_and_host_and_is_listed_after_it(
    open_app: Open, root: Path, tiny_family: Path, monkeypatch: pytest.MonkeyPatch
):
    from mats_core.checkpoints import hub

    fetched: list[str] = []

    def fetch(reference: str) -> Path:
        fetched.append(reference)
        return Path(shutil.copytree(tiny_family / "e2", root / "fetched"))

    offer = hub.Offer("org/name", "huggingface.co", 2, 4_000_000)
    monkeypatch.setattr(hub, "offer", lambda reference: offer)
    monkeypatch.setattr(hub, "locate", fetch)
    app = begun(open_app, root)
    box(app, "text_input", "A model of the Hugging Face hub").set_value("org/name").run()
    press(app, "Ask huggingface.co how large it is")
    assert "org/name: 4.0 MB in 2 files from huggingface.co." in said(app)
    assert fetched == []
    settle(press(app, "Download 4.0 MB"), "fetching")
    assert fetched == ["org/name"]
    assert ticks(app)["fetched"]


def test_names_of_others_are_shown_as_they_are(open_app: Open, root: Path, tiny_family: Path):
    evil = "**bold** <b>x</b> [a](javascript:1) $x$ :red[r]"
    (root / "run-a").rename(root / evil.replace("/", "|"))
    card = root / evil.replace("/", "|") / "README.md"
    card.write_text(f"---\nlicense: '{evil}'\n---\n")
    app = begun(open_app, root)
    assert not app.exception
    labels = [w.label for w in app.checkbox]
    assert len(labels) == 2
    for mark in ("**bold**", "<b>", "[a](", "$x$", ":red["):
        assert not any(mark in label for label in labels), mark


def test_a_merge_of_a_new_family_is_written_and_goes_on_elsewhere(
    open_app: Open, root: Path, tmp_path: Path, went: list[str], monkeypatch: pytest.MonkeyPatch
):
    """As a model, as a recipe for the command line, and as a notebook."""
    monkeypatch.setenv("MATS_OUTPUTS", str(tmp_path / "written"))
    app = press(begun(open_app, root), "Save and go to Merge")
    app.switch_page("pages/merge.py")
    merge(settle(app, "preparation"))
    app.switch_page("pages/export.py")
    settle(app, "preparation")
    assert sentences(app) == ""
    (run,) = kept("my models")
    settle(press(app, "Write the model"), "writing")
    assert sentences(app) == ""
    model = tmp_path / "written" / run.id / "model.safetensors"
    recipe = next(c.value for c in app.code if "experts:" in c.value)
    assert "model: ../run-a" in recipe
    (root / "my-models" / "recipe.yaml").write_text(recipe)
    output = str(tmp_path / "again")
    assert main(["merge", str(root / "my-models" / "recipe.yaml"), "--output", output]) == 0
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == model.read_bytes()
    text = notebook(takeaway.finished(run), str(root / "my-models"))
    assert execute(text)["report"].options == run.report.options


@pytest.mark.parametrize("tasks_of", [(), ("t0",)], ids=["no tasks", "one task"])
def test_a_calibration_of_a_new_family_is_shown_block_by_block(
    open_app: Open, root: Path, tiny_family: Path, went: list[str], tasks_of: tuple[str, ...]
):
    """From a pool of inputs, which needs no task; its accuracy by block on those that there are."""
    for name in tasks_of:
        shutil.copy(tiny_family / f"{name}.npz", root)
    press(begun(open_app, root), "Save and go to Merge")
    app = open_app("merge", root)
    app.session_state["wanted"] = Wanted("sequential", {"inputs": "pool", "examples": 8})
    app = settle(press(settle(app, "preparation"), "Merge"), "preparation", "merging")
    assert sentences(app) == ""
    (run,) = kept("my models")
    app.switch_page("pages/inside.py")
    settle(app, "preparation", "looking", "looking ahead")
    assert sentences(app) == ""
    assert "Block by block" in [header.value for header in app.header]
    errors = FeatureErrors.recorded(run.report)
    assert errors is not None
    drawn = [json.loads(chart.proto.spec) for chart in app.get("plotly_chart")]
    lines = [line for figure in drawn for line in figure["data"]]
    mean = next(line for line in lines if line.get("name") == "<b>all tasks</b>")
    assert mean["y"] == pytest.approx(list(errors.means))
    if not tasks_of:
        assert "No expert names a task" in said(app)
        assert "Test it block by block" not in [one.label for one in app.button]
        return
    settle(press(app, "Test it block by block"), "filming")
    assert sentences(app) == ""
    film = measured(app, run, "film")
    assert [frame.block for frame in film.frames] == [0, 1, 2]
    assert [result.name for result in film.frames[0].results] == ["run-a"]


def test_experts_without_a_base_are_merged_against_their_mean(
    open_app: Open, root: Path, went: list[str]
):
    shutil.rmtree(root / "start")
    app = begun(open_app, root)
    box(app, "segmented_control", "Begin with").set_value("experts without a base").run()
    assert "The mean of the experts is written as their base" in said(app)
    labelled(app, "One of them").set_value(str(root / "run-a")).run()
    next(w for w in app.checkbox if "run-b" in w.label).check().run()
    app = settle(press(app, "Save and go to Merge"), "averaging")
    assert sentences(app) == ""
    assert went[-1:] == ["merge"]
    family = load_family(root / "my-models")
    assert family.base == "base"
    assert [one.name for one in family.experts] == ["run-a", "run-b"]
    assert (root / "my-models" / "base" / "model.safetensors").is_file()


def test_files_are_dropped_into_the_list(open_app: Open, root: Path, tiny_family: Path):
    app = begun(open_app, root)
    folder = tiny_family / "e2"
    files = [(f.name, f.read_bytes(), "application/octet-stream") for f in folder.iterdir()]
    app.file_uploader[0].set_value(files).run()
    assert sentences(app) == ""
    assert "Copied:" in said(app)
    assert (root / "dropped" / "model" / "model.safetensors").read_bytes() == (
        folder / "model.safetensors"
    ).read_bytes()
    assert "model" in ticks(app)


def test_an_expert_that_does_worse_than_its_base_is_flagged_before_a_merge(
    open_app: Open, root: Path, tiny_family: Path, went: list[str]
):
    names = [f"kind {k} of 3, task 0" for k in range(3)]
    with np.load(tiny_family / "t0.npz") as found:
        arrays = dict(found)
    wrong = (arrays["y_test"] + 1) % 3  # every label is that of another class
    np.savez(root / "t0.npz", **{**arrays, "y_test": wrong, "classes": np.array(names)})
    app = press(begun(open_app, root), "Save and go to Merge")
    app.switch_page("pages/family.py")
    app = settle(app, "preparation")
    assert sentences(app) == ""
    doubts = " ".join(w.value.replace("\\", "") for w in app.warning)
    accuracy = {m.label: float(m.value.removesuffix(" %")) for m in app.metric}
    assert ("less than the pre-trained model" in doubts) is (
        accuracy["Expert"] < accuracy["Pre-trained"]
    )
    assert ("less than guessing" in doubts) is (accuracy["Expert"] < 100 / 3)
    assert "are its labels in the order of its head" in doubts


def test_a_table_with_other_names_becomes_the_task_of_a_head(
    open_app: Open, tmp_path: Path, went: list[str]
):
    from tests.text_cases import text_family

    root = text_family(tmp_path / "texts")
    family = load_family(root)
    path = family.model_path(family.experts[0].model)
    head = stated_classes(path)
    for file in (*root.glob("*.yaml"), *root.glob("*.jsonl*")):
        file.unlink()
    lines = [f"w{k % 7} w{k % 3},kind {'zyxwv'[k % len(head)]}" for k in range(60)]
    (root / "rows.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    app = begun(open_app, root)
    label = f"Examples of {show.label(path.name)}"
    labelled(app, label).set_value(str(root / "rows.csv")).run()
    first = labelled(app, f"0 · {show.label(head[0])}")
    last = labelled(app, f"{len(head) - 1} · {show.label(head[-1])}")
    one, other = first.value, last.value
    first.set_value(other)
    last.set_value(one).run()
    assert not app.warning
    press(app, "Save and go to Merge")
    (file,) = root.glob("*/family.yaml")
    kept_family = load_family(file)
    reference = next(e.task for e in kept_family.experts if e.name == path.name)
    assert reference == f"tasks/{path.name}.yaml"
    task = tasks.load(str(reference), root=file.parent)
    assert (task.classes[0], task.classes[-1]) == (other, one)
    assert len(task.classes) == len(head)
    app.switch_page("pages/family.py")
    app = settle(app, "preparation")
    assert sentences(app) == ""
    assert len(app.metric) == 2
