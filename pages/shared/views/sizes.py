"""What accuracy costs in size: one press merges every rank of the branches, and a curve grows."""

from __future__ import annotations

from functools import partial

import streamlit as st

from mats_core import figures
from mats_core.analysis import RANKS, Sized
from mats_core.figures import Look
from mats_core.methods import METHODS
from mats_core.recipes import FamilyFile

from ..frame import Slot, session, show, tracked
from ..work import Job, Prepared, SizesRequest, run_sizes

VIEW = "Accuracy against size"  # the tab on Compare
POLL = 1.5  # seconds between two looks at a curve that grows
EXAMPLES = 200  # validation examples a task
BELOW = ("tsv_m", "average")  # static merges under the branches, from weights alone


def section(collection: FamilyFile, prepared: Prepared | None, looks: dict[str, Look]) -> None:
    """Which merge lies below, the press, and the curve as it grows."""
    names = {METHODS[name].title: name for name in BELOW}
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = st.segmented_control(
            "Merge below", list(names), default=next(iter(names)), required=True,
            key="sizes below", persist_state="session", label_visibility="collapsed",
        )  # fmt: skip
        clicked = st.button(
            f"Merge {len(RANKS)} sizes", icon=":material/stacked_line_chart:", key="sizes start",
            type="primary", disabled=prepared is None or tracked.active(Slot.SIZING) is not None,
        )  # fmt: skip
    st.markdown(
        "A merge has the base's size, all experts side by side as many times that as there are "
        "experts. Between them lie routed merges: beside the merge, branches of a rank lead back "
        f"to the experts, and each input chooses its own. Every rank is tested on up to {EXAMPLES} "
        "validation examples a task, in the background; nothing is kept."
    )
    method = names[chosen or next(iter(names))]
    if clicked and prepared is not None:
        _start(collection, method, prepared)
    if prepared is not None:
        known = tracked.shared(Slot.SIZING, tracked.name(prepared, VIEW, method))
        session.sizes = known or session.sizes
    job = session.sizes
    if job is None or (job.request.family, job.request.recipe.method) != (collection.name, method):
        return
    if job.active:
        st.fragment(_drawn, run_every=POLL)(job, looks, "sizes live")
    else:
        _drawn(job, looks, f"sizes {id(job)}")


def _start(collection: FamilyFile, method: str, prepared: Prepared) -> None:
    recipe = collection.recipe(method, statistics=prepared.files)
    request = SizesRequest(collection.name, recipe, EXAMPLES)
    title = f"{METHODS[method].title} at every size"
    keep = partial(setattr, session, "sizes")
    todo = partial(run_sizes, request, prepared)
    name = tracked.name(prepared, VIEW, method)
    tracked.press(Slot.SIZING, request, title, todo, background=True, keep=keep, name=name)


def collect() -> None:
    """Say how a curve ended, once; its figure stays."""
    so_far = session.sizes.snapshot().partial if session.sizes else ()
    tracked.collect(Slot.SIZING, cancelled=f"The curve was left after {len(so_far or ())} sizes.")


def _drawn(job: Job, looks: dict[str, Look], key: str) -> None:
    """The curve as far as it is known."""
    now = job.snapshot()
    points: tuple[Sized, ...] = now.result or now.partial or ()
    drawn = figures.accuracy_by_size(points, looks, examples=job.request.examples)
    if drawn is not None:
        show.figure(drawn, key)
