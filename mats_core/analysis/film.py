"""Sequential calibration as a film: feature error and accuracy after every block.

A frame is the merge with its first blocks calibrated, and the start merge from there on: the state
in which the walk through the model was at this place.  Layers outside of the blocks keep what the
start gave them, so that the first frame is the start merge and the last one the finished merge.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from .. import models
from ..errors import InputError
from ..evaluation import TaskResult, examining, normalised_accuracy
from ..merging import streams_budget, walking_beside
from ..methods import METHODS
from ..names import bias_of
from ..recipes import FeatureErrors, Inputs, Recipe, Report, prepare
from ..statistics import room
from ..system import Event, part
from ..tasks import SplitName

WALKED, ASKED = 0.25, 0.3  # of the whole: the start beside the experts, and these on their tasks


@dataclass(frozen=True)
class Frame:
    """The merge after so many blocks, on every task.

    block     how many blocks are calibrated; 0 is the start merge
    results   of every task
    """

    block: int
    results: tuple[TaskResult, ...]

    @property
    def normalised_accuracy(self) -> float:
        """The mean over tasks of merged / expert accuracy."""
        return normalised_accuracy(self.results)


@dataclass(frozen=True)
class FrameDone(Event):
    """Event: `frame` is tested."""

    frame: Frame


@dataclass(frozen=True)
class Film:
    """The frames of a calibration.

    frames       one for each block, from the start merge to the finished one
    calibrated   feature errors of the finished merge, as they were measured on its way
    started      those of the start merge, on the same inputs
    split        that was tested on, and
    examples     at most so many of it a task
    """

    frames: tuple[Frame, ...]
    calibrated: FeatureErrors
    started: FeatureErrors
    split: str
    examples: int | None = None


def filming(
    recipe: Recipe,
    report: Report,
    merged: Mapping[str, Tensor],
    *,
    inputs: Inputs,
    split: SplitName = "validation",
    examples: int | None = 200,
) -> Generator[Event, None, Film]:
    """Events of a calibration that is tested block by block, and a `FrameDone` after each; returns
    the film.

    recipe   of the merge
    report   of the merge
    merged   its tensors

    Nothing is solved again.  Raises `InputError` for a method that does not calibrate, a report
    without feature errors, or a family without tasks.
    """
    recorded = FeatureErrors.recorded(report)
    if not METHODS[recipe.method].calibrates or recorded is None:
        raise InputError(
            "calibration block by block",
            expected="a merge by 'sequential' whose report has feature errors",
            found=f"one by '{recipe.method}'" if recorded is None else "another recipe",
            remedy="Merge again with 'sequential', which measures them on its way.",
        )
    if not any(expert.task for expert in inputs.family.experts):
        raise InputError("calibration block by block", expected="tasks", found="none")
    start, started = yield from part(walking_beside(prepare(recipe, inputs)), 0.0, WALKED)
    assert started is not None
    exam = yield from part(examining(inputs.family, recipe.folder, split, examples), WALKED, ASKED)
    frames: list[Frame] = []
    with room(streams_budget()) as kept:
        again = models.Again(kept)
        for block in range(len(recorded.streams)):
            low, high = (ASKED + (1 - ASKED) * (block + k) / len(recorded.streams) for k in (0, 1))
            encoder = assemble(start, merged, recorded, block)
            # What lies in front of the block that the next frame changes runs once.
            written = assemble({}, merged, recorded, block + 1).keys()
            fixed = assemble({}, merged, recorded, block).keys()
            again.changing = frozenset(
                expert.own(name) for expert in inputs.family.experts for name in written - fixed
            )
            said = f"{block} of {len(recorded.streams) - 1} blocks calibrated: {{}}"
            results = yield from part(exam.take(encoder, again=again), low, high, said)
            frames.append(Frame(block, tuple(results)))
            yield FrameDone(frames[-1], fraction=high, text=said.format("tested"))
    return Film(tuple(frames), recorded, started, split, examples)


def assemble(
    start: Mapping[str, Tensor], merged: Mapping[str, Tensor], errors: FeatureErrors, blocks: int
) -> dict[str, Tensor]:
    """The tensors of a merge whose first blocks are calibrated, and the start's from there on."""
    tensors = dict(start)
    for stage in errors.stages:
        if stage.block < blocks:
            tensors |= {name: merged[name] for name in _written(stage.layers, merged)}
    return tensors


def _written(layers: Sequence[str], merged: Mapping[str, Tensor]) -> list[str]:
    """Weights and their biases."""
    return [n for layer in layers for n in (layer, bias_of(layer)) if n in merged]
