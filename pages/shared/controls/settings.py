"""What a person has set on the Merge page: read from the widgets, put into them, compared."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import streamlit as st

from mats_core.errors import InputError, member, parsing
from mats_core.evaluation import QUICK
from mats_core.methods import METHODS, describe
from mats_core.recipes import FamilyFile, Recipe, parse_options, settings_of, taking_part
from mats_core.system import available_devices, choose_device

from ..frame import Wanted, browser, keys, session, show, state
from ..work import Further, merge
from . import after, depth, further, widgets

ARITHMETIC = ("float32", "float64")
SETTINGS = browser.SETTINGS  # the query parameter that holds them
MOST_ROUNDS = 3  # to choose from; a recipe may ask for more


def follow_link(collection: FamilyFile) -> None:
    """Put the settings that the address holds into the widgets, once."""
    given = browser.handed(SETTINGS)
    if given is None:
        return
    try:
        with parsing("settings", "those of a link that was made here"):
            session.wanted = _handed(json.loads(given), collection)
    except InputError as error:
        show.keep("info", f"The link holds settings that do not fit: {error}")


def handing(request: merge.Request) -> str:
    """All settings of a request as an address holds them (`follow_link`)."""
    further = {
        name: value if isinstance(value, bool) else value.model_dump(mode="json")
        for name, value in request.further.settings.items()
    }
    return json.dumps({**settings_of(request), **further})


def _handed(given: Any, collection: FamilyFile) -> Wanted:
    """Settings out of an address: judged, because an address can be written by others."""
    method, changed = str(given["method"]), dict(given["options"])
    rules = [rule for rule in given.get("by", ()) if isinstance(rule, Mapping)]
    merge.require_no_paths(method, changed, *(rule.get("options") for rule in rules))
    parsed = parse_options(method, changed, collection.folder).model_dump()
    return Wanted(
        method,
        {name: parsed[name] for name in changed},
        tuple(map(str, given["experts"])),
        {str(name): float(weight) for name, weight in dict(given["weights"]).items()},
        max(0, int(given.get("seed", 0))),
        member("arithmetic", str(given.get("dtype", ARITHMETIC[0])), ARITHMETIC),
        max(1, int(given["rounds"])),
        *_by_layer(given, collection),
        Further.handed(given),
    )


def _by_layer(given: Any, collection: FamilyFile) -> tuple[after.Steps, depth.Rules]:
    """The steps and rules of an address, judged as those of a recipe over the family."""
    told = {key: given[key] for key in ("after", "by") if given.get(key)}
    recipe = collection.recipe(str(given["method"]), dict(given["options"]), **told)
    wanted = Wanted.of(recipe)
    return wanted.after, wanted.by


def take_over(collection: FamilyFile) -> None:
    """Put the settings that were asked for into the widgets, before they are drawn."""
    wanted = session.wanted
    del session.wanted
    if wanted is None:
        return
    session.tuned = wanted.tuned
    widgets.reset()
    if wanted.method not in METHODS:
        return
    names = wanted.experts or [expert.name for expert in collection.experts]
    _put_method(wanted, taking_part(names, wanted.weights))
    _put_experts(wanted, collection)
    after.put(wanted.after)
    depth.put(wanted.by)
    if wanted.seed is not None:
        state.put(keys.rest("seed"), wanted.seed)
    if wanted.dtype is not None:
        state.put(keys.rest("dtype"), wanted.dtype)
    if wanted.rounds is not None:
        state.put(keys.rest("rounds"), wanted.rounds)
    further.put(wanted)


def _put_method(wanted: Wanted, experts: int) -> None:
    group = METHODS[wanted.method].group
    state.put(keys.group(), group)
    state.put(keys.method(group), wanted.method)
    # What is not named has its default, whatever the widgets begin with.
    begun = METHODS[wanted.method].exploring
    for field in describe(wanted.method, experts):
        # Those that differ by the number of experts are drawn before these are chosen.
        if field.name in wanted.options or field.name in begun or field.by_experts:
            widgets.put(field, wanted.method, wanted.options.get(field.name, field.default))


def _put_experts(wanted: Wanted, collection: FamilyFile) -> None:
    names = [expert.name for expert in collection.experts]
    if wanted.experts:
        chosen = [name for name in names if name in wanted.experts]
        state.put(keys.experts(collection.name), chosen)
    for name in names:
        state.put(keys.weight(name), float(wanted.weights.get(name, 1.0)))


def reset() -> None:
    """Put every knob where it stood at the beginning, and say so."""
    widgets.reset()
    browser.say("Every setting is as it was at the beginning.")


def controls(collection: FamilyFile, method: str, depths: Sequence[float] = ()) -> merge.Request:
    """Every knob of a method, and whom to merge, as one frozen request.

    depths   of the family's blocks, once it is open
    """
    names = [expert.name for expert in collection.experts]
    picked = state.value(keys.experts(collection.name)) or names
    weighted = METHODS[method].weighted
    given = {name: state.value(keys.weight(name), 1.0) for name in picked if weighted}
    options = widgets.options(method, taking_part(picked, given))
    again = st.container(gap="xsmall")  # filled once it is known whom to merge
    steps = after.steps(method)
    layered = st.container(gap="xsmall")
    key = keys.experts(collection.name)
    # Its title stays: with another one it would be another panel, and closed.
    with st.expander("Experts and arithmetic", icon=":material/group_work:"):
        experts = st.pills(
            "Experts", names, selection_mode="multi",
            default=None if state.is_set(key) else names,
            key=key, persist_state="session",
            help="Leave some out to see which tasks they disturb.",
        )  # fmt: skip
        chosen = tuple(n for n in names if n in (experts or []))
        weights = _weights(method, chosen)
        seed = st.number_input("Seed", 0, key=keys.rest("seed"), persist_state="session")
        dtype = st.segmented_control(
            "Arithmetic", ARITHMETIC,
            default=None if state.is_set(keys.rest("dtype")) else ARITHMETIC[0], required=True,
            key=keys.rest("dtype"), persist_state="session",
        )  # fmt: skip
        device = _device()
    if len(chosen) < len(names):
        st.caption(f"{len(chosen)} of {len(names)} experts are merged.")
    with again:
        rounds = _rounds(collection, method, options, chosen)
    with layered:
        rules = depth.rules(method, chosen, depths)
    request = merge.Request(
        collection, method, options, chosen, tuple(sorted(weights.items())), int(seed or 0),
        str(dtype or ARITHMETIC[0]), device, precision=QUICK, rounds=rounds,
        after=steps, by=rules,
    )  # fmt: skip
    return replace(request, further=further.controls(request), tuned=session.tuned)


def _device() -> str:
    """Where the arithmetic runs; what `auto` is here, and why, is said."""
    key = keys.rest("device")
    device = st.segmented_control(
        "Device", ["auto", *available_devices()], default=None if state.is_set(key) else "auto",
        required=True, key=key, persist_state="session",
    )  # fmt: skip
    place, reason = choose_device("auto")
    st.caption(f"auto is {place} here, {reason}.")
    return str(device or "auto")


def _rounds(
    collection: FamilyFile, method: str, options: Mapping[str, Any], chosen: tuple[str, ...]
) -> int:
    """How often statistics are measured, where the method reads some and there are data to."""
    try:
        reads = METHODS[method].reads(parse_options(method, options, collection.folder))
    except InputError:  # said when Merge is pressed
        return 1
    if not reads or not all(e.task for e in collection.experts if e.name in chosen):
        return 1
    key = keys.rest("rounds")
    most = max(MOST_ROUNDS, state.value(key) or 1)
    rounds = st.segmented_control(
        "Rounds of statistics", list(range(1, most + 1)),
        default=None if state.is_set(key) else 1, required=True, key=key,
        persist_state="session",
        help="An expert is sure of its own examples, so curvature measured at the expert says "
        "little about what hurts further out, where the merge lands. A second round measures it "
        "again at the merged model, with each expert's head and calibration examples, and merges "
        "once more. Each further round costs a measuring and a merge.",
    )  # fmt: skip
    st.caption("2: measure again where the merge landed, and merge once more.")
    return int(rounds or 1)


def _weights(method: str, chosen: tuple[str, ...]) -> dict[str, float]:
    """A weight for each expert, where the method knows weights and they are not all 1."""
    if not METHODS[method].weighted:
        count = METHODS[method].experts
        st.caption(
            f"This method merges exactly {count} experts, and takes no weights."
            if count
            else "This method treats all experts alike."
        )
        return {}
    st.caption("Weights: 2 counts twice, 0 not at all, −1 takes what was learned away.")
    found = {}
    columns = st.columns(2)
    for index, name in enumerate(chosen):
        key = keys.weight(name)
        if not state.is_set(key):
            state.put(key, 1.0)
        found[name] = columns[index % 2].number_input(
            show.label(name),
            -100.0,
            100.0,
            step=0.25,
            key=key,
            persist_state="session",
            format="%g",
        )
    return found if set(found.values()) != {1.0} else {}


def changed(request: merge.Request, recipe: Recipe) -> list[str]:
    """What differs between the widgets and the run that is shown, in words."""
    found = []
    if request.method != recipe.method:
        found.append(METHODS[request.method].title)
    else:
        both = (request.options, request.count), (recipe.options, recipe.count)
        sides = [(options, describe(request.method, count)) for options, count in both]
        for place, field in enumerate(describe(request.method)):
            now, then = (o.get(field.name, fields[place].default) for o, fields in sides)
            if now != then:
                title = field.label or field.words
                found.append(f"{title} {_short(then)} → {_short(now)}")
    if request.experts != tuple(expert.name for expert in recipe.experts):
        found.append(f"{len(request.experts)} experts instead of {len(recipe.experts)}")
    elif any(dict(request.weights).get(e.name, 1.0) != e.weight for e in recipe.experts):
        found.append("weights")
    then = Wanted.of(recipe)
    if request.after != then.after:
        found.append("steps after the merge")
    if request.by != then.by:
        found.append("rules by layer")
    if request.rounds != recipe.rounds:
        found.append(f"rounds of statistics {recipe.rounds} → {request.rounds}")
    found += further.changed(request.further, recipe)
    if request.seed != recipe.seed:
        found.append(f"seed {recipe.seed} → {request.seed}")
    if request.dtype != recipe.dtype:
        found.append(f"{recipe.dtype} → {request.dtype}")
    if request.device != recipe.device:
        found.append(f"device {recipe.device} → {request.device}")
    return found


def _short(value: object) -> str:
    return "default" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
