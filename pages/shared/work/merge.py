"""A merge that a person asked for, run in the worker, and the finer test after it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from mats_core.errors import InputError
from mats_core.estimating import Estimate, estimate, require
from mats_core.evaluation import Asked, exam
from mats_core.merging import (
    Evaluation,
    FamilyFile,
    Finished,
    LayerDone,
    Progress,
    Recipe,
    Report,
    RoundDone,
    run,
)
from mats_core.methods import METHODS

from . import again
from .jobs import Tell
from .prepare import Prepared


@dataclass(frozen=True)
class Request:
    """What a person asked for, before the worker knows the statistics' files."""

    collection: FamilyFile
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
class Outcome:
    """A finished merge; `tensors` wait for the examples that were not asked yet."""

    recipe: Recipe
    report: Report
    tensors: Mapping[str, Tensor] = field(default_factory=dict, repr=False)

    @property
    def label(self) -> str:
        return METHODS[self.recipe.method].title


@dataclass(frozen=True)
class Residuals:
    """What can be watched while a merge solves: each layer's relative residuals so far."""

    layers: Mapping[str, tuple[float, ...]]
    current: tuple[float, ...] = ()


def estimated(request: Request, prepared: Prepared) -> Estimate:
    """What a request will cost; raises `InputError` as the merge itself would."""
    tested = {name: card.test for name, card in prepared.cards.items()}
    return estimate(prepared.inputs, request.recipe(prepared.files), examples=tested)


def merge(request: Request, ready: Callable[[], Prepared], tell: Tell) -> Outcome:
    """Run the request's recipe to its end; `ready` is asked when the merge's turn has come."""
    prepared = ready()
    expected = estimated(request, prepared)
    require(expected)
    recipe = request.recipe(prepared.files)
    inputs = again.of_family(prepared, recipe)
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
    _, inputs = again.opened(outcome, ready())
    settings = recipe.evaluate
    assert isinstance(settings, Evaluation)
    questions = exam(inputs.family, recipe.folder, settings.split, settings.examples)
    results = outcome.report.tasks
    for asked in questions.take(outcome.tensors, known=results):
        tell(asked.fraction, "Testing on the remaining examples")
        results = asked.results
    whole = recipe.model_copy(update={"evaluate": settings.model_copy(update={"precision": None})})
    return Outcome(whole, replace(outcome.report, tasks=results))
