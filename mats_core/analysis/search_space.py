"""What a search may turn: options, weights of experts and of depths, steps, ranks.

Every knob is a ladder of values that follow from the declaration of what it turns, so a method that
declares its options can be searched.  Where the page has a slider the ladder holds its stops.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

from ..errors import InputError, listing, member
from ..methods import METHODS, STEPS, OptionField, Options, describe, fields_of
from ..names import block_depths
from ..recipes import Inputs, Recipe, Rule, parse_options
from .sweep import KINDS, suggested

Turned = Literal["option", "weight", "depth", "step", "rank"]
FACTORS = tuple(round(0.1 * tenth, 1) for tenth in range(21))  # of weights, 0 to 2
RANKS = (0, 1, 2, 4, 8, 16, 32, 64)  # of branches; of a LoRA those above 0
EVENLY, POWERS = (0.0, 0.25, 0.5, 0.75, 1.0), (0.01, 0.03, 0.1, 0.3, 1.0)
POINTS = 9  # of a ladder of a number without a slider
MOST_GROUPS = 12  # of blocks with one factor each: the points of the page's curve


@dataclass(frozen=True)
class Space:
    """What is searched.

    options   names of the method's options; None: those that stand on the page at first sight
    weights   whether the experts' weights are
    depths    into how many parts the blocks are divided, each with a factor of its own: of the
              whole update, or of every expert's weight where the method calibrates; 0: none
    after     names of steps, each of which may be applied after the merge, in this order
    rank      whether the rank of branches or of a LoRA is, in a recipe that has them
    values    name of a knob → the values to choose from, in the place of its ladder
    """

    options: tuple[str, ...] | None = None
    weights: bool = False
    depths: int = 0
    after: tuple[str, ...] = ()
    rank: bool = False
    values: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Knob:
    """One thing that a search turns.

    name      in records: `damping`, `weight digits`, `depth 2`, `after svc`, `svc alpha`
    title     on pages
    turns     what kind of thing it is
    values    to choose from
    ordered   whether neighbours in `values` are alike, as numbers by their size are
    key       what it turns: the option, the expert, the part of the depth, the step's option
    within    the step that must be applied for it to count; "" for none
    """

    name: str
    title: str
    turns: Turned
    values: tuple[Any, ...]
    ordered: bool
    key: Any
    within: str = ""


def knobs_of(recipe: Recipe, inputs: Inputs, space: Space) -> tuple[Knob, ...]:
    """The knobs of a search over a recipe.

    Raises `InputError` for options, steps and knobs that are not there, for values that are not
    allowed, and where there is nothing to turn.
    """
    found = [
        *_options(recipe, space.options),
        *(_weights(recipe) if space.weights else ()),
        *(_depths(recipe, inputs, space.depths) if space.depths else ()),
        *_steps(recipe, space.after),
        *(_rank(recipe) if space.rank else ()),
    ]
    names = [knob.name for knob in found]
    for name in space.values:
        member("values to search for a knob", name, names)
    found = [_with_values(recipe, knob, space.values.get(knob.name)) for knob in found]
    found = [knob for knob in found if len(knob.values) > 1]
    if not found:
        raise InputError(
            f"search over '{recipe.method}'",
            expected="something to turn, with at least two values",
            found="nothing",
            remedy="Search its options, the experts' weights, weights by depth or steps after it.",
        )
    return tuple(found)


def with_values(recipe: Recipe, knobs: Sequence[Knob], values: Mapping[str, Any]) -> Recipe:
    """The recipe with its knobs at these values, by their names; those without one stay."""
    weights = {
        knob.key: values[knob.name]
        for knob in knobs
        if knob.turns == "weight" and knob.name in values
    }
    experts = tuple(
        entry.model_copy(update={"weight": weights.get(entry.name, entry.weight)})
        for entry in recipe.experts
    )
    recipe = recipe.model_copy(update={"experts": experts})
    options, after = dict(recipe.options), list(recipe.after)
    steps: dict[str, dict[str, Any]] = {}
    rules: dict[tuple[float, float], Any] = {}
    more: dict[str, Any] = {}
    defaults = {one.name: one.default for one in describe(recipe.method, recipe.count)}
    for knob in knobs:
        if knob.name not in values or knob.turns == "weight":
            continue
        value = values[knob.name]
        if knob.turns == "option":
            options.pop(knob.key, None)
            if value != defaults[knob.key]:
                options[knob.key] = value
        elif knob.turns == "depth":
            expert, bands = knob.key
            for band in bands if value != 1 else ():
                if expert:
                    rules.setdefault(band, {})[expert] = value
                else:
                    rules[band] = value
        elif knob.turns == "step":
            if knob.within:
                steps.get(knob.within, {})[knob.key] = value
            elif value:
                steps[knob.key] = {}
        else:
            own = getattr(recipe, knob.key)
            more[knob.key] = own.model_copy(update={"rank": value})
    by = [Rule(depth=band, weight=weight) for band, weight in sorted(rules.items())]
    after += [{name: chosen} for name, chosen in steps.items()]
    return recipe.model_copy(
        update={
            "options": options, "by": (*recipe.by, *by), "after": tuple(after), **more,
        }
    )  # fmt: skip


def as_it_is(recipe: Recipe, knobs: Sequence[Knob]) -> dict[str, Any]:
    """Where the knobs stand in the recipe; without those that cannot be turned there."""
    defaults = {one.name: one.default for one in describe(recipe.method, recipe.count)}
    weights = {entry.name: entry.weight for entry in recipe.experts}
    found: dict[str, Any] = {}
    for knob in knobs:
        if knob.within:
            continue
        if knob.turns == "option":
            found[knob.name] = recipe.options.get(knob.key, defaults[knob.key])
        elif knob.turns == "rank":
            found[knob.name] = getattr(recipe, knob.key).rank
        else:
            usual = {"weight": weights.get(knob.key), "depth": 1.0, "step": False}
            found[knob.name] = usual[knob.turns]
    return {knob.name: found[knob.name] for knob in knobs if found.get(knob.name) in knob.values}


def points(knobs: Sequence[Knob]) -> int:
    """How many different recipes the knobs can make."""
    free = [knob for knob in knobs if not knob.within and not _switches(knob)]
    total = math.prod(len(knob.values) for knob in free)
    for switch in filter(_switches, knobs):
        inside = [len(knob.values) for knob in knobs if knob.within == switch.key]
        total *= sum(math.prod(inside) if on else 1 for on in switch.values)
    return total


def bands(depths: Sequence[float], most: int = MOST_GROUPS) -> list[tuple[float, float]]:
    """From which depth to which each of at most `most` groups of neighbouring blocks reaches."""
    groups = [depths[low:high] for low, high in _cut(len(depths), most)]
    return [(round(group[0], 4), round(group[-1], 4)) for group in groups]


def _cut(count: int, most: int) -> list[tuple[int, int]]:
    """The places of `count` things in at most `most` groups of nearly one size."""
    groups = min(most, count)
    cuts = [round(index * count / groups) for index in range(groups + 1)] if groups else []
    return list(pairwise(cuts))


def _switches(knob: Knob) -> bool:
    return knob.turns == "step" and not knob.within


# The kinds ----------------------------------------------------------------------------------------


def _options(recipe: Recipe, wanted: Sequence[str] | None) -> list[Knob]:
    there = describe(recipe.method, recipe.count)
    fields = {one.name: one for one in there if _can(one)}
    if wanted is None:
        wanted = [n for n, one in fields.items() if not one.more and one.default is not None]
    found = []
    for name in wanted:
        one = fields[member(f"option of '{recipe.method}' that can be searched", name, fields)]
        values, ordered = ladder(recipe, one)
        now = recipe.options.get(name, one.default)
        found.append(Knob(name, one.title, "option", _with(values, now, ordered), ordered, name))
    return found


def _with(values: tuple[Any, ...], now: Any, ordered: bool) -> tuple[Any, ...]:
    """The values with the one that the recipe has, so that a search can begin with the recipe."""
    if now in values or not (ordered or isinstance(now, int | float | str)):
        return values
    return tuple(sorted({*values, now})) if ordered else (*values, now)


def _can(one: OptionField) -> bool:
    return one.kind in KINDS or bool(one.checkpoint)


def ladder(recipe: Recipe, one: OptionField) -> tuple[tuple[Any, ...], bool]:
    """The values of an option that a search tries, and whether neighbours are alike.

    Below zero it does not go by itself: what is taken away is chosen by hand.
    """
    if one.checkpoint or one.kind in ("bool", "choice"):
        values = one.checkpoint or one.choices or (False, True)
        values += _fitting(METHODS[recipe.method].options, one, _numbers(one))
        lacks = one.base_statistics if recipe.base_statistics is None else ""
        return tuple(value for value in values if not lacks or value != lacks), False
    if one.optional or one.default is None:
        return (None, *suggested(recipe.method, one, POINTS)), False
    values = _fitting(METHODS[recipe.method].options, one, stops(one))
    return values or suggested(recipe.method, one, POINTS), True


def _numbers(one: OptionField) -> tuple[float, ...]:
    """Numbers to try of an option that takes names and numbers."""
    if not one.numeric:
        return ()
    return EVENLY if one.high is not None and one.high <= 1 else POWERS


def _fitting(options: type[Options], one: OptionField, values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Those of the values that the option takes: a bound may be exclusive."""

    def fits(value: Any) -> bool:
        try:
            options.model_validate({one.name: value})
        except ValueError:
            return False
        return True

    return tuple(filter(fits, values))


