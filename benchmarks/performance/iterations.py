"""How many iterations K-FAC merging needs on measured statistics, layer by layer."""

from __future__ import annotations

import itertools
import os
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mats_core.merging import read_layer
from mats_core.methods import KfacOptions, Layer, kfac
from mats_core.recipes import load_family, measure_all, prepare, units

from .base import Line, Row

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "sample_models" / "drawn"
FAMILIES = "MATS_FAMILIES"
RESIDUALS = (1e-3, 1e-4)
GOAL = 10
ENOUGH = 12  # times our iterations: there plain CG is stopped
# The published form damps a little and leaves every task its own scale; ours is the default.
SYSTEMS: dict[str, dict[str, Any]] = {
    "δ = 0.001, as measured": {"damping": 1e-3, "normalise": False},
    "default": {},
}
# The inverses of the mean factors, and the bases of all factors.
WAYS: dict[str, dict[str, Any]] = {"": {}, ", joint bases": {"preconditioner": "joint"}}

Pair = tuple[int | None, int]  # our iterations, theirs


def families() -> dict[str, Path]:
    """The sample family, and those that `python -m benchmarks.families` built, where they are."""
    found = {"sample": SAMPLE}
    folder = Path(os.environ.get(FAMILIES, "nowhere"))
    for file in sorted(folder.glob("*/family.yaml")):
        found[file.parent.name] = file.parent
    return found


def layers_of(folder: Path) -> Iterator[Layer]:
    """Every layer of a family that has K-FAC statistics; measured where that was not done yet."""
    collection = load_family(folder)
    files = measure_all(collection, with_base=False)
    job = prepare(collection.recipe("kfac", {}, statistics=files))
    for unit in units(job):
        layer = read_layer(job, unit)
        kinds = ("input_gram", "output_gradient_gram")
        if layer.is_matrix and all(layer.measured(kind) is not None for kind in kinds):
            yield layer


def residuals(layer: Layer, limit: int, options: Mapping[str, Any]) -> tuple[float, ...]:
    """The trace of a solve to the smallest of `RESIDUALS`, or to the limit."""
    chosen = {"iterations": limit, "tolerance": min(RESIDUALS), **options}
    solution = kfac(layer, KfacOptions.model_validate(chosen)).solution
    assert solution is not None
    return solution.residuals


def needed(trace: Sequence[float], residual: float) -> int | None:
    """Iterations to a relative residual; None where it was not reached."""
    return next((i for i, r in enumerate(trace) if r <= residual), None)


def run() -> Sequence[Line]:
    lines = []
    for name, folder in families().items():
        found: dict[tuple[str, str, float], list[Pair]] = {}
        for layer in layers_of(folder):
            if layer.base.shape[0] != layer.base.shape[1]:
                continue
            for system, options in SYSTEMS.items():
                ours = {
                    way: residuals(layer, 1000, {**options, **how}) for way, how in WAYS.items()
                }
                plain = {**options, "preconditioner": "none", "start": "task_arithmetic"}
                longest = max(map(len, ours.values())) - 1
                theirs = residuals(layer, ENOUGH * max(1, longest), plain)
                for way, residual in itertools.product(WAYS, RESIDUALS):
                    other = needed(theirs, residual) or len(theirs) - 1
                    pairs = found.setdefault((system, way, residual), [])
                    pairs.append((needed(ours[way], residual), other))
        lines += [_line(name, *key, pairs) for key, pairs in found.items()]
    return lines


def _line(family: str, system: str, way: str, residual: float, pairs: list[Pair]) -> Line:
    failed = sum(ours is None for ours, _ in pairs)
    ratios = [theirs / max(ours, 1) if ours is not None else 0.0 for ours, theirs in pairs]
    reached = sum(ratio >= GOAL for ratio in ratios)
    return Line(
        case=f"{family} family, {system}{way}, residual {residual:g}",
        ours=statistics.median(ours or 0 for ours, _ in pairs),
        theirs=statistics.median(theirs for _, theirs in pairs),
        unit="iterations",
        goal=GOAL if residual == min(RESIDUALS) else None,
        checks={
            "layers": len(ratios),
            "layers where ours failed": failed,
            f"layers with {GOAL}×": reached,
            "smallest ratio": min(ratios),
            "median ratio": statistics.median(ratios),
        },
        least=min(ratios),
        note=f"Plain CG is stopped at {ENOUGH} times our most iterations, reached or not.",
    )  # fmt: skip


ROWS = (
    Row(
        "kfac-iterations",
        "K-FAC by CG: iterations on the square layers of a family",
        "plain CG from task arithmetic, the same damped system",
        run,
        minutes=1,
    ),
)
