"""What the worker does: prepare a family, merge, follow an iteration.  No Streamlit here."""

from __future__ import annotations

import contextlib
import gc
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mats_core import evaluate, tasks, trajectory
from mats_core.checks import InputError
from mats_core.collection import Collection, measure_all, missing_statistics
from mats_core.evaluate import TaskResult
from mats_core.layers import Inputs, open_inputs
from mats_core.pipeline import run
from mats_core.recipe import Recipe
from mats_core.report import Finished, LayerDone, Report, TaskDone
from mats_core.trajectory import Trajectory, TrajectoryDone

from .jobs import Tell

PICTURES = 12
_PREPARING = threading.Lock()
UNDAMPED = {"damping": 0.0, "anchor": 0.0, "off_diagonal": 1.0}


@dataclass(frozen=True)
class Request:
    """What a person asked for, before the worker knows the statistics' files."""

    collection: Collection
    method: str
    options: dict[str, Any]
    experts: tuple[str, ...]
    seed: int = 0
    dtype: str = "float32"
    device: str = "auto"

    def recipe(self, files: dict[str, Path] | None = None) -> Recipe:
        """The recipe; raises `InputError` for anything wrong with method and options."""
        if not self.experts:
            raise InputError(
                "experts",
                expected="at least one expert to merge",
                found="none",
                remedy="Choose some under 'Experts'.",
            )
        return self.collection.recipe(
            self.method,
            self.options,
            statistics=files,
            experts=self.experts,
            seed=self.seed,
            dtype=self.dtype,
            device=self.device,
        )


@dataclass(frozen=True)
class TaskCard:
    """What a page shows of a task: classes, one image of each class first, and sizes."""

    classes: tuple[str, ...]
    images: tuple[np.ndarray, ...]
    captions: tuple[str, ...]
    train: int
    validation: int
    test: int
    description: str = ""


@dataclass(frozen=True)
class Prepared:
    """A family, opened, measured and evaluated before any merge.

    `problem` is a sentence where statistics could not be measured; methods without them still work.
    """

    collection: Collection
    inputs: Inputs
    files: dict[str, Path]
    baselines: tuple[TaskResult, ...] = ()
    cards: dict[str, TaskCard] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True)
class Outcome:
    """A finished merge."""

    recipe: Recipe
    report: Report


def prepare(collection: Collection, tell: Tell) -> Prepared:
    """`_prepare`, one session at a time: the second finds what the first has measured."""
    while not _PREPARING.acquire(timeout=0.3):
        tell(0.0, "Waiting: another window is preparing a family")
    try:
        return _prepare(collection, tell)
    finally:
        _PREPARING.release()


def _prepare(collection: Collection, tell: Tell) -> Prepared:
    """Import what is slow, check the files, measure what is missing, rate the experts."""
    tell(0.0, "Loading PyTorch and transformers, once")
    import plotly.graph_objects  # noqa: F401  (warmed for the page)
    import transformers

    _ = transformers.AutoConfig, transformers.ViTForImageClassification
    gc.freeze()  # the libraries' 400,000 objects live for ever: no collection need look at them
    tell(0.05, "Checking that the experts fit their base")
    inputs = open_inputs(collection.recipe("average"))
    tell(0.1, "Reading the tasks")
    files, problem = _measure(collection, tell)
    if files:
        inputs = open_inputs(collection.recipe("average", statistics=files))
    baselines, cards = [], {}
    for index, expert in enumerate(inputs.family.experts):
        if not expert.task:
            continue
        tell(0.7 + 0.3 * index / len(inputs.family.experts), f"Testing the expert {expert.name}")
        task = tasks.load(expert.task, root=collection.folder)
        cards[expert.name] = _card(task, expert.task)
        if expert.checkpoint.directory is not None:
            tuned, base = evaluate.baselines(inputs.family, expert, task, "test", None, "cpu")
            baselines.append(TaskResult(expert.name, base, tuned, base))
    return Prepared(collection, inputs, files, tuple(baselines), cards, problem)


