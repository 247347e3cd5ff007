"""The card of the page Export that takes a recipe back in."""

from __future__ import annotations

from functools import partial

import streamlit as st

from mats_core.errors import InputError
from mats_core.export import Reopened
from mats_core.methods import METHODS
from mats_core.recipes import FamilyFile, load_family

from ..frame import Slot, Wanted, browser, families, progress, session, show, state, tracked
from ..work import Further, export
from .export import card


def bring_back(collection: FamilyFile) -> None:
    """A recipe file becomes settings of the Merge page."""
    with card(
        "Bring a recipe back", "upload_file",
        "A recipe that was downloaded here or written by hand becomes the settings of the page "
        "Merge.",
        height="content",
    ):  # fmt: skip
        file = st.file_uploader(
            "Recipe", ["yaml", "yml"], key="export upload", label_visibility="collapsed",
            max_upload_size=1,
        )  # fmt: skip
        if file is None:
            tracked.stop(Slot.READING)
            return
        job = state.job(Slot.READING)
        if job is None or job.request != file.file_id:
            todo = partial(export.read_back, file.getvalue(), _known(collection))
            job = tracked.start(Slot.READING, file.file_id, "Reading the recipe", todo)
        progress.bar(Slot.READING)
        now = job.snapshot()
        if now.state == "failed":
            show.problem(now.error)
        elif now.state == "done":
            _found(now.result)


def _known(current: FamilyFile) -> list[FamilyFile]:
    """Every family that the app can open, the chosen one first."""
    known = [current]
    for file in families.found().values():
        try:
            other = load_family(file)
        except InputError:
            continue
        if other.folder.resolve() != current.folder.resolve():
            known.append(other)
    return known


def _found(back: Reopened) -> None:
    experts = _listed(back.experts)
    st.success(
        show.plain(
            f"{METHODS[back.method].title} of {experts} of the family {back.collection.name}."
        ),
        icon=":material/check_circle:",
    )
    for note in back.notes:
        st.caption(show.plain(note))
    if st.button(
        "Open in Merge", type="primary", icon=":material/merge:", on_click=_take, args=(back,)
    ):
        browser.go("merge")


def _listed(names: tuple[str, ...]) -> str:
    return f"{len(names)} experts" if len(names) > 3 else " and ".join(names)


def _take(back: Reopened) -> None:
    """Ask the Merge page for these settings, over the family that they belong to."""
    folder = back.collection.folder.resolve()
    for label, file in families.found().items():
        if file.parent.resolve() == folder:
            session.family = label
    session.wanted = Wanted(
        back.method, dict(back.options), back.experts, dict(back.weights), back.seed, back.dtype,
        back.rounds, tuple(back.after), tuple(back.by),
        Further(back.routed, back.refine, back.keep_sums),
    )  # fmt: skip
