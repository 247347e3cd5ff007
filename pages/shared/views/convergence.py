"""Conjugate gradients of one run: residuals, and accuracy along the iterations."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from mats_core import figures
from mats_core.analysis import Trajectory
from mats_core.figures import Look
from mats_core.methods import METHODS

from ..frame import Slot, show, shown, tracked
from ..work import Prepared, Residuals, Run, follow

EXAMPLES = 200
AS_IT_IS, UNDAMPED_LABEL = "with these settings", "undamped"


def convergence(run: Run, looks: dict[str, Look], prepared: Prepared) -> None:
    """The residuals of every layer, then what they mean for the accuracy."""
    drawn = figures.residual_curves(run.report.layers)
    if drawn:
        show.figure(drawn, f"residuals {run.id}")
    st.subheader("Accuracy along the iterations", anchor=False)
    if not run.report.tasks:
        st.info("The experts of this family name no tasks, so there is no accuracy to follow.")
        return
    st.write(
        "Does solving the equations better also merge better? The same solve is stopped early, at "
        "several places, and each time the model is tested on validation examples."
    )
    if run.recipe.rounds > 1:
        st.caption(
            f"This run has {run.recipe.rounds} rounds of statistics: residuals and accuracies are "
            "those of the last one. Tracing it solves the rounds before it again, each with the "
            "settings that are traced."
        )
    if run.report.routed or run.report.trained:
        st.caption(
            "Residuals and these accuracies are those of the static merge, before what it went on "
            "to be."
        )
    name = tracked.of_run(prepared, run, "trace")
    _controls(run, prepared, name)
    if (traced := tracked.found(Slot.TRACING, name)) is not None:
        shown.trace(run.id, traced)  # the page Export takes it along
    if shown.trajectories(run):
        _curves(run, looks)


def live(found: Any) -> None:
    """Residuals of a solve under way: the layer that is being solved, and those before it."""
    if not isinstance(found, Residuals):  # of another job that the same bar watches
        return
    curves = [*list(found.layers.values())[-5:], found.current]
    longest = max(len(curve) for curve in curves)
    table = pd.DataFrame(
        {
            "layer now" if curve is found.current else f"layer −{len(curves) - 1 - index}": [
                math.log10(max(value, 1e-12)) for value in curve
            ]
            + [None] * (longest - len(curve))
            for index, curve in enumerate(curves)
            if curve
        }
    )
    st.line_chart(
        table, height=220, x_label="CG iteration", y_label="log₁₀ of the relative residual",
        alt="Residuals of the layers solved so far against CG iterations.",
    )  # fmt: skip


def _controls(run: Run, prepared: Prepared, name: str) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        upto = st.segmented_control(
            "Follow up to", [50, 100, 200, 500], default=200, required=True,
            key="trajectory length", persist_state="session",
        )  # fmt: skip
        both = st.toggle(
            "Undamped as well", value=True, key="trajectory undamped", persist_state="session",
            help="The same solve with damping 0 and nothing else to hold it back.",
        )  # fmt: skip
        if st.button("Trace the accuracy", icon=":material/timeline:"):
            _start(run, int(upto), both, prepared, name)


def _start(run: Run, upto: int, both: bool, prepared: Prepared, name: str) -> None:
    solve = METHODS[run.recipe.method].solve
    assert solve is not None  # or there would be no residuals
    limit = {solve.limit: upto}
    changes: dict[str, dict[str, Any]] = {AS_IT_IS: limit}
    if both:
        changes[UNDAMPED_LABEL] = {**solve.undamped, **limit}
    todo = partial(follow, run, changes, EXAMPLES, lambda: prepared)
    tracked.press(Slot.TRACING, run.id, "Tracing the accuracy", todo, name=name)


def collect() -> None:
    """Hand a finished trace to its run, which need not be the one that is shown now."""
    tracked.collect(Slot.TRACING, lambda job: shown.trace(job.request, job.outcome()))


def _curves(run: Run, looks: dict[str, Look]) -> None:
    found = shown.trajectories(run)
    drawn = figures.trajectory_curves(found)
    show.figure(drawn, f"trajectory {run.id}")
    names = list(found)
    chosen = names[0]
    if len(names) > 1:
        chosen = st.segmented_control(
            "Task by task", names, default=names[-1], required=True, key="trajectory which"
        )
    drawn = figures.trajectory_tasks(found[str(chosen)], looks)
    show.figure(drawn, f"trajectory tasks {run.id} {chosen}")
    _film(run, found[str(chosen)], looks, str(chosen))


@st.fragment
def _film(run: Run, trajectory: Trajectory, looks: dict[str, Look], label: str) -> None:
    """One solve, iteration by iteration: nothing is solved again."""
    st.subheader("The solve as a film", anchor=False)
    points = {point.iteration: point for point in trajectory.points}
    steps = list(points)
    best = max(points.values(), key=lambda p: p.normalised_accuracy)
    now = st.select_slider(
        "Iteration", steps, value=best.iteration, key=f"film {run.id} {label} {steps[-1]}",
        help="Starts at the best one.",
    )  # fmt: skip
    point, start = points[int(now)], points[steps[0]]
    residual, distance = figures.solve_at(trajectory.report.layers, int(now))
    with st.container(horizontal=True, gap="medium"):
        gain = 100 * (point.normalised_accuracy - start.normalised_accuracy)
        st.metric(
            "Normalised accuracy", figures.percent(point.normalised_accuracy),
            delta=f"{gain:+.1f} points", delta_description="vs the start", width="content",
        )  # fmt: skip
        st.metric("Residual", f"{residual:.1e}", help="Median over the layers.", width="content")
        st.metric(
            "Distance to the start", f"{distance:.2f}", width="content",
            help="How far all solved weights have moved, as a Frobenius norm.",
        )  # fmt: skip
    drawn = figures.accuracy_bars(point.results, looks, label=f"after {now}")
    show.figure(drawn, f"film {run.id} {label}")
