"""What a language model of a new family is asked: five rows as it would read them, and selects and
templates that correct what was guessed."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import streamlit as st

from mats_core.errors import InputError, listing
from mats_core.tasks import Guess, Wording

from ..frame import show

HEADINGS = {
    "reads": "the model reads", "answers": "and chooses from", "right": "right answer",
    "follows": "what should follow",
}  # fmt: skip
SEVERAL = 6  # templates of answers that are named


def correct(key: str, found: Guess) -> Guess | None:
    """The guess as it is corrected; None where what is asked cannot be read."""
    with st.expander("What the model is asked", expanded=True):
        number = _way(key, found)
        found = _parts(f"{key} {number}", found.asking(found.ways[number]))
        try:
            rows = found.asked()
        except InputError as error:
            show.problem(str(error))
            return None
        st.dataframe(pd.DataFrame(rows).rename(columns=HEADINGS), hide_index=True)
        if not all(row.get("right", "none") for row in rows):
            st.warning("In some of these rows the right answer is none of those offered.")
    st.caption(show.plain(f"{show.capital(said(found))}; {tested(found)}."))
    return found


def tested(found: Guess) -> str:
    """Which rows a task is tested on, and whether an expert may know them."""
    if found.tested:
        return f"tested on the split {found.tested}"
    if found.test:
        return f"tested on {found.test.name}"
    known = "an expert that was trained on every row of the file knows it already"
    return f"tested on a fifth that is held out, and {known}"


def said(way: Guess | Wording) -> str:
    """A way of asking, in words."""
    if way.kind == "language":
        text, prompt = way.target.strip(), " ".join(way.prompt.split())
        return f"{text} should follow {prompt}" if prompt else f"the plain text of {text}"
    names = listing([one.strip() for one in way.choices], SEVERAL)
    return f"answers {names}, the right one by {way.label}"


def _way(key: str, found: Guess) -> int:
    """What is asked, of all that the table may be asked, by its number."""
    ways = range(len(found.ways))
    if len(ways) == 1:
        return 0
    return st.selectbox("Asked", ways, format_func=lambda n: said(found.ways[n]), key=f"{key} way")


def _parts(key: str, found: Guess) -> Guess:
    """Templates and columns of what is asked."""
    prompt = st.text_area(
        "The model reads", found.prompt, key=f"{key} prompt", height="content",
        help="Columns stand in braces, such as {question}. "
        "A causal model reads prompt and answer as one text.",
    )  # fmt: skip
    found = replace(found, prompt=prompt)
    if found.kind == "language":
        return replace(
            found, target=st.text_input("Then follows", found.target, key=f"{key} target")
        )
    labels = [*(found.labels or {})]
    if len(labels) == 1:
        return found
    label = st.selectbox(
        "The right answer stands in", labels, labels.index(found.label), key=f"{key} label"
    )
    return found.with_label(label)
