"""The inputs that an expert chose for a calibration, found again in the worker."""

from __future__ import annotations

from collections.abc import Generator

from mats_core.merging import Event, planned, source_of
from mats_core.recipes import ChosenInputs
from mats_core.tasks import Split

from . import again
from .confusion import Ready
from .following import told
from .jobs import Tell
from .prepare import Prepared
from .runs import Run


def chosen(run: Run, expert: str) -> ChosenInputs | None:
    """What an expert took from a pile or a pool; None where it had its task's own examples, and of
    runs that have not recorded it."""
    found = next((one for one in run.report.inputs if one.expert == expert), None)
    return found if found is not None and any(one.scores for one in found.first) else None


def chosen_examples(run: Run, expert: str, ready: Ready, tell: Tell) -> tuple[Split, ...]:
    """The first inputs that an expert chose, each by itself, the surest first."""
    return told(_found(run, expert, ready()), tell)


def _found(run: Run, expert: str, prepared: Prepared) -> Generator[Event, None, tuple[Split, ...]]:
    recipe, inputs = again.opened(run, prepared)
    plan, there = planned(recipe, inputs), chosen(run, expert)
    assert there is not None
    sources: dict[str, Split] = {}
    for name in dict.fromkeys(one.source for one in there.first):
        yield Event(text="Reading the inputs again")
        sources[name] = source_of(plan, name)
    return tuple(sources[one.source].take(slice(one.row, one.row + 1)) for one in there.first)
