"""Which method to take: the row of the study that serves a family best, with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..recipes import FamilyFile, Inputs, Recipe, load_family, load_recipe, open_inputs
from ..system import UNMEASURED, Rates, choose_device, speeds
from . import advice_words as words
from .advice import Advice, Suggestion
from .evidence import FEWEST, Choice, Needs, choose, evidence
from .fitting import fits
from .merge_cost import Estimate, estimate
from .situation import Situation, situation

OTHERS = 4  # alternatives of the same data that are named
CLEAR = 0.1  # points that further data must have brought to be spoken of
FAMILY = "family.yaml"
MEASURED_AT = 256  # examples of the study's middle rows
FEW = 5  # experts at most, of which a scaling that was searched for eight says nothing


def advise(
    source: FamilyFile | Recipe | str | Path,
    *,
    examples: int | None = None,
    labels: bool = True,
    pile: str | None = None,
    larger: bool = False,
    timed: bool = True,
) -> Advice:
    """Which method to take for a family, why, and what would make more possible.

    source    a family or a recipe, or the path of one; of a recipe the models, tasks and statistics
              count, and not its method
    examples  of each expert's task that may be used at most: by default all that are there; 0: none
    labels    whether their labels may be used
    pile      a task whose examples are an unsorted pile of the inputs of all experts' tasks
    larger    whether the output may be larger than a static merge, with branches to the experts
    timed     whether this machine's speeds are measured, for a time: half a second, once

    Headers, a glance at the matrices and the tables of the tasks are read, and nothing is merged.
    Raises `InputError` where the family cannot be opened; for experts that have nothing in common
    with the base the advice is to stop.
    """
    recipe = _recipe(source)
    inputs = open_inputs(recipe, contents=False)
    rates = speeds.rates(choose_device(recipe.device)[0]) if timed else None
    return advise_on(
        inputs, recipe, examples=examples, labels=labels, pile=pile, larger=larger, rates=rates
    )


def advise_on(
    inputs: Inputs,
    recipe: Recipe,
    *,
    counts: Mapping[str, int] | None = None,
    examples: int | None = None,
    labels: bool = True,
    pile: str | None = None,
    larger: bool = False,
    rates: Rates | None = None,
) -> Advice:
    """The same for files that are open.

    counts  examples of each expert's task, where they are known
    rates   of the device; None: no time is given
    """
    if examples is not None and examples < 0:
        raise InputError("examples", expected="0 or more", found=str(examples))
    known = situation(
        inputs, recipe, counts=counts, examples=examples, labels=labels, pile=pile is not None,
        larger=larger,
    )  # fmt: skip
    if known.apart and not known.strangers:
        return Advice(None, known, (words.apart(known),))
    if known.experts == 1 or inputs.vectors is not None:
        return _outside(known)
    ways = _distinct(choose(evidence(), known.kind, known.needs))
    costs: dict[str, Estimate | None] = {}
    left = [way for way in ways if _fits(way, known, inputs, recipe, pile, rates, costs)]
    first, *others = left or ways[-1:]
    suggestions = [
        Suggestion.of(way, _options(way, known, pile), words.behind(way, first), costs[way.recipe])
        for way in (first, *_shown(others))
    ]
    notes = words.notes(known)
    if dropped := [way for way in ways if way not in left]:
        notes = (words.too_large(dropped), *notes)
    reasons = words.reasons(known, first, evidence(), costs[first.recipe], timed=rates is not None)
    chosen = replace(suggestions[0], sentence=reasons[1])
    return Advice(chosen, known, reasons, tuple(suggestions[1:]), _more(known, first), notes)


def _recipe(source: FamilyFile | Recipe | str | Path) -> Recipe:
    if isinstance(source, Recipe):
        return source
    if isinstance(source, FamilyFile):
        return source.recipe("average")
    path = Path(source)
    if path.suffix in (".yaml", ".yml") and path.name != FAMILY:
        return load_recipe(path)
    return load_family(path).recipe("average")


def _outside(known: Situation) -> Advice:
    """What no row of the study is of: one expert, and vectors in the place of matrices."""
    method, why = "average", words.ALONE
    if known.experts > 1:
        method = "fisher" if known.needs.labels or known.needs.measured else "average"
        why = words.VECTORS
    suggestion = Suggestion(method, {}, why)
    return Advice(suggestion, known, (words.there(known), why), notes=words.notes(known))


def _distinct(choices: list[Choice]) -> list[Choice]:
    """The best of each way of merging: without those that differ in the strength of something."""
    found: dict[tuple[Any, ...], Choice] = {}
    for choice in choices:
        found.setdefault(words.way(choice.rows[0]), choice)
    return list(found.values())


def _shown(others: list[Choice]) -> list[Choice]:
    """The best of the others, among them the best that reads nothing but weights."""
    first = others[:OTHERS]
    alone = next((one for one in others if one.rows[0].data == "none"), None)
    return first if alone is None or alone in first else [*first[:-1], alone]


def _options(way: Choice, known: Situation, pile: str | None) -> dict[str, Any]:
    """The options of a row, with as many examples as are there; of few experts its scaling is the
    default of so many."""
    row, there = way.rows[0], known.needs.examples
    options = dict(row.options)
    if row.method == "sequential" and options.get("examples") == FEWEST and there < MEASURED_AT:
        options["examples"] = there
    if options.get("inputs") == "pile" and pile:
        options["pile"] = pile
    if known.experts <= FEW:
        options.pop("scaling", None)
    return options


def _fits(
    way: Choice,
    known: Situation,
    inputs: Inputs,
    recipe: Recipe,
    pile: str | None,
    rates: Rates | None,
    costs: dict[str, Estimate | None],
) -> bool:
    """Whether the memory is there for a way of merging; its estimate is put among the costs."""
    row = way.rows[0]
    content = {
        "method": row.method, "options": _options(way, known, pile), "rounds": row.rounds,
        "routed": dict(row.routed) or None, "search": None, "by": (), "after": (),
    }  # fmt: skip
    try:
        plain = recipe.model_dump(mode="json", exclude_none=True)
        asked = Recipe.model_validate({**plain, **content, "folder": recipe.folder})
        found = estimate(inputs, asked, speeds=rates or UNMEASURED)
    except InputError:  # of statistics that are not measured yet
        costs[way.recipe] = None
        return True
    costs[way.recipe] = found
    return fits(found)


def _more(known: Situation, first: Choice) -> tuple[str, ...]:
    """What further data, or a larger output, would make possible, in the study's figures."""
    now, found = known.needs, []
    steps: list[tuple[str, Needs]] = []
    for count in (FEWEST, MEASURED_AT, 1024):
        if now.examples < count and now.walkable:
            steps.append((words.with_examples(count), replace(now, examples=count)))
    if now.walkable and not now.pile and not now.examples:
        steps.append((words.WITH_PILE, replace(now, pile=True)))
    if now.examples and not now.labels:
        steps.append((words.WITH_LABELS, replace(now, labels=True)))
    if now.examples and not now.larger:
        steps.append((words.LARGER, replace(now, larger=True)))
    told = {first.recipe}
    for said, needs in steps:
        ways = choose(evidence(), known.kind, needs)
        before = next(way for way in ways if way.recipe == first.recipe)
        if before.lost - ways[0].lost >= CLEAR and ways[0].recipe not in told:
            told.add(ways[0].recipe)
            found.append(words.further(said, ways[0]))
    return tuple(found)
