"""From a recipe to layers: the preflight, and one layer at a time read from disk.

A layer is the unit of work: all that a method needs of one tensor (base, experts, statistics) is
read, merged, written and freed before the next.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from .. import models
from ..adapters import VectorFamily, open_expert, vector_family, why_not
from ..checkpoints import Buffers, Checkpoint, InMemory, Weights, original
from ..errors import InputError, listing
from ..families import Expert, Family, examine, look_inside
from ..methods import (
    METHODS,
    Method,
    Options,
    Watch,
    describe,
    named_checkpoints,
    options_of_the_base,
)
from ..names import bias_of, is_matrix, is_weight, module_of
from ..statistics import Statistics
from ..system import Memo, choose_device
from .matching import read_through, require_matching, warn_of_labels
from .recipe import Recipe
from .sums import EarlierMerge


@dataclass(frozen=True)
class Inputs:
    """A recipe's files, opened and checked: what does not depend on method and options.

    family            base and experts, with the role of every tensor
    statistics        of each expert, in the family's order; None where none were named
    base_statistics   of the base, for methods that take it as a prior
    notes             what users should know about these files, a sentence each
    memo              what merges over these files remember for the next one
    looked_through    whether the contents were read, and not the headers alone (`complete`)
    earlier           the merge that the experts are added to; None: they are merged by themselves
    """

    family: Family
    statistics: tuple[Statistics | None, ...]
    base_statistics: Statistics | None
    notes: tuple[str, ...] = ()
    memo: Memo = field(default_factory=Memo, compare=False, repr=False)
    looked_through: bool = True
    earlier: EarlierMerge | None = None

    @functools.cached_property
    def in_memory(self) -> bool:
        """Whether a model was given as its tensors, which may change: read where they lie."""
        given = (self.family.base, *(expert.checkpoint for expert in self.family.experts))
        return any(isinstance(original(weights), InMemory) for weights in given)

    def require_unchanged(self) -> None:
        """Raise `InputError` where a file has changed since it was opened and judged."""
        for weights in (self.family.base, *(e.checkpoint for e in self.family.experts)):
            weights.require_unchanged()
        for statistics in (*self.statistics, self.base_statistics):
            if statistics is not None:
                statistics.require_unchanged()

    @functools.cached_property
    def vectors(self) -> VectorFamily | None:
        """What is merged in place of the family's tensors where all experts are (IA)³ adapters."""
        return vector_family(self.family)


@dataclass(frozen=True)
class Plan:
    """One merge, ready to run.

    recipe    what to merge and how
    inputs    the recipe's files, opened and checked
    method    the recipe's row of `METHODS`
    options   of the method, validated
    device    where the arithmetic runs
    reason    why this device was chosen, in words
    dtype     of the arithmetic
    weights   α_m of each expert, not normalised; times its examples where the recipe says so
    kinds     kinds of statistics that the method reads, given its options
    keep      CG iterations whose iterates the `LayerDone` events carry
    watch     called with what a method computes on its way (see `Layer.show`); None: nothing
              watches
    start     weights that the solve starts from, where an option names a checkpoint
    buffers   memory into which the next piece of a large tensor is read
    """

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
    watch: Watch | None = None
    start: Weights | None = None
    buffers: Buffers = field(default_factory=Buffers, compare=False, repr=False)

    def of_vectors(self) -> Plan:
        """The plan over the (IA)³ vectors, where all experts are such adapters; else this one."""
        if self.inputs.vectors is None:
            return self
        # Folded into the base in the arithmetic's own precision, and rounded once.
        recipe = self.recipe.model_copy(update={"output": None, "output_dtype": None})
        inputs = replace(self.inputs, family=self.inputs.vectors.family)
        return replace(self, recipe=recipe, inputs=inputs)


@dataclass(frozen=True)
class Unit:
    """The tensors that are merged as one layer.

    name   the tensor, by the base's name
    bias   the bias that is folded in as a further column; None: none is
    """

    name: str
    bias: str | None = None


def open_inputs(recipe: Recipe, memo: Memo | None = None, *, contents: bool = True) -> Inputs:
    """Every file of a recipe, opened and checked; raises `InputError` before any work is done.

    With a `memo`, merges over these inputs remember what the next one can use.  Without `contents`
    only headers are read: enough to judge a merge; `complete` reads on in the same files.
    """
    base = Checkpoint.open(recipe.model_path(recipe.base))
    experts = [
        Expert(entry.name, open_expert(recipe.model_path(entry.model), base), entry.task or "")
        for entry in recipe.experts
    ]
    examined = functools.partial(examine, base, experts, contents=False, anatomy=models.anatomy)
    family = examined(heads=recipe.heads)
    earlier = EarlierMerge.open(recipe.path(recipe.adds_to)) if recipe.adds_to else None
    if earlier is not None and recipe.heads is None:
        family = examined(heads=earlier.heads_with(family))
    inputs = Inputs(family, (None,) * len(experts), None, (), memo or Memo(), False, earlier)
    inputs = with_statistics(inputs, recipe)
    return complete(inputs, recipe) if contents else inputs


