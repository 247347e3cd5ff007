"""From a recipe to layers: the preflight, and one layer at a time read from disk.

A layer is the unit of work: all that a method needs of one tensor (base, experts, statistics) is
read, merged, written and freed before the next.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..adapters import VectorFamily, open_expert, vector_family, why_not
from ..checkpoints import Buffers, Checkpoint, Wanted
from ..errors import InputError, listing
from ..families import Expert, Family, examine
from ..linear import LowRank
from ..methods import METHODS, STARTS, Layer, LayerStatistics, Method, Options
from ..names import bias_of, is_matrix, is_weight, module_of
from ..statistics import Statistics, with_bias
from ..system import Memo
from .recipe import Recipe

DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

WHOLE = 1 << 18  # elements of a tensor that is not worth being read in pieces
PIECE = 1 << 22  # elements of the largest piece, whatever a method asks for


@dataclass(frozen=True)
class Inputs:
    """A recipe's files, opened and checked: what does not depend on method and options."""

    family: Family
    statistics: tuple[Statistics | None, ...]
    base_statistics: Statistics | None
    notes: tuple[str, ...] = ()
    memo: Memo = field(default_factory=Memo, compare=False, repr=False)

    @functools.cached_property
    def vectors(self) -> VectorFamily | None:
        """What is merged in place of the family's tensors where all experts are (IA)³ adapters."""
        return vector_family(self.family)


@dataclass(frozen=True)
class Job:
    """One merge, ready to run."""

    recipe: Recipe
    inputs: Inputs
    method: Method
    options: Options
    device: str
    reason: str
    dtype: torch.dtype
    weights: tuple[float, ...]
    kinds: frozenset[str]
    keep: tuple[int, ...] = ()
    start: Checkpoint | None = None
    pulse: Callable[[int, float], None] | None = None
    buffers: Buffers = field(default_factory=Buffers, compare=False, repr=False)

    def of_vectors(self) -> Job:
        """The job that is really done: over the vectors, where the experts are (IA)³ adapters."""
        if self.inputs.vectors is None:
            return self
        # Folded into the base in the arithmetic's own precision, and rounded once.
        recipe = self.recipe.model_copy(update={"output": None, "output_dtype": None})
        inputs = replace(self.inputs, family=self.inputs.vectors.family)
        return replace(self, recipe=recipe, inputs=inputs)


@dataclass(frozen=True)
class Unit:
    """The tensors that are merged as one layer: a tensor, or a weight with its bias folded in."""

    name: str
    bias: str | None = None


def open_inputs(recipe: Recipe, memo: Memo | None = None, *, contents: bool = True) -> Inputs:
    """Open and check every file of a recipe; raises `InputError` before any work is done.

    With a `memo`, merges over these inputs remember what the next one can use.  Without `contents`
    only headers are read: enough to estimate a merge, not to run it.
    """
    base = Checkpoint.open(recipe.model_path(recipe.base))
    _expect(base, recipe.base_fingerprint if contents else None)
    experts = []
    for entry in recipe.experts:
        checkpoint = open_expert(recipe.model_path(entry.model), base)
        _expect(checkpoint, entry.fingerprint if contents else None)
        experts.append(Expert(entry.name, checkpoint, entry.task or ""))
    family = examine(base, experts, heads=recipe.heads, contents=contents)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        statistics = tuple(
            _statistics(recipe, entry.statistics, expert.checkpoint, contents)
            for entry, expert in zip(recipe.experts, family.experts, strict=True)
        )
        base_statistics = _statistics(recipe, recipe.base_statistics, base, contents)
    notes = tuple(str(warning.message) for warning in caught)
    notes += tuple(note for expert in experts for note in expert.checkpoint.notes)
    notes = (*family.notes, *notes, *why_not(family))
    return Inputs(family, statistics, base_statistics, notes, memo or Memo())


def _expect(checkpoint: Checkpoint, fingerprint: str | None) -> None:
    if fingerprint and fingerprint != checkpoint.fingerprint:
        raise InputError(
            f"checkpoint '{checkpoint.path}'",
            expected=f"fingerprint {fingerprint[:12]}, as the recipe says",
            found=checkpoint.fingerprint[:12],
            remedy="It changed since the recipe was written; remove the fingerprint to use it.",
        )


def _statistics(
    recipe: Recipe, reference: str | None, on: Checkpoint, contents: bool
) -> Statistics | None:
    if reference is None:
        return None
    statistics = Statistics.open(recipe.path(reference))
    if contents:
        statistics.check(on.fingerprint)
    return statistics.under({on.own(name): name for name in on.tensors})


def prepare(recipe: Recipe, inputs: Inputs | None = None, keep: Sequence[int] = ()) -> Job:
    """Everything that can be wrong with a merge, found before it starts."""
    inputs = inputs or open_inputs(recipe)
    method, options = METHODS[recipe.method], recipe.parsed_options()
    if inputs.vectors is not None:
        options = _with_blocks(options, inputs)
    device, reason = choose_device(recipe.device)
    if device == "mps" and recipe.dtype == "float64":
        raise InputError("dtype 'float64'", expected="cpu or cuda", found="mps")
    kinds = method.reads(options)
    _require_experts(recipe, method)
    _require_statistics(recipe, inputs, method, options)
    return Job(
        recipe=recipe,
        inputs=inputs,
        method=method,
        options=options,
        device=device,
        reason=reason,
        dtype=DTYPES[recipe.dtype],
        weights=_weights(recipe, method),
        kinds=kinds,
        keep=tuple(keep),
        start=_start(recipe, options),
    )


