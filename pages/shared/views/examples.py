"""The examples behind the cells of a confusion matrix, each with what was said about it."""

from __future__ import annotations

from typing import Any

import streamlit as st

from mats_core import figures

from ..frame import session, show, state
from ..work import clipped, picture
from .answers import Compared, choices, title

PAGE = 24  # images at a time
SAID = 400  # characters of a text
MOST_PINNED = 24  # of a task
NONE = {
    "lost": "The merge lost no {} of this task.",
    "won": "The merge won no {} of this task.",
    "wrong": "No {} was wrong both times.",
}


def images(found: Compared, choice_key: str) -> None:
    """The examples of the choice, each with its class and both predictions."""
    noun = found.answers.noun
    st.header(f"The {noun}s", anchor=False)
    offered = choices(found, state.value(choice_key))
    choice: Any = st.selectbox(
        f"Show the {noun}s", offered, format_func=lambda c: title(found, c), key=choice_key,
        persist_state="session", label_visibility="collapsed",
    )  # fmt: skip
    rows = found.rows(choice)
    if not len(rows):
        st.info(NONE.get(str(choice), "There is no {} in this cell.").format(noun))
        return
    pages = -(-len(rows) // PAGE)
    page = 1
    if pages > 1:
        page = st.segmented_control(
            "Page", list(range(1, pages + 1)), default=1, required=True,
            key=f"{choice_key} page {pages}",
        ) if pages <= 12 else st.number_input("Page", 1, pages)  # fmt: skip
    shown = rows[(int(page) - 1) * PAGE : int(page) * PAGE]
    st.caption(
        f"{len(shown)} of {len(rows)} validation {noun}s; those on which the merge is surest come "
        f"first. Under each {noun}: its true class, then every prediction with its probability."
    )
    with st.container(horizontal=True, gap="small"):
        for row in shown:
            card(found, int(row))


def pinned(found: Compared) -> None:
    """The examples of this task that were pinned, whatever is shown of it."""
    rows = [row for row in _pins(found) if row < len(found.labels)]
    if not rows:
        return
    st.subheader(f"Pinned {found.answers.noun}s", anchor=False)
    with st.container(horizontal=True, gap="small"):
        for row in rows:
            card(found, row, where="pinned ")


def _pins(found: Compared) -> tuple[int, ...]:
    return session.pinned_examples.get((found.family, found.answers.name), ())


def _pin(task: tuple[str, str], row: int) -> None:
    """A callback: pin an example of a task, or let it go."""
    rows = session.pinned_examples.get(task, ())
    rows = tuple(r for r in rows if r != row) if row in rows else (*rows, row)[-MOST_PINNED:]
    session.pinned_examples = {**session.pinned_examples, task: rows}


def card(found: Compared, row: int, where: str = "") -> None:
    """One example and what all say about it: base, expert, another merge, this one."""
    classes = found.answers.classes
    true = classes[int(found.labels[row])]
    said: list[tuple[str, bool]] = []
    for who in found.everyone:
        chances = found.probabilities(who)[row]
        taken = int(chances.argmax())
        text = f"{who}: {classes[taken]} {figures.percent(float(chances[taken]), 0)}"
        said.append((text, taken == found.labels[row]))
    alt = "; ".join([f"An image of {true}", *(text for text, _ in said)])
    pictured = found.answers.noun == "image"
    name, task = found.answers.name, (found.family, found.answers.name)
    with st.container(
        border=True,
        width=166 if pictured else 340,
        gap="xxsmall",
        key=f"example {where}{name} {row}",
    ):
        if pictured:
            st.image(picture(found.answers.inputs[row]), width=112, alt=alt)
        else:
            st.markdown(show.plain(clipped(found.answers.text(row), SAID)))
        st.markdown(f"**{show.plain(true)}**")
        for text, right in said:
            mark = ":material/check:" if right else ":material/close:"
            st.markdown(f":small[{mark} {show.plain(text.replace(' encoder', ''))}]")
        st.button(
            "Unpin" if row in _pins(found) else "Pin", key=f"{where}pin {name} {row}",
            icon=":material/keep:", type="tertiary", on_click=_pin, args=(task, row),
        )  # fmt: skip
