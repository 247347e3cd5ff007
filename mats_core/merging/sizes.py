"""How large a layer is with everything a merge reads of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch

from ..methods import Cost, Shape, running_cost
from ..names import is_matrix, is_weight, module_of
from ..recipes import Plan, Unit
from ..statistics import Statistics
from .reading import is_solved, low_rank, pieces

SMALL = 1 << 28  # bytes of a layer that is merged beside another one


def layer_bytes(plan: Plan, unit: Unit) -> float:
    """Bytes that merging one layer, or a piece of it where it comes in pieces, takes."""
    shape, spans = shape_of(plan, unit), pieces(plan, unit)
    if spans:
        start, stop = spans[0]
        shape = replace(shape, size=(stop - start,), is_matrix=False, measured=frozenset())
    ahead = len(spans[:2]) or 1  # the next piece is read while one is merged
    return ahead * inputs_bytes(plan, shape) + cost_of(plan, unit, shape).nbytes


def bytes_at_once(plan: Plan, unit: Unit, at_once: int) -> float:
    """Bytes that merging a layer takes, and one as large beside it where two are solved at once."""
    return layer_bytes(plan, unit) * (at_once if is_solved(plan, unit) else 1)


def together(plan: Plan, layers: Iterable[Unit]) -> int:
    """How many matrices are solved for at once: two, where there are CPU cores and all are small.

    Two threads of one product wait for each other: K-FAC of the sample family takes 1.33 times less
    time so, and a method that only decomposes takes 1.2 times more.  `layers`: all of the plan, or
    one of each shape.
    """
    if plan.device != "cpu" or torch.get_num_threads() < 2:
        return 1
    apart = (unit for unit in layers if is_solved(plan, unit))
    return 2 if all(layer_bytes(plan, unit) <= SMALL for unit in apart) else 1


def cost_of(plan: Plan, unit: Unit, shape: Shape) -> Cost:
    """What merging one layer of this shape costs, by the method or as a running statistic."""
    if unit.name in plan.inputs.family.running:
        return running_cost(shape)
    own = plan.at(unit.name)
    cost = own.method.cost(shape, own.options)
    for step in own.after:
        cost = step.costed(shape, cost)
    return cost


def shape_of(plan: Plan, unit: Unit) -> Shape:
    """A layer's shape and statistics as its method gets them, by the rules of `read_layer`."""
    plan, family = plan.at(unit.name), plan.inputs.family
    own = family.shape(unit.name)
    module = module_of(unit.name)
    statistics = [s for s in plan.inputs.statistics if s is not None]
    square = len(own) == 2 and is_weight(unit.name)
    everywhere = len(statistics) == len(family.experts)
    names = {"fisher": f"{unit.name}.fisher", "block": f"{unit.name}.block"}
    if square:
        kinds = ("input_gram", "input_mean", "output_gradient_gram")
        names |= {kind: f"{module}.{kind}" for kind in kinds}
    measured = frozenset(
        kind
        for kind, name in names.items()
        if kind in plan.kinds and everywhere and all(name in s for s in statistics)
    )
    base, earlier = plan.inputs.base_statistics, plan.inputs.earlier
    gram = square and any(f"{module}.input_gram" in s for s in statistics)
    in_factors = square and not unit.bias and everywhere and plan.method.factored
    factored = statistics if in_factors else []
    return Shape(
        ranks=(_rows(factored, f"{module}.input"), _rows(factored, f"{module}.output_gradient")),
        size=(own[0], own[1] + 1) if unit.bias else own,
        experts=len(family.experts) + (len(earlier.experts) if earlier else 0),
        dtype=plan.recipe.dtype,
        is_matrix=is_matrix(unit.name, own) or gram,
        measured=measured,
        low_rank=low_rank(plan, unit),
        prior=base is not None and names["fisher"] in base.shapes and "fisher" in plan.kinds,
    )


def _rows(statistics: list[Statistics], gram: str) -> int:
    """The most rows that a Gram has in factors; 0 where any expert's is a matrix."""
    rows = [s.shapes.get(f"{gram}_factor", (0,))[0] for s in statistics]
    return max(rows, default=0) if all(rows) else 0


def statistics_sizes(shape: Shape) -> Iterator[tuple[int, int]]:
    """(elements, number) of each kind of statistics of a layer."""
    n = shape.elements
    sizes = {"fisher": n, "block": n * n}
    if len(shape.size) == 2:
        rows, columns = shape.size
        of_inputs, of_outputs = shape.ranks  # 0: the Gram is a matrix
        sizes |= {"input_gram": (of_inputs or columns) * columns, "input_mean": columns}
        sizes["output_gradient_gram"] = (of_outputs or rows) * rows
    for kind in shape.measured:
        yield sizes[kind], shape.experts
    if shape.prior:
        yield n, 1


def gram_sides(shape: Shape) -> Iterator[tuple[int, int]]:
    """(rows, number) of each kind of Grams and blocks of a layer that are stored as matrices."""
    sides = {"block": shape.elements}
    if len(shape.size) == 2:
        (rows, columns), (of_inputs, of_outputs) = shape.size, shape.ranks
        sides |= {} if of_inputs else {"input_gram": columns}
        sides |= {} if of_outputs else {"output_gradient_gram": rows}
    for kind in shape.measured:
        if kind in sides:
            yield sides[kind], shape.experts


def inputs_bytes(plan: Plan, shape: Shape) -> float:
    """Bytes of all that is read of one layer: base, experts and statistics."""
    statistics = sum(elements * count for elements, count in statistics_sizes(shape))
    experts = shape.experts * shape.nbytes
    if shape.low_rank is not None and not any(one.step.whole for one in plan.after):
        experts = shape.low_rank * (shape.rows + shape.columns) * shape.width
    return experts + shape.nbytes + statistics * shape.width
