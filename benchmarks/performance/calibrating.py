"""Sequential calibration of the sample family, and its film, against the operations that it takes.

Counted are products alone, a multiplication and an addition each, at the rate of a product of such
sizes: nothing for norms, activations, attention, sums and copies.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from mats_core.analysis import filming
from mats_core.merging import run
from mats_core.recipes import FeatureErrors, Finished, Recipe, Report, load_family

from .base import Line, Row, threads

SAMPLE = Path(__file__).resolve().parents[2] / "sample_models" / "drawn"
TOKENS = 17  # of a picture
EXAMPLES = 256  # an expert, of which its layers are matched
ASKED = 200  # examples of a task that a frame of the film is tested on
PRODUCTS = 2  # of a solve with the operator, beside those of its iterations
Shapes = dict[str, tuple[int, int]]


def merging() -> Sequence[Line]:
    """CPU seconds of a merge and of its film, the second time in a process."""
    recipe = load_family(SAMPLE).recipe("sequential", {"examples": EXAMPLES})
    recipe = recipe.model_copy(update={"evaluate": False})
    with threads(1):
        _last(run(recipe))  # what a process imports and remembers
        merge, done = _timed(lambda: _last(run(recipe)))
        film, _ = _timed(lambda: _last(_film(recipe, done)))
        rate = _rate()
    shapes = _shapes(done)
    ours = _merge_operations(done.report, shapes, len(done.inputs.family.experts)) / rate
    film_floor = _film_operations(done.report, shapes, len(done.inputs.family.experts)) / rate
    note = (
        f"One thread, products at {rate / 1e9:.0f} GFLOP/s in the same run. Two cores that share "
        "the work evenly take half of the CPU seconds."
    )
    return [
        Line(f"the merge, {EXAMPLES} examples an expert", merge, ours, unit="CPU s",
             at_most=True, note=note),
        Line(f"its film, {ASKED} examples of a task a frame", film, film_floor, unit="CPU s",
             at_most=True, note=note),
    ]  # fmt: skip


def _last(events: Iterable[Any]) -> Any:
    """What a stream of events ends with."""
    return deque(events, maxlen=1)[0]


def _film(recipe: Recipe, done: Finished) -> Any:
    return filming(recipe, done.report, done.tensors, inputs=done.inputs, examples=ASKED)


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.process_time()
    found = work()
    return time.process_time() - begun, found


def _rate() -> float:
    """Operations a second of one layer of the model on a batch."""
    x, w = torch.randn(64 * TOKENS, 192), torch.randn(192, 768)
    seconds = [_timed(lambda: [x @ w for _ in range(20)])[0] / 20 for _ in range(15)]
    return 2 * x.shape[0] * w.numel() / statistics.median(seconds)


def _shapes(done: Finished) -> Shapes:
    """(d_out, d_in + 1) of every layer that is calibrated."""
    recorded = FeatureErrors.recorded(done.report)
    assert recorded is not None
    family = done.inputs.family
    names = [name for stage in recorded.stages for name in stage.layers]
    return {name: (family.shape(name)[0], family.shape(name)[1] + 1) for name in names}


def forward(shapes: Shapes) -> float:
    """Operations of one picture in one model."""
    return 2.0 * TOKENS * sum(m * n for m, n in shapes.values())


def _merge_operations(report: Report, shapes: Shapes, experts: int) -> float:
    recorded = FeatureErrors.recorded(report)
    assert recorded is not None
    tokens = TOKENS * EXAMPLES * experts
    sums = 0.0
    for stage in recorded.stages:
        m, n = shapes[stage.layers[0]]
        lost = "stream corrected" in _layer(report, stage.layers[0]).status
        sums += n * n + 2.0 * (m * n if lost else n * n)  # half of the Gram, and the target
    solves = 0.0
    for name, (m, n) in shapes.items():
        left = min(2 * m * m, 4 * m * n) * n  # in factors, where that is less
        applied = experts * (left + 2.0 * m * n * n)
        inverse = 2.0 * m * m * n + 2.0 * m * n * n
        iterations = _layer(report, name).iterations
        solves += (iterations + PRODUCTS) * applied + iterations * inverse
    return 2 * forward(shapes) * EXAMPLES * experts + sums * tokens + solves


def _film_operations(report: Report, shapes: Shapes, experts: int) -> float:
    recorded = FeatureErrors.recorded(report)
    assert recorded is not None
    blocks = len(recorded.streams) - 1
    # The start merge, and of each frame the block that it changes and those behind it.
    passes = (blocks + sum(range(1, blocks + 1))) / blocks
    return forward(shapes) * experts * (2 * EXAMPLES + passes * ASKED)


def _layer(report: Report, name: str) -> Any:
    return next(layer for layer in report.layers if layer.name == name)


ROWS = (
    Row(
        "sequential",
        "Sequential calibration of the sample family, and its film",
        "its products alone, counted, at the rate of a product",
        merging,
        minutes=1,
    ),
)
