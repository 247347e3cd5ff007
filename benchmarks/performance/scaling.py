"""How cost grows, and whether it was foretold: exponents by method, and estimates against runs."""

from __future__ import annotations

import ctypes
import re
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mats_core.estimating import estimate
from mats_core.merging import pipeline
from mats_core.methods import METHODS, Layer, Shape, options_of_the_base
from mats_core.recipes import FamilyFile, load_family, measure_all, open_inputs
from mats_core.system import speeds as machine

from . import drawn
from .base import Line, Row, timed
from .iterations import families

WITHIN = 1.5
LONG = 5.0  # seconds of a run that is not repeated
PRIOR = 1e-6  # a number in place of the base's statistics where the base was not measured
SIZES = (192, 384, 768)
COUNTS = (3, 6, 12)  # two models take the closed form
ITERATIONS = (10, 20, 40)
FIXED = {"kfac": {"iterations": 10, "tolerance": 0.0},
         "kfac_matching": {"iterations": 10, "tolerance": 0.0}}  # fmt: skip
GROWING = ("average", "task_arithmetic", "ties", "dare", "regmean", "kfac", "kfac_matching",
           "tsv_m", "iso_c", "iso_cts", "essential")  # fmt: skip


# Exponents ----------------------------------------------------------------------------------------


def exponents() -> Sequence[Line]:
    """Seconds over size, tasks and iterations of one layer, measured and by the cost model."""
    speeds = machine.rates("cpu")
    lines = []
    for name in GROWING:
        options = FIXED.get(name, {})
        points = [(size, 4, dict(options)) for size in SIZES]
        lines.append(_fitted(name, "d", list(SIZES), points, speeds))
        points = [(SIZES[1], count, dict(options)) for count in COUNTS]
        lines.append(_fitted(name, "M", list(COUNTS), points, speeds))
        if "iterations" in options:
            points = [(SIZES[1], 4, {**options, "iterations": i}) for i in ITERATIONS]
            lines.append(_fitted(name, "iterations", list(ITERATIONS), points, speeds))
    return lines


def _fitted(
    name: str, axis: str, values: Sequence[int], points: Sequence[tuple[int, int, dict[str, Any]]],
    speeds: machine.Rates,
) -> Line:  # fmt: skip
    seconds, foretold, held, counted = [], [], [], []
    for size, tasks, options in points:
        layer = drawn.layer(drawn.Wideness(size, size, tasks))
        took, peak = _best(name, layer, options)
        cost = METHODS[name].cost(_shape(layer), METHODS[name].options.model_validate(options))
        seconds.append(took)
        foretold.append(speeds.seconds(cost.work))
        held.append(peak)
        counted.append(cost.nbytes)
    return Line(
        case=f"{name}, over {axis} = {', '.join(map(str, values))}",
        ours=slope(values, seconds),
        theirs=None,
        unit="exponent",
        checks={
            "exponent of the cost model": slope(values, foretold),
            "seconds at the largest": seconds[-1],
            "seconds foretold": foretold[-1],
            "MB at the largest": held[-1] / 1e6,
            "MB foretold": counted[-1] / 1e6,
            "exponent of memory": slope(values, held) if min(held) > 0 else float("nan"),
            "exponent of memory foretold": slope(values, counted),
        },
    )


def slope(values: Sequence[float], measured: Sequence[float]) -> float:
    """The exponent b of a power law a xᵇ through the points, by least squares of logarithms."""
    return round(float(np.polyfit(np.log(values), np.log(measured), 1)[0]), 3) + 0.0  # no −0


def _shape(layer: Layer) -> Shape:
    kinds = frozenset({"input_gram", "output_gradient_gram"})
    return Shape(tuple(layer.base.shape), len(layer.experts), "float32", True, kinds)


def _best(name: str, layer: Layer, options: dict[str, Any]) -> tuple[float, float]:
    """Seconds (the best of three) and bytes held at the peak beside the layer."""
    method = METHODS[name]
    chosen = method.options.model_validate(options)
    survey = method.survey(lambda: [layer], chosen) if method.survey else None

    def work() -> object:
        return method.merge(layer, chosen, survey)

    work()
    with peak_memory() as peak:
        first = timed(work)[0]
    return min(first, *(timed(work)[0] for _ in range(2))), peak()


class peak_memory:
    """`with peak_memory() as peak: …`, then `peak()` → bytes beyond what was held before.

    Linux forgets the largest resident set when it is told to; elsewhere this is 0.
    """

    def __enter__(self) -> Callable[[], float]:
        try:
            # What the allocator kept of earlier work would be used again unseen.
            ctypes.CDLL(None).malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")
        except (OSError, AttributeError):
            return lambda: 0.0
        self.before = _kept("VmRSS")
        return lambda: max(0.0, _kept("VmHWM") - self.before)

    def __exit__(self, *exception: object) -> None:
        pass


def _kept(field: str) -> float:
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return float(found[1]) * 1024 if found else 0.0


# Estimates ----------------------------------------------------------------------------------------


def foretold() -> Sequence[Line]:
    """Every method on every family: the seconds that the page shows, against those it took."""
    lines = []
    for name, folder in families().items():
        collection = load_family(folder)
        files = measure_all(collection)
        lines += [_held(name, method, collection, files) for method in _possible()]
    return lines


def _possible() -> Iterator[str]:
    for name, method in METHODS.items():
        if method.experts is None:
            yield name


def _held(family: str, method: str, collection: FamilyFile, files: dict[str, Path]) -> Line:
    # Its default prior is the base's own Fisher, which not every family has data for.
    asked = options_of_the_base(method, METHODS[method].options().model_dump())
    options = {field.name: PRIOR for field in asked if "base" not in files}
    recipe = collection.recipe(method, options, statistics=files, evaluate=False)
    inputs = open_inputs(recipe)
    expected = estimate(inputs, recipe, speeds=machine.measured_rates("cpu"))
    took, held = [], 0.0
    for _ in range(3):
        with peak_memory() as peak:
            seconds, report = timed(lambda: _merged(recipe, inputs))
        took.append(seconds)
        held = max(held, peak())
        del report
        if seconds > LONG:
            break
    measured = statistics.median(took)
    return Line(
        case=f"{family}: {method}",
        ours=max(measured, expected.seconds),
        theirs=min(measured, expected.seconds),
        goal=WITHIN,
        at_most=True,
        checks={
            "seconds measured": measured,
            "seconds foretold": expected.seconds,
            "MB measured": held / 1e6,
            "MB foretold": expected.memory_bytes / 1e6,
        },
    )


def _merged(recipe: Any, inputs: Any) -> Any:
    return pipeline.merge(recipe, inputs=inputs)


ROWS = (
    Row(
        "scaling",
        "How seconds and bytes grow with d, M and iterations",
        "the cost model",
        exponents,
        minutes=2,
    ),
    Row(
        "estimate",
        "The estimate before a run",
        "the run (the larger of both over the smaller)",
        foretold,
        minutes=1.5,
    ),
)
