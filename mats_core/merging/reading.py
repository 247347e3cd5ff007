"""One layer at a time from the files: its tensors and statistics, whole or in pieces."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..adapters import factors_of, rank_of
from ..checkpoints import Wanted, Weights
from ..errors import InputError
from ..linear import Gram, Pair, matrix
from ..methods import Layer, LayerStatistics, space_of
from ..names import is_matrix, is_weight, module_of
from ..recipes import Plan, Unit, units
from ..statistics import Statistics, with_bias
from ..system import forgetful

WHOLE = 1 << 18  # elements of a tensor that is not worth being read in pieces
PIECE = 1 << 22  # elements of the largest piece, whatever a method asks for


def read_layer(plan: Plan, unit: Unit, *, with_statistics: bool = True) -> Layer:
    """One layer's tensors and statistics, in the plan's dtype and on its device."""
    plan = plan.at(unit.name)
    family = plan.inputs.family
    shape = family.shape(unit.name)
    own, prior = plan.inputs.statistics, plan.inputs.base_statistics
    if not (with_statistics and plan.kinds):
        own, prior = (), None
    place = (unit, plan.dtype, plan.device)
    merged = plan.inputs.earlier
    earlier = (
        merged.layer(unit.name, {"dtype": plan.dtype, "device": plan.device}) if merged else None
    )

    def remember(what: Hashable, compute: Callable[[], Any]) -> Any:
        return plan.inputs.memo.get((place, what), compute)

    read = forgetful if plan.inputs.in_memory else remember

    def measured_by(statistics: Statistics | None) -> LayerStatistics:
        if statistics is None:
            return LayerStatistics()
        what = ("statistics", statistics.source, plan.kinds)
        return read(what, lambda: _layer_statistics(plan, statistics, unit, shape))

    def tensors() -> tuple[Tensor, ...]:
        return tuple(_tensor(plan, e.checkpoint, unit) for e in family.experts)

    factors = None
    if low_rank(plan, unit) is not None:
        factors = read("factors", lambda: _factors(plan, unit))
    # A space of factors needs nothing else; who read the experts after all would be told so.
    bare = factors is not None and not any(one.step.whole for one in plan.after)
    empty = torch.empty(shape, dtype=plan.dtype, device="meta")
    return Layer(
        name=unit.name,
        base=read("base", lambda: _tensor(plan, family.base, unit)),
        experts=(empty,) * len(family.experts) if bare else read("experts", tensors),
        factors=factors,
        weights=(*(earlier.weights if earlier else ()), *plan.weights),
        labels=(
            *(earlier.labels if earlier else ()),
            *(expert.name for expert in family.experts),
        ),
        is_matrix=treated_as_matrix(plan, unit.name),
        statistics=tuple(map(measured_by, own)),
        base_statistics=measured_by(prior),
        seed=plan.recipe.seed,
        keep=plan.keep,
        watch=plan.watch,
        starts=_starts(plan, unit),
        # What is computed of an earlier merge's sums belongs to that merge and not to these files.
        remember=forgetful if earlier else remember,
        earlier=earlier,
    )


def treated_as_matrix(plan: Plan, name: str) -> bool:
    """Whether methods for linear layers apply: by the name, or because it was measured as one."""
    shape, gram = plan.inputs.family.shape(name), f"{module_of(name)}.input_gram"
    if is_matrix(name, shape):
        return True
    measured = any(s is not None and gram in s for s in plan.inputs.statistics)
    return len(shape) == 2 and is_weight(name) and measured


def low_rank(plan: Plan, unit: Unit) -> int | None:
    """Sum of the ranks of the experts' updates of a layer that is merged in a space of their
    factors; None where it is not, or one of them has none."""
    plan = plan.at(unit.name)
    if space_of(plan.options) == "full" or not treated_as_matrix(plan, unit.name):
        return None
    ranks = [rank_of(expert.checkpoint, unit.name) for expert in plan.inputs.family.experts]
    known = [rank for rank in ranks if rank is not None]
    return sum(known) if len(known) == len(ranks) else None


def _factors(plan: Plan, unit: Unit) -> tuple[Pair, ...]:
    """Each expert's update in factors, in the orientation in which methods see it."""
    family, place = plan.inputs.family, {"dtype": plan.dtype, "device": plan.device}
    found = [factors_of(expert.checkpoint, unit.name, **place) for expert in family.experts]
    if unit.name not in family.transposed:
        return tuple(found)
    return tuple((right.mT, left.mT) for left, right in found)


