"""The Family and Inside pages on a family of text tasks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from mats_core import tasks
from tests.pages.driving import kept, press, sentences, settle
from tests.pages.test_inside import JOBS, merged, words
from tests.text_cases import text_family

Open = Callable[..., AppTest]


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_family(tmp_path_factory.mktemp("texts"))


def test_cards_show_texts_with_their_classes(open_app: Open, family: Path):
    app = settle(open_app("family", family=family), "preparation")
    assert sentences(app) == ""
    assert not app.get("image")
    said = words(app)
    assert "Tells *words* apart." in said
    task = tasks.load(family / "t1.yaml")
    for k, name in enumerate(task.classes):
        first = int((task.test.labels == k).argmax())
        assert f"**{name}** · {task.test.text(first)}" in said
    assert "48 training, 12 validation and 40 test texts" in said
    helps = {m.label: m.help for m in app.metric}
    assert "Mean F1 of the classes of the expert on 12 validation texts" in helps["Expert"]


def test_inside_shows_texts_that_were_lost_and_won(open_app: Open, family: Path):
    app = merged(open_app, family=family)
    assert sentences(app) == ""
    assert not app.get("image")
    run = kept("Tiny texts")[0]
    assert {r.name: r.merged.metric for r in run.report.tasks} == {"m0": "accuracy", "m1": "macro"}
    task = next(w for w in app.selectbox if w.label == "Task")
    task.set_value("m1").run()
    settle(app, *JOBS)
    metrics = {metric.label: metric for metric in app.metric}
    result = next(r for r in run.report.tasks if r.name == "m1")
    assert metrics["Merge"].help == f"{result.merged.correct} of 12 validation texts are right."
    split = tasks.load(family / "t1.yaml").validation
    pairs = list(zip(result.finetuned.answers, result.merged.answers, strict=True))
    groups = {"lost": ("1", "0"), "won": ("0", "1"), "wrong": ("0", "0")}
    shown = 0
    for group, pattern in groups.items():
        next(w for w in app.selectbox if w.label == "Show the texts").set_value(group).run()
        said = words(app)
        rows = [i for i, pair in enumerate(pairs) if pair == pattern]
        assert all(split.text(i) in said for i in rows[:24])
        shown += len(rows)
    assert shown
    assert not app.warning, "made again, the merge is the same"


def test_a_text_of_the_user_is_answered_by_all_models(open_app: Open, family: Path):
    app = merged(open_app, family=family)
    next(w for w in app.selectbox if w.label == "Task").set_value("m1").run()
    settle(app, *JOBS)
    settle(press(app, "Ask all models"), "asking")
    assert "'text" in sentences(app)
    assert "expected some words, found nothing" in sentences(app)
    split = tasks.load(family / "t1.yaml").validation
    areas = [w for w in app.text_area if w.label.startswith("Text")]
    for area, text in zip(areas, split.inputs[3], strict=True):
        area.set_value(str(text))
    settle(press(app, "Ask all models"), "asking")
    assert sentences(app) == ""
    found = app.session_state["own example"].outcome()
    assert found.models == ("base", "m0", "m1", "this merge")
    (run,) = kept("Tiny texts")
    answers = app.session_state["inside shelf"].get(run).answers["m1"]
    right = {"base": answers.pretrained, "m1": answers.expert, "this merge": answers.merged}
    for name, said in right.items():
        assert found.probabilities[found.models.index(name)] == pytest.approx(said[3], abs=1e-5)
    assert "With the head of m1, m1 says" in words(app)
