"""Which method to take: one sentence, its reason, and a button."""

from __future__ import annotations

from collections.abc import Iterable

import streamlit as st

from mats_core.estimating import Advice, Suggestion
from mats_core.recipes import Routed

from ..frame import Wanted, browser, caches, session, show
from ..work import Further, Prepared


def card(prepared: Prepared, *, elsewhere: bool = False) -> None:
    """What to take for a family that is open; `elsewhere`: the settings are those of another page,
    to which the button leads."""
    found = caches.advice(prepared)
    with st.container(border=True, key="advice"):
        st.header("Which one should I take?", anchor=False)
        if found.suggestion is None:
            show.warnings(found.reasons)
            return
        st.markdown(f"**{show.plain(found.title)}.** {show.plain(_reason(found))}")
        show.warnings(found.notes)
        pressed = st.button(
            "Take these settings", on_click=_take, args=(found.suggestion,), key="advice take",
            icon=":material/tune:",
        )  # fmt: skip
        with st.expander("Why, and what else", icon=":material/help:"):
            _more(found)
    if pressed and elsewhere:
        browser.go("merge")


def _reason(found: Advice) -> str:
    """The reason in a sentence: that of the study, or what stands in its place."""
    return found.reasons[1]


def _take(suggestion: Suggestion) -> None:
    """Have Merge begin with what is suggested."""
    routed = Routed.model_validate(dict(suggestion.routed)) if suggestion.routed else None
    session.wanted = Wanted(
        suggestion.method,
        dict(suggestion.options),
        rounds=suggestion.rounds,
        further=Further(routed=routed),
    )
    browser.say(f"The settings are those of {suggestion.title}.")


def _more(found: Advice) -> None:
    for said in (reason for reason in found.reasons if reason != _reason(found)):
        st.markdown(show.plain(said))
    if found.alternatives:
        st.markdown("**What comes after it**")
        _list(
            f"**{show.plain(one.title)}.** {show.plain(one.sentence)}" for one in found.alternatives
        )
    if found.more:
        st.markdown("**What would make more possible**")
        _list(map(show.plain, found.more))


def _list(said: Iterable[str]) -> None:
    st.markdown("\n".join(f"- {one}" for one in said))