def _measure(collection: Collection, tell: Tell) -> tuple[dict[str, Path], str]:
    try:
        missing = set(missing_statistics(collection))

        def on_member(name: str, index: int, total: int) -> None:
            what = "Measuring" if name in missing else "Found"
            once = ", once" if name in missing else ""
            fraction = 0.1 + 0.6 * index / total
            tell(fraction, f"{what} statistics of {name} ({index + 1} of {total}){once}")

        return measure_all(collection, on_member=on_member), ""
    except InputError as error:
        return {}, str(error)


def _card(task: tasks.Task, reference: str) -> TaskCard:
    split = task.test
    first = [int(np.argmax(split.labels == k)) for k in range(len(task.classes))]
    chosen = first[:PICTURES]
    return TaskCard(
        classes=task.classes,
        images=tuple(picture(split.inputs[i]) for i in chosen),
        captions=tuple(task.classes[int(split.labels[i])] for i in chosen),
        train=len(task.train),
        validation=len(task.validation),
        test=len(split),
        description=_description(reference),
    )


def picture(image: np.ndarray) -> np.ndarray:
    """RGB, enlarged by whole pixels so that small images stay crisp."""
    rgb = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
    times = max(1, math.ceil(72 / max(rgb.shape[:2])))
    return rgb.repeat(times, 0).repeat(times, 1)


def _description(reference: str) -> str:
    if not reference.startswith(tasks.SAMPLE):
        return ""
    from sample_models.tasks import DESCRIPTIONS

    return DESCRIPTIONS.get(reference.removeprefix(tasks.SAMPLE), "").replace("`", "")


def merge(request: Request, ready: Callable[[], Prepared], tell: Tell) -> Outcome:
    """Run the request's recipe to its end; `ready` is asked when the merge's turn has come."""
    prepared = ready()
    recipe = request.recipe(prepared.files)
    inputs = inputs_of(prepared, recipe)
    with contextlib.closing(run(recipe, inputs=inputs)) as events:  # type: ignore[type-var]
        for event in events:
            if isinstance(event, LayerDone):
                done = (event.index + 1) / event.total
                tell(0.6 * done, f"Merging layer {event.index + 1} of {event.total}")
            elif isinstance(event, TaskDone):
                done = (event.index + 1) / event.total
                tell(0.6 + 0.4 * done, f"Testing on {event.result.name}")
            elif isinstance(event, Finished):
                return Outcome(recipe, event.report)
    raise RuntimeError("the merge ended without a report")


def inputs_of(prepared: Prepared, recipe: Recipe) -> Inputs:
    """The family's open files where the recipe is over all of them, else its own preflight."""
    if len(recipe.experts) == len(prepared.inputs.family.experts):
        return prepared.inputs
    return open_inputs(recipe)


def follow(
    recipes: dict[str, Recipe], examples: int, ready: Callable[[], Prepared], tell: Tell
) -> dict[str, Trajectory]:
    """Accuracy along the iterations of each recipe."""
    prepared = ready()
    found: dict[str, Trajectory] = {}
    for place, (label, recipe) in enumerate(recipes.items()):
        inputs = inputs_of(prepared, recipe)
        events = trajectory.follow(recipe, inputs=inputs, examples=examples)
        with contextlib.closing(events):  # type: ignore[type-var]
            for event in events:
                if isinstance(event, LayerDone):
                    part, text = 0.4 * event.index / event.total, f"Solving, {label}"
                elif isinstance(event, TaskDone):
                    part = 0.4 + 0.6 * event.index / event.total
                    text = f"Testing the iterates, {label}"
                elif isinstance(event, TrajectoryDone):
                    found[label] = event.trajectory
                    continue
                else:
                    continue
                tell((place + part) / len(recipes), text)
    return found


__all__ = [
    "UNDAMPED", "Outcome", "Prepared", "Request", "TaskCard", "follow", "inputs_of",
    "merge", "picture", "prepare",
]  # fmt: skip