def stops(one: OptionField) -> tuple[Any, ...]:
    """The stops of a number's slider from zero on, with its default; empty where it has none."""
    if one.control in ("series", "switch") and (one.high or 0) / (one.step or 1) > len(FACTORS):
        return tuple(one.series())
    if one.low is None or one.high is None or not one.step or one.control == "number":
        return ()
    kind, low = (int if one.kind == "int" else float), max(0.0, one.low)
    count = int((one.high - low) / one.step + 1e-9)
    values = {kind(round(low + place * one.step, 10)) for place in range(count + 1)}
    return tuple(sorted(values | {kind(one.default)}))


def _weights(recipe: Recipe) -> list[Knob]:
    method = METHODS[recipe.method]
    if not method.weighted:
        raise InputError(
            f"search over weights of '{method.name}'",
            expected="a method that weighs its experts",
            found="one that treats them alike",
            remedy="Search its options, or choose another method.",
        )
    return [
        Knob(
            f"weight {e.name}", f"Weight of {e.name}", "weight", _with(FACTORS, e.weight, True),
            True, e.name,
        )
        for e in recipe.experts
    ]  # fmt: skip


def _depths(recipe: Recipe, inputs: Inputs, parts: int) -> list[Knob]:
    family = inputs.vectors.family if inputs.vectors is not None else inputs.family
    groups = bands(block_depths(family.shared))
    if not 0 < parts <= len(groups):
        raise InputError(
            "search over weights by depth",
            expected=f"1 to {len(groups)} parts" if groups else "a model with blocks",
            found=str(parts) if groups else "none",
        )
    calibrates = METHODS[recipe.method].calibrates
    found = []
    for number, (low, high) in enumerate(_cut(len(groups), parts), 1):
        where = f"depth {number} of {parts}"
        for expert in [entry.name for entry in recipe.experts] if calibrates else [""]:
            name = f"depth {number} {expert}".strip()
            title = f"{expert}, {where}" if expert else where.capitalize()
            key = expert, tuple(groups[low:high])
            found.append(Knob(name, title, "depth", FACTORS, True, key))
    return found


