"""Whether a merge can keep its sums, or be added to another's; and what it says of itself there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from ..errors import InputError, listing
from ..methods import METHODS, describe
from ..recipes import ExpertEntry, KeptSums, Plan, Recipe, dump_recipe, require_same_layers, units
from .directory import pinned
from .reading import treated_as_matrix


def require(plan: Plan) -> None:
    """Raise `InputError` where sums are to be kept or added to, and cannot be."""
    recipe, earlier = plan.recipe, plan.inputs.earlier
    if recipe.adds_to is not None and earlier is None:
        raise InputError(
            f"inputs of a merge that adds to '{recipe.adds_to}'",
            expected="files that were opened by its recipe",
            found="others, without the earlier merge's sums",
            remedy="Leave 'inputs' out.",
        )
    if not recipe.keep_sums and earlier is None:
        return
    thing = f"'{'keep_sums' if earlier is None else 'adds_to'}' with method '{recipe.method}'"
    for expected, found in (*_against(recipe, plan.options, plan.weights), *_against_plan(plan)):
        raise InputError(thing, expected=expected, found=found)
    if earlier is None:
        return
    earlier.require({k: v for k, v in identity(plan).items() if k != "base"})
    before = {entry.name for entry in earlier.experts}
    twice = [entry.name for entry in recipe.experts if entry.name in before]
    if twice:
        raise InputError(
            f"experts of a merge that adds to '{recipe.adds_to}'",
            expected=f"other names than those merged already: {listing(sorted(before))}",
            found=listing(twice),
            remedy="Name only the experts that are new.",
        )


def no_sums(recipe: Recipe) -> str:
    """Why a merge by this recipe could not keep its sums beside an output, in a few words; empty
    where it could, as far as the recipe alone says."""
    weights = [entry.weight for entry in recipe.experts]
    return next((said for _, said in _against(recipe, recipe.parsed_options(), weights)), "")


def _against(recipe: Recipe, options: Any, weights: Sequence[float]) -> Iterator[tuple[str, str]]:
    """(expected, found) of what a recipe says and its sums cannot be kept with."""
    method = METHODS[recipe.method]
    if method.sums is None:
        can = [one.name for one in METHODS.values() if one.sums is not None]
        expected = f"a method whose sums over experts say all: {listing(can)}"
        yield expected, "one that needs all experts at once"
        return
    if reason := method.sums.why_not(options):
        yield "options with which sums over experts say all", f"others: {reason}"
    if recipe.rounds > 1:
        yield "one round", f"{recipe.rounds}: each measures at all experts' merge"
    if recipe.by:
        expected = "the same weights and options in every layer, where sums are kept or added to"
        yield expected, "rules by layer"
    if recipe.engine != "local":
        yield "engine 'local'", f"'{recipe.engine}'"
    if method.normalises(options) and min(weights) < 0:
        yield "weights of at least zero", f"{min(weights):g}"


def _against_plan(plan: Plan) -> Iterator[tuple[str, str]]:
    """The same of what only the opened files and the whole recipe say."""
    recipe = plan.recipe
    if plan.inputs.vectors is not None:
        yield "experts with weights", "(IA)³ vectors"
    if recipe.keep_sums and not recipe.output:
        yield "an output, beside which the sums lie", "none"
    if recipe.adds_to is not None and recipe.search:
        yield "the options of the earlier merge, without a search", "a search"


def identity(plan: Plan) -> dict[str, Any]:
    """What two merges must have in common for their sums to add up; `base` reads its contents.

    Options whose defaults go by the number of experts do not enter the sums (`option`).
    """
    recipe = plan.recipe
    later = {own.name for own in describe(recipe.method) if own.by_experts}
    return {
        "base": plan.inputs.family.base.fingerprint,
        "method": recipe.method,
        "options": plan.options.model_dump(mode="json", exclude=later),
        "dtype": recipe.dtype,
        "weighting": recipe.weighting,
        "heads": None if recipe.heads is None else list(recipe.heads),
    }


def layers_of(plan: Plan) -> dict[str, tuple[str | None, bool]]:
    """Every layer with the bias that is folded in, and whether it is a matrix."""
    return {unit.name: (unit.bias, treated_as_matrix(plan, unit.name)) for unit in units(plan)}


def require_layers(plan: Plan) -> None:
    """Raise `InputError` where other tensors are merged than in the merge that is added to."""
    if plan.inputs.earlier is not None:
        require_same_layers(plan.inputs.earlier, layers_of(plan))


def finish(plan: Plan, sums: KeptSums) -> None:
    """Write the manifest of the sums, which says of what they are."""
    recipe = yaml.safe_load(dump_recipe(pinned(plan), absolute=True))
    experts = [ExpertEntry(**entry) for entry in recipe["experts"]]
    earlier = plan.inputs.earlier
    weights = (*(earlier.weights if earlier else ()), *plan.weights)
    heads = [name for name, role in plan.inputs.family.roles.items() if role == "head"]
    sums.finish(identity(plan), experts, weights, layers_of(plan), heads)


def notes_on(plan: Plan) -> list[str]:
    """What users should know of a merge that adds to another one, a sentence."""
    earlier = plan.inputs.earlier
    if earlier is None:
        return []
    mine = listing(entry.name for entry in plan.recipe.experts)
    theirs = listing(entry.name for entry in earlier.experts)
    were = "were" if len(plan.recipe.experts) > 1 else "was"
    return [
        f"{mine} {were} added to the sums of {theirs}, whose files were not read and whose tasks "
        "were not asked: `evaluate` on this folder asks all of them"
    ]
