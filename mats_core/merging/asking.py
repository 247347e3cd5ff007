"""Asking a merge about its tasks, and experts and base beside it."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from ..adapters import open_expert
from ..errors import InputError
from ..evaluation import Exam, TaskResult, examining
from ..recipes import (
    TRIED,
    Evaluation,
    Examined,
    Plan,
    TaskDone,
    load_recipe,
    prepare,
    read_branches,
)
from ..system import Event, drained, part
from ..tasks import SplitName

REFERENCES = 0.3  # of a test: experts and base, which are most often remembered


def has_tasks(plan: Plan) -> bool:
    """Whether there is anything to evaluate: not for raw families, nor where it is switched off."""
    return plan.recipe.evaluate is not False and bool(plan.inputs.family.tasks)


def evaluating_output(
    directory: Path, split: SplitName
) -> Generator[Event, None, list[TaskResult]]:
    """What a directory that `run` wrote reaches on its tasks, by the recipe that it holds.

    Raises `InputError` where there is no recipe, or its experts name no tasks.
    """
    file = Path(directory) / "recipe.yaml"
    if not file.is_file():
        raise InputError(
            f"model '{directory}'",
            expected="an output of `merge`, with its recipe.yaml",
            found="none",
            remedy="Name a task with --task.",
        )
    recipe = load_recipe(file).model_copy(update={"evaluate": Evaluation(split=split)})
    plan = prepare(recipe)
    if not has_tasks(plan):
        raise InputError(f"recipe '{file}'", expected="experts with tasks", found="none")
    merged = open_expert(directory, plan.inputs.family.base)  # an adapter, where it is one
    encoder = {name: merged.read(name) for name in merged.tensors} | read_branches(directory)
    exam = yield from part(examining_plan(plan), stop=REFERENCES)
    for note in exam.notes:
        warnings.warn(note, stacklevel=2)
    return list((yield from part(asking_plan(plan, exam, encoder), start=REFERENCES)))


evaluate_output = drained(evaluating_output)


def examining_plan(plan: Plan) -> Generator[Event, None, Exam]:
    """The questions of every task, which experts and base have answered; without tasks, none.

    A search asks on validation data, also where its merge is not evaluated.
    """
    settings = plan.recipe.evaluate
    if plan.recipe.search and not isinstance(settings, Evaluation):
        settings = TRIED
    if not isinstance(settings, Evaluation) or not plan.inputs.family.tasks:
        return Exam((), ())
    family, folder = plan.inputs.family, plan.recipe.folder
    exam = yield from examining(family, folder, settings.split, settings.examples, plan.device)
    yield Examined(exam.notes, fraction=1.0, text="Experts and base are tested")
    return exam


def asking_plan(
    plan: Plan, exam: Exam, encoder: Mapping[str, Tensor], known: Sequence[TaskResult] = ()
) -> Generator[Event, None, Sequence[TaskResult]]:
    """The results of the merged model on every task, of which some may be `known`."""
    settings = plan.recipe.evaluate
    if not isinstance(settings, Evaluation) or not exam.examiners:
        return ()
    results = yield from exam.take(
        encoder, precision=settings.precision, known=known, before=plan.before
    )
    for index, result in enumerate(results):
        yield TaskDone(result, index, len(results), fraction=1.0, text=f"Tested on {result.name}")
    return results
