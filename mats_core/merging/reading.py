"""One layer at a time from the files: its tensors and statistics, whole or in pieces."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..checkpoints import Checkpoint, Wanted
from ..errors import InputError
from ..linear import LowRank
from ..methods import Layer, LayerStatistics
from ..names import is_matrix, is_weight, module_of
from ..statistics import Statistics, with_bias
from .plan import Job, Unit, units

WHOLE = 1 << 18  # elements of a tensor that is not worth being read in pieces
PIECE = 1 << 22  # elements of the largest piece, whatever a method asks for


def read_layer(job: Job, unit: Unit, *, with_statistics: bool = True) -> Layer:
    """One layer's tensors and statistics, in the job's dtype and on its device."""
    family = job.inputs.family
    shape = family.shape(unit.name)
    read_statistics = with_statistics and bool(job.kinds)
    empty = LayerStatistics()
    place = (unit, job.dtype, job.device)

    def remember(what: Hashable, compute: Callable[[], Any]) -> Any:
        return job.inputs.memo.get((place, what), compute)

    def measured_by(statistics: Statistics | None) -> LayerStatistics:
        if statistics is None:
            return empty
        what = ("statistics", statistics.source, job.kinds)
        return remember(what, lambda: _layer_statistics(job, statistics, unit, shape))

    return Layer(
        name=unit.name,
        base=remember("base", lambda: _tensor(job, family.base, unit)),
        experts=remember(
            "experts", lambda: tuple(_tensor(job, e.checkpoint, unit) for e in family.experts)
        ),
        weights=job.weights,
        labels=tuple(expert.name for expert in family.experts),
        is_matrix=treated_as_matrix(job, unit.name),
        statistics=tuple(measured_by(own) for own in job.inputs.statistics)
        if read_statistics
        else (),
        base_statistics=measured_by(job.inputs.base_statistics) if read_statistics else empty,
        seed=job.recipe.seed,
        keep=job.keep,
        starts=_starts(job, unit),
        remember=remember,
        pulse=job.pulse,
    )


def treated_as_matrix(job: Job, name: str) -> bool:
    """Whether methods for linear layers apply: by the name, or because it was measured as one."""
    shape, gram = job.inputs.family.shape(name), f"{module_of(name)}.input_gram"
    if is_matrix(name, shape):
        return True
    measured = any(s is not None and gram in s for s in job.inputs.statistics)
    return len(shape) == 2 and is_weight(name) and measured


def read_layers(job: Job) -> Iterator[Layer]:
    """All layers without statistics, large ones in pieces, for a method's survey."""
    for unit in units(job):
        yield from read_pieces(job, unit)


def pieces(job: Job, unit: Unit) -> list[tuple[int, int]]:
    """(start, stop) of the pieces in which a tensor is merged; empty for one that is read whole.

    Only large tensors, where the method says that every element of the result depends on its own
    elements alone, and where all files can be read so.
    """
    family, name = job.inputs.family, unit.name
    elements = family.base.tensors[name].elements
    size = min(PIECE, job.method.piece(job.options))
    checkpoints = (family.base, *(expert.checkpoint for expert in family.experts))
    if elements <= min(PIECE, WHOLE) or unit.bias is not None:
        return []
    if not job.method.pieces(job.options, treated_as_matrix(job, name)):
        return []
    if not all(checkpoint.reads_parts(name) for checkpoint in checkpoints):
        return []
    return [(start, min(start + size, elements)) for start in range(0, elements, size)]


def read_pieces(job: Job, unit: Unit) -> Iterator[Layer]:
    """A layer without statistics, in pieces if it has any.

    The tensors of a piece hold until the next one is asked for: their memory is used again.  The
    next one is read meanwhile.
    """
    spans = pieces(job, unit)
    for index, (start, stop) in enumerate(spans):
        yield _read_piece(job, unit, start, stop, spans[index + 1 : index + 2])
    if not spans:
        yield read_layer(job, unit, with_statistics=False)


def _read_piece(
    job: Job, unit: Unit, start: int, stop: int, following: Sequence[tuple[int, int]]
) -> Layer:
    memo = job.inputs.memo
    bases, experts = _checkpoints(job)
    place = (unit, start, job.dtype, job.device)

    def remember(what: Hashable, compute: Callable[[], Any]) -> Any:
        return memo.get((place, what), compute)

    def parts(checkpoints: Sequence[Checkpoint]) -> tuple[Tensor, ...]:
        how = {"dtype": job.dtype, "device": job.device}
        return tuple(one.part(unit.name, start, stop, **how) for one in checkpoints)

    if memo.limit or job.device != "cpu":
        base = remember("base", lambda: parts(bases)) if bases else ()
        found = (*base, *remember("experts", lambda: parts(experts)))
    else:
        found = job.buffers.filled(_wanted(job, unit, bases + experts, start, stop))
        for span in following:
            job.buffers.ahead(_wanted(job, unit, bases + experts, *span))
    return Layer(
        name=unit.name,
        # Without data where nobody reads it: whoever did after all would be told so.
        base=found[0] if bases else torch.empty(stop - start, dtype=job.dtype, device="meta"),
        experts=tuple(found[len(bases) :]),
        weights=job.weights,
        labels=tuple(expert.name for expert in job.inputs.family.experts),
        is_matrix=False,
        seed=job.recipe.seed,
        offset=start,
        remember=remember,
        pulse=job.pulse,
    )


