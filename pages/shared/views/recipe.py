"""The card of the page Export that takes a recipe back in."""

from __future__ import annotations

from functools import partial

import streamlit as st

from mats_core.errors import InputError
from mats_core.export import Reopened
from mats_core.merging import FamilyFile, load_family
from mats_core.methods import METHODS

from ..frame import caches, families, show
from ..work import Job, export
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
            st.session_state.pop("reading", None)
            return
        job: Job | None = st.session_state.get("reading")
        if job is None or job.request != file.file_id:
            known = _known(collection)
            todo = partial(export.read_back, file.getvalue(), known)
            job = caches.worker().submit(Job(file.file_id, "Reading the recipe", todo))
            st.session_state["reading"] = job
        show.progress([job])
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
        st.switch_page("pages/merge.py")


def _listed(names: tuple[str, ...]) -> str:
    return f"{len(names)} experts" if len(names) > 3 else " and ".join(names)


def _take(back: Reopened) -> None:
    """Ask the Merge page for these settings, over the family that they belong to."""
    folder = back.collection.folder.resolve()
    for label, file in families.found().items():
        if file.parent.resolve() == folder:
            st.session_state["family"] = label
    st.session_state["wanted"] = {
        "method": back.method,
        "options": dict(back.options),
        "experts": back.experts,
        "weights": dict(back.weights),
        "seed": back.seed,
        "dtype": back.dtype,
        "rounds": back.rounds,
    }
