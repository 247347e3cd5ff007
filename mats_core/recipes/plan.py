"""From a recipe to layers: the preflight, and one layer at a time read from disk.

A layer is the unit of work: all that a method needs of one tensor (base, experts, statistics) is
read, merged, written and freed before the next.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from .. import models
from ..adapters import VectorFamily, open_expert, vector_family, why_not
from ..aligning import align, aligned_statistics
from ..checkpoints import Buffers, Checkpoint, InMemory, Weights, original
from ..errors import InputError, listing
from ..evaluation import Before
from ..families import Expert, Family, examine, look_inside
from ..methods import (
    METHODS,
    Applied,
    Method,
    Options,
    Watch,
    describe,
    named_checkpoints,
    stretched,
)
from ..names import bias_of, depths, is_matrix, is_weight, module_of
from ..statistics import Statistics, optimizer_statistics, origins, with_optimizer
from ..system import Memo, choose_device
from .by_layer import Local, local_settings
from .matching import read_through, require_matching, warn_of_labels
from .recipe import Recipe
from .required import (
    expert_weights,
    require_experts,
    require_factors,
    require_statistics,
    require_steps,
)
from .sections import ExpertEntry
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
    local     what the recipe's rules say of a layer, by its name
    factor    of the update, in the plan of one layer (see `at`)
    before    a merge that was asked every example, which a test that stops early may start from
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
    local: Mapping[str, Local] = field(default_factory=dict, repr=False)
    factor: float = 1.0
    before: Before | None = field(default=None, compare=False, repr=False)

    def at(self, name: str) -> Plan:
        """The plan with the weights and options of one layer, where rules give it its own."""
        own = self.local.get(name)
        if own is None:
            return self
        if own.rules not in self._layers:
            kinds = self.method.reads(own.options)
            changes = {"weights": own.weights, "options": own.options, "factor": own.factor}
            self._layers[own.rules] = replace(self, kinds=kinds, local={}, **changes)
        return self._layers[own.rules]

    @functools.cached_property
    def _layers(self) -> dict[tuple[int, ...], Plan]:
        return {}

    @functools.cached_property
    def depths(self) -> Mapping[str, float]:
        """The relative depth of every tensor that is merged (see `names.depths`)."""
        return depths(self.inputs.family.shared)

    @functools.cached_property
    def after(self) -> tuple[Applied, ...]:
        """The steps on the merged update of a layer: the factor that rules give it, and those of
        the recipe; of a plan `at` that layer."""
        own = () if self.factor == 1 else (stretched(self.factor),)
        return (*own, *self.recipe.steps())

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
        Expert(entry.name, _opened(recipe, entry, base), entry.task or "")
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


def _opened(recipe: Recipe, entry: ExpertEntry, base: Weights) -> Weights:
    """An expert's weights, in the order of the base's units where the recipe says so."""
    found = open_expert(recipe.model_path(entry.model), base)
    return align(found, base) if entry.align else found


def with_statistics(inputs: Inputs, recipe: Recipe) -> Inputs:
    """The same opened files with the statistics that a recipe names for them."""
    family = inputs.family
    found = replace(
        inputs,
        statistics=tuple(
            _statistics(recipe, entry.statistics, expert.checkpoint, entry.optimizer)
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
    whose = [expert.name for expert in family.experts]
    said = origins(dict(zip(whose, inputs.statistics, strict=True)))
    return replace(inputs, notes=(*notes_on(family, caught), *said))


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


def _statistics(
    recipe: Recipe, reference: str | None, on: Weights, optimizer: str | None = None
) -> Statistics | None:
    found = None if reference is None else Statistics.open(recipe.path(reference))
    if optimizer is not None:
        found = with_optimizer(found, optimizer_statistics(original(on), recipe.path(optimizer)))
    return None if found is None else under_base_names(aligned_statistics(found, on), on)


def under_base_names(statistics: Statistics, on: Weights) -> Statistics:
    """Statistics that were measured on `on`, under the base's names of its tensors."""
    return read_through(statistics, on).under({on.own(name): name for name in on.tensors})


def prepare(recipe: Recipe, inputs: Inputs | None = None, keep: Sequence[int] = ()) -> Plan:
    """The plan of a merge, ready to run; raises `InputError` for all that can be wrong with it."""
    inputs = inputs or open_inputs(recipe)
    before = len(inputs.earlier.experts) if inputs.earlier is not None else 0
    method, options = METHODS[recipe.method], recipe.parsed_options(before)
    if inputs.vectors is not None:
        options = _with_blocks(method, options, inputs)
    device, reason = choose_device(recipe.device)
    if device == "mps" and recipe.dtype == "float64":
        raise InputError("dtype 'float64'", expected="cpu or cuda", found="mps")
    require_experts(recipe, method)
    require_steps(recipe, method)
    families = [inputs.family, *([inputs.vectors.family] if inputs.vectors else [])]
    names = [f"'{expert.name}'" for expert in inputs.family.experts]
    measured = dict(zip(names, inputs.statistics, strict=True))
    weights = expert_weights(recipe, method, options)
    local = local_settings(recipe, families[-1].shared, method, options, weights)
    kinds = frozenset[str]()
    every = [options, *(one.options for one in local.values())]
    require_factors(families[-1], method, every)
    for own in dict.fromkeys(every):
        require_statistics(recipe, inputs.statistics, inputs.base_statistics, method, own)
        kinds |= method.reads(own)
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
        weights=weights,
        kinds=kinds,
        local=local,
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


# Layers -------------------------------------------------------------------------------------------


def units(plan: Plan) -> list[Unit]:
    """The layers of a plan, in the order of the checkpoint."""
    shared = plan.inputs.family.shared
    folded: dict[str, str] = {}
    for name in shared:
        own, bias = plan.at(name), bias_of(name)
        folds = own.method.folds(own.options) and is_weight(name) and bias in shared
        if folds and _foldable(own, name):
            folded[name] = bias
    biases = set(folded.values())
    return [Unit(name, folded.get(name)) for name in shared if name not in biases]


def _foldable(plan: Plan, name: str) -> bool:
    if "input_gram" not in plan.kinds:  # the update's own, which every matrix has
        return is_matrix(name, plan.inputs.family.shape(name))
    wanted = (f"{module_of(name)}.input_gram", f"{module_of(name)}.input_mean")
    return all(s is not None and all(n in s for n in wanted) for s in plan.inputs.statistics)