def is_solved(plan: Plan, unit: Unit) -> bool:
    """Whether a layer is a matrix that the method solves for by iterations."""
    return plan.method.solve is not None and treated_as_matrix(plan, unit.name)


def read_layers(plan: Plan) -> Iterator[Layer]:
    """All layers without statistics, large ones in pieces, for a method's survey."""
    for unit in units(plan):
        if unit.name not in plan.inputs.family.running:  # which no method merges
            yield from read_pieces(plan, unit)


def pieces(plan: Plan, unit: Unit) -> list[tuple[int, int]]:
    """(start, stop) of the pieces in which a tensor is merged; empty for one that is read whole.

    Only large tensors, none of which sums are kept or taken over, where the method says that every
    element of the result depends on its own elements alone, and where all files can be read so.
    """
    plan = plan.at(unit.name)
    family, name = plan.inputs.family, unit.name
    elements = family.base.tensors[name].elements
    size = min(PIECE, plan.method.piece(plan.options))
    checkpoints = (family.base, *(expert.checkpoint for expert in family.experts))
    if plan.recipe.keep_sums or plan.inputs.earlier is not None:
        return []
    if elements <= min(PIECE, WHOLE) or unit.bias is not None or name in family.running:
        return []
    linear = treated_as_matrix(plan, name)
    if not plan.method.pieces(plan.options, linear):
        return []
    if linear and any(one.step.whole for one in plan.after):
        return []
    if not all(checkpoint.reads_parts(name) for checkpoint in checkpoints):
        return []
    return [(start, min(start + size, elements)) for start in range(0, elements, size)]


def read_pieces(plan: Plan, unit: Unit) -> Iterator[Layer]:
    """A layer without statistics, in pieces if it has any.

    The tensors of a piece hold until the next one is asked for: their memory is used again.  The
    next one is read meanwhile.
    """
    spans = pieces(plan, unit)
    for index, (start, stop) in enumerate(spans):
        yield _read_piece(plan, unit, start, stop, spans[index + 1 : index + 2])
    if not spans:
        yield read_layer(plan, unit, with_statistics=False)


def _read_piece(
    plan: Plan, unit: Unit, start: int, stop: int, following: Sequence[tuple[int, int]]
) -> Layer:
    plan = plan.at(unit.name)
    memo, family = plan.inputs.memo, plan.inputs.family
    bases = [family.base] if plan.method.reads_base or plan.after else []
    experts = [expert.checkpoint for expert in family.experts]
    place = (unit, start, plan.dtype, plan.device)

    def remember(what: Hashable, compute: Callable[[], Any]) -> Any:
        return memo.get((place, what), compute)

    def parts(checkpoints: Sequence[Weights]) -> tuple[Tensor, ...]:
        how = {"dtype": plan.dtype, "device": plan.device}
        return tuple(one.part(unit.name, start, stop, **how) for one in checkpoints)

    read = forgetful if plan.inputs.in_memory else remember
    ahead = plan.device in ("cpu", "cuda")
    if (memo.limit and not plan.inputs.in_memory) or not ahead:
        base = read("base", lambda: parts(bases)) if bases else ()
        found = (*base, *read("experts", lambda: parts(experts)))
    else:
        wanted = _wanted(plan, unit, bases + experts, start, stop)
        there = plan.device != "cpu"
        found = plan.buffers.sent(wanted, plan.device) if there else plan.buffers.filled(wanted)
        for span in following:
            plan.buffers.ahead(_wanted(plan, unit, bases + experts, *span))
    return Layer(
        name=unit.name,
        # Without data where nobody reads it: whoever did after all would be told so.
        base=found[0] if bases else torch.empty(stop - start, dtype=plan.dtype, device="meta"),
        experts=tuple(found[len(bases) :]),
        weights=plan.weights,
        labels=tuple(expert.name for expert in family.experts),
        is_matrix=False,
        seed=plan.recipe.seed,
        offset=start,
        watch=plan.watch,
        remember=remember,
    )


