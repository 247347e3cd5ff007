"""What a family is and what a merge of it may use: by headers, a glance at the matrices, and the
tables of its tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from .. import models, tasks
from ..errors import InputError, listing
from ..families import FAR, STRANGE, Expert, kinship, rewritten
from ..recipes import Inputs, Recipe
from .evidence import Needs

READ = {"choices": "text"}  # kinds of tasks whose inputs are of another name in the study


@dataclass(frozen=True)
class Situation:
    """What a family is.

    experts     how many are merged
    form        of the experts: `full`, or that of adapters
    kind        of their inputs: `image`, `text`, or what no family of the study reads
    examples    of the training half of each expert's task, by its name
    untold      experts that name no task
    barrier     why inputs cannot pass through the models, layer by layer; empty where they can
    cosines     of the matrices of each expert and the base; None where it is not known
    strangers   whether a merge allows experts that have nothing in common with the base
    rewritten   modules between blocks and heads that every expert wrote anew, and how many times
                further than the blocks they lie from the base
    needs       what a merge may use
    """

    experts: int
    form: str
    kind: str
    examples: Mapping[str, int]
    untold: tuple[str, ...]
    barrier: str
    cosines: Mapping[str, float | None]
    strangers: bool
    rewritten: Mapping[str, float]
    needs: Needs

    @property
    def nearest(self) -> float | None:
        """The least cosine of an expert and the base; None where none is known."""
        return min((one for one in self.cosines.values() if one is not None), default=None)

    @property
    def apart(self) -> tuple[str, ...]:
        """Experts that have nothing in common with the base."""
        return tuple(e for e, one in self.cosines.items() if one is not None and one < STRANGE)

    @property
    def doubtful(self) -> tuple[str, ...]:
        """Experts that have little in common with the base, and are no strangers."""
        return tuple(
            e for e, one in self.cosines.items() if one is not None and STRANGE <= one < FAR
        )


def situation(
    inputs: Inputs,
    recipe: Recipe,
    *,
    counts: Mapping[str, int] | None = None,
    examples: int | None = None,
    labels: bool = True,
    pile: bool = False,
    larger: bool = False,
) -> Situation:
    """What the experts of a recipe are, and what a merge of them may use.

    counts     examples that are there, by expert, where they are known; else the tasks are loaded
    examples   of each task that may be used at most; None: all
    labels     whether their labels may be used
    pile       whether there is an unsorted pile of the inputs of all tasks
    larger     whether the output may be larger than a static merge
    """
    family = inputs.family
    named = [expert for expert in family.experts if expert.task]
    there = {e.name: counts[e.name] if counts and e.name in counts else _count(e, recipe)
             for e in named}  # fmt: skip
    untold = tuple(expert.name for expert in family.experts if not expert.task)
    fewest = 0 if untold else min(there.values(), default=0)
    barrier = _barrier(inputs, recipe)
    needs = Needs(
        examples=fewest if examples is None else min(fewest, examples),
        labels=labels and fewest > 0,
        walkable=not barrier,
        pile=pile,
        larger=larger,
        measured=all(one is not None for one in inputs.statistics),
    )
    forms = dict.fromkeys(expert.checkpoint.form for expert in family.experts)
    names = [expert.name for expert in family.experts]
    return Situation(
        experts=len(family.experts),
        form=listing(form or "full" for form in forms),
        kind=_kind(inputs, recipe),
        examples=there,
        untold=untold,
        barrier=barrier,
        cosines=dict(zip(names, kinship(family), strict=True)),
        strangers=recipe.strangers == "allow",
        rewritten=rewritten(family),
        needs=needs,
    )


def _count(expert: Expert, recipe: Recipe) -> int:
    return len(tasks.load(expert.task, root=recipe.folder).train)


def _kind(inputs: Inputs, recipe: Recipe) -> str:
    """What the experts read: by their tasks, else by the class of their models."""
    experts = inputs.family.experts
    forms = [tasks.load(e.task, root=recipe.folder).form.kind for e in experts if e.task]
    if forms:
        first, *others = dict.fromkeys(READ.get(kind, kind) for kind in forms)
        return "" if others else first
    try:
        known = models.facts_of(experts[0].checkpoint.directory)
    except InputError:
        return ""
    return known.reads or known.takes


def _barrier(inputs: Inputs, recipe: Recipe) -> str:
    """Why inputs cannot pass through the models layer by layer, as sequential calibration asks."""
    if recipe.engine != "local":
        return f"engine '{recipe.engine}' merges layers apart from each other"
    if inputs.vectors is not None:
        return "(IA)³ vectors are merged as they are"
    experts = inputs.family.experts
    if lost := [one.name for one in experts if one.checkpoint.directory is None]:
        return f"there is no model's directory for {listing(lost)}"
    for expert in experts:
        known = models.anatomy(expert.checkpoint)
        if known is None:
            return f"no class of transformers can be built for '{expert.name}'"
        parts = Counter(known.loaded(name) for name in expert.checkpoint.tensors)
        if joined := [name for name, count in parts.items() if count > 1]:
            return f"parameters are put together from several tensors ({listing(joined, 2)})"
    return ""
