"""Merges that come finished with a family stand on Merge at once, and are checked there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from mats_core import figures
from mats_core.evaluation.scores import Score, TaskResult
from mats_core.merging.pipeline import merge
from mats_core.merging.shipped import FILE, differing, ship_results, shipped_results
from mats_core.methods import FIRST, METHODS, PROPOSED
from mats_core.recipes.family_file import FamilyFile, load_family, measure_all
from mats_core.recipes.plan import open_inputs, with_statistics
from mats_core.recipes.sections import TRIED
from pages.shared.work import runs, shipped
from pages.shared.work.merge import Outcome
from pages.shared.work.prepare import Prepared
from tests.pages.driving import kept, labelled, press, sentences, settle

Open = Callable[..., AppTest]
JOBS = ("preparation", "checking shipped")


@pytest.fixture(scope="module")
def made(tiny_family: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny family with the results of two methods beside it."""
    folder = tmp_path_factory.mktemp("shipped") / "family"
    shutil.copytree(tiny_family, folder)
    ship_results(load_family(folder), ("average", "kfac"))
    return folder


@pytest.fixture
def family(made: Path, tmp_path: Path) -> Path:
    """A copy whose results may be changed."""
    return Path(shutil.copytree(made, tmp_path / "family"))


def changed(family: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads((family / FILE).read_text("utf-8"))
    change(content)
    (family / FILE).write_text(json.dumps(content), "utf-8")


def turn(count: int) -> Callable[[dict[str, Any]], None]:
    """A change: other answers to the first examples of every task, in every report."""

    def change(content: dict[str, Any]) -> None:
        for report in content["reports"]:
            for task in report["tasks"]:
                score = task["scores"]["merged"]
                first = score["answers"][:count].translate(str.maketrans("01", "10"))
                score["answers"] = first + score["answers"][count:]
                score["correct"] = score["answers"].count("1")

    return change


def direct(family: FamilyFile, run: runs.Run) -> list[str]:
    """The answers of the merge that a run stands for, made here."""
    recipe = run.recipe.model_copy(update={"evaluate": TRIED})
    return [task.merged.answers for task in merge(recipe).tasks]


def captions(app: AppTest) -> str:
    return " ".join(c.value.replace("\\", "") for c in app.caption)


def test_what_is_written_is_read_and_is_what_a_merge_gives(made: Path):
    family = load_family(made)
    found = shipped_results(family)
    assert found is not None
    assert [report.method for report in found.reports] == ["average", "kfac"]
    whole = merge(family.recipe("average", evaluate=TRIED))
    (average, _) = found.reports
    assert (average.tasks, average.split) == (whole.tasks, "validation")
    assert average.fingerprints == whole.fingerprints
    assert average.coverage == whole.coverage
    assert not any(layer.residuals for report in found.reports for layer in report.layers)
    assert differing(average.tasks, whole.tasks) == (0, 72)


def test_without_results_or_of_another_format_there_are_none(family: Path):
    changed(family, lambda content: content.update(format=2))
    assert shipped_results(load_family(family)) is None
    (family / FILE).unlink()
    assert shipped_results(load_family(family)) is None
    assert shipped.adopt(load_family(family)) == []


def test_they_stand_on_merge_at_once_and_are_checked(open_app: Open, family: Path):
    app = open_app(family=family)
    app.run()
    assert sentences(app) == ""
    assert [run.recipe.method for run in kept()] == ["average", "kfac"]
    best = max(kept(), key=lambda run: run.report.normalised_accuracy or 0)
    assert app.metric[0].value == figures.percent(best.report.normalised_accuracy or 0)
    assert app.session_state["shown run"] == best.id
    assert {app.session_state["beside run"], best.id} == {run.id for run in kept()}
    before = kept()
    settle(app, *JOBS)
    assert sentences(app) == ""
    checked = "Shipped with the family, and checked: all 72 answers asked here are the same."
    assert [run.shipped for run in kept()] == [checked, checked]
    assert checked in captions(app)
    for run, then in zip(kept(), before, strict=True):
        assert run.report.tasks == then.report.tasks
    solved = next(run for run in kept() if run.recipe.method == "kfac")
    assert any(layer.residuals for layer in solved.report.layers), "the machine's own"
    app.switch_page("pages/compare.py")
    app.session_state["compare view"] = "Why"
    settle(app, "preparation", "explaining")
    assert sentences(app) == ""
    assert any(best.label in header.value.replace("\\", "") for header in app.header)


def test_other_answers_are_replaced_by_this_machines_own(open_app: Open, family: Path):
    changed(family, turn(5))
    app = settle(open_app(family=family), *JOBS)
    assert sentences(app) == ""
    said = "This machine's own: 15 of 72 answers differ from the shipped ones."
    for run in kept():
        assert run.shipped == said
        assert [t.merged.answers for t in run.report.tasks] == direct(load_family(family), run)
    assert said in captions(app)


def test_results_of_other_files_give_way(open_app: Open, family: Path):
    def change(content: dict[str, Any]) -> None:
        for report in content["reports"]:
            report["fingerprints"]["e1"] = "0" * 64

    changed(family, change)
    settle(open_app(family=family), *JOBS)
    assert [run.shipped for run in kept()] == [shipped.OTHER_FILES] * 2
    for run in kept():
        assert run.report.fingerprints["e1"] != "0" * 64


def test_results_of_other_examples_give_way(open_app: Open, family: Path):
    changed(family, lambda content: content["tasks"].update(e1="0" * 64))
    settle(open_app(family=family), *JOBS)
    assert [run.shipped for run in kept()] == [shipped.OTHER_TASKS] * 2


@pytest.fixture(scope="module")
def walked(tiny_family: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny family with the result of sequential calibration beside it."""
    folder = tmp_path_factory.mktemp("walked") / "family"
    shutil.copytree(tiny_family, folder)
    ship_results(load_family(folder), ("sequential",))
    return folder


def begun(walked: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> runs.Run:
    """The run of a shipped walk after its check."""
    monkeypatch.setenv("MATS_RESULTS", str(tmp_path / "results"))
    family = load_family(walked)
    files = measure_all(family)
    recipe = family.recipe("average", statistics=files)
    prepared = Prepared(
        family, with_statistics(open_inputs(family.recipe("average")), recipe), files
    )
    told: list[float] = []

    def tell(fraction: float, text: str, partial: Any = None) -> None:
        told.append(fraction)

    shipped.adopt(family)
    shipped.check(family, lambda: prepared, tell)
    assert 0 <= min(told) <= max(told) <= 1
    (run,) = kept()
    return run


def test_of_a_walk_through_the_model_the_first_block_is_checked(
    walked: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    merged: list[str] = []
    monkeypatch.setattr(shipped, "merge", lambda *given: merged.append("the whole"))
    run = begun(walked, monkeypatch, tmp_path)
    assert run.shipped.startswith(shipped.PARTLY)
    assert "of the first of 2 blocks" in run.shipped
    assert shipped.of_another_machine(run)
    assert merged == []


@pytest.mark.parametrize("left", [0, 5])
def test_a_walk_that_is_merged_by_hand_is_checked_as_a_whole(
    walked: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, left: int
):
    run = begun(walked, monkeypatch, tmp_path)
    own = merge(run.recipe.model_copy(update={"evaluate": TRIED}))
    monkeypatch.setattr(type(run.report), "left", left)
    made = shipped.made_again(Outcome(run.recipe, own, run))
    whole = "Shipped with the family, and checked: all 72 answers asked here are the same."
    assert made.shipped == (shipped.OTHER_ANSWERS if left else whole)
    assert kept() == [made]
    assert shipped.made_again(Outcome(run.recipe, own, made)) is made


def test_a_walk_that_begins_otherwise_is_made_again(
    walked: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    family = Path(shutil.copytree(walked, tmp_path / "family"))

    def nearer(content: dict[str, Any]) -> None:
        layers = [la for la in content["reports"][0]["layers"] if la.get("details")]
        errors = layers[-1]["details"] if len(layers) == 1 else layers[1]["details"]
        errors["input_errors"]["e0"] = 1.1 * errors["input_errors"]["e0"] + 0.01

    changed(family, nearer)
    run = begun(family, monkeypatch, tmp_path)
    assert run.shipped.startswith("Shipped with the family, and checked: all ")
    assert not shipped.of_another_machine(run)


def test_the_page_begins_with_the_quick_preset_of_the_best_shipped_method(
    open_app: Open, family: Path
):
    def best_is_sequential(content: dict[str, Any]) -> None:
        best = max(content["reports"], key=lambda one: one["normalised_accuracy"])
        best.update(method="sequential", options=METHODS["sequential"].options().model_dump())

    assert shipped.first(load_family(family)) is None, "the best is K-FAC"
    changed(family, best_is_sequential)
    assert shipped.first(load_family(family)) is FIRST
    app = open_app(family=family)
    app.run()
    assert labelled(app, "Method").value == FIRST.method
    assert labelled(app, "Examples").value == FIRST.options["examples"]
    assert f"{FIRST.title}: {FIRST.sentence}" in captions(app)
    labelled(app, "Examples").set_value(33).run()
    assert FIRST.title not in captions(app)
    labelled(app, "Method").set_value("kfac").run()
    press(app, "Reset")
    assert labelled(app, "Method").value == FIRST.method
    assert labelled(app, "Examples").value == FIRST.options["examples"]


def test_a_family_without_results_begins_with_the_proposed_method(open_app: Open):
    assert labelled(open_app(), "Method").value == PROPOSED


def test_once_deleted_they_stay_away_and_one_that_was_made_here_stays(
    open_app: Open, family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MATS_RESULTS", str(tmp_path / "results"))
    collection = load_family(family)
    own = collection.recipe("average", evaluate=TRIED)
    mine = runs.add(collection.name, 3, own, merge(own))
    settle(open_app(family=family), *JOBS)
    (average, kfac) = kept()
    assert (average.id, average.created, average.shipped) == (mine.id, mine.created, "")
    assert kfac.shipped.startswith("Shipped with the family, and checked")
    for run in kept():
        runs.remove(run)
    assert shipped.adopt(collection) == []


@pytest.mark.parametrize(
    ("turned", "said"),
    [
        (0, "checked: all 300 answers asked here are the same"),
        (3, "3 of 300 answers differ here, as rounding can do"),
        (4, "4 of 300 answers differ from the shipped ones"),
    ],
)
def test_rounding_may_turn_one_answer_in_a_hundred(made: Path, turned: int, said: str):
    found = shipped_results(load_family(made))
    assert found is not None
    (first, _) = found.reports

    def report(answers: str):
        score = Score(answers.count("1"), len(answers), answers)
        return replace(first, tasks=(TaskResult("e0", score, score, score),))

    assert said in shipped.verdict(report("1" * 300), report("0" * turned + "1" * (300 - turned)))
