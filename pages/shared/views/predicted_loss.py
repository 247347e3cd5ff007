"""Predicted interference of a run beside the loss that was really measured."""

from __future__ import annotations

from functools import partial

import streamlit as st

from mats_core import figures
from mats_core.analysis import Interference
from mats_core.figures import Look

from ..frame import Slot, session, show, tracked
from ..work import Prepared, Run, predicted_loss


def section(compared: list[Run], prepared: Prepared | None, looks: dict[str, Look]) -> None:
    """Choose a run, predict, and see both figures."""
    st.markdown(
        "Which tasks does a merge hurt, before any test? The statistics say how steeply "
        "each expert's loss rises when its weights are moved: half the squared distance to the "
        "merged weights, weighed by the curvature (K-FAC), layer by layer. Beside it, the loss "
        "that the merge really costs each task."
    )
    labels = {run.id: run.label for run in reversed(compared)}
    ids = list(labels)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        id = st.selectbox(
            "Run", ids, index=ids.index(session.shown_run) if session.shown_run in ids else 0,
            format_func=lambda i: labels[i], width=320,
            key=f"forecast run {' '.join(labels)}",
        )  # fmt: skip
        run = next(run for run in compared if run.id == id)
        name = tracked.of_run(prepared, run, "predicted loss") if prepared is not None else ""
        found: Interference | None = tracked.found(Slot.PREDICTING, name) if name else None
        clicked = found is None and st.button(
            "Predict and measure", icon=":material/online_prediction:", key="forecast start",
            disabled=prepared is None, type="primary",
        )  # fmt: skip
    if clicked and prepared is not None:
        start(run, prepared, name)
    if found is not None:
        _figures(run, found, looks)
    elif prepared is not None and not prepared.files:
        st.info("The prediction needs statistics of the experts, and this family has none.")


def start(run: Run, prepared: Prepared, name: str) -> None:
    todo = partial(predicted_loss.predict, run, prepared)
    tracked.press(Slot.PREDICTING, run.id, "Predicting the loss", todo, name=name)


def collect() -> None:
    """Say why a prediction failed."""
    tracked.collect(Slot.PREDICTING)


def _figures(run: Run, found: Interference, looks: dict[str, Look]) -> None:
    if run.recipe.rounds > 1:
        st.caption(
            f"The merge is that of round {run.recipe.rounds}. Its cost is predicted from the "
            "statistics of the experts themselves, which are not those that it was merged with."
        )
    left, right = show.halves("forecast")
    with left:
        st.subheader("Predicted, by layer and task", anchor=False)
        show.figure(figures.interference_map(found), f"forecast map {run.id}")
    with right:
        st.subheader("Predicted and measured, by task", anchor=False)
        drawn = figures.predicted_against_measured(found, looks)
        if drawn is None:
            st.info("The experts name no tasks, so no loss could be measured.")
        else:
            show.figure(drawn, f"forecast tasks {run.id}")
            st.caption(
                f"Measured on at most {found.examples} {found.split} examples a task, as mean "
                "cross-entropy of the merge minus that of the expert."
            )
