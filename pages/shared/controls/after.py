"""Steps after the merge: a list to which they are added, moved and removed, with their knobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from mats_core.methods import METHODS, STEPS, fields_of

from ..frame import browser, keys, show, state
from . import widgets

Steps = tuple[Mapping[str, Mapping[str, Any]], ...]
ADD = "add a step"  # the menu's own name


def steps(method: str) -> Steps:
    """The steps that are chosen, with their options, as a recipe has them."""
    st.header("After the merge", anchor=False)
    if METHODS[method].calibrates:
        st.caption("None: every layer is solved for the layers before it as they are.")
        return ()
    chosen = _chosen()
    found = []
    for place, (number, name) in enumerate(chosen):
        with st.container(border=True, gap="xsmall"):
            _head(name, number, place, len(chosen))
            fields = fields_of(STEPS[name].options)
            owner = keys.step(number)
            found.append({name: {field.name: widgets.widget(field, owner) for field in fields}})
    st.menu_button(
        "Add a step", [step.title for step in STEPS.values()], key=ADD, on_click=_add,
        icon=":material/add:",
        help="Steps change what the method has merged, layer by layer, in their order.",
    )  # fmt: skip
    return tuple(found)


def put(wanted: Steps) -> None:
    """Have these steps chosen, before they are drawn."""
    state.put(keys.after(), ())
    for step in wanted:
        for name, options in step.items():
            _append(name, options)


def _chosen() -> tuple[tuple[int, str], ...]:
    return tuple(state.value(keys.after(), ()))


def _append(name: str, options: Mapping[str, Any]) -> None:
    chosen = _chosen()
    number = 1 + max((number for number, _ in chosen), default=_last())
    state.put(keys.after_count(), number)
    state.put(keys.after(), (*chosen, (number, name)))
    for field in fields_of(STEPS[name].options):
        widgets.put(field, keys.step(number), options.get(field.name, field.default))


def _last() -> int:
    """The highest number that a step has had: its knobs are not those of a removed one."""
    return int(state.value(keys.after_count(), 0))


def _head(name: str, number: int, place: int, count: int) -> None:
    """The step's name, and what can be done with it."""
    step = STEPS[name]
    title = f"{place + 1} · {show.plain(step.title)}"
    st.subheader(title, anchor=False, help=show.plain(step.summary))
    with st.container(horizontal=True, gap="small"):
        for label, icon, to, off in (
            ("Up", "arrow_upward", place - 1, place == 0),
            ("Down", "arrow_downward", place + 1, place == count - 1),
        ):
            st.button(
                label, icon=f":material/{icon}:", key=f"{keys.step(number)} {label}", disabled=off,
                type="tertiary", on_click=_move, args=(place, to),
                help=f"Move {show.plain(step.title)} {label.lower()}",
            )  # fmt: skip
        st.button(
            "Remove", icon=":material/close:", key=f"{keys.step(number)} remove", type="tertiary",
            on_click=_remove, args=(place,), help=f"Remove {show.plain(step.title)}",
        )  # fmt: skip


def _add() -> None:
    title = state.value(ADD)
    name = next(name for name, step in STEPS.items() if step.title == title)
    _append(name, {})
    browser.say(f"{title} is step {len(_chosen())} after the merge.")


def _move(place: int, to: int) -> None:
    chosen = list(_chosen())
    chosen.insert(to, chosen.pop(place))
    state.put(keys.after(), tuple(chosen))
    browser.say(f"{STEPS[chosen[to][1]].title} is step {to + 1} now.")


def _remove(place: int) -> None:
    chosen: Sequence[tuple[int, str]] = _chosen()
    state.put(keys.after(), (*chosen[:place], *chosen[place + 1 :]))
    browser.say(f"{STEPS[chosen[place][1]].title} is removed.")
