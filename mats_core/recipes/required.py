"""What a recipe must have for its method: experts, weights and statistics."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..adapters import Adapted, rank_of
from ..checkpoints import original
from ..errors import InputError, listing
from ..families import Family
from ..methods import METHODS, Method, Options, options_of_the_base, space_of
from ..statistics import Statistics
from .recipe import Recipe


def expert_weights(recipe: Recipe, method: Method, options: Options) -> tuple[float, ...]:
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
    require_weights(recipe, method, options, weights)
    return tuple(weights)


def require_weights(
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
    require_experts(recipe, method)
    require_steps(recipe, method)
    expert_weights(recipe, method, options)


def require_experts(recipe: Recipe, method: Method) -> None:
    if method.experts not in (None, len(recipe.experts)):
        raise InputError(
            f"method '{method.name}'",
            expected=f"exactly {method.experts} experts",
            found=f"{len(recipe.experts)}: {listing([e.name for e in recipe.experts])}",
            remedy=f"Choose the {method.experts} to merge, or a method for any number such as "
            "'average'.",
        )


def require_statistics(
    recipe: Recipe,
    measured: Sequence[Statistics | None],
    of_base: Statistics | None,
    method: Method,
    options: Options,
) -> None:
    required = set(method.requires(options))
    if method.folds(options) and "input_gram" in required:
        required.add("input_mean")  # of the column of ones beside the inputs
    for entry, statistics in zip(recipe.experts, measured, strict=True):
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
        if of_base is None:
            other = "a number" if option.numeric else "another value"
            raise InputError(
                f"option '{option.name}' of '{method.name}'",
                expected="'base_statistics' in the recipe",
                found="none",
                remedy=f"Measure the base as well, or give {other}: {option.help}.",
            )


def require_factors(family: Family, method: Method, options: Sequence[Options]) -> None:
    """Raise `InputError` where a core space is asked for and no layer has low-rank factors."""
    if not any(space_of(own) == "core" for own in options):
        return
    adapters = [e.name for e in family.experts if isinstance(original(e.checkpoint), Adapted)]
    matrices = [name for name in family.shared if family.roles[name] == "matrix"]
    for name in matrices:
        ranks = [rank_of(expert.checkpoint, name) for expert in family.experts]
        if None not in ranks and any(ranks):
            return
    others = [expert.name for expert in family.experts if expert.name not in adapters]
    raise InputError(
        f"option 'space' of '{method.name}'",
        expected="experts that are LoRA adapters, whose factors make the core space",
        found=f"full weights of {listing(others)}" if others else "adapters without factors",
        remedy="Choose 'knots', which takes full weights too, or 'full'.",
    )


def require_steps(recipe: Recipe, method: Method) -> None:
    """Raise `InputError` where steps after the merge cannot be applied."""
    steps = recipe.steps()
    if steps and method.calibrates:
        raise InputError(
            f"'after' with method '{method.name}'",
            expected="no step: every layer is solved for the layers before it as they are, and "
            "would not fit them after a step",
            found=listing(one.step.name for one in steps),
            remedy="Leave 'after' out, or choose another method.",
        )
    whole = [one.step.name for one in steps if one.step.whole]
    if whole and recipe.adds_to is not None:
        raise InputError(
            "'after' of a merge that adds to another one",
            expected="steps that need no expert's own update",
            found=listing(whole),
            remedy="Merge all experts at once.",
        )