def _wanted(
    job: Job, unit: Unit, checkpoints: Sequence[Checkpoint], start: int, stop: int
) -> Wanted:
    def fill(values: Sequence[Tensor]) -> None:
        for checkpoint, value in zip(checkpoints, values, strict=True):
            checkpoint.fill(unit.name, start, value)

    return Wanted((unit, start), len(checkpoints), stop - start, job.dtype, fill)


def _checkpoints(job: Job) -> tuple[list[Checkpoint], list[Checkpoint]]:
    """The base, where the method reads it, and the experts."""
    family = job.inputs.family
    bases = [family.base] if job.method.reads_base else []
    return bases, [expert.checkpoint for expert in family.experts]


def _tensor(job: Job, checkpoint: Checkpoint, unit: Unit) -> Tensor:
    value = job.inputs.family.weight(checkpoint, unit.name, dtype=job.dtype, device=job.device)
    if unit.bias is None:
        return value
    bias = checkpoint.read(unit.bias, dtype=job.dtype, device=job.device)
    return torch.cat([value, bias[:, None]], 1)


def _starts(job: Job, unit: Unit) -> Any:
    """A reader of the checkpoint that CG starts from, if there is one."""
    checkpoint = job.start
    if checkpoint is None:
        return None

    def read(name: str) -> Tensor:
        for part in (unit.name, *((unit.bias,) if unit.bias else ())):
            ours = job.inputs.family.base.tensors[part].shape
            theirs = checkpoint.tensors.get(part)
            if theirs is None or theirs.shape != ours:
                raise InputError(
                    f"start '{checkpoint.path}'",
                    expected=f"'{part}' with shape {list(ours)}",
                    found=f"shape {list(theirs.shape)}" if theirs else "no such tensor",
                    remedy="Start from a checkpoint of the same family.",
                )
        return _tensor(job, checkpoint, unit)

    return read


def _layer_statistics(
    job: Job, statistics: Statistics, unit: Unit, shape: tuple[int, ...]
) -> LayerStatistics:
    module = module_of(unit.name)
    elements = 1
    for size in shape:
        elements *= size

    def read(kind: str, name: str, expected: tuple[int, ...]) -> Tensor | None:
        if kind not in job.kinds:
            return None
        return statistics.read(name, expected, dtype=job.dtype, device=job.device)

    def read_gram(kind: str, size: int) -> tuple[Tensor | None, LowRank | None]:
        """Whole, or in factors where the file has it so."""
        if kind not in job.kinds or not matrix:
            return None, None
        name, place = f"{module}.{kind}", {"dtype": job.dtype, "device": job.device}
        factors = statistics.factored(name, size, **place)
        return (None, factors) if factors else (statistics.read(name, (size, size), **place), None)

    matrix = len(shape) == 2 and is_weight(unit.name)
    a, a_factors = read_gram("input_gram", shape[-1] if shape else 0)
    b, b_factors = read_gram("output_gradient_gram", shape[0] if shape else 0)
    # A Fisher has the parameter's own layout, as the file does.
    family = job.inputs.family
    fisher = read("fisher", f"{unit.name}.fisher", family.base.tensors[unit.name].shape)
    found = LayerStatistics(
        input_gram=a,
        input_mean=read("input_mean", f"{module}.input_mean", (shape[1],)) if matrix else None,
        output_gradient_gram=b,
        input_factors=a_factors,
        output_gradient_factors=b_factors,
        fisher=None if fisher is None else family.oriented(unit.name, fisher),
        # The block of a matrix would have to be permuted with it; only vectors are measured.
        block=None
        if unit.name in family.transposed
        else read("block", f"{unit.name}.block", (elements, elements)),
    )
    return _folded(job, statistics, unit, found) if unit.bias else found


def _folded(
    job: Job, statistics: Statistics, unit: Unit, found: LayerStatistics
) -> LayerStatistics:
    """The statistics of `[W b]`: the Gram of `[x; 1]`, and both Fishers side by side."""
    gram = found.gram("input_gram")
    if gram is None or found.input_mean is None or unit.bias is None:
        return found
    gram = with_bias(gram, found.input_mean)  # in factors, the mean's column would not be a row
    fisher = found.fisher
    if fisher is not None:
        rows = job.inputs.family.base.tensors[unit.bias].shape
        bias = statistics.read(f"{unit.bias}.fisher", rows, dtype=job.dtype, device=job.device)
        fisher = None if bias is None else torch.cat([fisher, bias[:, None]], 1)
    return replace(found, input_gram=gram, input_factors=None, fisher=fisher)