def with_statistics(inputs: Inputs, recipe: Recipe) -> Inputs:
    """The same opened files with the statistics that a recipe names for them."""
    family = inputs.family
    found = replace(
        inputs,
        statistics=tuple(
            _statistics(recipe, entry.statistics, expert.checkpoint)
            for entry, expert in zip(recipe.experts, family.experts, strict=True)
        ),
        base_statistics=_statistics(recipe, recipe.base_statistics, family.base),
    )
    return _checked(found) if inputs.looked_through else found


def complete(inputs: Inputs, recipe: Recipe) -> Inputs:
    """The same opened files after their contents were read.

    Numbers that are not finite are refused, equal tensors tied, and fingerprints compared with the
    recipe's and the statistics'.
    """
    if inputs.looked_through:
        return inputs
    family = inputs.family
    _expect(family.base, recipe.base_fingerprint)
    for entry, expert in zip(recipe.experts, family.experts, strict=True):
        _expect(expert.checkpoint, entry.fingerprint)
    if inputs.earlier is not None:
        inputs.earlier.require({"base": family.base.fingerprint})
        inputs.earlier.verify()
    family = look_inside(family, strangers=recipe.strangers == "allow")
    return _checked(replace(inputs, family=family, looked_through=True))


def _checked(inputs: Inputs) -> Inputs:
    """The same with its notes, if the statistics are those of these checkpoints."""
    family = inputs.family
    checkpoints = (*(expert.checkpoint for expert in family.experts), family.base)
    measured = (*inputs.statistics, inputs.base_statistics)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for checkpoint, statistics in zip(checkpoints, measured, strict=True):
            if statistics is not None:
                statistics.check(checkpoint.fingerprint)
        warn_of_labels(measured)
    return replace(inputs, notes=notes_on(family, caught))


def notes_on(family: Family, caught: Sequence[warnings.WarningMessage]) -> tuple[str, ...]:
    """Remarks on a family and on how it was opened, with the warnings about its statistics."""
    own = [expert.checkpoint for expert in family.experts]
    opened = (note for one in own for note in one.notes)
    layers = dict.fromkeys(note for one in (family.base, *own) for note in models.depth_notes(one))
    said = (str(one.message) for one in caught)
    return (*family.notes, *said, *opened, *layers, *why_not(family))


def _expect(checkpoint: Weights, fingerprint: str | None) -> None:
    if fingerprint and fingerprint != checkpoint.fingerprint:
        raise InputError(
            f"checkpoint '{checkpoint.path}'",
            expected=f"fingerprint {fingerprint[:12]}, as the recipe says",
            found=checkpoint.fingerprint[:12],
            remedy="It changed since the recipe was written; remove the fingerprint to use it.",
        )


def _statistics(recipe: Recipe, reference: str | None, on: Weights) -> Statistics | None:
    if reference is None:
        return None
    return under_base_names(Statistics.open(recipe.path(reference)), on)


def under_base_names(statistics: Statistics, on: Weights) -> Statistics:
    """Statistics that were measured on `on`, under the base's names of its tensors."""
    return read_through(statistics, on).under({on.own(name): name for name in on.tensors})


def prepare(recipe: Recipe, inputs: Inputs | None = None, keep: Sequence[int] = ()) -> Plan:
    """The plan of a merge, ready to run; raises `InputError` for all that can be wrong with it."""
    inputs = inputs or open_inputs(recipe)
    method, options = METHODS[recipe.method], recipe.parsed_options()
    if inputs.vectors is not None:
        options = _with_blocks(method, options, inputs)
    device, reason = choose_device(recipe.device)
    if device == "mps" and recipe.dtype == "float64":
        raise InputError("dtype 'float64'", expected="cpu or cuda", found="mps")
    _require_experts(recipe, method)
    _require_statistics(recipe, inputs, method, options)
    families = [inputs.family, *([inputs.vectors.family] if inputs.vectors else [])]
    names = [f"'{expert.name}'" for expert in inputs.family.experts]
    measured = dict(zip(names, inputs.statistics, strict=True))
    kinds = method.reads(options)
    require_matching(families, {**measured, "the base": inputs.base_statistics}, kinds)
    starts = named_checkpoints(method.name, options.model_dump()).values()
    return Plan(
        recipe=recipe,
        inputs=inputs,
        method=method,
        options=options,
        device=device,
        reason=reason,
        dtype=getattr(torch, recipe.dtype),
        weights=_weights(recipe, method, options),
        kinds=kinds,
        keep=tuple(keep),
        start=next((Checkpoint.open(recipe.path(path)) for path in starts), None),
    )


