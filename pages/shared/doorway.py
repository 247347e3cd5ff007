"""The way in: every page is opened through app.py.

Streamlit takes a folder named `pages` for its older kind of app until `st.navigation` was called
once.  Whoever opens an inner address first on a fresh server would get a bare page script, without
the navigation and the settings of app.py.
"""

from __future__ import annotations

import streamlit as st

ENTERED = "entered"


def enter() -> None:
    """In app.py: say that the pages of this session are opened from here."""
    st.session_state[ENTERED] = True


def through_the_app() -> None:
    """In a page: start over through app.py where it was passed by."""
    if not st.session_state.get(ENTERED):
        st.navigation([st.Page(lambda: None, title="MaTS Explorer")], position="hidden")
        st.rerun()
