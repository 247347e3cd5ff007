"""Models and examples from elsewhere: files that are dropped, and models of the hub, fetched only
after a press that names their size and where they come from."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import streamlit as st

from mats_core.checkpoints import Dropped, hub
from mats_core.errors import InputError, listing, size

from ..frame import Slot, keys, progress, session, show, state, tracked
from ..work import bringing

MOST = 1000  # MB of one file that is dropped


def view(home: Path | None, look: Callable[[], None]) -> None:
    """Both ways; `home` is where dropped files are put, `look` searches again."""
    tracked.collect(Slot.FETCHING, lambda job: _fetched(look))
    progress.bar(Slot.FETCHING)
    show.notices()
    with st.expander("Add models from elsewhere", icon=":material/download:"):
        if home is not None:
            _drop(home, look)
        _hub(look)


def _drop(home: Path, look: Callable[[], None]) -> None:
    key = f"drop {session.draft_count}"
    st.file_uploader(
        "Drop the files of a model, a .zip of models, or examples", accept_multiple_files=True,
        key=key, max_upload_size=MOST, on_change=_received, args=(key, home, look),
        help=f"They are copied below {show.plain(str(home.resolve()))}; nothing is overwritten.",
    )  # fmt: skip


def _received(key: str, home: Path, look: Callable[[], None]) -> None:
    dropped = [Dropped(one.name, one) for one in state.value(key) or []]
    session.draft_count = session.draft_count + 1  # an empty field: nothing is received twice
    try:
        made = bringing.receive(dropped, home)
    except InputError as error:
        show.keep("error", str(error))
        return
    if made:
        show.keep("info", f"Copied: {listing(str(one.resolve()) for one in made)}.")
    look()


def _hub(look: Callable[[], None]) -> None:
    where = hub.host()
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.text_input(
            "A model of the Hugging Face hub", key=keys.HUB_ID, placeholder="owner/name",
            help="What lies in this machine's cache is in the list already.",
        )  # fmt: skip
        st.button(f"Ask {where} how large it is", on_click=_ask, args=(look,))
    if session.hub_problem:
        show.problem(session.hub_problem)
    if (offer := session.hub_offer) is not None:
        st.markdown(
            show.plain(
                f"{offer.reference}: {size(offer.nbytes)} in {offer.files} files from {offer.host}."
            )
        )
        st.button(
            f"Download {size(offer.nbytes)}", icon=":material/download:", on_click=_fetch,
            args=(offer.reference,), disabled=tracked.active(Slot.FETCHING) is not None,
        )  # fmt: skip


def _ask(look: Callable[[], None]) -> None:
    """The cache first, which needs no network."""
    del session.hub_problem, session.hub_offer
    reference = session.hub_id.strip()
    try:
        if bringing.is_cached(reference):
            show.keep("info", f"'{reference}' lies in this machine's cache: it is in the list.")
            look()
            return
        session.hub_offer = bringing.offer(reference)
    except InputError as error:
        session.hub_problem = str(error)


def _fetch(reference: str) -> None:
    todo = partial(bringing.fetch, reference)
    tracked.start(Slot.FETCHING, reference, f"Downloading {reference}", todo)


def _fetched(look: Callable[[], None]) -> None:
    show.keep("info", f"'{session.hub_id.strip()}' is in this machine's cache and in the list.")
    del session.hub_offer
    look()
