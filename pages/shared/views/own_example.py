"""An example of the user's, typed or dropped in, answered by base, experts and merges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import streamlit as st

from mats_core import figures, tasks
from mats_core.analysis import OwnAnswers, fields
from mats_core.errors import size
from mats_core.tasks import MOST_PICTURE

from .. import policy
from ..frame import Slot, keys, session, show, state, tracked
from ..work import Prepared, Run, Shelf, ask_own, picture
from .answers import OTHER

IMAGES = ("png", "jpg", "jpeg", "webp", "bmp", "gif", "tif", "tiff")
MEGABYTE = 1_000_000
LINK = "asked"  # the query parameter that names an example


def section(shelf: Shelf, run: Run, task: str, prepared: Prepared, other: Run | None) -> None:
    """The input, and what all say to it."""
    card = prepared.cards.get(task)
    entry = next((e for e in prepared.collection.experts if e.name == task), None)
    if card is None or not card.classes or entry is None or not entry.task:
        return  # a task without classes: nothing to choose from
    st.subheader(f"Your own {card.noun}", anchor=False)
    merges, most = _merges(run, other), int(min(MOST_PICTURE, policy.current().example))
    key = (task, *(one.id for one in merges.values()))
    with st.form(f"own example {task}", border=False):
        if card.noun == "image":
            file = st.file_uploader(
                f"An image for the head of {task}", list(IMAGES), key=f"own image {task}",
                max_upload_size=most // MEGABYTE,
                help=f"Up to {size(most)}. It goes through the model's own image "
                "processor, and is kept on no disk.",
            )  # fmt: skip
            given: Sequence[str] | bytes = file.getvalue() if file is not None else b""
        else:
            loaded = tasks.load(entry.task, root=prepared.collection.folder)
            given = [
                st.text_area(name, key=f"own {name} {task}", height=80) for name in fields(loaded)
            ]
        asked = st.form_submit_button("Ask all models", icon=":material/forum:")
    if asked:
        todo = partial(ask_own, shelf, merges, task, given, lambda: prepared)
        name = tracked.named(LINK, tracked.of_run(prepared, run, *key, repr(given)))
        keep = partial(setattr, session, "own_example")
        tracked.press(Slot.ASKING, key, "Asking all models", todo, keep=keep, name=name)
    job = session.own_example
    if job is not None and job.request == key and job.snapshot().state == "done":
        _answers(job.outcome(), merges)


def linked(family: str) -> Mapping[str, str | None]:
    """What the address says of the example that was asked last; one that it names is opened, with
    its task and its merges: only who asked it can name it."""
    before = session.own_example
    job = session.own_example = tracked.of_address(Slot.ASKING, LINK, before)
    if job is not None and before is None:
        task, run, *other = job.request
        state.put(keys.inside_task(family), task)
        session.inside_follows = session.inside_run = run
        if other:
            session.inside_other = other[0]
            state.put(keys.INSIDE_BEFORE, OTHER)
    return tracked.in_address(LINK, job)


def _merges(run: Run, other: Run | None) -> Mapping[str, Run]:
    """The runs that are asked, by the names that they have in the figure."""
    if other is None:
        return {"this merge": run}
    return {"this merge": run, "other merge": other}


def collect() -> None:
    """Say why there are no answers."""
    tracked.collect(Slot.ASKING, cancelled="Asking was cancelled.")


def _answers(found: OwnAnswers, merges: Mapping[str, Run]) -> None:
    left, right = st.columns([1, 4], gap="medium")
    with left:
        if found.example.form.kind == "image":
            st.image(picture(found.example.inputs[0]), width=160, alt="The image that was asked")
        else:
            st.markdown(show.plain(found.example.text(0)))
    with right:
        show.figure(figures.own_answers(found, list(merges)), f"own answers {found.task}")
