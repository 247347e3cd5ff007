"""Tabs of which only the open one is drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import streamlit as st

from . import state


@dataclass(frozen=True)
class Tab:
    """One tab: its name, what draws it, and the heading above; none where what is drawn has one."""

    name: str
    draw: Callable[[], object]
    heading: str = ""


def show(tabs: Sequence[Tab], key: str) -> None:
    """The tabs; `key` holds the name of the open one, which stays open where others come or go."""
    names = [tab.name for tab in tabs]
    drawn = f"{key} names"
    if state.value(drawn, names) != names and state.value(key) in names:
        state.put(key, state.value(key))  # else the first one of the new row would open
    state.put(drawn, names)
    for tab, place in zip(tabs, st.tabs(names, key=key, on_change="rerun"), strict=True):
        if place.open:
            with place:
                if tab.heading:
                    st.header(tab.heading, anchor=False)
                tab.draw()
