"""How many directions of its layers' inputs a calibration's examples decide.

Least squares over the tokens of a few examples has no answer along a direction that no token has:
there the damping decides, which draws to each expert.  The count is the effective dimension of the
input Gram A at the run's damping δ, Σ λ / (λ + δ λ̄), which the merge has put into its report.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from ..methods import DECIDED, INPUT_WIDTH, STEADIED
from ..recipes import Report


@dataclass(frozen=True)
class Decided:
    """What the examples of a calibration decide of one layer's inputs, as shares of its width.

    name       the layer's weight
    width      its inputs, with the bias's
    alone      by the examples alone, one an expert
    steadied   with the update's share of the Gram; empty where the run had none
    """

    name: str
    width: int
    alone: tuple[float, ...]
    steadied: tuple[float, ...] = ()


def decided(report: Report) -> tuple[Decided, ...]:
    """The shares of every calibrated layer, in the order of the walk; none of other reports."""
    there = [layer for layer in report.layers if DECIDED in layer.details]
    there.sort(key=lambda la: (la.details.get("block", 0), la.details.get("stage", 0)))
    return tuple(
        Decided(
            layer.name,
            int(layer.details[INPUT_WIDTH]),
            *(
                tuple(value / layer.details[INPUT_WIDTH] for value in layer.details.get(kind, ()))
                for kind in (DECIDED, STEADIED)
            ),
        )
        for layer in there
    )


def usual_share(found: Sequence[Decided], *, steadied: bool = False) -> float | None:
    """The median share over layers and experts; None where it was not recorded."""
    values = [share for one in found for share in (one.steadied if steadied else one.alone)]
    return median(values) if values else None
