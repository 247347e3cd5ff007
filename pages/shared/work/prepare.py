"""What the worker does: prepare a family, merge, follow an iteration.  No Streamlit here."""

from __future__ import annotations

import contextlib
import gc
import math
import os
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from mats_core import tasks
from mats_core.analysis import Trajectory, TrajectoryDone, convergence
from mats_core.errors import InputError
from mats_core.estimating import Estimate, merge_cost
from mats_core.evaluation import Asked, TaskResult, evaluate, exam
from mats_core.merging import (
    Collection,
    Evaluation,
    Finished,
    Inputs,
    LayerDone,
    Progress,
    Recipe,
    Report,
    RoundDone,
    choose_device,
    measure_all,
    missing_statistics,
    open_inputs,
    run,
)
from mats_core.system import Memo, speeds

from .jobs import Tell

PICTURES = 12
TEXTS = 3
SAID = 160  # characters of a text on a card
FAMILIES = 3  # kept ready
_READY: dict[Hashable, Prepared] = {}  # only the one worker thread reads and writes it
UNDAMPED = {"damping": 0.0, "anchor": 0.0, "off_diagonal": 1.0}


@dataclass(frozen=True)
class Request:
    """What a person asked for, before the worker knows the statistics' files."""

    collection: Collection
    method: str
    options: dict[str, Any]
    experts: tuple[str, ...]
    weights: tuple[tuple[str, float], ...] = ()
    seed: int = 0
    dtype: str = "float32"
    device: str = "auto"
    precision: float | None = None
    rounds: int = 1

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
            weights=dict(self.weights),
            evaluate={"precision": self.precision},
            seed=self.seed,
            dtype=self.dtype,
            device=self.device,
            rounds=self.rounds,
        )


@dataclass(frozen=True)
class TaskCard:
    """What a page shows of a task: classes, an image (or text) of some of them, and sizes."""

    classes: tuple[str, ...]
    images: tuple[np.ndarray, ...]
    captions: tuple[str, ...]
    train: int
    validation: int
    test: int
    description: str = ""
    texts: tuple[str, ...] = ()

    @property
    def noun(self) -> str:
        return "text" if self.texts else "image"


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
    base_card: TaskCard | None = None


@dataclass(frozen=True)
class Outcome:
    """A finished merge; `tensors` wait for the examples that were not asked yet."""

    recipe: Recipe
    report: Report
    tensors: Mapping[str, Tensor] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Residuals:
    """What can be watched while a merge solves: each layer's relative residuals so far."""

    layers: Mapping[str, tuple[float, ...]]
    current: tuple[float, ...] = ()


def prepare(collection: Collection, key: Hashable, tell: Tell) -> Prepared:
    """`_prepare`, unless another window has prepared the same files (`key`) already."""
    if key not in _READY:
        _READY[key] = _prepare(collection, tell)
        while len(_READY) > FAMILIES:
            del _READY[next(iter(_READY))]
    return _READY[key]


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
        inputs = open_inputs(collection.recipe("average", statistics=files), Memo(_room()))
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
    tell(1.0, "Timing this machine, once")
    speeds.rates(choose_device("auto")[0])
    own = _base_card(collection)
    return Prepared(collection, inputs, files, tuple(baselines), cards, problem, own)


def _base_card(collection: Collection) -> TaskCard | None:
    """What the base was pre-trained on, where the family says and the task can be read."""
    if not collection.base_task:
        return None
    with contextlib.suppress(InputError):
        task = tasks.load(collection.base_task, root=collection.folder)
        return _card(task, collection.base_task)
    return None


def _room() -> int:
    """Bytes that merges may remember: a tenth of the memory, at most a gigabyte."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(2**30, physical // 10)


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
    split, pictured = task.test, task.form.kind == "image"
    most = PICTURES if pictured else TEXTS
    first = [int(np.argmax(split.labels == k)) for k in range(len(task.classes))]
    first = first or list(range(min(most, len(split))))  # of a language task any will do
    # Of many classes every so-manieth, so that the examples are of different kinds.
    chosen = first[:: math.ceil(len(first) / most)]
    return TaskCard(
        classes=task.classes,
        images=tuple(picture(split.inputs[i]) for i in chosen) if pictured else (),
        captions=tuple(task.classes[int(split.labels[i])] for i in chosen if task.classes),
        train=len(task.train),
        validation=len(task.validation),
        test=len(split),
        description=task.description or _description(reference),
        texts=() if pictured else tuple(clipped(split.text(i)) for i in chosen),
    )


def clipped(text: str, most: int = SAID) -> str:
    """A text on one line, cut where it is long."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1].rstrip()}…"


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


