"""K-FAC merging by the clock: ours against the published solver, and two models without one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from mats_core.linear import damped
from mats_core.methods import KfacOptions, Layer, kfac

from . import drawn, published
from .base import Line, Row, in_turns, relative, threads, timed
from .iterations import families, layers_of

DAMPING = 1e-3  # of A and of B, as the published code's; every task keeps its own scale
LIMIT = 2000


def system(layer: Layer) -> list[tuple[Tensor, Tensor]]:
    """(B_m, A_m), damped and weighted as ours: what the published solver is given."""
    grams, outputs = layer.measured("input_gram"), layer.measured("output_gradient_gram")
    assert grams is not None
    assert outputs is not None
    share = 1 / len(grams)
    return [
        (damped(b, DAMPING) * share, damped(a, DAMPING))
        for a, b in zip(grams, outputs, strict=True)
    ]


def compared(
    layer: Layer,
    what: str,
    residual: float,
    count: int,
    goal: float | None,
    patience: int | None = None,
) -> Line:
    """Both ways to one residual, set-up included.

    With `patience` the published solver is stopped after so many times our iterations: the ratio is
    then a lower bound, and its residual says how far it got.
    """
    start = layer.base + sum(update * 0.3 for update in layer.updates)
    options = KfacOptions(
        damping=DAMPING, normalise=False, iterations=LIMIT, tolerance=residual, start="average"
    )

    def ours():
        return kfac(layer, options)

    def theirs(most: int) -> tuple[Tensor, int]:
        blocks = system(layer)
        return published.mats_cg(blocks, layer.experts, start, residual=residual, iterations=most)

    with threads(count):
        first, found = timed(ours)
        fast = (first + timed(ours)[0]) / 2
        assert found.solution is not None
        limit = patience * found.solution.iterations if patience else LIMIT
        slow, (value, iterations) = timed(lambda: theirs(limit))
    blocks = [(b.double(), a.double()) for b, a in system(layer)]
    experts = [expert.double() for expert in layer.experts]
    return Line(
        case=f"{what}, M = {len(layer.experts)}, residual {residual:g}, "
        f"{count} thread{'s' if count > 1 else ''}",
        ours=fast,
        theirs=slow,
        goal=goal,
        checks={
            "our iterations": found.solution.iterations,
            "their iterations": iterations,
            "our residual in float64": true_residual(blocks, experts, found.value.double()),
            "their residual in float64": true_residual(blocks, experts, value.double()),
            "difference of the updates": relative(found.value - layer.base, value - layer.base),
        },
    )


def true_residual(
    blocks: Sequence[tuple[Tensor, Tensor]], experts: Sequence[Tensor], x: Tensor
) -> float:
    """‖b − K X‖ / ‖b‖ from its definition."""
    right = sum(b @ expert @ a for (b, a), expert in zip(blocks, experts, strict=True))
    left = sum(b @ x @ a for b, a in blocks)
    assert isinstance(right, Tensor)
    return float((right - left).norm() / right.norm())


def square() -> Sequence[Line]:
    """A drawn layer of ViT-B's width, and one measured layer of each family."""
    layer = drawn.layer(drawn.Wideness(768, 768))
    lines = [
        compared(layer, "768×768, drawn", residual, count, goal)
        for residual, goal in ((1e-3, 5), (1e-4, 10))
        for count in (1, 2)
    ]
    for name, folder in families().items():
        layer = next(one for one in layers_of(folder) if one.base.shape[0] == one.base.shape[1])
        what = f"{'×'.join(map(str, layer.base.shape))}, {name} family"
        lines += [compared(layer, what, residual, 1, None) for residual in (1e-3, 1e-4)]
    return lines


def wide() -> Sequence[Line]:
    shapes = (drawn.Wideness(3072, 768), drawn.Wideness(768, 3072))
    return [
        compared(drawn.layer(shape), f"{shape.rows}×{shape.columns}, drawn", 1e-3, 2, 4, patience=6)
        for shape in shapes
    ]


def two_models() -> Sequence[Line]:
    """The closed form against 150 iterations of plain CG; errors against a float64 solve by CG."""
    layer = drawn.layer(drawn.Wideness(512, 512, tasks=2))
    exactly = KfacOptions(damping=DAMPING, normalise=False)

    def ours():
        return kfac(layer, exactly)

    def theirs() -> tuple[Tensor, int]:
        start = layer.base + sum(update * 0.3 for update in layer.updates)
        return published.mats_cg(system(layer), layer.experts, start, residual=0.0, iterations=150)

    with threads(1):
        fast, slow, found, (value, _) = in_turns(ours, theirs)
    assert found.status == "closed form"
    wide_layer = double(layer)
    blocks, experts = system(wide_layer), wide_layer.experts
    return [
        Line(
            case="512×512, one thread; theirs: 150 iterations",
            ours=fast,
            theirs=slow,
            checks={
                "our residual, float32": true_residual(blocks, experts, found.value.double()),
                "our residual, float64": true_residual(
                    blocks, experts, kfac(wide_layer, exactly).value
                ),
                "their residual": true_residual(blocks, experts, value.double()),
            },
        )
    ]


def double(layer: Layer) -> Layer:
    """A layer in float64."""
    return replace(
        layer,
        base=layer.base.double(),
        experts=tuple(expert.double() for expert in layer.experts),
        statistics=tuple(
            replace(
                own,
                input_gram=None if own.input_gram is None else own.input_gram.double(),
                output_gradient_gram=None
                if own.output_gradient_gram is None
                else own.output_gradient_gram.double(),
            )
            for own in layer.statistics
        ),
    )


ROWS = (
    Row(
        "kfac-time",
        "K-FAC by CG: wall time, set-up included",
        "SciPy's CG in float32 from task arithmetic, as published",
        square,
        minutes=3,
    ),
    Row(
        "kfac-wide",
        "K-FAC by CG on the shapes of an MLP",
        "SciPy's CG in float32 from task arithmetic, as published",
        wide,
        minutes=3,
    ),
    Row(
        "kfac-two",
        "K-FAC of two models",
        "150 iterations of the published CG",
        two_models,
        minutes=0.2,
    ),
)
