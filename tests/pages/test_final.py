"""Test examples are asked by a press on Merge or Export, once, and shown as such."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from streamlit.testing.v1 import AppTest

from mats_core import figures
from mats_core.merging.pipeline import merge as merged
from mats_core.recipes.family_file import load_family
from mats_core.recipes.sections import FINAL
from pages.shared.work import runs
from tests.pages.driving import kept, merge, press, sentences, settle, texts_of

Open = Callable[..., AppTest]
JOBS = ("preparation", "final figure")


def captions(app: AppTest) -> str:
    return " ".join(c.value.replace("\\", "") for c in app.caption)


def warned(app: AppTest) -> str:
    return " ".join(w.value.replace("\\", "") for w in app.warning)


def asked(app: AppTest) -> runs.Run:
    """The run after a press on Final figure, which the page shows."""
    settle(press(app, "Final figure"), *JOBS)
    assert sentences(app) == ""
    run = kept()[-1]
    assert run.final is not None
    report = run.final_report
    assert report is not None
    share = figures.percent(report.normalised_accuracy or 0)
    said = f"Final figure, asked once (on {run.final.asked[:10]} at {run.final.asked[11:16]} UTC)"
    assert f"{said}: {share} of the experts' accuracy" in texts_of(app)
    assert "on 180 test examples" in texts_of(app)
    assert not any(b.label == "Final figure" for b in app.button)
    return run


def test_a_merge_is_scored_on_validation_and_its_test_examples_by_a_press(open_app: Open):
    app = merge(open_app())
    (run,) = kept()
    assert (run.report.split, run.final) == ("validation", None)
    assert "72 validation examples" in captions(app)
    assert "No merge of this family has been asked." in captions(app)
    run = asked(app)
    assert run.report.split == "validation"
    assert "1 merge of this family has been asked." in texts_of(app)
    assert app.metric[0].value == figures.percent(run.report.normalised_accuracy or 0)


def test_export_asks_too_and_says_what_its_files_quote(open_app: Open):
    app = merge(open_app())
    app.switch_page("pages/export.py")
    settle(app, *JOBS)
    assert "on 72 validation examples, which recipe, card, notebook" in texts_of(app)
    asked(app)
    assert "on 180 test examples, which recipe, card, notebook" in texts_of(app)


def old_run(family: Path, method: str = "ties") -> runs.Run:
    """A run as earlier versions kept it: tested on test examples."""
    recipe = load_family(family).recipe(method, evaluate=FINAL)
    return runs.add("Tiny three", 3, recipe, merged(recipe))


def test_runs_on_other_examples_are_shown_and_not_compared(open_app: Open, tiny_family: Path):
    app = merge(open_app())
    old = old_run(tiny_family)
    app.session_state["beside run"] = old.id
    app.run()
    assert sentences(app) == ""
    assert all(not metric.delta for metric in app.metric)
    assert f"Not compared: {old.label}, tested on test examples" in warned(app)
    assert not any("better" in b.label or "worse" in b.label for b in app.button)
    app.switch_page("pages/compare.py")
    settle(app, *JOBS)
    assert sentences(app) == ""
    assert list(app.dataframe[0].value["tested on"]) == ["180 test", "72 validation"]
    table = app.dataframe[1].value
    assert not any("+" in cell or "−" in cell for cell in table.to_numpy().ravel())
    assert f"{old.label} (test examples)" in table.columns
    assert f"Not compared: {old.label}, tested on test examples" in warned(app)
