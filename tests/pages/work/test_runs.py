"""Runs on disk: a finer test is never lost, and the pinned run stays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mats_core.evaluation.scores import Score, TaskResult
from mats_core.merging.pipeline import merge
from mats_core.recipes.family_file import FamilyFile, load_family
from mats_core.recipes.recipe import parse_recipe
from mats_core.recipes.refined import Epoch, Refined
from mats_core.recipes.sections import Refine
from pages.shared.work import runs


@pytest.fixture
def family(tiny_family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FamilyFile:
    monkeypatch.setenv("MATS_RESULTS", str(tmp_path / "results"))
    return load_family(tiny_family / "family.yaml")


@pytest.fixture
def report(family: FamilyFile):
    return merge(family.recipe("average", evaluate=False))


def score(answers: str) -> Score:
    return Score(answers.count("1"), len(answers) - answers.count("-"), answers)


def task(name: str, answers: str) -> TaskResult:
    return TaskResult(name, score(answers), score("1111"), score("0000"))


FINE = ("1101", "0111")


@pytest.mark.parametrize(
    ("later", "stays"),
    [
        (("1-0-", "01--"), True),  # a part of the same answers
        (("1---", "0---"), True),
        (("1101", "0111"), False),  # all of them: nothing is lost either way
        (("0-0-", "01--"), False),  # another answer to the same example: other data
        (("1-0", "01-"), False),  # another number of examples
    ],
    ids=str,
)
def test_a_coarser_test_of_the_same_answers_takes_no_finer_ones_place(
    family: FamilyFile, report, later: tuple[str, str], stays: bool
):
    recipe = family.recipe("average")

    def add(answers: tuple[str, str]) -> runs.Run:
        tasks = tuple(task(f"e{m}", row) for m, row in enumerate(answers))
        return runs.add(family.name, 3, recipe, replace(report, tasks=tasks))

    add(FINE)
    held = [t.merged.answers for t in add(later).report.tasks]
    assert held == [*(FINE if stays else later)]
    (kept,) = runs.everything(family.name)
    assert [t.merged.answers for t in kept.report.tasks] == held


def test_a_finer_test_takes_the_coarser_ones_place(family: FamilyFile, report):
    recipe = family.recipe("average")
    for answers in ("1---", "11--", "1101"):
        run = runs.add(family.name, 3, recipe, replace(report, tasks=(task("e0", answers),)))
        assert run.report.tasks[0].merged.answers == answers


def test_tests_on_other_tasks_or_another_split_are_kept_as_they_are(family: FamilyFile, report):
    recipe = family.recipe("average")
    runs.add(family.name, 3, recipe, replace(report, tasks=(task("e0", "1101"),)))
    other = replace(report, tasks=(task("e1", "1---"),))
    assert runs.add(family.name, 3, recipe, other).report.tasks[0].name == "e1"
    validation = replace(other, split="validation", tasks=(task("e1", "----1"[1:]),))
    assert runs.add(family.name, 3, recipe, validation).report.split == "validation"


def test_the_pinned_run_outlives_the_others(
    family: FamilyFile, report, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(runs, "MOST", 2)
    first = runs.add(family.name, 3, family.recipe("average"), report)
    assert runs.pinned(family.name) is None
    runs.pin(family.name, first.id)
    for seed in (1, 2, 3):
        runs.add(family.name, 3, family.recipe("average", seed=seed), report)
    assert runs.pinned(family.name) == first.id
    assert first.id in [run.id for run in runs.everything(family.name)]
    runs.pin(family.name, None)
    assert runs.pinned(family.name) is None


def test_an_option_that_is_younger_than_a_run_leaves_its_name():
    def identity(**options: object) -> str:
        content = {"base": "base", "experts": [{"name": "a", "model": "a"}], "method": "essential"}
        return runs.identity(parse_recipe({**content, "options": options}), {"base": "0", "a": "1"})

    # As it was computed before ESM could leave its directions as they are.
    assert identity() == identity(orthogonal=True) == "0714ab0a40"
    assert identity(orthogonal=False) != "0714ab0a40"


REFINED = Refined(
    4, 3, 256, 1e-4, 64, tuple(Epoch(n, {}, {"t": 4.0 - n % 4}, {"t": 0.9}) for n in range(5))
)


def test_a_run_that_was_trained_says_so_whatever_it_is_called(family: FamilyFile, report):
    trained, recipe = replace(report, refined=REFINED), family.recipe("average")
    refined = recipe.model_copy(update={"refine": Refine.model_validate({})})
    kept = runs.add(family.name, 3, refined, trained)
    assert runs.everything(family.name)[0].report.refined == REFINED
    assert kept.name == "Average · trained"
    assert replace(kept, title="mine").label.endswith("mine · trained")
    plain = runs.add(family.name, 3, recipe, report)
    assert plain.id != kept.id  # another result under another name
    assert "trained" not in plain.label
    unmoved = replace(kept, report=replace(report, refined=replace(REFINED, best=0)))
    assert "trained" not in unmoved.label
