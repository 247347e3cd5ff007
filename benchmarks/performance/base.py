"""A row of the performance table: what is measured, against what, and what came out."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True)
class Line:
    """One case of a row.

    case     what is special about it: shapes, threads, residual
    ours     the median of our way, in `unit`
    theirs   the median of what it is compared with; None where there is nothing to compare
    goal     what theirs / ours should reach; with `at_most`, what ours / theirs must not exceed
    checks   how far both answers are apart, and what else must hold: name → number
    note     a sentence for the reader, such as the reason of a miss
    least    the smallest ratio, where a case has several: the goal is one for each of them
    """

    case: str
    ours: float
    theirs: float | None
    unit: str = "s"
    goal: float | None = None
    at_most: bool = False
    checks: Mapping[str, float] = field(default_factory=dict)
    note: str = ""
    least: float | None = None

    @property
    def ratio(self) -> float | None:
        """How many times better ours is, or (`at_most`) how many times as much it takes."""
        if self.theirs is None:
            return None
        one, other = (self.ours, self.theirs) if self.at_most else (self.theirs, self.ours)
        return one / other if other else float("inf")

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None where there is none."""
        if self.ratio is None or self.goal is None:
            return None
        ratio = self.ratio if self.least is None else self.least
        return ratio <= self.goal if self.at_most else ratio >= self.goal


@dataclass(frozen=True)
class Row:
    """One row: `run` measures it and returns its lines.

    work, against   as in the table
    minutes         what it takes on two cores, for whoever has to wait
    needs           a file, package or device that it cannot do without; "" for none
    """

    name: str
    work: str
    against: str
    run: Callable[[], Sequence[Line]]
    minutes: float
    needs: str = ""


class CannotRun(Exception):
    """A row that cannot be measured here, and why: no such package, file or device."""


def in_turns(
    ours: Callable[[], Any],
    theirs: Callable[[], Any],
    *,
    repeats: int = 3,
    device: str = "cpu",
    warm: bool = True,
) -> tuple[float, float, Any, Any]:
    """Median seconds of both, and what both returned last; a warm-up first, then in turns.

    Without `warm` even the first run counts: for what takes long.
    """
    if warm:
        ours(), theirs()
    runs: tuple[list[tuple[float, Any]], list[tuple[float, Any]]] = ([], [])
    for _ in range(repeats):
        for kept, work in zip(runs, (ours, theirs), strict=True):
            kept.append(timed(work, device))
    one, other = (statistics.median(seconds for seconds, _ in kept) for kept in runs)
    return one, other, runs[0][-1][1], runs[1][-1][1]


def timed(work: Callable[[], Any], device: str = "cpu") -> tuple[float, Any]:
    """Wall seconds of one call, and what it returned."""
    _wait(device)
    begun = time.perf_counter()
    found = work()
    _wait(device)
    return time.perf_counter() - begun, found


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()  # a GPU answers before it is done


@contextmanager
def threads(count: int):
    """Arithmetic with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def relative(value: torch.Tensor, reference: torch.Tensor) -> float:
    """‖value − reference‖ / ‖reference‖, in float64."""
    reference = reference.double()
    return float((value.double() - reference).norm() / reference.norm())
