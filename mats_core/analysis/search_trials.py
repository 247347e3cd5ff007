"""The trials of a search: drawn, merged and told in one order, whatever merges them.

Some are under way together: trial n is drawn when trial n − w has been told, and none after it, so
that what a sampler knows does not depend on which merge ends first.  With w = 1 each knows all
before it.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, Protocol

from ..errors import parsing, typed
from ..evaluation import normalised_interval, share
from ..merging import Event
from ..recipes import Inputs, Recipe, Report
from ..system import part
from .attempt import attempt
from .search_space import Knob, points, with_values
from .search_study import Study

Objective = Literal["mean", "worst", "size"]
OBJECTIVES: dict[Objective, str] = {
    "mean": "mean normalised accuracy",
    "worst": "normalised accuracy of the worst task",
    "size": "size as a multiple of the base",
}
REDRAWN = 3  # times that a point that was tried before is drawn again

# A merge's report, or None and a sentence on why it failed; and the seconds that it took.
Tried = tuple[Report | None, str, float]


@dataclass(frozen=True)
class SearchTrial:
    """One merge of a search.

    number      from 1
    values      of the knobs that were turned, by their names
    accuracy    mean normalised accuracy on validation examples; None where the merge failed
    low, high   ends of its 95 % interval
    worst       normalised accuracy of the worst task
    task        the name of the worst task
    size        as a multiple of the base
    reason      why the merge failed; empty where it did not
    again       the number of the trial with the same values whose result this is; 0: a new merge
    seconds     that it took
    """

    number: int
    values: Mapping[str, Any]
    accuracy: float | None = None
    low: float = 0.0
    high: float = 1.0
    worst: float | None = None
    task: str = ""
    size: float | None = None
    reason: str = ""
    again: int = 0
    seconds: float = 0.0

    def value(self, objective: Objective) -> float | None:
        """What an objective is of it; None where the merge failed."""
        return {"mean": self.accuracy, "worst": self.worst, "size": self.size}[objective]


@dataclass(frozen=True)
class SearchTrialDone(Event):
    """Event: `trial` of a search is finished; `before`: the journal knew it."""

    trial: SearchTrial
    before: bool = False


class Merging(Protocol):
    """What merges trials."""

    def begin(self, number: int, recipe: Recipe) -> None:
        """Have a trial merged, now or when its turn comes."""
        ...

    def ended(self, number: int) -> Generator[Event, None, Tried]:
        """What came of a trial that was begun, with events meanwhile."""
        ...

    def close(self) -> None:
        """End what is under way."""
        ...


class Here:
    """One merge after the other, in this process."""

    def __init__(self, inputs: Inputs) -> None:
        self._inputs, self._recipes = inputs, dict[int, Recipe]()

    def begin(self, number: int, recipe: Recipe) -> None:
        self._recipes[number] = recipe

    def ended(self, number: int) -> Generator[Event, None, Tried]:
        at = time.monotonic()
        report, reason = yield from attempt(self._recipes.pop(number), self._inputs)
        return report, reason, time.monotonic() - at

    def close(self) -> None:
        self._recipes.clear()


# Their order --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Asked:
    """A trial under way; `before`: the trial whose values it has again, 0 where it has its own."""

    number: int
    values: Mapping[str, Any]
    before: int


def trying(
    study: Study,
    plain: Recipe,
    knobs: Sequence[Knob],
    objectives: Sequence[Objective],
    most: int | None,
    minutes: float | None,
    merging: Merging,
) -> Generator[Event, None, str]:
    """Try until the budget is spent, those that the study knows first; returns what ended it:
    `trials`, `minutes`, or `points` (all were tried)."""
    began, there = time.monotonic(), points(knobs)
    limit = math.inf if minutes is None else 60 * minutes
    told = {trial.number: trial for trial in known_trials(study)}
    firsts = {_key(one.values): one.number for one in reversed(told.values()) if not one.again}
    for trial in told.values():
        fraction = _share(trial.number, most, 0.0, limit)
        text = f"Trial {trial.number} was done before"
        yield SearchTrialDone(trial, before=True, fraction=fraction, text=text)
    under_way: deque[_Asked] = deque()

    def begin(number: int, values: Mapping[str, Any]) -> None:
        first = firsts.setdefault(_key(values), number)
        before = 0 if first == number else first
        if not before:
            merging.begin(number, with_values(plain, knobs, values))
        under_way.append(_Asked(number, values, before))

    for number, values in study.pending.items():
        begin(number, values)
    mine, ended, fraction = 0, "", 0.0
    while True:
        while len(under_way) < study.at_once and not ended:
            asked, spent = len(told) + len(under_way), time.monotonic() - began
            likely = (len(under_way) + 1) * spent / mine if mine else 0.0
            if most is not None and asked >= most:
                ended = "trials"
            elif spent >= limit or (mine and spent + likely > limit):
                ended = "minutes"
            elif len(firsts) >= there:
                ended = "points"
            else:
                values = study.draw(asked + 1, lambda drawn: _key(drawn) in firsts, REDRAWN)
                begin(asked + 1, values)
        if not under_way:
            return ended
        one, spent = under_way.popleft(), time.monotonic() - began
        number, start = one.number, max(fraction, _share(len(told), most, spent, limit))
        if one.before:
            known = told[one.before]
            found = SearchTrial(**{**vars(known), "number": number, "again": known.number})
        else:
            stop = max(start, _share(number, most, spent + (spent / mine if mine else 0.0), limit))
            whole = f" of {most}" if most is not None else ""
            merged = part(merging.ended(number), start, stop, f"Trial {number}{whole}: {{}}")
            found = _tried(number, one.values, *(yield from merged))
        told[number] = found
        results = [found.value(objective) for objective in objectives]
        study.tell(vars(found) | {"values": dict(found.values)}, results)
        mine += 1
        fraction = max(start, _share(len(told), most, time.monotonic() - began, limit))
        yield SearchTrialDone(found, fraction=fraction, text=f"Trial {number} is done")


def _share(done: int, most: int | None, spent: float, limit: float) -> float:
    """Of the budget that is spent: of that part of it of which more is."""
    by_trials = 0.0 if most is None else done / most
    return min(1.0, max(by_trials, spent / limit))


def _tried(
    number: int, values: Mapping[str, Any], report: Report | None, reason: str, seconds: float
) -> SearchTrial:
    if report is None:
        return SearchTrial(number, dict(values), reason=reason, seconds=seconds)
    low, high = normalised_interval(report.tasks)
    worst = min(report.tasks, key=share)
    size = float(report.lora["size"]) if report.lora else report.size
    return SearchTrial(
        number, dict(values), report.normalised_accuracy, low, high, share(worst), worst.name, size,
        seconds=seconds,
    )  # fmt: skip


def known_trials(study: Study) -> tuple[SearchTrial, ...]:
    """The trials that the journal holds."""
    names = {one.name for one in fields(SearchTrial)}
    with parsing("journal of the search", "trials as a search writes them", "Name another file."):
        return tuple(
            typed(SearchTrial, {name: value for name, value in record.items() if name in names})
            for record in study.records
        )


def _key(values: Mapping[str, Any]) -> str:
    return repr(sorted(values.items()))
