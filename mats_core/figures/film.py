"""Calibration as a film: how far the features are from the experts', and what it is worth."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go

from ..analysis import Film
from ..errors import listing
from ..recipes import FeatureErrors
from .comparison import ALL_TASKS
from .kept import MEAN, mean_line, task_lines
from .rows import merged
from .style import GREY, ORANGE, Figure, Look, curve, laid_out, percent, safe

CALIBRATED, STARTED = "calibrated", "start merge"
BOLD: Mapping[str, Any] = {"line_width": 5, "marker_size": 10}


def feature_errors(
    found: FeatureErrors, tasks: Mapping[str, Look], started: FeatureErrors | None = None
) -> Figure:
    """The feature error of every task and their mean along the blocks; crosses are the inputs of
    each stage, between the blocks.

    started  the errors of the merge that calibration started from, on the same inputs
    """
    figure, places = go.Figure(), list(range(len(found.streams)))
    for column, name in enumerate(found.experts):
        hover = f"{safe(name)}, after %{{x}} blocks: %{{y:.1%}}"
        y = [row[column] for row in found.streams]
        curve(figure, tasks[name], places, y, hover, name=safe(name), opacity=0.6)
    means = [(CALIBRATED, found, Look(GREY, "solid", "diamond"))]
    means += [(STARTED, started, Look(ORANGE, "dash", "square"))] if started else []
    for label, errors, look in means:
        hover = f"{label}, mean after %{{x}} blocks: %{{y:.1%}}"
        name = f"<b>{ALL_TASKS if errors is found else STARTED}</b>"
        curve(figure, look, places, list(errors.means), hover, name=name, **BOLD)
    _stages(figure, found)
    laid_out(figure, 460)
    figure.update_xaxes(title="blocks passed", dtick=1 if len(places) <= 20 else None)
    figure.update_yaxes(tickformat=".0%", title="feature error", rangemode="tozero")
    caption = _errors_said(found, started)
    return Figure(figure, f"Feature error along the blocks. {caption}", caption,
                  [*_error_rows(found, CALIBRATED), *_error_rows(started, STARTED)])  # fmt: skip


def _stages(figure: go.Figure, found: FeatureErrors) -> None:
    """The mean error of every stage's inputs, in its order between two blocks."""
    if not found.stages:
        return
    most = {s.block: 1 + max(o.stage for o in found.stages if o.block == s.block)
            for s in found.stages}  # fmt: skip
    figure.add_scatter(
        x=[s.block + (s.stage + 0.5) / most[s.block] for s in found.stages],
        y=[_mean(s.errors) for s in found.stages],
        mode="markers", marker={"symbol": "cross-thin-open", "size": 8, "color": GREY},
        name="stage inputs", customdata=[safe(", ".join(s.layers)) for s in found.stages],
        hovertemplate="inputs of %{customdata}: %{y:.1%}<extra></extra>",
    )  # fmt: skip


def _mean(errors: Mapping[str, float]) -> float:
    return sum(errors.values()) / len(errors)


def _error_rows(found: FeatureErrors | None, label: str) -> list[dict[str, Any]]:
    if found is None:
        return []
    rows = [
        {"merge": label, "blocks": place, "stage": "", "task": name, "error": error}
        for place, row in enumerate(found.streams)
        for name, error in zip(found.experts, row, strict=True)
    ]
    inputs = [
        {"merge": label, "blocks": s.block, "stage": s.stage + 1, "task": name, "error": error}
        for s in found.stages
        for name, error in s.errors.items()
    ]
    return rows + inputs


def _errors_said(found: FeatureErrors, started: FeatureErrors | None) -> str:
    """Where the features end, where they were furthest away, and what the start has there."""
    last, means = dict(zip(found.experts, found.streams[-1], strict=True)), found.means
    worst, best = max(last, key=lambda n: last[n]), min(last, key=lambda n: last[n])
    text = (
        f"Behind the last of {len(means) - 1} blocks the merge's features are {percent(means[-1])} "
        f"of their square from the experts' on average, least on {best} ({percent(last[best])}), "
        f"most on {worst} ({percent(last[worst])}). "
    )
    if started is not None:
        text += f"Without calibration they are {percent(started.means[-1])} from them"
        if means[-1] > 0:
            text += f", {started.means[-1] / means[-1]:.1f} times as much"
        nearer = [i for i in range(1, len(means)) if started.means[i] < means[i]]
        blocks = listing([f"block {place}" for place in nearer], len(nearer))
        text += f"; the start is nearer behind {blocks}. " if nearer else ". "
    rises = [after - before for before, after in itertools.pairwise(means)]
    place = max(range(len(rises)), key=lambda i: rises[i])
    if rises[place] > 0:
        text += f"It grows most in block {place + 1} ({100 * rises[place]:+.1f} points). "
    if found.stages:
        text += "Crosses: the inputs of the layers between two blocks, on average. "
    return text + "Measured on the calibration inputs, ‖x_s − x_e‖² / ‖x_e‖² over all tokens."


def film_lines(film: Film, tasks: Mapping[str, Look]) -> Figure:
    """The share of the expert's accuracy that each task keeps after every block, and their mean
    with its 95 % interval; 100 % are the experts."""
    figure, places = go.Figure(), [frame.block for frame in film.frames]
    row = [frame.results for frame in film.frames]
    task_lines(figure, tasks, places, row, "%{x} blocks calibrated", opacity=0.6)
    hover = "mean, %{x} blocks calibrated: %{y:.1%}"
    mean_line(figure, MEAN, places, row, hover, name=f"<b>{ALL_TASKS}</b>", **BOLD)
    figure.add_hline(y=1, line={"color": GREY, "width": 1, "dash": "dot"})
    laid_out(figure, 420)
    figure.update_xaxes(title="blocks calibrated", dtick=1 if len(places) <= 20 else None)
    figure.update_yaxes(tickformat=".0%", title="share of the expert's accuracy")
    caption = _film_said(film)
    rows = [
        row
        for frame in film.frames
        for row in merged(frame.results, "merge", film.split, blocks=frame.block)
    ]
    return Figure(figure, f"Accuracy after every calibrated block. {caption}", caption, rows)


def _film_said(film: Film) -> str:
    means = [frame.normalised_accuracy for frame in film.frames]
    gains = [after - before for before, after in itertools.pairwise(means)]
    place = max(range(len(gains)), key=lambda i: gains[i])
    text = (
        f"From {percent(means[0])} of the experts' accuracy, which the start merge keeps, to "
        f"{percent(means[-1])} with all {len(gains)} blocks calibrated. "
    )
    if gains[place] > 0:
        text += f"Block {place + 1} adds most ({100 * gains[place]:+.1f} points). "
    low = min(range(len(means)), key=lambda i: means[i])
    if 0 < low < len(means) - 1 and means[0] - means[low] >= 0.005:
        text += (
            f"After {low} of them it is {100 * (means[low] - means[0]):+.1f} points from the "
            "start: the blocks behind do not fit yet. "
        )
    asked = film.frames[0].results[0].merged.examples
    size = f"at most {film.examples}" if film.examples else f"{asked}"
    return text + f"Whiskers: 95 % intervals. Measured on {size} {film.split} examples a task."
