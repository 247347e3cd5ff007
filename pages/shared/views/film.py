"""Sequential calibration as a film, a part of the Inside page: error and accuracy by block."""

from __future__ import annotations

from functools import partial

import streamlit as st

from mats_core import figures
from mats_core.analysis import Film
from mats_core.figures import Look
from mats_core.methods import METHODS
from mats_core.recipes import FeatureErrors

from ..frame import Slot, show, tracked
from ..work import EXAMPLES, Prepared, Run, Shelf, film


def section(shelf: Shelf, run: Run, prepared: Prepared) -> None:
    """The feature errors that the report has, the press, and the film; nothing of a method that
    does not calibrate, and no press where there is no task to test on."""
    if not METHODS[run.recipe.method].calibrates:
        return
    st.header("Block by block", anchor=False)
    errors = FeatureErrors.recorded(run.report)
    if errors is None:
        st.info("The report of this run has no feature errors. Merge again, and they are measured.")
        return
    st.write(
        "Calibration walks through the model and matches every layer where it stands. How far are "
        "the merge's features from each expert's on the way, and what is that worth?"
    )
    name = tracked.of_run(prepared, run, "film")
    found: Film | None = tracked.found(Slot.FILMING, name)
    looks = figures.looks(expert.name for expert in prepared.inputs.family.experts)
    drawn = figures.feature_errors(errors, looks, found.started if found else None)
    show.figure(drawn, f"feature errors {run.id} {found is not None}")
    if not run.report.tasks:
        st.caption("No expert names a task: the accuracy block by block cannot be tested.")
    elif found is None:
        _ask(shelf, run, errors, prepared, name)
    else:
        show.figure(figures.film_lines(found, looks), f"film lines {run.id}")
        _frames(run, found, looks)


def _ask(shelf: Shelf, run: Run, errors: FeatureErrors, prepared: Prepared, name: str) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        clicked = st.button(
            "Test it block by block", icon=":material/movie:", key="film start",
            disabled=tracked.active(Slot.FILMING) is not None,
        )  # fmt: skip
        st.caption(
            f"{len(errors.streams)} states to test on up to {EXAMPLES} validation examples a task, "
            "and the start merge's feature errors beside these."
        )
    if clicked:
        todo = partial(film, shelf, run, lambda: prepared)
        tracked.press(Slot.FILMING, run.id, "Testing block by block", todo, name=name)


def collect() -> None:
    """Say how a film ended that is not kept."""
    cancelled = "The film was cancelled; nothing was kept of it."
    tracked.collect(Slot.FILMING, cancelled=cancelled)


@st.fragment
def _frames(run: Run, found: Film, looks: dict[str, Look]) -> None:
    """One state of the walk: nothing is solved or tested again."""
    blocks = [frame.block for frame in found.frames]
    now = st.select_slider(
        "Blocks calibrated", blocks, value=blocks[-1], key=f"film frame {run.id}",
        help="0 is the start merge; the blocks behind are the start's.",
    )  # fmt: skip
    frame, start = found.frames[int(now)], found.frames[0]
    gain = 100 * (frame.normalised_accuracy - start.normalised_accuracy)
    with st.container(horizontal=True, gap="medium"):
        st.metric(
            "Normalised accuracy", figures.percent(frame.normalised_accuracy),
            delta=f"{gain:+.1f} points", delta_description="vs the start", width="content",
        )  # fmt: skip
        for label, errors in (("Feature error here", found.calibrated),
                              ("without calibration", found.started)):  # fmt: skip
            st.metric(
                label.capitalize(), figures.percent(errors.means[int(now)]), width="content",
                help="Behind the last calibrated block, mean over the tasks.",
            )  # fmt: skip
    drawn = figures.accuracy_bars(
        frame.results, looks, label=f"{now} blocks calibrated", split=found.split
    )
    show.figure(drawn, f"film bars {run.id}")
