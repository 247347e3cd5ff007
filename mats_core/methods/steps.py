"""Steps after any merge: what is done to the merged update W − W₀ of a layer, one after another.

A step sees the update that the method, or the step before, has left, what the experts do in this
layer, and how deep the layer lies: 0 in the first block, 1 in the last.  Running statistics are no
parameters and take no step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from .cost import Cost, Shape
from .layer import Layer, Merged
from .options import Options, option
from .singular_values import PUBLISHED, calibrated_update, svc_cost


class StretchOptions(Options):
    scale: float = option(
        1.0, "s, the factor of every layer's update; 0 leaves the base", low=0, high=3, step=0.05
    )


class SvcOptions(Options):
    alpha: float = option(
        0.3,
        "α, a direction that carries less of an expert than this counts as if it carried α: no "
        "singular value grows by more than 1 / α",
        low=0.01,
        high=1,
        step=0.01,
        source=PUBLISHED,
    )


class LinesOptions(Options):
    first: float = option(
        1.0, "a, the factor of the update in the first block", low=0, high=3, step=0.05
    )
    last: float = option(
        1.0, "a + b, the factor of the update in the last block", low=0, high=3, step=0.05
    )


@dataclass(frozen=True)
class Step:
    """One row of `STEPS`.

    name      in recipes and on the command line
    title     what a page calls it
    summary   what it does, in a sentence
    formula   in LaTeX
    source    the papers
    options   the class of its options
    factor    (depth, options) → the factor of the update, of a step that is one; None for others
    apply     (update of a matrix, layer, options) → the new one, of a step that is no factor;
              parameters that are no matrices keep theirs
    cost      (shape, cost before, options) → cost with the step, of a step that is no factor
    told      what the report says of a layer to which it was applied, of a step that is no factor
    """

    name: str
    title: str
    summary: str
    formula: str
    source: str
    options: type[Options]
    factor: Callable[[float, Any], float] | None = None
    apply: Callable[[Tensor, Layer, Any], Tensor] | None = None
    cost: Callable[[Shape, Cost, Any], Cost] | None = None
    told: str = ""

    @property
    def whole(self) -> bool:
        """Whether a matrix must come whole and with all experts."""
        return self.apply is not None


def _calibrated(update: Tensor, layer: Layer, options: SvcOptions) -> Tensor:
    total = sum(map(abs, layer.weights))
    shares = [abs(weight) / total for weight in layer.weights]
    return calibrated_update(update, layer.signed_updates, shares, options.alpha)


def _svc_cost(s: Shape, cost: Cost, options: SvcOptions) -> Cost:
    return svc_cost(s, replace(cost, treatment="merged"), options.alpha)


STRETCH = Step(
    name="stretch",
    title="Stretch",
    summary="The whole update times one factor, on the line from the base through the merge.",
    formula=r"W \leftarrow W_0 + s\,(W - W_0)",
    source="task arithmetic's scaling, arXiv 2212.04089, after any merge",
    options=StretchOptions,
    factor=lambda depth, options: options.scale,
)
SVC = Step(
    name="svc",
    title="Calibrate singular values (SVC)",
    summary="Every singular value of a matrix's update by how much of each expert its direction "
    "carries: what many experts share is counted once.",
    formula=r"W - W_0 = \sum_r \sigma_r u_r v_r^\top,\quad \sigma_r \leftarrow \sigma_r \Big/ "
    r"\sum_m \alpha_m \max(\alpha, s_{rm}),\quad "
    r"s_{rm} = \sigma_r \langle v_r, \Delta_m^\top u_r\rangle / \|\Delta_m^\top u_r\|^2",
    source="SVC, arXiv 2602.05536",
    options=SvcOptions,
    apply=_calibrated,
    cost=_svc_cost,
    told="singular values calibrated",
)
LINES = Step(
    name="lines",
    title="Scale by depth (LiNeS)",
    summary="The update times a factor that grows or falls in a straight line from the first block "
    "to the last; embeddings take the first, what follows the blocks the last.",
    formula=r"W_\ell \leftarrow W_{0,\ell} + \Big(a + b\,\frac{\ell}{L-1}\Big)"
    r"(W_\ell - W_{0,\ell})",
    source="LiNeS, arXiv 2410.17146",
    options=LinesOptions,
    factor=lambda depth, options: options.first + (options.last - options.first) * depth,
)
STEPS: dict[str, Step] = {step.name: step for step in (STRETCH, SVC, LINES)}


@dataclass(frozen=True)
class Applied:
    """A step with its options."""

    step: Step
    options: Options

    @property
    def content(self) -> dict[str, dict[str, Any]]:
        """As in a recipe, with every option: `{"stretch": {"scale": 1.3}}`."""
        return {self.step.name: self.options.model_dump()}

    def costed(self, s: Shape, cost: Cost) -> Cost:
        """What merging a layer costs with this step."""
        if self.step.cost is not None:
            found = self.step.cost(s, cost, self.options) if s.is_matrix else cost
            return replace(found, treatment=cost.treatment)
        return replace(cost, work=cost.work + s.passes(9), nbytes=max(cost.nbytes, 4.0 * s.nbytes))


def with_steps(layer: Layer, found: Merged, steps: Sequence[Applied], depth: float) -> Merged:
    """A merged layer after the steps, and so every iterate of its solve; with none, or with factors
    of 1 alone, it is returned as it is.

    layer    of which the base is read, and by steps that need them whole the experts
    depth    of the layer, from 0 to 1
    """
    factors = [_factor(one, depth) for one in steps]
    todo = [
        (one, factor)
        for one, factor in zip(steps, factors, strict=True)
        if (layer.is_matrix if factor is None else factor != 1)
    ]
    if not todo:
        return found

    def moved(value: Tensor) -> Tensor:
        update = value - layer.base
        for one, factor in todo:
            if factor is not None:
                update = update.mul_(factor)
            else:
                assert one.step.apply is not None
                update = one.step.apply(update, layer, one.options)
        return update.add_(layer.base)

    value, solution = moved(found.value), found.solution
    if solution is not None:
        iterates = {step: moved(x) for step, x in solution.iterates.items()}
        solution = replace(solution, value=value, iterates=iterates)
    said = [one.step.told if f is None else f"update × {f:.4g}" for one, f in todo]
    status = ", ".join(filter(None, (found.status, *said)))
    return replace(found, value=value, solution=solution, status=status)


def _factor(one: Applied, depth: float) -> float | None:
    return None if one.step.factor is None else one.step.factor(depth, one.options)


def stretched(factor: float) -> Applied:
    """The step that multiplies the update by a factor, within the step's bounds or not."""
    return Applied(STRETCH, StretchOptions.model_construct(scale=factor))


def as_mapping(item: Any) -> Any:
    """A step of a recipe as a mapping: `stretch` → `{"stretch": {}}`; others as they are."""
    if isinstance(item, str):
        return {item: {}}
    if isinstance(item, Mapping):
        return {key: {} if value is None else value for key, value in item.items()}
    return item
