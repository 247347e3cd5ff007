"""How far a merge's features are from each expert's, along the blocks of the model.

    e = ‖x_s − x_e‖² / ‖x_e‖²   of one expert, over all tokens of its calibration inputs, with x_s
                                what lies between two blocks of the merge, x_e of the expert

What sequential calibration measures on its way lies in the details of the layers that it solved,
where a merge that goes on finds it again: `FeatureErrors.recorded` reads it from a report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .report import LayerReport, Report

# Of a calibrated layer's details: where it stands, from 0 on; the errors of its inputs by expert;
# and those in front of its block and behind it, which the layers of a block's last stage have.
BLOCK, STAGE, INPUTS, STREAMS = "block", "stage", "input_errors", "stream_errors"


@dataclass(frozen=True)
class StageErrors:
    """The feature errors of the inputs of layers that are matched together.

    block    of the model, from 0 on
    stage    of the block, from 0 on
    layers   their weights
    errors   expert → e
    """

    block: int
    stage: int
    layers: tuple[str, ...]
    errors: Mapping[str, float]


@dataclass(frozen=True)
class FeatureErrors:
    """The feature errors of a merge in front of its first block, and behind every block.

    experts   their names
    streams   one row a place, in front of the first block and behind each; one column an expert
    stages    those of the inputs of each stage; empty where nothing was calibrated
    """

    experts: tuple[str, ...]
    streams: tuple[tuple[float, ...], ...]
    stages: tuple[StageErrors, ...] = ()

    @property
    def means(self) -> tuple[float, ...]:
        """The mean over the experts at every place."""
        return tuple(sum(row) / len(row) for row in self.streams)

    @property
    def first_block(self) -> tuple[StageErrors, ...]:
        """The stages of the first block."""
        return tuple(stage for stage in self.stages if stage.block == 0)

    @classmethod
    def of(
        cls, rows: Sequence[Mapping[str, float]], stages: Sequence[StageErrors] = ()
    ) -> FeatureErrors | None:
        """Errors by expert at every place; None where they were measured at none."""
        if not rows or not all(rows):
            return None
        experts = tuple(rows[0])
        table = tuple(tuple(float(row[name]) for name in experts) for row in rows)
        return cls(experts, table, tuple(stages))

    @classmethod
    def recorded(cls, report: Report) -> FeatureErrors | None:
        """The feature errors that a merge has measured on its way; None of another method's report,
        of an older one, and where the whole model is one block."""
        layers = [layer for layer in report.layers if BLOCK in layer.details]
        grouped: dict[tuple[int, int], list[LayerReport]] = {}
        for layer in layers:
            grouped.setdefault((layer.details[BLOCK], layer.details[STAGE]), []).append(layer)
        stages = [
            StageErrors(*place, tuple(one.name for one in group), dict(group[0].details[INPUTS]))
            for place, group in sorted(grouped.items())
        ]
        ends: dict[int, Any] = {
            la.details[BLOCK]: la.details[STREAMS] for la in layers if STREAMS in la.details
        }
        if not ends or sorted(ends) != list(range(len(ends))):
            return None
        return cls.of([ends[0][0], *(ends[number][1] for number in sorted(ends))], stages)
