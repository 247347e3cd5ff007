"""New family of language models: what they are asked is shown, corrected, kept, and answered."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from streamlit.testing.v1 import AppTest

from mats_core import tasks
from mats_core.recipes import load_family
from tests.pages.driving import button, labelled, press, sentences, settle
from tests.pages.test_new_family import begun, box, said, ticks, went
from tests.tasks.test_guessing import write
from tests.tasks.test_wording import rows_of
from tests.text_cases import gpt2, save

__all__ = ["went"]
Open = Callable[..., AppTest]
QUESTIONS = rows_of(
    question=["is it sunny {}", "is it cold {}"], A=["yes"], B=["no"], C=["maybe"],
    answer=["B", "A"], level=[2, 1],
)  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A base and two experts, all of them causal, and tables of what they were tuned on."""
    folder = tmp_path / "spoken"
    base = gpt2(seed=0)
    save(base, folder / "start", "gpt2")
    for seed, name in enumerate(("quiz", "notes"), 1):
        expert = gpt2(seed=0)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in expert.parameters():
                parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
        save(expert, folder / name, "gpt2")
    write(folder / "quiz.csv", QUESTIONS)
    write(folder / "notes.jsonl", rows_of(prompt=["the film {}"], completion=["was good"]))
    return folder


def reads(app: AppTest, expert: str) -> Any:
    """The template of what one expert reads."""
    return next(w for w in app.text_area if f"{expert} " in str(w.key))


def shown(app: AppTest, column: str, beside: str = "") -> list[str]:
    """The cells of a column, of the table that has another one too."""
    wanted = {column, beside or column}
    return list(next(d.value[column] for d in app.dataframe if wanted <= {*d.value}))


def test_what_is_asked_is_shown_kept_and_answered(open_app: Open, root: Path, went):
    app = begun(open_app, root)
    assert ticks(app) == {"notes": True, "quiz": True}
    assert labelled(app, "Examples of quiz").value == str(root / "quiz.csv")
    assert shown(app, "the model reads", "right answer")[0] == "Question: is it sunny 0\nAnswer:"
    assert shown(app, "and chooses from") == ["yes | no | maybe"] * 5
    assert shown(app, "right answer") == ["no", "yes", "no", "yes", "no"]
    assert shown(app, "what should follow") == [" was good"] * 5
    assert "Answers {A}, {B}, {C}, the right one by answer" in said(app)
    assert "{completion} should follow {prompt}" in said(app)
    press(app, "Save and go to Merge")
    assert sentences(app) == ""
    family = load_family(root / "spoken")
    by_name = {e.name: tasks.load(str(e.task), root=family.folder) for e in family.experts}
    quiz, notes = by_name["quiz"], by_name["notes"]
    assert (quiz.form.kind, quiz.classes) == ("choices", ("A", "B", "C"))
    assert (notes.form.kind, tuple(notes.test.inputs[0])[1]) == ("language", " was good")
    app.switch_page("pages/family.py")
    app = settle(app, "preparation")
    assert sentences(app) == ""
    assert len(app.metric) == 4, "both experts and the base are tested"


def test_what_is_asked_is_corrected(open_app: Open, root: Path, went):
    app = begun(open_app, root)
    box(app, "selectbox", "The right answer stands in").set_value("level").run()
    assert shown(app, "right answer") == ["maybe", "no", "maybe", "no", "maybe"], "from 0"
    reads(app, "quiz").set_value("{questoin} ?").run()
    assert "Did you mean 'question'" in sentences(app)
    assert button(app, "Save and go to Merge").disabled
    reads(app, "quiz").set_value("{question} ?").run()
    assert sentences(app) == ""
    assert shown(app, "the model reads", "right answer")[1] == "is it cold 1 ?"
    labelled(app, "Examples of notes").set_value("no examples").run()
    ways = box(app, "selectbox", "Asked")
    assert len(ways.options) > 1
    press(app, "Save and go to Merge")
    (told,) = root.glob("spoken/tasks/*.yaml")
    quiz = tasks.load(told)
    assert str(quiz.train.inputs[0, 0]).endswith(" ?")


def test_a_task_of_the_harness_is_named(
    open_app: Open, root: Path, went: list[str], monkeypatch: pytest.MonkeyPatch
):
    app = begun(open_app, root)
    choice = labelled(app, "Examples of quiz")
    choice.set_value("a task of lm-evaluation-harness, by its name").run()
    assert button(app, "Save and go to Merge").disabled, "no name yet"
    name = box(app, "text_input", "Name of the task")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    name.set_value("arc_easy").run()
    assert "pip install lm-eval" in sentences(app)
    monkeypatch.undo()
    monkeypatch.setattr("mats_core.tasks.harness.importlib.util.find_spec", lambda name: object())
    name.set_value("arc_easy ").run()
    assert sentences(app) == ""
    assert not button(app, "Save and go to Merge").disabled
    assert "task: 'lm_eval:arc_easy'" in next(c.value for c in app.code if "experts:" in c.value)
