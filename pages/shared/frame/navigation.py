"""The way in: every page is opened through app.py.

Streamlit takes a folder named `pages` for its older kind of app until `st.navigation` was called
once.  Whoever opens an inner address first on a fresh server would get a bare page script, without
the navigation and the settings of app.py.
"""

from __future__ import annotations

from pathlib import Path

import streamlit as st
from streamlit.navigation.page import Page

from .state import session

NAME = "MaTS Explorer"
PICTURES = Path(__file__).parent
PAGES = (
    ("merge", "Merge", "merge"),
    ("compare", "Compare", "compare_arrows"),
    ("inside", "Inside", "search"),
    ("subspaces", "Subspaces", "area_chart"),
    ("family", "Family", "account_tree"),
    ("learn", "Learn", "school"),
    ("export", "Export", "ios_share"),
)


def frame() -> Page:
    """Title, icon, logo and navigation; returns the page that was asked for."""
    # Pictures from our own files: an icon by name would be fetched from the network.
    st.set_page_config(NAME, str(PICTURES / "icon.svg"), layout="wide")
    st.logo(PICTURES / "logo.svg", size="large")
    st.html(PICTURES / "style.css")
    pages = [
        st.Page(f"pages/{file}.py", title=title, icon=f":material/{icon}:", default=file == "merge")
        for file, title, icon in PAGES
    ]
    page = st.navigation(pages, position="top")
    entitle(page.title)
    return page


def entitle(*parts: str) -> None:
    """Name what is shown in the title of the window, which the history and page readers tell."""
    st.set_page_config(" · ".join([*parts, NAME]))


def enter() -> None:
    """In app.py: say that the pages of this session are opened from here."""
    session.entered = True


def through_the_app() -> None:
    """In a page: start over through app.py where it was passed by."""
    if not session.entered:
        frame()
        st.rerun()
