"""What a merge says while it runs; `Finished` is the last event."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from ..evaluation import Asked, TaskResult
from .report import LayerReport, Report, Trial
from .rounds import Measuring


@dataclass(frozen=True)
class Started:
    """The preflight is over; `total` layers will be merged."""

    total: int
    device: str
    reason: str


@dataclass(frozen=True)
class LayerDone:
    """One layer is merged; `iterates` holds what `keep` asked for."""

    layer: LayerReport
    index: int
    total: int
    iterates: Mapping[int, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskDone:
    """One task is evaluated."""

    result: TaskResult
    index: int
    total: int


@dataclass(frozen=True)
class TrialDone:
    """One point of a search is evaluated."""

    trial: Trial
    index: int
    total: int


@dataclass(frozen=True)
class RoundDone:
    """Round `index` of `total` is merged; statistics are measured there (`Measuring`), and the next
    round follows."""

    index: int
    total: int


@dataclass(frozen=True)
class Finished:
    """The end.  `tensors` is the merged encoder where nothing was written to disk."""

    report: Report
    tensors: Mapping[str, Tensor] = field(default_factory=dict)


Event = Started | LayerDone | RoundDone | Measuring | Asked | TaskDone | TrialDone | Finished
