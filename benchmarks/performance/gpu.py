"""The two rows that need a GPU; without one they say so."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mats_core.methods import KfacOptions, Layer, LayerStatistics, kfac

from . import drawn, essential
from .base import CannotRun, Line, Row, timed

ITERATIONS = 50


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


ROWS = (
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
