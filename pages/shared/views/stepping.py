"""One layer of a run, stage by stage: formula, picture and numbers in one place."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import streamlit as st

from mats_core import figures
from mats_core.analysis import VIEWS, LayerSteps
from mats_core.methods import Stage

from ..frame import Slot, keys, progress, show, state, tracked
from ..work import Job, Prepared, Run, Shelf, step_through

SOON = 6.0  # seconds for which a choice waits for its layer; then a bar with a Cancel does
POLL = 0.2  # seconds between two looks meanwhile
WIDTH, PICTURE = 370, 336  # pixels of a stage: three beside each other, one on a phone


def section(shelf: Shelf, run: Run, prepared: Prepared) -> None:
    """The choice of a layer, and its stages as soon as the worker knows them.

    To be drawn in a fragment: a choice here draws the layer, and not the page.
    """
    st.header("One layer, step by step", anchor=False)
    roles = prepared.inputs.family.roles
    names = [name for name, role in roles.items() if role == "matrix"]
    titles = figures.short_names(names)
    layer = st.selectbox(
        "Layer to step through", names, index=None, key=keys.STEPPED, persist_state="session",
        format_func=lambda name: titles[name], placeholder="Choose a layer, or a row of the table",
    )  # fmt: skip
    if layer is None:
        st.write(
            "From the task matrices to the merged matrix: every matrix that the method computes "
            "on its way through a layer, with its formula and real numbers."
        )
        return
    known = _found(shelf, run, layer)
    job = None if known is not None else _asked(shelf, run, layer, prepared)
    if job is not None:
        with st.spinner("Opening the layer"):
            job.knows(SOON)
        known = job.snapshot().result or job.snapshot().partial
    if known is not None:
        _steps(shelf, run, known, job)
    else:
        _later()


def open_layer(layer: str, expert: str | None = None) -> None:
    """Have the section show a layer, of one expert; before it is drawn."""
    state.put(keys.STEPPED, layer)
    if expert is not None:
        state.put(keys.STEPPED_EXPERT, expert)


def _found(shelf: Shelf, run: Run, layer: str) -> LayerSteps | None:
    looked = shelf.get(run)
    return looked.steps.get(layer) if looked else None


def _asked(shelf: Shelf, run: Run, layer: str, prepared: Prepared) -> Job:
    """The job that merges the layer once more, begun unless it was, and ended badly."""
    wanted = (run.id, layer)
    job = state.job(Slot.STEPPING)
    if job is None or job.request != wanted:
        todo = partial(step_through, shelf, run, layer, lambda: prepared)
        job = tracked.start(Slot.STEPPING, wanted, "Stepping through the layer", todo)
    return job


def _later() -> None:
    """The layer takes long, or there is none."""
    if not tracked.ended_badly(Slot.STEPPING, cancelled="Stepping through was cancelled."):
        st.info("The layer is merged once more, and every matrix on the way is kept.")
        progress.bar(Slot.STEPPING, cancel=(Slot.STEPPING,), name="stepping")


@st.fragment
def _steps(shelf: Shelf, run: Run, known: LayerSteps, job: Job | None) -> None:
    """Everything of one layer; a fragment, so that looking around does not rerun the page.

    known   all stages, or the first one, which is shown while `job` makes the others
    """
    found = _found(shelf, run, known.name) or known
    whole = job is None or found is not known
    said = st.container()
    with st.container(horizontal=True, vertical_alignment="bottom"):
        expert: Any = st.selectbox(
            "Expert",
            list(found.experts),
            key=keys.STEPPED_EXPERT,
            persist_state="session",
            width=220,
        )
        view: Any = st.segmented_control(
            "Rows and columns", list(VIEWS), default=VIEWS[0], required=True, key="stepping view",
            format_func=lambda v: figures.CHOSEN[v], persist_state="session",
        )  # fmt: skip
    index = found.experts.index(expert) if expert in found.experts else 0
    place, below = st.container(horizontal=True, gap="medium"), st.empty()
    with place:
        _stages(run, found, index, view)
    if not whole:
        assert job is not None
        ended = _waited(job, below)
        if ended is None:
            with below.container():
                _later()
            return
        with place:
            _stages(run, ended, index, view, len(found.stages))
        found = ended
    said.markdown(show.plain(figures.stages_words(found)))
    if found.residuals:
        own = [layer for layer in run.report.layers if layer.name == found.name]
        drawn = figures.residual_curves(own)
        if drawn:
            show.figure(drawn, f"stepping residuals {run.id} {found.name}")


def _waited(job: Job, place: Any) -> LayerSteps | None:
    """All stages, where they are there soon; meanwhile the place says how far they are."""
    until = time.monotonic() + SOON
    while not job.wait(POLL) and time.monotonic() < until:
        now = job.snapshot()
        place.progress(now.fraction, text=show.plain(now.text))
    place.empty()
    return job.snapshot().result


def _stages(run: Run, found: LayerSteps, index: int, view: Any, first: int = 0) -> None:
    """A card for each stage, from the first of those that are not drawn yet."""
    key = f"{run.id} {found.name} {view}"
    for number, stage in enumerate(found.stages[first:], first + 1):
        with st.container(border=True, width=WIDTH, gap="xsmall"):
            if stage.key == "iterate":
                _solve(run, found, stage, number, view, key)
            else:
                whose = found.experts[index] if stage.each else ""
                _matrix(found, stage, number, index if stage.each else 0, whose, view, key)


def _heading(stage: Stage, number: int, whose: str) -> None:
    of = f" · {whose}" if whose else ""
    st.subheader(f"{number}. {show.plain(stage.title + of)}", anchor=False)
    show.formula(stage.parts)


def _matrix(
    found: LayerSteps, stage: Stage, number: int, place: int, whose: str, view: Any, key: str
) -> None:
    """One stage: its title, its formula, and its matrix, or its number."""
    _heading(stage, number, whose)
    seen = found.seen[stage.key][place]
    if seen.number is not None:
        st.metric(stage.title, f"{seen.number:.4g}", label_visibility="collapsed", width="content")
        return
    drawn = figures.stage_matrix(stage, seen, view, whose)
    show.still(drawn, f"stage {stage.key} {place} {key}", PICTURE)


def _solve(run: Run, found: LayerSteps, stage: Stage, number: int, view: Any, key: str) -> None:
    """The iterate of a step, with how far the equation is solved there and what it keeps."""
    _heading(stage, number, "")
    last = found.steps[-1]
    step: Any = st.select_slider(
        "Step", list(found.steps), value=last, key=f"stepping step {run.id} {found.name}"
    ) if len(found.steps) > 1 else last  # fmt: skip
    place = found.steps.index(step)
    with st.container(horizontal=True, gap="medium"):
        st.metric("Residual", f"{found.residuals[step]:.2e}", width="content",
                  help="‖b − K Xₖ‖ / ‖b‖, with K X = b the equation of the merge.")  # fmt: skip
        if found.kept[place] == found.kept[place]:
            st.metric(
                "Output shifts kept", figures.percent(found.kept[place]), width="content",
                help="Of what each expert changes in the outputs of this layer, on its own inputs, "
                "the share that Xₖ has too; the mean over the tasks. Below 0 %: further from the "
                "experts' outputs than the base.",
            )  # fmt: skip
    drawn = figures.stage_matrix(stage, found.seen[stage.key][place], view, f"after step {step}")
    show.still(drawn, f"stage {stage.key} {key}", PICTURE)
