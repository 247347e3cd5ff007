"""The explorer's page: from a knob to its number, and what one session waits for another's work.

The app's own work functions and its one worker, in this process, on the sample family with its
statistics measured.  A setting is tested as the page tests it: at first until half the 95 %
interval is at most 3 points.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mats_core.evaluation import QUICK, exam, half_width
from mats_core.methods import METHODS
from mats_core.recipes import TRIED, load_family
from mats_core.system import drain
from pages.shared.work import Desk, Job, Prepared, Request, Worker, merge, prepare

from .base import Line, Row

SAMPLE = Path(__file__).resolve().parents[2] / "sample_models" / "drawn"
TURNS = 7  # settings of a knob; and short merges beside a K-FAC
WAIT = 300.0  # seconds after which a job that has not ended is a failure
LATER = (0.05, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2)  # seconds after which the other session comes
Knob = Callable[[int], Mapping[str, Any]]
# Method, knob, and the goal in CPU seconds.
KNOBS: Mapping[str, tuple[str, Knob, float]] = {
    "task arithmetic, scaling": ("task_arithmetic", lambda i: {"scaling": 0.3 + 0.02 * i}, 0.3),
    "TIES, density": ("ties", lambda i: {"density": 0.2 + 0.05 * i}, 0.3),
    "RegMean, damping": ("regmean", lambda i: {"damping": 0.01 * (i + 1)}, 0.3),
    "K-FAC with 50 iterations, damping": (
        "kfac", lambda i: {"damping": 0.05 + 0.01 * i, "iterations": 50}, 1.2,
    ),
    "ESM, scaling": ("essential", lambda i: {"scaling": 1 + 0.05 * i}, 0.4),
}  # fmt: skip


@contextlib.contextmanager
def opened() -> Iterator[Prepared]:
    """The sample family, prepared; runs are kept in a folder that goes with the row."""
    before = os.environ.get("MATS_RESULTS")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MATS_RESULTS"] = folder
        try:
            yield prepare.prepare(load_family(SAMPLE), "benchmark", silent)
        finally:
            os.environ.pop("MATS_RESULTS")
            if before is not None:
                os.environ["MATS_RESULTS"] = before


def silent(fraction: float, text: str, partial: object = None) -> None:
    """Nobody watches."""


def asked(prepared: Prepared, method: str, **options: Any) -> Request:
    """What the page asks, whose widgets begin with the method's own beginning."""
    names = tuple(expert.name for expert in prepared.collection.experts)
    options = {**METHODS[method].exploring, **options}
    return Request(prepared.collection, method, options, names, precision=QUICK)


def knobs() -> Sequence[Line]:
    """CPU seconds from a knob to its number, when the setting before it was tested to its end."""
    torch.set_num_threads(1)
    with opened() as prepared:
        return [_knob(prepared, case, *how) for case, how in KNOBS.items()]


def _knob(prepared: Prepared, case: str, method: str, knob: Knob, goal: float) -> Line:
    def ready() -> Prepared:
        return prepared

    first = asked(prepared, method, **knob(0))
    whole = merge.merge(first, ready, silent)
    merge.refine(first, whole, ready, silent)
    cpu, wall, widths, examples, solving = [], [], [], [], []
    for turn in range(1, TURNS + 1):
        request = asked(prepared, method, **knob(turn))
        begun = time.process_time(), time.perf_counter()
        report = merge.merge(request, ready, silent, carried=True).report
        cpu.append(time.process_time() - begun[0])
        wall.append(time.perf_counter() - begun[1])
        widths.append(100 * half_width(report.tasks))
        examples.append(sum(result.merged.examples for result in report.tasks))
        solving.append(sum(layer.seconds for layer in report.layers))
    rate = _forward_rate(prepared)
    checks = {
        "wall, s": statistics.median(wall), "layers, wall, s": statistics.median(solving),
        "examples": statistics.median(examples), "± points, at most": max(widths),
        "forwards at the rate of all examples, CPU s": statistics.median(examples) * rate,
    }  # fmt: skip
    return Line(
        case, statistics.median(cpu), goal, unit="CPU s", goal=1, at_most=True, checks=checks
    )


def _forward_rate(prepared: Prepared) -> float:
    """CPU seconds of an example where all of them are asked at once."""
    found = exam(prepared.inputs.family, prepared.collection.folder, TRIED.split)
    base = prepared.inputs.family.base
    encoder = {name: base.read(name) for name in base.tensors}
    begun = time.process_time()
    results = drain(found.take(encoder), lambda event: None)
    return (time.process_time() - begun) / sum(result.merged.examples for result in results)


def fairness() -> Sequence[Line]:
    """Seconds from a press to the number, of a short merge while others' K-FAC merges run."""
    with opened() as prepared:
        worker = Worker()
        ready = Job(None, "The family", lambda tell: prepared)
        _ended(Desk(worker).submit(ready))
        for method in ("kfac", "task_arithmetic"):  # what a first merge remembers, it remembers
            first = Desk(worker).submit(_job(prepared, ready, method, 0))
            _ended(first)
            if first.next is not None:  # a quick test starts from what was tested to its end
                _ended(first.next)
        lines = [
            _beside(worker, prepared, ready, "alone", 0, 1.0),
            _beside(worker, prepared, ready, "beside another session's K-FAC", 1, 1.0),
            _beside(worker, prepared, ready, "tenth session beside nine of K-FAC", 9, 2.0),
        ]
        worker.end()
    return lines


def _job(prepared: Prepared, ready: Job, method: str, turn: int) -> Job:
    """The job of a setting that was not asked before."""
    options = {"scaling": 0.2 + 0.001 * turn}
    if method == "kfac":
        options = {"damping": 0.05 + 0.0005 * turn, "iterations": 50}
    return merge.job(asked(prepared, method, **options), ready)


def _beside(
    worker: Worker, prepared: Prepared, ready: Job, case: str, others: int, goal: float
) -> Line:
    wall, cpu, under_way = [], [], 0
    for turn, later in enumerate(LATER, 1):
        number = 100 * others + turn * 10
        busy = [_job(prepared, ready, "kfac", number + n) for n in range(others)]
        for job in busy:
            Desk(worker).submit(job)
        if busy:
            time.sleep(later)
        short = _job(prepared, ready, "task_arithmetic", number)
        under_way += any(job.snapshot().state == "running" for job in busy)
        begun = time.perf_counter(), time.process_time()
        _ended(Desk(worker).submit(short))
        wall.append(time.perf_counter() - begun[0])
        cpu.append(time.process_time() - begun[1])
        _rid_of([*busy, short])
    checks = {
        "longest, s": max(wall),
        "CPU s of the process meanwhile": statistics.median(cpu),
        "longest, CPU s": max(cpu),
        "times that a K-FAC was under way": under_way,
    }
    return Line(case, statistics.median(wall), goal, goal=1, at_most=True, checks=checks)


def _rid_of(jobs: Sequence[Job]) -> None:
    """End jobs and those that follow them."""
    for job in jobs:
        job.cancel()
    for job in jobs:
        if not job.wait(WAIT):
            raise TimeoutError(job.title)
        if job.next is not None:
            job.next.cancel()
            job.next.wait(WAIT)


def _ended(job: Job) -> None:
    if not job.wait(WAIT):
        raise TimeoutError(job.title)
    job.outcome()


ROWS = (
    Row("page", "The page, from a knob to its number (± 3 points)", "the goal in CPU seconds",
        knobs, minutes=0.4),
    Row("fairness", "A short merge beside other sessions' K-FAC merges (50 iterations)",
        "the goal in seconds", fairness, minutes=0.3),
)  # fmt: skip
