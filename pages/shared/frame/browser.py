"""What only the browser can do: name what is shown in the address, and say aloud what happens.

Streamlit pushes every change of the query onto the history (`handlePageInfoChanged` of its App.tsx,
1.67), after it has pushed the page itself without one: Back would be two presses.  So the names
that a page is entered without are put into the address by a small component, in place.

A page reader is told of changes by an element that was there before (`role="status"`); Streamlit's
own come and go with their text.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import streamlit as st
from streamlit.components.v2 import component
from streamlit.runtime.scriptrunner import get_script_run_ctx

from .state import session

SCRIPTS = Path(__file__).parent
ADDRESS, VOICE = "address", "voice"  # style.css knows both
SETTINGS = "settings"  # the query parameter by which a notebook's panel hands its settings over
ONCE = (SETTINGS,)  # what an address hands over and does not go on to hold

_address = component(ADDRESS, js=(SCRIPTS / "address.js").read_text("utf-8"))
_voice = component(
    VOICE, html='<p role="status" tabindex="-1"></p>',
    js=(SCRIPTS / "voice.js").read_text("utf-8"), isolate_styles=False,
)  # fmt: skip


def name(names: Mapping[str, str | None]) -> None:
    """Have the address hold these names, so that it can be handed on.

    What it did not name before is put in place: on opening a page names its family, and then the
    run that it finds there.  Another value is a step of the history.
    """
    wanted = {key: value for key, value in names.items() if value}
    now = {name: value for name, value in st.query_params.to_dict().items() if name not in ONCE}
    unnamed = {key: value for key, value in wanted.items() if key not in now}
    _address(key=ADDRESS, data={"names": unnamed, "without": ONCE})
    if changed := {k: v for k, v in wanted.items() if now.get(k, v) != v}:
        st.query_params.update(changed)  # at once: each change is a step back in the browser


def given(name: str, followed: str | None) -> str | None:
    """What the address names by this name where the visitor has opened it or gone back to it; else
    `followed`, what it named last.

    All other changes are the app's.  While they are on their way to a browser that is busy, it
    still asks with the address as it was: by that, a merge that was just asked for would give way
    to the run that was shown before.
    """
    context = get_script_run_ctx(suppress_warning=True)
    if followed is None or getattr(context, "is_history_navigation", True):
        return st.query_params.get(name)
    return followed


def handed(name: str) -> str | None:
    """What the address hands over by this name; None where it was taken already.

    Once the address is without it, the same can be handed over again.
    """
    value = st.query_params.get(name)
    if value is None:
        del session.taken
    if value is None or session.taken == value:
        return None
    session.taken = value
    return value


def say(text: str, *, look: bool = False) -> None:
    """Say something aloud; `look`: and bring into view where it happens, if it is out of sight."""
    count = session.said[0] + 1
    session.said = (count, text, look)


def voice() -> None:
    """Where `say` is heard: drawn in every run, above what it speaks of."""
    count, text, look = session.said
    _voice(key=VOICE, data={"count": count, "text": text, "look": look})


def go(page: str) -> None:
    """Leave for another page, in one step of the history."""
    st.switch_page(f"pages/{page}.py", query_params=st.query_params.to_dict())
