"""Whether a merge can keep its sums, or be added to another's; and what it says of itself there."""

from __future__ import annotations

from typing import Any, Literal

import yaml

from ..errors import InputError, listing
from ..methods import METHODS
from .directory import pinned
from .plan import Plan, units
from .reading import treated_as_matrix
from .recipe import ExpertEntry, dump_recipe
from .sums import KeptSums, require_same_layers


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
    _require_method(plan, thing)
    _require_settings(plan, thing)
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


def _require_method(plan: Plan, thing: str) -> None:
    sums = plan.method.sums
    if sums is None:
        can = [method.name for method in METHODS.values() if method.sums is not None]
        raise InputError(
            thing,
            expected=f"a method whose sums over experts say all: {listing(can)}",
            found="one that needs all experts at once",
        )
    if reason := sums.why_not(plan.options):
        raise InputError(
            thing,
            expected="options with which sums over experts say all",
            found=f"others: {reason}",
        )


def _require_settings(plan: Plan, thing: str) -> None:
    recipe = plan.recipe
    negative = plan.method.normalises(plan.options) and min(plan.weights) < 0
    searched = recipe.adds_to is not None and bool(recipe.search)
    wrong: dict[str, str | Literal[False]] = {
        "one round": recipe.rounds > 1 and f"{recipe.rounds}: each measures at all experts' merge",
        "engine 'local'": recipe.engine != "local" and f"'{recipe.engine}'",
        "experts with weights": plan.inputs.vectors is not None and "(IA)³ vectors",
        "weights of at least zero": negative and f"{min(plan.weights):g}",
        "an output, beside which the sums lie": recipe.keep_sums and not recipe.output and "none",
        "the options of the earlier merge, without a search": searched and "a search",
    }
    for expected, found in wrong.items():
        if found:
            raise InputError(thing, expected=expected, found=found)


def identity(plan: Plan) -> dict[str, Any]:
    """What two merges must have in common for their sums to add up; `base` reads its contents."""
    recipe = plan.recipe
    return {
        "base": plan.inputs.family.base.fingerprint,
        "method": recipe.method,
        "options": plan.options.model_dump(mode="json"),
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