def estimated(request: Request, prepared: Prepared) -> Estimate:
    """What a request will cost; raises `InputError` as the merge itself would."""
    tested = {name: card.test for name, card in prepared.cards.items()}
    return merge_cost.estimate(prepared.inputs, request.recipe(prepared.files), examples=tested)


def merge(request: Request, ready: Callable[[], Prepared], tell: Tell) -> Outcome:
    """Run the request's recipe to its end; `ready` is asked when the merge's turn has come."""
    prepared = ready()
    expected = estimated(request, prepared)
    merge_cost.require(expected)
    recipe = request.recipe(prepared.files)
    inputs = inputs_of(prepared, recipe)
    # The test of a merge in several rounds is a smaller part of the whole.
    share = 0.6 if recipe.rounds == 1 else 0.85
    solving = _Solving(tell, share, Progress(recipe.rounds, measuring=expected.measuring_share))
    events = run(recipe, inputs=inputs, pulse=solving.pulse)
    with contextlib.closing(events):  # type: ignore[type-var]
        for event in events:
            if solving.see(event):
                continue
            if isinstance(event, Asked):
                tell(share + (1 - share) * event.fraction, "Testing on every task")
            elif isinstance(event, Finished):
                return Outcome(recipe, event.report, event.tensors)
    raise RuntimeError("the merge ended without a report")


class _Solving:
    """Tells about the rounds and layers of a merge, and about the iterations within one.

    share   of the whole work, up to the last layer
    """

    def __init__(self, tell: Tell, share: float, progress: Progress) -> None:
        self.tell, self.share, self.progress = tell, share, progress
        self.done = 0.0
        self.layers: dict[str, tuple[float, ...]] = {}
        self.current: list[float] = []
        self.text = "Reading the first layer"

    def pulse(self, iteration: int, residual: float) -> None:
        self.current.append(residual)
        seen = Residuals(dict(self.layers), tuple(self.current))
        self.tell(self.done, f"{self.text}, iteration {iteration}", seen)

    def see(self, event: Any) -> bool:
        """Whether an event is one of a layer or of a round, and was told."""
        if not self.progress.see(event):
            return False
        self.done, self.text = self.share * self.progress.fraction, self.progress.text
        if isinstance(event, LayerDone) and len(event.layer.residuals) > 1:
            self.layers[event.layer.name] = event.layer.residuals
        if isinstance(event, RoundDone):
            self.layers = {}
        self.current = []
        seen = Residuals(dict(self.layers)) if self.layers else None
        self.tell(self.done, self.text, seen)
        return True


def refine(outcome: Outcome, ready: Callable[[], Prepared], tell: Tell) -> Outcome:
    """Ask the examples that the first, quick test left out."""
    recipe = outcome.recipe
    inputs = inputs_of(ready(), recipe)
    settings = recipe.evaluate
    assert isinstance(settings, Evaluation)
    questions = exam(inputs.family, recipe.folder, settings.split, settings.examples)
    results = outcome.report.tasks
    for asked in questions.take(outcome.tensors, known=results):
        tell(asked.fraction, "Testing on the remaining examples")
        results = asked.results
    whole = recipe.model_copy(update={"evaluate": settings.model_copy(update={"precision": None})})
    return Outcome(whole, replace(outcome.report, tasks=results))


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
        part, text = 0.0, f"Solving, {label}"
        progress = Progress(recipe.rounds, f"Solving, {label}:")

        def pulse(iteration: int, residual: float) -> None:
            tell((place + part) / len(recipes), text)  # noqa: B023  (used in this turn only)

        events = convergence.follow(recipe, inputs=inputs, examples=examples, pulse=pulse)
        with contextlib.closing(events):  # type: ignore[type-var]
            for event in events:
                if progress.see(event):
                    part, text = 0.4 * progress.fraction, progress.text
                elif isinstance(event, Asked):
                    part = 0.4 + 0.6 * event.fraction
                    text = f"Testing the iterates, {label}"
                elif isinstance(event, TrajectoryDone):
                    found[label] = event.trajectory
                    continue
                else:
                    continue
                tell((place + part) / len(recipes), text)
    return found


__all__ = [
    "UNDAMPED", "Outcome", "Prepared", "Request", "Residuals", "TaskCard", "follow",
    "inputs_of", "merge", "picture", "prepare", "refine",
]  # fmt: skip