def _wanted(
    plan: Plan, unit: Unit, checkpoints: Sequence[Weights], start: int, stop: int
) -> Wanted:
    def fill(values: Sequence[Tensor]) -> None:
        for checkpoint, value in zip(checkpoints, values, strict=True):
            checkpoint.fill(unit.name, start, value)

    place = (unit, start), len(checkpoints), stop - start, plan.dtype
    return Wanted(*place, fill, pinned=plan.device == "cuda")


def _tensor(plan: Plan, checkpoint: Weights, unit: Unit) -> Tensor:
    value = plan.inputs.family.weight(checkpoint, unit.name, dtype=plan.dtype, device=plan.device)
    if unit.bias is None:
        return value
    bias = checkpoint.read(unit.bias, dtype=plan.dtype, device=plan.device)
    return torch.cat([value, bias[:, None]], 1)


def _starts(plan: Plan, unit: Unit) -> Any:
    """A reader of the checkpoint that CG starts from, if there is one."""
    checkpoint = plan.start
    if checkpoint is None:
        return None

    def read(name: str) -> Tensor:
        for part in (unit.name, *((unit.bias,) if unit.bias else ())):
            ours = plan.inputs.family.base.tensors[part].shape
            theirs = checkpoint.tensors.get(part)
            if theirs is None or theirs.shape != ours:
                raise InputError(
                    f"start '{checkpoint.path}'",
                    expected=f"'{part}' with shape {list(ours)}",
                    found=f"shape {list(theirs.shape)}" if theirs else "no such tensor",
                    remedy="Start from a checkpoint of the same family.",
                )
        return _tensor(plan, checkpoint, unit)

    return read


def _layer_statistics(
    plan: Plan, statistics: Statistics, unit: Unit, shape: tuple[int, ...]
) -> LayerStatistics:
    module = module_of(unit.name)
    elements = math.prod(shape)
    place = {"dtype": plan.dtype, "device": plan.device}

    def read(kind: str, name: str, expected: tuple[int, ...]) -> Tensor | None:
        if kind not in plan.kinds:
            return None
        return statistics.read(name, expected, **place)

    def read_gram(kind: str, size: int) -> Gram | None:
        """Whole, or in factors where the file has it so."""
        if kind not in plan.kinds or not has_grams:
            return None
        name = f"{module}.{kind}"
        factors = statistics.factored(name, size, **place)
        return factors or statistics.read(name, (size, size), **place)

    has_grams = len(shape) == 2 and is_weight(unit.name)
    # A Fisher has the parameter's own layout, as the file does.
    family = plan.inputs.family
    fisher = read("fisher", f"{unit.name}.fisher", family.base.tensors[unit.name].shape)
    found = LayerStatistics(
        input_gram=read_gram("input_gram", shape[-1] if shape else 0),
        input_mean=read("input_mean", f"{module}.input_mean", (shape[1],)) if has_grams else None,
        output_gradient_gram=read_gram("output_gradient_gram", shape[0] if shape else 0),
        fisher=None if fisher is None else family.oriented(unit.name, fisher),
        # The block of a matrix would have to be permuted with it; only vectors are measured.
        block=None
        if unit.name in family.transposed
        else read("block", f"{unit.name}.block", (elements, elements)),
    )
    return _folded(plan, statistics, unit, found) if unit.bias else found


def _folded(
    plan: Plan, statistics: Statistics, unit: Unit, found: LayerStatistics
) -> LayerStatistics:
    """The statistics of `[W b]`: the Gram of `[x; 1]`, and both Fishers side by side."""
    assert unit.bias is not None
    gram, fisher = found.input_gram, found.fisher
    if gram is not None and found.input_mean is not None:
        # In factors, the mean's column would not be a row.
        gram = with_bias(matrix(gram), found.input_mean)
    if fisher is not None:
        rows = plan.inputs.family.base.tensors[unit.bias].shape
        bias = statistics.read(f"{unit.bias}.fisher", rows, dtype=plan.dtype, device=plan.device)
        fisher = None if bias is None else torch.cat([fisher, bias[:, None]], 1)
    return replace(found, input_gram=gram, fisher=fisher)
