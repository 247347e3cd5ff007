"""Settings that are set at once: a menu of them, and the one that a page begins with."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from mats_core.methods import PRESETS, Preset, describe

from ..frame import Wanted, keys, session, show, state
from ..work import Further, merge


def begin(first: Callable[[], Preset | None]) -> None:
    """Ask for the settings of a preset, if there is one, where none were made yet."""
    if session.wanted is not None or state.is_set(keys.group()):
        return
    if (preset := first()) is not None:
        _ask(preset)


def _ask(preset: Preset) -> None:
    session.wanted = Wanted(preset.method, preset.options, rounds=preset.rounds, after=preset.after)


def menu() -> None:
    """A menu of settings that are set at once; the chosen one says what it is."""
    st.menu_button(
        "Presets", [preset.title for preset in PRESETS], key=keys.PRESET, on_click=_pressed,
        icon=":material/bookmarks:",
    )  # fmt: skip


def _pressed() -> None:
    preset = next(one for one in PRESETS if one.title == state.value(keys.PRESET))
    _ask(preset)
    show.keep("info", f"{preset.title}: {preset.sentence}")


def of(request: merge.Request) -> Preset | None:
    """The preset whose settings these are."""
    return next((one for one in PRESETS if _same(request, one)), None)


def _same(request: merge.Request, preset: Preset) -> bool:
    if (request.method, request.rounds) != (preset.method, preset.rounds) or request.by:
        return False
    if request.after != preset.after:
        return False
    if request.further != Further():
        return False
    fields = describe(preset.method, request.count)
    now, then = (
        [options.get(field.name, field.default) for field in fields]
        for options in (request.options, preset.options)
    )
    return now == then
