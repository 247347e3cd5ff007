"""How many iterations K-FAC merging needs to one error of its update, layer by layer."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from mats_core.linear import Solution
from mats_core.methods import KfacOptions, Layer, kfac

from .base import Line, Row, threads
from .iterations import families, layers_of
from .kfac import double

ERROR = 0.02  # of the update, ‖W − W*‖ / ‖W* − W₀‖
GOAL = 10
LIMIT = 300
ENOUGH = {True: 60, False: 12}  # square or not: times our iterations, where plain CG is stopped
MOST = 2000  # iterations that the option allows
LOOKS = 150  # of plain CG's iterates, so many are looked at
SETTINGS: dict[str, Any] = {"tolerance": 0.0}  # stopped by the error alone
# The inverses of the mean factors (square layers only: plain CG is slow on others), and the bases
# of all factors.
WAYS: dict[str, dict[str, Any]] = {"": {}, ", joint bases": {"preconditioner": "joint"}}


@dataclass(frozen=True)
class Way:
    """One layer solved in one way.

    ours     iterations to an update within `ERROR` of the solution's
    theirs   plain CG's, or where it was stopped
    stopped  whether plain CG was stopped before it was as near
    chosen   iterations after which the rule on the estimated error stops
    true     the error there
    rounded  the error of our update where float32 can do no more
    exactly  whether both were counted in float64, because of that
    """

    ours: int
    theirs: int
    stopped: bool
    chosen: int
    true: float
    rounded: float
    exactly: bool

    @property
    def ratio(self) -> float:
        return self.theirs / max(self.ours, 1)


def solved(layer: Layer, keep: Sequence[int], **options: Any) -> Solution:
    """A solve of one layer, with the iterates of `keep`."""
    asked = KfacOptions.model_validate({**SETTINGS, "iterations": max(keep), **options})
    solution = kfac(replace(layer, keep=tuple(keep)), asked).solution
    assert solution is not None
    return solution


def errors_of(solution: Solution, truth: Tensor, base: Tensor) -> dict[int, float]:
    """Iteration → relative error of the update, of the iterates that were kept."""
    size = float((truth - base).norm())
    return {
        step: float((x.double() - truth).norm()) / size for step, x in solution.iterates.items()
    }


def first(errors: Mapping[int, float]) -> int | None:
    """The first iteration that is near enough."""
    return min((step for step, error in errors.items() if error <= ERROR), default=None)


def compared(layer: Layer) -> dict[str, Way]:
    """Ways of solving one layer, against plain CG from task arithmetic; the truth is float64's.

    Where rounding in float32 leaves more than `ERROR`, both are counted in float64.
    """
    rows, columns = layer.base.shape
    wide = double(layer)
    exact = solved(wide, (LIMIT,), preconditioner="joint", tolerance=1e-11)
    truth, base = exact.value, wide.base
    square = rows == columns
    ways = {name: how for name, how in WAYS.items() if square or how}
    converged = solved(layer, range(61), preconditioner="joint")
    rounded = min(errors_of(converged, truth, base).values())
    exactly = rounded > ERROR
    layer = wide if exactly else layer
    needed: dict[str, tuple[int, int, float]] = {}
    for name, how in ways.items():
        errors = errors_of(solved(layer, range(61), **how), truth, base)
        chosen = solved(layer, range(61), error=ERROR, **how)
        step = first(errors)
        assert step is not None, f"not within {ERROR:.0%} after {max(errors)} iterations"
        needed[name] = step, chosen.iterations, errors[min(chosen.iterations, max(errors))]
    most = min(MOST, ENOUGH[square] * max(step for step, _, _ in needed.values()))
    kept = range(0, most + 1, max(1, most // LOOKS))
    plain = solved(layer, [*kept, most], preconditioner="none", start="task_arithmetic")
    near = first(errors_of(plain, truth, base))
    theirs = near if near is not None else most
    return {
        name: Way(step, theirs, near is None, chosen, true, rounded, exactly)
        for name, (step, chosen, true) in needed.items()
    }


def run() -> Sequence[Line]:
    lines = []
    for family, folder in families().items():
        found: dict[str, list[Way]] = {}
        with threads(1):
            for layer in layers_of(folder):
                square = "square layers" if len(set(layer.base.shape)) == 1 else "other layers"
                for name, way in compared(layer).items():
                    found.setdefault(f"{square}{name}", []).append(way)
        lines += [_line(f"{family} family, {what}", ways) for what, ways in found.items()]
    return lines


def _line(case: str, ways: Sequence[Way]) -> Line:
    ratios = [way.ratio for way in ways]
    return Line(
        case=f"{case}, update within {100 * ERROR:g} %",
        ours=statistics.median(way.ours for way in ways),
        theirs=statistics.median(way.theirs for way in ways),
        unit="iterations",
        goal=GOAL,
        checks={
            "layers": len(ways),
            "plain CG stopped before it was as near": sum(way.stopped for way in ways),
            "counted in float64": sum(way.exactly for way in ways),
            "largest error that float32 leaves": max(way.rounded for way in ways),
            "smallest ratio": min(ratios),
            "median ratio": statistics.median(ratios),
            "largest error where the estimate stops": max(way.true for way in ways),
            "smallest error where the estimate stops": min(way.true for way in ways),
            "median iterations where the estimate stops": statistics.median(
                way.chosen for way in ways
            ),
        },
        least=min(ratios),
        note="Plain CG is stopped at 60 times our iterations on square layers, at 12 times on "
        "others, and after 2,000: ratios of those that it did not finish are lower bounds.",
    )


ROWS = (
    Row(
        "kfac-error",
        "K-FAC by CG: iterations to an update within 2 % of the solution's",
        "plain CG from task arithmetic, the same damped system",
        run,
        minutes=3,
    ),
)