def _with_blocks(options: Options, inputs: Inputs) -> Options:
    """(IA)³ vectors take their full block unless the recipe asks for something else."""
    if "remaining" not in type(options).model_fields or "remaining" in options.model_fields_set:
        return options
    assert inputs.vectors is not None
    for expert, statistics in zip(inputs.family.experts, inputs.statistics, strict=True):
        missing = [
            name
            for name in inputs.vectors.vectors
            if statistics is not None and f"{name}.block" not in statistics.shapes
        ]
        if statistics is not None and missing:
            raise InputError(
                f"statistics '{statistics.source}' of '{expert.name}'",
                expected="the full block of every (IA)³ vector",
                found=f"none for {listing(missing, 3)}",
                remedy="Measure the adapter again, or set the option 'remaining'.",
            )
    return options.model_copy(update={"remaining": "block"})


def _start(recipe: Recipe, options: Options) -> Checkpoint | None:
    """The checkpoint that the option `start` names, if it names one."""
    start = getattr(options, "start", None)
    return None if start is None or start in STARTS else Checkpoint.open(recipe.path(start))


def choose_device(wanted: str) -> tuple[str, str]:
    """The device and why: the fastest there is for `auto`; `InputError` if it is not there."""
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if wanted == "auto":
        device = next(name for name, there in available.items() if there)
        absent = [name for name, there in available.items() if not there]
        return device, f"chosen automatically; not here: {', '.join(absent) or 'none'}"
    if not available[wanted]:
        raise InputError(
            f"device '{wanted}'",
            expected=f"one of {', '.join(name for name, there in available.items() if there)}",
            found="no such device on this machine",
            remedy="Use 'auto'.",
        )
    return wanted, "as the recipe says"


def _weights(recipe: Recipe, method: Method) -> tuple[float, ...]:
    weights = [entry.weight for entry in recipe.experts]
    if recipe.weighting == "examples":
        missing = [entry.name for entry in recipe.experts if entry.examples is None]
        if missing:
            raise InputError(
                "weighting 'examples'",
                expected="'examples' for every expert",
                found=f"none for {listing(missing)}",
            )
        weights = [w * (e.examples or 0) for w, e in zip(weights, recipe.experts, strict=True)]
    if not sum(weights) > 0:
        raise InputError("weights", expected="at least one above zero", found="only zeros")
    if not method.weighted and len(set(weights)) > 1:
        raise InputError(
            f"weights of '{method.name}'",
            expected="equal ones: the method treats its experts alike",
            found=", ".join(f"{w:g}" for w in weights),
            remedy="Leave an expert out, or choose a weighted method such as 'task_arithmetic'.",
        )
    return tuple(weights)


def _require_experts(recipe: Recipe, method: Method) -> None:
    if method.experts not in (None, len(recipe.experts)):
        raise InputError(
            f"method '{method.name}'",
            expected=f"exactly {method.experts} experts",
            found=f"{len(recipe.experts)}: {listing([e.name for e in recipe.experts])}",
            remedy=f"Choose the {method.experts} to merge, or a method for any number such as "
            "'average'.",
        )


def _require_statistics(recipe: Recipe, inputs: Inputs, method: Method, options: Options) -> None:
    required = set(method.requires)
    if getattr(options, "fold_bias", False):
        required.add("input_mean")
    for entry, statistics in zip(recipe.experts, inputs.statistics, strict=True):
        if not required:
            break
        if statistics is None:
            raise InputError(
                f"method '{method.name}'",
                expected="statistics for every expert",
                found=f"none for '{entry.name}'",
                remedy="Run `python -m mats_core measure` on it and name the file in the recipe.",
            )
        there = statistics.kinds
        if required - there:
            raise InputError(
                f"statistics '{statistics.source}' of '{entry.name}'",
                expected=f"{listing(sorted(required))} for '{method.name}'",
                found=f"no {listing(sorted(required - there))}",
                remedy="Measure again.",
            )
    if getattr(options, "prior", None) == "pretrained" and inputs.base_statistics is None:
        raise InputError(
            f"option 'prior' of '{method.name}'",
            expected="'base_statistics' in the recipe",
            found="none",
            remedy="Measure the base as well, or give a number δ for the prior δ I.",
        )


# Layers -------------------------------------------------------------------------------------------


def units(job: Job) -> list[Unit]:
    """The layers of a job, in the order of the checkpoint."""
    shared = job.inputs.family.shared
    folded: dict[str, str] = {}
    if job.method.folds(job.options):
        for name in shared:
            bias = bias_of(name)
            if is_weight(name) and bias in shared and _foldable(job, module_of(name)):
                folded[name] = bias
    biases = set(folded.values())
    return [Unit(name, folded.get(name)) for name in shared if name not in biases]


def _foldable(job: Job, module: str) -> bool:
    wanted = (f"{module}.input_gram", f"{module}.input_mean")
    return all(s is not None and all(n in s for n in wanted) for s in job.inputs.statistics)


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


# Pieces -------------------------------------------------------------------------------------------


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
