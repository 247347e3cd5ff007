"""The Family page: cards, costs, fit, links, and families that are opened by their path."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from streamlit.testing.v1 import AppTest

from mats_core.estimating import advise
from mats_core.methods.reference import describe
from mats_core.methods.table import METHODS
from mats_core.system import memory
from tests.pages.driving import go_back, sentences, settle

Open = Callable[..., AppTest]


@pytest.fixture
def two(tiny_family: Path, tmp_path: Path) -> Path:
    """A root with two families in folders of their own, and a third one deeper down."""
    for folder in ("one", "two", "deep/three"):
        shutil.copytree(tiny_family, tmp_path / folder)
        file = tmp_path / folder / "family.yaml"
        file.write_text(file.read_text().replace("Tiny three", f"Family {folder[-3:]}"))
    return tmp_path


def chooser(app: AppTest) -> Any:
    return next(box for box in app.selectbox if box.label == "Family of models")


def words(app: AppTest) -> str:
    shown = [*app.markdown, *app.caption, *app.header]
    return " ".join(element.value.replace("\\", "") for element in shown)


def view(app: AppTest, name: str) -> AppTest:
    app.session_state["family view"] = name
    return app.run()


def open_path(app: AppTest, text: str) -> AppTest:
    next(field for field in app.text_input if field.label == "Path").set_value(text)
    return next(b for b in app.button if b.label == "Open").click().run()


def test_cards_tell_of_base_and_experts(open_app: Open):
    app = settle(open_app("family"), "preparation")
    assert sentences(app) == ""
    text = words(app)
    assert "It learned to tell 5 classes apart" in text
    assert text.count("fingerprint") == 4
    for classes in (3, 4, 5):
        assert f"{classes} classes: kind 0 of {classes}" in text
    assert len(app.get("image")) == 4
    accuracies = [metric.value for metric in app.metric]
    assert len(accuracies) == 6
    assert all(value.endswith("%") for value in accuracies)


def test_every_method_has_its_cost_before_a_merge(open_app: Open):
    app = view(settle(open_app("family"), "preparation"), "Before a merge")
    assert sentences(app) == ""
    table = app.dataframe[0].value
    assert list(table["method"]) == [method.title for method in METHODS.values()]
    runs = [method.experts in (None, 3) for method in METHODS.values()]
    assert list(table["fits"]) == ["yes" if can else "cannot run" for can in runs]
    assert [value.endswith(" s") for value in table["merging"]] == runs
    assert "free here now" in words(app)


def test_coverage_follows_the_chosen_method(open_app: Open):
    app = view(settle(open_app("family"), "preparation"), "Before a merge")
    tensors = len(app.session_state["preparation"].outcome().inputs.family.roles)
    box = next(b for b in app.selectbox if b.label.startswith("What becomes"))
    box.set_value("average").run()
    assert f"Average treats all {tensors} tensors" in words(app).replace("*", "")
    assert "averaged" not in words(app)
    box.set_value("tsv_m").run()
    assert "by the method's own mathematics" in words(app)


def test_what_cannot_fit_says_so_with_advice(open_app: Open, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 1000)
    app = view(settle(open_app("family"), "preparation"), "Before a merge")
    table = app.dataframe[0].value
    assert set(table["fits"]) == {"no", "cannot run"}
    assert list(table["method"][table["fits"] == "cannot run"]) == ["SLERP"]  # two experts only
    assert "Free some memory" in sentences(app)


def test_a_family_that_fits_has_a_row_for_each_expert(open_app: Open):
    app = view(settle(open_app("family"), "preparation"), "Do they fit?")
    table = app.dataframe[0].value
    assert list(table["expert"]) == ["e0", "e1", "e2"]
    assert set(table["fits"]) == {"yes"}
    assert set(table["architecture"]) == {"ViTForImageClassification"}
    assert all("all finite" in value for value in table["numbers"])


def test_a_family_that_does_not_fit_shows_every_tensor_and_both_shapes(
    open_app: Open, tiny_family: Path, tmp_path: Path
):
    broken = Path(shutil.copytree(tiny_family, tmp_path / "broken"))
    file = broken / "e1" / "model.safetensors"
    tensors = load_file(file)
    matrices = [n for n in sorted(tensors) if tensors[n].shape == (24, 24)][:6]
    for name in matrices:
        tensors[name] = tensors[name][:, :20].clone()
    gone = next(n for n in sorted(tensors) if n.endswith("layernorm_after.bias"))
    del tensors[gone]
    save_file(tensors, file, {"format": "pt"})
    app = settle(open_app("family", broken), "preparation")
    assert "the experts do not all fit the base" in sentences(app)
    wrong, rows = (element.value for element in app.dataframe[:2])
    assert set(wrong["tensor"]) == {*matrices, gone}  # the error itself names four
    assert set(wrong["expert"]) == {"e1"}
    row = wrong[wrong["tensor"] == matrices[0]].iloc[0]
    assert (row["its own"], row["the base's"]) == ("[24, 20] float32", "[24, 24] float32")
    assert wrong[wrong["tensor"] == gone].iloc[0]["its own"] == "missing"
    assert list(rows["fits"]) == ["yes", "no", "yes"]
    assert "6 of another shape, 1 missing" in rows["tensors"][1]
    assert not any("finite" in value for value in rows["numbers"])


def test_a_family_without_tasks_has_cards_and_no_accuracy(
    open_app: Open, tiny_family: Path, tmp_path: Path
):
    bare = Path(shutil.copytree(tiny_family, tmp_path / "bare"))
    lines = (bare / "family.yaml").read_text().splitlines()
    (bare / "family.yaml").write_text("\n".join(line for line in lines if "task" not in line))
    app = settle(open_app("family", bare), "preparation")
    assert sentences(app) == ""
    assert "It names no task" in words(app)
    assert not app.metric
    view(app, "Before a merge")
    fits = dict(zip(METHODS, app.dataframe[0].value["fits"], strict=True))
    assert fits["average"] == "yes"
    assert fits["kfac"] == "cannot run"


def test_a_link_opens_its_family_and_every_page_keeps_it(open_app: Open, two: Path):
    app = open_app("merge", two)
    go_back(app, family="two")
    assert chooser(app).value == "two"
    app.switch_page("pages/family.py").run()
    assert chooser(app).value == "two"
    assert app.query_params["family"] in ("two", ["two"])
    chooser(app).set_value("one").run()
    assert app.query_params["family"] in ("one", ["one"])


@pytest.mark.parametrize("foreign", ["nobody", "../two", "/etc", "**two**"])
def test_a_link_to_a_family_that_is_not_here_opens_the_default(
    open_app: Open, two: Path, foreign: str
):
    app = open_app("family", two)
    go_back(app, family=foreign)
    assert sentences(app) == ""
    assert chooser(app).value == "one"
    assert app.query_params["family"] in ("one", ["one"])
    assert "not on this machine" in app.toast[0].value


def test_a_typed_path_under_a_root_is_opened_and_stays(open_app: Open, two: Path):
    app = open_app("family", two).run()
    assert chooser(app).options == ["Family one", "Family two"]
    open_path(app, "deep/three")
    assert sentences(app) == ""
    assert chooser(app).value == "three"
    app.switch_page("pages/merge.py").run()
    assert chooser(app).options == ["Family one", "Family two", "Family ree"]
    assert chooser(app).value == "three"


@pytest.mark.parametrize("attack", ["../..", "/etc", "\\\\server\\share", "way-out"])
def test_a_typed_path_that_leads_out_is_a_sentence(open_app: Open, two: Path, attack: str):
    (two / "way-out").symlink_to("/etc")
    app = open_path(open_app("family", two).run(), attack)
    assert f"expected a folder under '{two.resolve()}'" in sentences(app)
    assert "MATS_FAMILIES" in sentences(app)
    assert chooser(app).value == "one"


def test_a_folder_that_becomes_a_link_later_is_no_longer_offered(open_app: Open, two: Path):
    app = open_path(open_app("family", two).run(), "deep/three")
    elsewhere = two.parent / f"{two.name} elsewhere"
    (two / "deep" / "three").rename(elsewhere)
    (two / "deep" / "three").symlink_to(elsewhere)
    app.run()
    assert chooser(app).options == ["Family one", "Family two"]


def test_a_card_says_which_method_to_take_and_leads_to_its_settings(open_app: Open):
    app = settle(open_app("family"), "preparation")
    app = view(app, "Before a merge")
    text = words(app)
    assert "stayed least behind the best in the study" in text
    assert "Of three experts the study has, in percent, on" in text
    before: Any = advise(
        Path(app.session_state["preparation"].outcome().collection.folder), timed=False
    )
    assert before.title in text
    app = next(b for b in app.button if b.label == "Take these settings").click().run()
    assert sentences(app) == ""
    assert app.title[0].value == "Merge"
    assert before.recipe["method"] in [box.value for box in app.selectbox]
    shown = {field.label: field.value for field in (*app.selectbox, *app.number_input)}
    fields = {field.name: field for field in describe(before.recipe["method"])}
    for name, value in before.recipe["options"].items():
        assert shown.get(fields[name].label, value) == value
    assert shown["Curvature of the outputs"] == before.recipe["options"]["curvature"]
