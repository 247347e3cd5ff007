"""A method step by step: one press merges every step, and the figure shows what each one adds."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pandas as pd
import streamlit as st

from mats_core import figures
from mats_core.analysis import Stand, of_rung, steps
from mats_core.evaluation import normalised_accuracy, share
from mats_core.figures import Look
from mats_core.methods import LADDERS, Ladder
from mats_core.recipes import FamilyFile

from ..frame import Slot, session, show, tracked
from ..work import Job, LadderRequest, Prepared, run_ladder
from . import runs

VIEW = "Step by step"  # the tab on Compare
POLL = 1.5  # seconds between two looks at a ladder that is climbed
EXAMPLES = 200  # validation examples a task


def section(collection: FamilyFile, prepared: Prepared | None, looks: dict[str, Look]) -> None:
    """Which ladder, the press, the figure as it grows, and what every step changes."""
    titles = [ladder.title for ladder in LADDERS]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = st.segmented_control(
            "Method", titles, default=titles[0], required=True, key="ladder which",
            persist_state="session", label_visibility="collapsed",
        )  # fmt: skip
        ladder = LADDERS[titles.index(chosen or titles[0])]
        clicked = st.button(
            f"Merge all {len(ladder.rungs)} steps", icon=":material/stairs:", key="ladder start",
            type="primary", disabled=prepared is None or tracked.active(Slot.CLIMBING) is not None,
        )  # fmt: skip
    st.markdown(
        f"{ladder.sentence} Each step is merged and tested on up to {EXAMPLES} validation examples "
        "a task, in the background; nothing is kept until you take a step over to Merge."
    )
    if clicked and prepared is not None:
        _start(collection, ladder, prepared)
    if prepared is not None:
        known = tracked.shared(Slot.CLIMBING, tracked.name(prepared, ladder.title))
        session.ladder = known or session.ladder
    job = session.ladder
    if job is None or (job.request.family, job.request.ladder) != (collection.name, ladder):
        _table(ladder, ())
    elif job.active:
        st.fragment(_live, run_every=POLL)(job, looks)
    else:
        _finished(job, looks)


def _start(collection: FamilyFile, ladder: Ladder, prepared: Prepared) -> None:
    recipe = collection.recipe("average", statistics=prepared.files)
    request = LadderRequest(collection.name, recipe, ladder, EXAMPLES)
    todo = partial(run_ladder, request, prepared)
    keep, name = partial(setattr, session, "ladder"), tracked.name(prepared, ladder.title)
    tracked.press(Slot.CLIMBING, request, ladder.title, todo, background=True, keep=keep, name=name)


def collect() -> None:
    """Say how a ladder ended, once; its figure stays."""
    so_far = session.ladder.snapshot().partial if session.ladder else ()
    cancelled = f"The ladder was left after {len(so_far or ())} steps."
    tracked.collect(Slot.CLIMBING, cancelled=cancelled)


def _live(job: Job, looks: dict[str, Look]) -> None:
    """The ladder as far as it is known."""
    stands = job.snapshot().partial or ()
    _drawn(job.request, stands, looks, "ladder live")
    _table(job.request.ladder, stands)


def _drawn(
    request: LadderRequest, stands: Sequence[Stand], looks: dict[str, Look], key: str
) -> None:
    said = {"examples": request.examples, "of": len(request.ladder.rungs)}
    if request.ladder.counts:
        drawn = figures.example_lines(stands, **said)
    else:
        drawn = figures.ladder_lines(stands, looks, **said)
    if drawn is not None:
        show.figure(drawn, key)


def _finished(job: Job, looks: dict[str, Look]) -> None:
    """The figure, what every step changes, and a way to go on with one of them."""
    request, now = job.request, job.snapshot()
    stands: tuple[Stand, ...] = now.result or now.partial or ()
    _drawn(request, stands, looks, f"ladder {request.ladder.title} {id(job)}")
    _table(request.ladder, stands)
    good = [stand.rung for stand in stands if stand.results]
    if not good:
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        place = st.selectbox(
            "Step", range(len(good)), index=len(good) - 1, format_func=lambda i: good[i].title,
            key=f"ladder step {id(job)}", width=320,
        )  # fmt: skip
        if st.button("Use these settings", icon=":material/merge:", key="ladder use"):
            runs.want(of_rung(request.recipe, good[place]))


def _table(ladder: Ladder, stands: Sequence[Stand]) -> None:
    """What changes in the formula at every step, and what it added where that is known."""
    known = dict(zip((s.rung.title for s in stands), zip(stands, steps(stands), strict=True),
                     strict=True))  # fmt: skip
    rows, added = [], "difference" if ladder.counts else "against the step before"
    for rung in ladder.rungs:
        row = {"step": rung.title, "what changes": show.plain(rung.change)}
        stand, step = known.get(rung.title, (None, None))
        if stand is not None and stand.results:
            low = min(stand.results, key=share)
            row["keeps"] = figures.percent(normalised_accuracy(stand.results))
            row[added] = figures.points(step.mean) if step and step.mean else ""
            row[added] += f" against {rung.against}" if row[added] and rung.against else ""
            row["least on"] = show.plain(f"{low.name}, {figures.percent(share(low), 0)}")
        elif stand is not None:
            row[added] = show.plain(stand.reason)
        rows.append(row)
    # A table whose cells wrap: what changes is a sentence.
    st.table(pd.DataFrame(rows).fillna("").set_index("step"))
