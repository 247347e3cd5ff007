"""Weights, options and steps of one layer: what a recipe's rules (`by`) say, and what it refuses.

A rule is about tensors by a pattern of their names, by the depth of their block (`names.depths`),
or by both.  Of two rules about one tensor the later one wins: its number, its weight of an expert,
its value of an option.  Weights of experts are factors of those in the recipe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from ..errors import InputError, listing, nearest
from ..methods import Method, Options, describe
from ..names import block_depths, common_prefix, depths
from .recipe import Recipe, parse_options
from .required import require_weights
from .sections import Rule

ROUNDING = 1e-3  # of a depth: 0.33 is meant where the block lies at 1/3
NORMS = {"a.0": 1.0, "a.1": 2.0}  # of like layers, to see what a second pass takes from options


@dataclass(frozen=True)
class Local:
    """What rules say of one tensor.

    rules     their numbers in the recipe, from 1
    weights   α_m of each expert
    options   of the method
    changed   the options that the rules have set
    factor    of the whole update, after the merge
    """

    rules: tuple[int, ...]
    weights: tuple[float, ...]
    options: Options
    changed: Mapping[str, Any] = field(default_factory=dict)
    factor: float = 1.0

    def told(self, names: Sequence[str], usual: Sequence[float]) -> dict[str, Any]:
        """What differs from the recipe, for the report of the layer."""
        pairs = zip(names, self.weights, usual, strict=True)
        own = {name: weight for name, weight, other in pairs if weight != other}
        return {
            "rules": list(self.rules),
            **({"own weights": own} if own else {}),
            **({"own options": dict(self.changed)} if self.changed else {}),
        }


def local_settings(
    recipe: Recipe,
    names: Sequence[str],
    method: Method,
    options: Options,
    weights: Sequence[float],
) -> dict[str, Local]:
    """What the rules say of every tensor that one of them is about.

    Raises `InputError` for a rule that is about none, and for what cannot differ by layer.
    """
    found: dict[tuple[int, ...], Local] = {}
    about: dict[str, list[int]] = {}
    for number, rule in enumerate(recipe.by, 1):
        _require(recipe, rule, number, method, options)
        for name in _matched(rule, number, names):
            about.setdefault(name, []).append(number)
    for numbers in map(tuple, about.values()):
        if numbers not in found:
            found[numbers] = _local(recipe, numbers, method, options, weights)
    return {name: found[tuple(numbers)] for name, numbers in about.items()}


def _matched(rule: Rule, number: int, names: Sequence[str]) -> list[str]:
    """The tensors that a rule is about; `InputError` with the nearest where it is about none."""
    prefix = common_prefix(names)
    thing, pattern = f"rule {number} of 'by'", rule.match
    found = list(names)
    if pattern is not None:
        found = [n for n in names if any(fnmatchcase(m, pattern) for m in _called(n, prefix))]
        if not found:
            short = [name.removeprefix(prefix) for name in names]
            raise InputError(
                f"'match' of {thing}",
                expected="a pattern of merged tensors, such as '*.attention.*'",
                found=f"'{pattern}', which none is called",
                remedy=_nearest(pattern, short),
            )
    if rule.depth is not None:
        low, high = rule.depth
        at = depths(names)
        found = [n for n in found if low - ROUNDING <= at[n] <= high + ROUNDING]
        if not found:
            there = listing([f"{one:.3g}" for one in block_depths(names)], 13) or "none"
            raise InputError(
                f"'depth' of {thing}",
                expected=f"depths of blocks between 0 and 1: {there}",
                found=f"{low:g} to {high:g}, where no tensor"
                + (f" called '{pattern}' lies" if pattern is not None else " lies"),
            )
    return found


def _called(name: str, prefix: str) -> tuple[str, ...]:
    """A tensor's name, and as it is written without the model's prefix."""
    return (name, name.removeprefix(prefix)) if prefix else (name,)


def _nearest(pattern: str, names: Sequence[str]) -> str:
    plain = pattern.strip("*?.")
    parts = {part for name in names for part in (name, *name.split(".")) if not part.isdigit()}
    said = nearest(plain, sorted(parts))
    return said if said.startswith("Did") else f"The first are called {listing(names, 4)}."


def _local(
    recipe: Recipe,
    numbers: Sequence[int],
    method: Method,
    options: Options,
    weights: Sequence[float],
) -> Local:
    factor, changed, factors = 1.0, dict[str, Any](), dict[str, float]()
    for number in numbers:
        rule = recipe.by[number - 1]
        changed |= rule.options
        if isinstance(rule.weight, dict):
            factors |= rule.weight
        elif rule.weight is not None:
            factor = rule.weight
    if changed:
        options = parse_options(method.name, {**options.model_dump(), **changed}, recipe.folder)
    names = [entry.name for entry in recipe.experts]
    own = tuple(w * factors.get(name, 1.0) for name, w in zip(names, weights, strict=True))
    if not any(own):
        raise InputError(
            f"weights of {_rules(numbers)} of 'by'",
            expected="at least one expert above zero",
            found="only zeros",
            remedy="To leave the base in these layers, give the number 0 as 'weight'.",
        )
    require_weights(recipe, method, options, own)
    return Local(tuple(numbers), own, options, changed, factor)


def _rules(numbers: Sequence[int]) -> str:
    return f"rule{'s' if len(numbers) > 1 else ''} {listing(map(str, numbers))}"


def _require(recipe: Recipe, rule: Rule, number: int, method: Method, options: Options) -> None:
    """Raise `InputError` for what cannot differ by layer with this method."""
    thing = f"rule {number} of 'by' with method '{method.name}'"
    if method.calibrates and (rule.options or not isinstance(rule.weight, dict)):
        raise InputError(
            thing,
            expected="weights of experts: each layer is solved for where those before it stand, "
            "and the options are those of the walk through all of them",
            found="options" if rule.options else "a factor of the update",
            remedy="Give 'weight' by the experts' names, or choose another method.",
        )
    if not rule.options:
        return
    own = parse_options(method.name, {**options.model_dump(), **rule.options}, recipe.folder)
    fields = {one.name: one for one in describe(method.name)}
    whole = [
        name
        for name, value in rule.options.items()
        if fields[name].task or (fields[name].checkpoint and value not in fields[name].checkpoint)
    ]
    if "model" in (method.surveys(options), method.surveys(own)):
        whole = list(rule.options)  # what is looked for in all layers together
    if method.rescale is not None and method.rescale(NORMS, options) != method.rescale(NORMS, own):
        whole += [one for one in rule.options if _rescales(method, options, one, own)]
    if whole:
        raise InputError(
            thing,
            expected="options that may differ by layer",
            found=f"{listing(dict.fromkeys(whole))}, of which all layers have one value together",
            remedy="Set it in 'options' of the recipe.",
        )


def _rescales(method: Method, options: Options, name: str, own: Options) -> bool:
    """Whether an option decides the factors of a second pass over all layers."""
    assert method.rescale is not None
    one = options.model_copy(update={name: getattr(own, name)})
    return method.rescale(NORMS, options) != method.rescale(NORMS, one)
