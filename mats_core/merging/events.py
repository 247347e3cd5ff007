"""What a merge says while it runs, beside measuring and testing; `Finished` is the last event."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from ..evaluation import TaskResult
from ..system import Event
from .report import LayerReport, Report, Trial


@dataclass(frozen=True)
class Started(Event):
    """The preflight is over; `total` layers will be merged."""

    total: int
    device: str
    reason: str


@dataclass(frozen=True)
class Iteration(Event):
    """The solve under way in a layer has made another step; `residual` is relative."""

    layer: str
    iteration: int
    residual: float


@dataclass(frozen=True)
class LayerDone(Event):
    """One layer is merged; `iterates` holds what `keep` asked for."""

    layer: LayerReport
    index: int
    total: int
    iterates: Mapping[int, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskDone(Event):
    """One task is evaluated."""

    result: TaskResult
    index: int
    total: int


@dataclass(frozen=True)
class TrialDone(Event):
    """One point of a search is evaluated."""

    trial: Trial
    index: int
    total: int


@dataclass(frozen=True)
class RoundDone(Event):
    """Round `index` of `total` is merged; statistics are measured there (`Measuring`), and the next
    round follows."""

    index: int
    total: int


@dataclass(frozen=True)
class Finished(Event):
    """The end.  `tensors` is the merged encoder where nothing was written to disk."""

    report: Report
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