def _steps(recipe: Recipe, names: Sequence[str]) -> list[Knob]:
    found = []
    for name in names:
        step = STEPS[member("step to search", name, STEPS)]
        if any(name in there for there in recipe.after):
            raise InputError(
                f"search over the step '{name}'",
                expected="a step that the recipe does not have",
                found="one that it has",
                remedy="Take it out of 'after'.",
            )
        found.append(Knob(f"after {name}", step.title, "step", (False, True), False, name))
        for one in fields_of(step.options):
            title = f"{step.title}: {one.words}"
            values = _fitting(step.options, one, stops(one)) or (one.default,)
            found.append(Knob(f"{name} {one.name}", title, "step", values, True, one.name, name))
    return found


def _rank(recipe: Recipe) -> list[Knob]:
    found = []
    if recipe.routed is not None:
        found.append(Knob("routed rank", "Rank of the branches", "rank", RANKS, True, "routed"))
    if recipe.lora is not None:
        found.append(Knob("lora rank", "Rank of the LoRA", "rank", RANKS[1:], True, "lora"))
    if not found:
        raise InputError(
            "search over the rank",
            expected="a recipe with 'routed' or 'lora'",
            found="neither",
            remedy="Add `routed: {}` or `lora: {}` to the recipe.",
        )
    return found


def _with_values(recipe: Recipe, knob: Knob, values: Sequence[Any] | None) -> Knob:
    """The knob with values that were given, judged as those of a recipe are."""
    if values is None:
        return knob
    if knob.turns == "option":
        for value in values:
            parse_options(recipe.method, {knob.key: value}, recipe.folder)
    elif not all(isinstance(v, int | float) and math.isfinite(v) for v in values):
        raise InputError(
            f"values to search for '{knob.name}'", expected="numbers",
            found=listing(map(str, values)),
        )  # fmt: skip
    alike = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    chosen = tuple(sorted(set(values))) if alike else tuple(dict.fromkeys(values))
    return Knob(**{**vars(knob), "values": chosen, "ordered": alike})
