"""What a merge says while it runs, beside measuring and testing; `Finished` is the last event."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from ..evaluation import TaskResult
from ..system import Event
from .chosen import ChosenInputs
from .plan import Inputs
from .refined import Epoch
from .report import LayerReport, Report, Trial


@dataclass(frozen=True)
class Started(Event):
    """An event: the preflight is over, and merging begins.

    total    number of layers that will be merged
    device   where the arithmetic runs
    reason   why this device was chosen, in words
    """

    total: int
    device: str
    reason: str


@dataclass(frozen=True)
class Examined(Event):
    """An event: experts and base are tested on their tasks, before the first layer is merged.

    notes   what users should know about experts and tasks, a sentence each; the report keeps them
    """

    notes: tuple[str, ...]


@dataclass(frozen=True)
class InputsChosen(Event):
    """An event: an expert has its calibration inputs, before the first layer is calibrated.

    chosen   which they are, and how sure the choice is; the report keeps it
    """

    chosen: ChosenInputs


@dataclass(frozen=True)
class Iteration(Event):
    """An event: the solve under way in a layer has made another step.

    layer       name of the layer's tensor
    iteration   number of the step
    residual    ‖b − K X‖ / ‖b‖ after it
    """

    layer: str
    iteration: int
    residual: float


@dataclass(frozen=True)
class LayerDone(Event):
    """An event: one layer is merged.

    layer      what happened to it
    index      its number, from 0 on
    total      number of layers
    iterates   iteration → W, for the CG iterations that `keep` asked for
    """

    layer: LayerReport
    index: int
    total: int
    iterates: Mapping[int, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskDone(Event):
    """An event: one task is evaluated.

    result   scores of the merged, the fine-tuned and the pre-trained model
    index    number of the task, from 0 on
    total    number of tasks
    """

    result: TaskResult
    index: int
    total: int


@dataclass(frozen=True)
class TrialDone(Event):
    """An event: one point of a search is evaluated.

    trial   the options tried, and the accuracy that they reached
    index   number of the point, from 0 on
    total   number of points
    """

    trial: Trial
    index: int
    total: int


@dataclass(frozen=True)
class RoundDone(Event):
    """An event: one round is merged, and statistics are measured at the merge for the next.

    index   number of the merged round, from 1 on
    total   number of rounds
    """

    index: int
    total: int


@dataclass(frozen=True)
class EpochDone(Event):
    """An event: one epoch of refining is done; number 0 is the merge before it.

    epoch   its losses, and what it reaches on validation rows
    total   number of epochs, at most
    """

    epoch: Epoch
    total: int


@dataclass(frozen=True)
class Finished(Event):
    """The last event of a merge.

    report    what happened to every tensor, and the scores on the tasks
    tensors   the merged encoder by the base's names; empty where it was written to disk
    inputs    the base, the experts and their statistics, as they were opened
    branches  of a routed merge, by their names beside the weights (`models.routing`)
    """

    report: Report
    tensors: Mapping[str, Tensor]
    inputs: Inputs = field(repr=False)
    branches: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
