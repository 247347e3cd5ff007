"""A finished merge: headline, accuracy, convergence or weights, layers, spectra, comparison."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from mats_core import figures
from mats_core.evaluate import TaskResult
from mats_core.report import Report

from . import along, runs, show, spectra
from .runs import Run
from .work import Prepared

NUMBERS = {
    "normalised": ("Normalised accuracy", "Mean over the tasks of merged / expert accuracy."),
    "gap": (
        "Gap recovered",
        "0 %: as good as the pre-trained encoder with the experts' heads; 100 %: as good as the "
        "experts.",
    ),
    "accuracy": ("Mean accuracy", "Mean over the tasks, on test examples."),
}
CELL = 168  # pixels: two beside each other on a phone


def pick(family: str) -> tuple[Run, Run | None]:
    """Which run is shown, and which one stands beside it."""
    kept = {run.id: run for run in runs.everything(family)}
    for key in ("shown run", "beside run"):
        if st.session_state.get(key) not in kept:
            st.session_state[key] = next(reversed(kept)) if key == "shown run" else None
    if len(kept) < 2:
        return next(iter(kept.values())), None
    left, right, pin = st.columns([5, 5, 2], vertical_alignment="bottom")
    names = {id: run.label for id, run in kept.items()}
    newest_first = list(reversed(kept))
    left.selectbox(
        "Showing", newest_first, format_func=lambda n: names[n], key="shown run",
        persist_state="session",
    )  # fmt: skip
    right.selectbox(
        "Compare with", [None, *newest_first], key="beside run",
        format_func=lambda n: "nothing" if n is None else names[n],
        persist_state="session",
    )  # fmt: skip
    pinned = runs.chosen(family, "baseline")
    pin.toggle(
        "Pin", pinned is not None, key=f"pin {pinned.id if pinned else ''}", on_change=_pin,
        help="Keep the run beside as the baseline of the runs to come.",
    )  # fmt: skip
    shown, beside = runs.chosen(family, "shown run"), runs.chosen(family, "beside run")
    assert shown is not None
    return shown, beside if beside is not shown else None


def _pin() -> None:
    """Make the run beside the baseline, or have none."""
    pinned = st.session_state.get("baseline") is not None
    st.session_state["baseline"] = None if pinned else st.session_state.get("beside run")


def headline(run: Run, beside: Run | None) -> None:
    """Four numbers, with their change against the run beside."""
    now = figures.headline(run.report)
    then = figures.headline(beside.report) if beside else {}
    against = f"vs {beside.number}" if beside else None
    with st.container(horizontal=True):
        for key, (label, help) in NUMBERS.items():
            value, old = now[key], then.get(key)
            delta = None if value is None or old is None else f"{100 * (value - old):+.1f} points"
            st.metric(
                label,
                "–" if value is None else figures.percent(value),
                delta=delta,
                delta_description=against if delta else None,
                help=help,
                width=CELL,
            )
        seconds = run.report.seconds
        st.metric("Time", f"{seconds:.1f} s", help=f"On {run.report.device}.", width=CELL)
    for warning in run.report.warnings:
        st.warning(show.plain(warning))


@st.fragment
def tabs(run: Run, beside: Run | None, prepared: Prepared) -> None:
    """Everything about a run; a fragment, so that looking around does not rerun the page."""
    looks = figures.looks(e.name for e in prepared.inputs.family.experts)
    iterative = any(len(layer.residuals) > 1 for layer in run.report.layers)
    weighted = any(layer.details.get("task_weights") for layer in run.report.layers)
    names = ["Accuracy"]
    names += ["Convergence"] if iterative else []
    names += ["Polarized scaling"] if weighted else []
    names += ["Layers", "Spectra", "All runs"]
    views = dict(zip(names, st.tabs(names, key="result view", on_change="rerun"), strict=True))
    for name, view in views.items():
        if not view.open:
            continue
        with view:
            if name == "Accuracy":
                accuracy(run, beside, looks)
            elif name == "Convergence":
                along.convergence(run, looks, prepared)
            elif name == "Polarized scaling":
                polarized(run)
            elif name == "Layers":
                layers(run.report)
            elif name == "Spectra":
                spectra.view(prepared.inputs, key="merge spectra")
            else:
                comparison(run, beside)


def accuracy(run: Run, beside: Run | None, looks: dict[str, figures.Look]) -> None:
    report = run.report
    if not report.tasks:
        st.info("The experts of this family name no tasks, so the merge was not evaluated.")
        return
    same = {r.name for r in report.tasks}
    other = [r for r in beside.report.tasks if r.name in same] if beside else []
    drawn = figures.accuracy_bars(
        report.tasks, looks, label=run.label,
        beside=other, beside_label=beside.label if beside else "",
    )  # fmt: skip
    show.figure(drawn, f"accuracy {run.id} {beside.id if beside else 0}")


def polarized(run: Run) -> None:
    names = [entry.name for entry in run.recipe.experts]
    drawn = figures.task_weights(run.report, names)
    if drawn:
        show.figure(drawn, f"weights {run.id}")
    found = {la.name: la for la in run.report.layers if la.details.get("dimension_weights")}
    titles = figures.short_names(list(found))
    st.markdown("**Level 2: the input dimensions of one layer**")
    chosen = st.selectbox(
        "Layer", list(found), format_func=lambda n: titles[n], key="dimension layer",
        persist_state="session",
    )  # fmt: skip
    drawn = figures.dimension_weights(found[chosen])
    if drawn:
        show.figure(drawn, f"dimensions {run.id} {chosen}")


def layers(report: Report) -> None:
    """What happened to every tensor; the counts add up to the checkpoint."""
    counts = ", ".join(f"{count} {name}" for name, count in report.coverage.items() if count)
    st.markdown(show.plain(f"{len(report.layers)} tensors: {counts}."))
    rows = [
        {
            "tensor": layer.name,
            "treatment": layer.treatment,
            "method": layer.method,
            "status": layer.status,
            "iterations": layer.iterations or None,
            "residual": layer.residuals[-1] if layer.residuals else None,
            "layer weight": layer.details.get("layer_weight"),
            "ms": 1000 * layer.seconds,
        }
        for layer in report.layers
    ]
    table = pd.DataFrame(rows).dropna(axis=1, how="all")
    st.dataframe(
        table,
        hide_index=True,
        placeholder="–",
        column_config={
            "residual": st.column_config.NumberColumn(format="%.1e"),
            "layer weight": st.column_config.NumberColumn(format="%.2f"),
            "ms": st.column_config.NumberColumn(format="%.1f"),
        },
        alt="Table of all tensors with treatment, method and status.",
    )


def comparison(run: Run, beside: Run | None) -> None:
    """Tasks × runs, and the settings in which the two chosen runs differ."""
    kept = runs.everything(run.family)
    columns = {r.label: _shares(r.report.tasks) for r in kept if r.report.tasks}
    if columns:
        table = pd.DataFrame(columns)
        table.loc["all tasks"] = table.mean()
        st.markdown("**Share of the expert's accuracy, in percent**")
        styled = table.style.highlight_max(
            axis=1, props="font-weight: 700; background-color: rgba(0, 158, 115, 0.22)"
        ).format("{:.1f}", na_rep="–")
        st.dataframe(styled, alt="Normalised accuracy by task and run.")
        st.caption("The best run of each row is marked. The last eight runs are kept.")
    if beside is None:
        st.info("Merge once more with other settings, and both runs stand side by side here.")
        return
    changed = runs.differences(run, beside)
    st.markdown("**Settings that differ**")
    if not changed:
        st.write("None: both runs have the same settings.")
        return
    st.dataframe(
        pd.DataFrame(changed, columns=["setting", run.label, beside.label]), hide_index=True
    )


def _shares(results: tuple[TaskResult, ...]) -> dict[str, float]:
    return {r.name: 100 * r.merged.accuracy / max(r.finetuned.accuracy, 1e-12) for r in results}
