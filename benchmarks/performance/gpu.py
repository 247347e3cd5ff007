"""The two rows that need a GPU; without one they say so.  One counts what a GPU would be asked."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mats_core.methods import METHODS, KfacOptions, Layer, LayerStatistics, kfac

from . import counting, drawn, essential
from .base import CannotRun, Line, Row, timed

ITERATIONS = 50
COUNTED = drawn.Wideness(96, 64, tasks=8)  # counts do not depend on the sizes


def _require_gpu() -> None:
    if not torch.cuda.is_available():
        raise CannotRun("no GPU was there")


def on(layer: Layer, device: str) -> Layer:
    """A layer with its statistics on a device."""
    return Layer(
        name=layer.name,
        base=layer.base.to(device),
        experts=tuple(expert.to(device) for expert in layer.experts),
        weights=layer.weights,
        labels=layer.labels,
        is_matrix=True,
        statistics=tuple(
            LayerStatistics(
                input_gram=None if own.input_gram is None else own.input_gram.to(device),
                output_gradient_gram=None
                if own.output_gradient_gram is None
                else own.output_gradient_gram.to(device),
            )
            for own in layer.statistics
        ),
    )


def gemm_seconds(shape: drawn.Wideness, device: str) -> float:
    """What `ITERATIONS` products with the operator cost at the GEMM rate of this very run."""
    left = torch.randn(shape.rows, shape.rows, device=device)
    x = torch.randn(shape.rows, shape.columns, device=device)
    right = torch.randn(shape.columns, shape.columns, device=device)

    def products() -> None:
        for _ in range(10):
            (left @ x) @ right

    products()
    return min(timed(products, device)[0] for _ in range(3)) / 10 * shape.tasks * ITERATIONS


def kfac_rate(device: str = "cuda") -> Sequence[Line]:
    """K-FAC with all its iterations on every layer, against the time of its products alone."""
    if device == "cuda":
        _require_gpu()
    options = KfacOptions(iterations=ITERATIONS, tolerance=0.0)
    seconds = floor = 0.0
    for (rows, columns), (layers, _) in essential.BLOCK.items():
        shape = drawn.Wideness(rows, columns)
        layer = on(drawn.layer(shape), device)
        kfac(layer, options)
        seconds += (
            essential.BLOCKS * layers * timed(lambda one=layer: kfac(one, options), device)[0]
        )
        floor += essential.BLOCKS * layers * gemm_seconds(shape, device)
    return [
        Line(
            case=f"ViT-B/32, 8 experts, {ITERATIONS} iterations, {device}",
            ours=seconds,
            theirs=floor,
            goal=2,
            at_most=True,
            note="Theirs: the products alone, at the GEMM rate of the same run.",
        )
    ]


def esm() -> Sequence[Line]:
    _require_gpu()
    return essential.merge("cuda")


def counts() -> Sequence[Line]:
    """Kernels and reads of an iteration of K-FAC, and of a layer of other methods, of 8 experts."""
    layer = drawn.layer(COUNTED)
    lines: list[Line] = []

    def add(case: str, ours: counting.Counts, theirs: counting.Counts | None) -> None:
        for unit in ("kernels", "reads"):
            other = None if theirs is None else getattr(theirs, unit)
            lines.append(Line(case, getattr(ours, unit), other, unit=unit))

    for kind in ("none", "kronecker", "joint"):
        far = {"preconditioner": kind, "between": (4, 12)}
        both = (counting.of_iteration(layer, "kfac", apart=apart, **far) for apart in (True, False))
        add(f"K-FAC, an iteration, preconditioner {kind}", *both)
    for method in ("tsv_m", "essential"):
        both = (counting.of_layer(layer, method, apart=apart) for apart in (True, False))
        add(f"{METHODS[method].title}, a layer", *both)
    for method in ("ties", "dare"):  # on the CPU partly in NumPy, which is not counted
        add(f"{METHODS[method].title}, a layer", counting.of_layer(layer, method), None)
    return sorted(lines, key=lambda line: (line.theirs is None, line.unit))


ROWS = (
    Row(
        "gpu-counts",
        "GPU, counted on the CPU: kernels that are begun, and reads that wait for them",
        "the ways that tensors of the CPU take",
        counts,
        minutes=0.2,
    ),
    Row(
        "gpu-kfac",
        "GPU: K-FAC with 50 iterations on every layer",
        "its products at the GEMM rate of the same run (half of it is asked for)",
        kfac_rate,
        minutes=2,
        needs="a CUDA device",
    ),
    Row(
        "gpu-esm",
        "GPU: ESM, steps 1–6 of a whole merge",
        "the published steps on the same GPU",
        esm,
        minutes=2,
        needs="a CUDA device",
    ),
)
