"""From which run a quick test starts, and the estimates that it made.

Estimates are held in memory alone, and stand where a run is looked at until the rest of its
examples are asked: what is kept on the disk are answers.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

from mats_core.evaluation import Before, TaskResult
from mats_core.recipes import TRIED, Report

from . import runs
from .runs import Run

MOST = 64  # runs whose estimates are held

_held: OrderedDict[tuple[str, str], tuple[TaskResult, ...]] = OrderedDict()
_changing = threading.Lock()


def before(family: str, method: str, experts: Sequence[str]) -> Before | None:
    """The newest run of these experts that was asked every example, of this method where there is
    one; None where there is no run."""
    whole = [run for run in runs.everything(family) if _is_whole(run, experts)]
    alike = [run for run in whole if run.recipe.method == method]
    newest = max(alike or whole, key=lambda run: (run.created, run.number), default=None)
    return None if newest is None else Before(newest.label, newest.report.tasks)


def _is_whole(run: Run, experts: Sequence[str]) -> bool:
    report = run.report
    names = [entry.name for entry in run.recipe.experts]
    tested = bool(report.tasks) and not report.left and report.split == TRIED.split
    return tested and names == list(experts) and not run.shipped


def hold(run: Run, report: Report) -> None:
    """Hold the estimates of a run that was tested quickly, where its report has some."""
    if not estimated_from(report):
        return
    with _changing:
        _held[_place(run)] = report.tasks
        _held.move_to_end(_place(run))
        while len(_held) > MOST:
            _held.popitem(last=False)


def with_estimates(run: Run) -> Run:
    """The run as it is looked at: with its estimates, while these are of all its answers."""
    with _changing:
        tasks = _held.get(_place(run), ())
    if not tasks or _answers(tasks) != _answers(run.report.tasks):
        return run
    return replace(run, report=replace(run.report, tasks=tasks))


def estimated_from(report: Report) -> str:
    """The label of the run from which the scores of a report were estimated; "" where they are
    plain answers."""
    found = (result.merged.carried for result in report.tasks)
    return next((carried.label for carried in found if carried is not None), "")


def _place(run: Run) -> tuple[str, str]:
    return str(runs.folder(run.family)), run.id


def _answers(tasks: Sequence[TaskResult]) -> list[tuple[str, str]]:
    return [(result.name, result.merged.answers) for result in tasks]
