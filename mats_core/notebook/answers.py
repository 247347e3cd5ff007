"""From what the knobs say to what is known about it: the panel without its widgets.

`Answers.answer(request)` yields states: how far the work is, residuals while a layer is solved, the
average as soon as it is known, the first result, and then what explains it.  Whatever was found for
an earlier request and still holds is not computed again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from torch import Tensor

from ..analysis import (
    Distances,
    Spectrum,
    Trajectory,
    Why,
    explaining,
    layer_spectra,
    layer_subspaces,
    measuring_distances,
    overlaps,
    predicted_loss,
)
from ..errors import InputError, reason
from ..merging import Event, Merge
from ..methods import METHODS
from ..recipes import Finished, Inputs, Iteration, LayerDone, Recipe, Report
from ..system import part, uncollected
from .code import reads_statistics
from .subjects import Request, Subject

R = TypeVar("R")
Steps = Generator["State", None, R]

DIRECTIONS = 8  # of each task, in the overlap of a layer
MOST_RUNS = 60
OPENED, AVERAGED, MEASURED = 0.04, 0.2, 0.7  # of a first answer, when these are done


@dataclass(frozen=True)
class Run:
    """A finished merge of a panel.

    number    counts the runs of the panel
    request   what the knobs said
    recipe    of the merge
    report    its outcome
    """

    number: int
    request: Request
    recipe: Recipe
    report: Report

    @property
    def label(self) -> str:
        """Its number and its method, as the panel shows them."""
        method = METHODS[self.request.method]
        return f"{self.number} · {method.short or method.title}"


@dataclass(frozen=True)
class LayerView:
    """What the experts learned in one weight.

    name       of the weight
    kind       of the spectra: `essential`, or `task matrix` without statistics
    spectra    by expert
    overlap    (T, T) of their first `rank` directions
    rank       of the subspaces
    """

    name: str
    kind: str
    spectra: Mapping[str, Spectrum]
    overlap: Tensor
    rank: int


@dataclass(frozen=True)
class State:
    """What a panel knows at one moment.

    request      what is being answered; None before the first
    text         what is being done; "" when everything is
    fraction     of the way to the first result, 0 to 1
    news         changes whenever there is more to be seen than progress
    answered     whether the request has its first result
    error        why it has none, in a sentence
    problem      why statistics could not be measured, in a sentence
    merge        the newest result, with what it reaches on the tasks
    average      the plain average of the same experts
    shown        the request that `merge` answers
    residuals    layer → relative residuals, of a solve under way
    current      relative residuals of the layer that is being solved
    trajectory   accuracy along the iterations of the newest result
    distances    of the newest result and the average from the experts
    why          predicted cost by layer, of the newest result and of the average
    layer        what the experts learned in the layer that is looked at
    """

    request: Request | None = None
    text: str = ""
    fraction: float = 0.0
    news: int = 0
    answered: bool = False
    error: str = ""
    problem: str = ""
    merge: Merge | None = None
    average: Merge | None = None
    shown: Request | None = None
    residuals: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    current: tuple[float, ...] = ()
    trajectory: Trajectory | None = None
    distances: Distances | None = None
    why: Why | None = None
    layer: LayerView | None = None


class Answers:
    """The answers of one panel; `state` is the newest one, `runs` all results, oldest first."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.state, self.runs = State(), list[Run]()
        self._average: tuple[Request, Merge] | None = None
        self._opened = self._measured = False

    def answer(self, request: Request) -> Steps[None]:
        """States of the answer to a request, each one more than the last; never raises
        `InputError`, which becomes the state's `error`."""
        # What is shown stays until there is something better.
        quiet: dict[str, Any] = {"residuals": {}, "current": (), "error": "", "answered": False}
        self._set(request=request, fraction=0.0, text="Starting", **quiet)
        try:
            yield from self._first(request)
            yield from self._details(request)
        except InputError as error:
            yield self._set(error=str(error), text="", answered=True, residuals={}, current=())

    def failed(self, error: Exception) -> State:
        """The state after an exception that is no `InputError`."""
        said = f"The work stopped unexpectedly ({type(error).__name__}: {reason(error)})."
        return self._set(error=said, text="", answered=True)

    # The first result -----------------------------------------------------------------------------

    def _first(self, request: Request) -> Steps[None]:
        if self.state.shown == request.merge and self.state.merge is not None:
            yield self._set(answered=True, fraction=1.0)
            return
        # What transformers' import makes would be walked through before the first number is there.
        with contextlib.nullcontext() if self._opened else uncollected():
            start = yield from self._prepare(request)
            average = yield from self._averaged(request, start)
        start = yield from self._measure(request, AVERAGED if start else 0.0)
        if request.merge == request.average:
            merge = average
        else:
            merge = yield from self._stage(self.subject.merging(request.merge), start, 1.0)
        self._keep(request, merge)
        yield self._set(
            merge=merge, average=average, shown=request.merge, fraction=1.0, answered=True,
            residuals={}, current=(), trajectory=None, why=None, distances=None,
        )  # fmt: skip

    def _prepare(self, request: Request) -> Steps[float]:
        """Open what is explored, once; returns how much of the answer is done."""
        if self._opened:
            return 0.0
        yield from self._stage(self.subject.opening(), 0.0, OPENED)
        self._opened = True
        return OPENED

    def _averaged(self, request: Request, start: float) -> Steps[Merge]:
        """The plain average, which needs no statistics: the first number of a new panel."""
        if self._average is None or self._average[0] != request.average:
            stop = AVERAGED if start else 0.3
            merge = yield from self._stage(self.subject.merging(request.average), start, stop)
            self._average = request.average, merge
        if self.state.merge is None:
            yield self._set(average=self._average[1])
        return self._average[1]

    def _measure(self, request: Request, start: float, *, needed: bool = True) -> Steps[float]:
        """Measure statistics once, where the method reads some (`needed`) or there is time."""
        if needed and not reads_statistics(request):
            return start
        if self._measured or not self.subject.measures:
            return start
        try:
            yield from self._stage(self.subject.measuring(), start, MEASURED)
        except InputError as error:  # methods that need none still work
            self._set(problem=str(error))
        self._measured = True
        return MEASURED

    # What explains it -----------------------------------------------------------------------------

    def _details(self, request: Request) -> Steps[None]:
        yield from self._tested(request)
        yield from self._measure(request, 1.0, needed=False)
        yield from self._looked_at(request)
        yield from self._explained(request)
        yield from self._followed(request)
        yield self._set(text="")

    def _tested(self, request: Request) -> Steps[None]:
        """Ask the examples that the first, quick test left out."""
        merge, average = self.state.merge, self.state.average
        assert merge is not None
        assert average is not None
        # The average first: whatever the merge was asked, the average was asked as well.
        finer = yield from self._stage(self.subject.testing(average), 1.0, 1.0)
        if finer is not average:
            self._average = request.average, finer
            yield self._set(average=finer)
        if merge is not average:
            finer = yield from self._stage(self.subject.testing(merge), 1.0, 1.0)
        if finer is not merge:
            self._keep(request, finer)
            yield self._set(merge=finer)

    def _explained(self, request: Request) -> Steps[None]:
        """By layer, what the merge costs beside the average; and how far it is from the experts."""
        merge, average = self.state.merge, self.state.average
        assert merge is not None
        assert average is not None
        inputs = self.subject.inputs(request.experts)
        if self.state.distances is None:
            encoders = {"merge": merge.tensors, "average": average.tensors}
            steps = measuring_distances(inputs.family, encoders)
            yield self._set(distances=(yield from self._stage(steps, 1.0, 1.0)))
        if self.state.why is None and predicted_loss.measured_layers(inputs):
            steps = explaining(inputs, merge.tensors, average.tensors)
            found = yield from self._stage(steps, 1.0, 1.0)
            yield self._set(why=found)

    def _followed(self, request: Request) -> Steps[None]:
        """The accuracy along the iterations, of a method that has some, on its tasks."""
        merge = self.state.merge
        assert merge is not None
        solved = METHODS[request.method].solve is not None
        if self.state.trajectory or not solved or not merge.report.tasks:
            return
        if request.rounds > 1:  # the statistics of the last round are gone
            return
        found = yield from self._stage(self.subject.following(request, merge), 1.0, 1.0)
        yield self._set(trajectory=found)

    def _looked_at(self, request: Request) -> Steps[None]:
        known = self.state.layer
        inputs = self.subject.inputs(request.experts)
        experts = tuple(expert.name for expert in inputs.family.experts)
        if not request.layer or request.layer not in inputs.family.roles:
            return
        if known and known.name == request.layer and tuple(known.spectra) == experts:
            return
        yield self._set(text=f"Looking at {request.layer}")
        yield self._set(layer=layer_view(inputs, request.layer))

    # States ---------------------------------------------------------------------------------------

    def _stage(self, events: Generator[Event, Any, R], start: float, stop: float) -> Steps[R]:
        """The states of a part of the answer; returns what the part returns."""
        with contextlib.closing(part(events, start, stop)) as steps:
            while True:
                try:
                    event = next(steps)
                except StopIteration as end:
                    return end.value
                if not isinstance(event, Finished):
                    yield self._seen(event)

    def _seen(self, event: Event) -> State:
        state = self.state
        told: dict[str, Any] = {"text": event.text, "fraction": event.fraction}
        if isinstance(event, Iteration) and not state.answered:
            told["current"] = (*state.current, event.residual)
        elif isinstance(event, LayerDone) and not state.answered:
            told["current"] = ()
            if len(event.layer.residuals) > 1:
                told["residuals"] = {**state.residuals, event.layer.name: event.layer.residuals}
        self.state = replace(state, **told)
        return self.state

    def _set(self, **changes: Any) -> State:
        self.state = replace(self.state, news=self.state.news + 1, **changes)
        return self.state

    def _keep(self, request: Request, merge: Merge) -> None:
        """Put a result among the runs, or in the place of the same settings' earlier one."""
        runs = [run for run in self.runs if run.request != request.merge]
        known = next((run.number for run in self.runs if run.request == request.merge), None)
        number = known or 1 + max((run.number for run in self.runs), default=0)
        runs.append(Run(number, request.merge, merge.recipe, merge.report))
        self.runs = sorted(runs, key=lambda run: run.number)[-MOST_RUNS:]


def layer_view(inputs: Inputs, name: str) -> LayerView:
    """Spectra and overlap of what the experts learned in one weight."""
    family = inputs.family
    pairs = zip(family.experts, inputs.statistics, strict=True)
    measured = {expert.name: own for expert, own in pairs if own is not None}
    rank = min(DIRECTIONS, *family.shape(name))
    for kind in ("essential", "task matrix"):
        spectra = layer_spectra(family, measured, name, kind)
        if len(spectra) == len(family.experts):
            bases = layer_subspaces(family, measured, name, kind)
            return LayerView(name, kind, spectra, overlaps(bases, rank), rank)
    raise InputError(f"layer '{name}'", expected="a matrix", found="no spectrum")