def _with_blocks(method: Method, options: Options, inputs: Inputs) -> Options:
    """(IA)³ vectors take their full block unless the recipe asks for something else."""
    declared = {own.name: own.vectors for own in describe(method.name) if own.vectors}
    chosen = {name: v for name, v in declared.items() if name not in options.model_fields_set}
    if not chosen:
        return options
    assert inputs.vectors is not None
    for expert, statistics in zip(inputs.family.experts, inputs.statistics, strict=True):
        shapes = statistics.shapes if statistics is not None else ()
        missing = [name for name in inputs.vectors.vectors if f"{name}.block" not in shapes]
        if statistics is not None and missing:
            raise InputError(
                f"statistics '{statistics.source}' of '{expert.name}'",
                expected="the full block of every (IA)³ vector",
                found=f"none for {listing(missing, 3)}",
                remedy=f"Measure the adapter again, or set the option {listing(chosen)}.",
            )
    return options.model_copy(update=chosen)


def _weights(recipe: Recipe, method: Method, options: Options) -> tuple[float, ...]:
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
    largest = torch.finfo(getattr(torch, recipe.dtype)).max
    beyond = [w for w in weights if not abs(w) <= largest]
    if beyond:
        raise InputError(
            "weights",
            expected=f"numbers that {recipe.dtype} can hold, up to {largest:.2g}",
            found=f"{beyond[0]:g}",
            remedy="Weights near 1 are usual.",
        )
    if not any(weights):
        raise InputError("weights", expected="at least one above zero", found="only zeros")
    _require_weights(recipe, method, options, weights)
    return tuple(weights)


def _require_weights(
    recipe: Recipe, method: Method, options: Options, weights: Sequence[float]
) -> None:
    """Signs are for methods of task vectors; where a mean is taken the sum must be positive."""
    named = zip(recipe.experts, weights, strict=True)
    shown = ", ".join(f"{entry.name} {weight:g}" for entry, weight in named)
    mean = method.normalises(options)
    if mean and not sum(weights) > 0:
        raise InputError(
            f"weights of '{method.name}', which divides by their sum",
            expected="a sum above zero",
            found=f"{sum(weights):g} ({shown})",
            remedy="Take a task away with a method of task vectors such as 'task_arithmetic'.",
        )
    if not method.weighted and len(set(weights if mean else map(abs, weights))) > 1:
        raise InputError(
            f"weights of '{method.name}'",
            expected="equal ones"
            + ("" if mean else " but for their signs")
            + ": the method treats its experts alike",
            found=shown,
            remedy="Leave an expert out, or choose a weighted method such as 'task_arithmetic'.",
        )


def require_recipe(recipe: Recipe) -> None:
    """Raise `InputError` for what is wrong with a recipe whatever its files hold: its options, the
    number of experts and their weights."""
    method, options = METHODS[recipe.method], recipe.parsed_options()
    _require_experts(recipe, method)
    _weights(recipe, method, options)


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
    required = set(method.requires(options))
    if method.folds(options) and "input_gram" in required:
        required.add("input_mean")  # of the column of ones beside the inputs
    for entry, statistics in zip(recipe.experts, inputs.statistics, strict=True):
        if required and statistics is None:
            raise InputError(
                f"method '{method.name}'",
                expected="statistics for every expert",
                found=f"none for '{entry.name}'",
                remedy="Run `python -m mats_core measure` on it and name the file in the recipe, "
                "or pass what `mats_core.measure` returns.",
            )
        if statistics is not None and required - statistics.kinds:
            raise InputError(
                f"statistics '{statistics.source}' of '{entry.name}'",
                expected=f"{listing(sorted(required))} for '{method.name}'",
                found=f"no {listing(sorted(required - statistics.kinds))}",
                remedy="Measure again.",
            )
    for option in options_of_the_base(method.name, options.model_dump()):
        if inputs.base_statistics is None:
            other = "a number" if option.numeric else "another value"
            raise InputError(
                f"option '{option.name}' of '{method.name}'",
                expected="'base_statistics' in the recipe",
                found="none",
                remedy=f"Measure the base as well, or give {other}: {option.help}.",
            )


# Layers -------------------------------------------------------------------------------------------


def units(plan: Plan) -> list[Unit]:
    """The layers of a plan, in the order of the checkpoint."""
    shared = plan.inputs.family.shared
    folded: dict[str, str] = {}
    if plan.method.folds(plan.options):
        for name in shared:
            bias = bias_of(name)
            if is_weight(name) and bias in shared and _foldable(plan, name):
                folded[name] = bias
    biases = set(folded.values())
    return [Unit(name, folded.get(name)) for name in shared if name not in biases]


def _foldable(plan: Plan, name: str) -> bool:
    if "input_gram" not in plan.kinds:  # the update's own, which every matrix has
        return is_matrix(name, plan.inputs.family.shape(name))
    wanted = (f"{module_of(name)}.input_gram", f"{module_of(name)}.input_mean")
    return all(s is not None and all(n in s for n in wanted) for s in plan.inputs.statistics)
