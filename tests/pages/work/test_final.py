"""The final figure: test examples are asked once, what they said is kept, and every ask counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mats_core.evaluation.scores import Score, TaskResult
from mats_core.merging.pipeline import merge
from mats_core.recipes.family_file import FamilyFile, load_family
from mats_core.recipes.plan import open_inputs
from mats_core.recipes.sections import FINAL, TRIED
from pages.shared.work import final, runs
from pages.shared.work.export import finished
from pages.shared.work.prepare import Prepared
from pages.shared.work.shelf import Shelf


def tell(fraction: float, text: str, partial: Any = None) -> None:
    assert 0 <= fraction <= 1


@pytest.fixture
def family(tiny_family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FamilyFile:
    monkeypatch.setenv("MATS_RESULTS", str(tmp_path / "results"))
    return load_family(tiny_family)


@pytest.fixture
def make(family: FamilyFile) -> Callable[..., runs.Run]:
    """`make(method, evaluate)`: a finished run that is kept."""

    def made(method: str = "average", evaluate: Any = TRIED) -> runs.Run:
        recipe = family.recipe(method, evaluate=evaluate, device="cpu")
        return runs.add(family.name, 3, recipe, merge(recipe))

    return made


@pytest.fixture
def prepared(family: FamilyFile) -> Callable[[], Prepared]:
    return lambda: Prepared(family, open_inputs(family.recipe("average")), {})


def refuse() -> Prepared:
    raise AssertionError("test examples are asked a second time")


def test_it_is_what_a_merge_reaches_on_all_test_examples(family, make, prepared):
    run = final.ask(Shelf(), make(), prepared, tell)
    direct = merge(family.recipe("average", evaluate=FINAL, device="cpu"))
    assert run.final is not None
    assert [t.merged.answers for t in run.final.tasks] == [t.merged.answers for t in direct.tasks]
    assert [t.finetuned for t in run.final.tasks] == [t.finetuned for t in direct.tasks]
    assert run.report.split == "validation"
    assert run.final_report is not None
    assert run.final_report.split == "test"
    assert run.final_report.normalised_accuracy == direct.normalised_accuracy


def test_it_is_asked_once_and_kept(family, make, prepared):
    before = make()
    run = final.ask(Shelf(), before, prepared, tell)
    assert runs.everything(family.name) == [run]
    assert final.ask(Shelf(), before, refuse, tell) == run, "as a page drawn before would ask"
    assert make().final == run.final, "merged again, it stays"
    assert runs.change(run, note="a note").final == run.final


def test_answers_that_contradict_it_drop_it_but_not_that_it_was_asked(family, make, prepared):
    run = final.ask(Shelf(), make(), prepared, tell)
    first, *rest = run.report.tasks
    turned = first.merged.answers.translate(str.maketrans("01", "10"))
    other = replace(first, merged=Score(turned.count("1"), len(turned), turned))
    report = replace(run.report, tasks=(other, *rest))
    assert runs.add(family.name, 3, run.recipe, report).final is None
    assert final.asked(family.name) == 1


def test_every_merge_that_was_asked_counts_deleted_ones_too(family, make, prepared):
    assert final.asked(family.name) == 0
    first = final.ask(Shelf(), make(), prepared, tell)
    make("ties")
    assert final.asked(family.name) == 1
    runs.remove(first)
    assert final.asked(family.name) == 1
    make("task_arithmetic", FINAL)  # as runs of earlier versions were
    assert final.asked(family.name) == 2


def test_a_run_that_was_tested_on_all_test_examples_has_it(family, make):
    old = make("average", FINAL)
    (kept,) = runs.everything(family.name)
    assert kept.final == runs.Final(old.report.tasks, old.created)
    assert final.ask(Shelf(), old, refuse, tell) == kept
    now = make()
    assert (now.report.split, now.final) == ("validation", kept.final)


def test_of_a_part_of_the_test_examples_the_rest_is_asked(family, make, prepared):
    whole = make("average", FINAL).report
    runs.remove(runs.everything(family.name)[0])

    def part(result: TaskResult) -> TaskResult:
        answers = result.merged.answers[:10] + "-" * (len(result.merged.answers) - 10)
        return replace(result, merged=Score(answers.count("1"), 10, answers))

    recipe = family.recipe("average", evaluate=FINAL, device="cpu")
    quick = replace(whole, tasks=tuple(map(part, whole.tasks)))
    run = runs.add(family.name, 3, recipe, quick)
    assert run.final is None
    asked = final.ask(Shelf(), run, prepared, tell)
    assert asked.final is not None
    assert [t.merged.answers for t in asked.final.tasks] == [t.merged.answers for t in whole.tasks]


def test_what_leaves_the_house_quotes_it_where_it_was_asked(make, prepared):
    run = make()
    assert (finished(run).report, finished(run).recipe) == (run.report, run.recipe)
    run = final.ask(Shelf(), run, prepared, tell)
    assert finished(run).report == run.final_report
    assert finished(run).recipe.evaluate == FINAL
