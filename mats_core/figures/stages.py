"""A matrix that a merge goes through, as a small heat map with its numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping

import plotly.graph_objects as go

from ..analysis import LayerSteps, Seen, View
from ..methods import Stage
from .style import AROUND, INK, PLAIN, Figure, heatmap, laid_out

CELL, AROUND_CELLS = 25, 60  # pixels: of a row, and of what is above and below all of them
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
SMALL = {**INK, "size": 9}
CHOSEN: Mapping[View, str] = {
    "moved": "Moved most", "first": "First", "means": "Means of blocks",
}  # fmt: skip


def stage_matrix(stage: Stage, seen: Seen, view: View, whose: str = "") -> Figure:
    """A few rows and columns of the matrix of a stage, with numbers in the cells.

    view    which rows and columns
    whose   an expert or a step, where a stage has several matrices
    """
    window = seen.windows[view]
    values = window.values.tolist()
    largest = max((abs(v) for row in values for v in row if math.isfinite(v)), default=0.0)
    power = math.floor(math.log10(largest)) if largest > 0 else 0
    # Of each unit: as short as a cell on a phone.
    cells = [
        [f"{round(v / 10**power, 1) + 0.0:.1f}" if math.isfinite(v) else "" for v in row]
        for row in values
    ]
    rows = [_named(one, stage.axes[0] or "row") for one in window.rows]
    columns = [_named(one, stage.axes[1] or "column") for one in window.columns]
    figure, near = go.Figure(), largest or 1.0
    said = [
        [f"{r}, {c}: {v:.4g}" for c, v in zip(columns, row, strict=True)]
        for r, row in zip(rows, values, strict=True)
    ]
    heatmap(
        figure, list(range(len(columns))), list(range(len(rows))), values, text=cells,
        meta={"said": said}, colorscale=AROUND, zmid=0, zmin=-near, zmax=near, xgap=1, ygap=1,
        textfont=SMALL, hoverongaps=False, hovertext=said,
        hovertemplate="%{hovertext}" + PLAIN,
    )  # fmt: skip
    laid_out(figure, AROUND_CELLS + CELL * len(rows), dragmode=False)
    font = {"size": 9}
    figure.update_yaxes(
        range=[len(rows) - 0.5, -0.5], tickvals=list(range(len(rows))), ticktext=window.rows,
        tickfont=font, showgrid=False, zeroline=False,
    )  # fmt: skip
    figure.update_xaxes(
        side="top", tickvals=list(range(len(columns))), ticktext=window.columns, tickfont=font,
        showgrid=False, zeroline=False,
    )  # fmt: skip
    caption = _caption(seen, view, power, stage)
    name = f"{stage.title} {whose}".strip()
    table = [
        {"row": row, "column": column, "value": value}
        for row, line in zip(window.rows, values, strict=True)
        for column, value in zip(window.columns, line, strict=True)
    ]
    return Figure(figure, f"Heat map: {name}. {caption}", caption, table)


def _named(place: str, axis: str) -> str:
    return f"{axis}s {place}" if "–" in place else f"{axis} {place}"


def _caption(seen: Seen, view: View, power: int, stage: Stage) -> str:
    """How large the matrix is, and what is shown of it."""
    (rows, columns), window = seen.shape, seen.windows[view]
    there = len(window.rows), len(window.columns)
    size = f"{rows} × {columns}, norm {seen.norm:.3g}"
    unit = f"; cells in units of 10{str(power).translate(RAISED)}" if power else ""
    if (rows, columns) == there:
        return f"{size}, all of it{unit}."
    if view == "means":
        return f"{size}. Means of {there[0]} × {there[1]} blocks{unit}."
    moving = [axis in ("output", "input") and view == "moved" for axis in stage.axes]
    ways = ["those that the experts move most" if own else "the first" for own in moving]
    if ways[0] == ways[1]:
        return f"{size}. {there[0]} rows and {there[1]} columns, {ways[0]}{unit}."
    return f"{size}. {there[0]} rows, {ways[0]}, and {there[1]} columns, {ways[1]}{unit}."


def stages_words(found: LayerSteps) -> str:
    """What was applied to a layer and how it ended, in the numbers of this run."""
    text = f"Applied here: {found.method} ({found.status})."
    if len(found.residuals) > 1:
        text += (
            f" The relative residual falls from {found.residuals[0]:.2g} to "
            f"{found.residuals[-1]:.2g} in {len(found.residuals) - 1} steps."
        )
    if len(found.kept) > 1 and found.kept[0] == found.kept[0]:
        best = max(range(len(found.kept)), key=lambda i: found.kept[i])
        text += (
            f" Of what the experts change in the outputs of this layer the start has "
            f"{100 * found.kept[0]:.0f} %, the end {100 * found.kept[-1]:.0f} % (mean over the "
            f"tasks); most, {100 * found.kept[best]:.0f} %, has step {found.steps[best]}."
        )
    if found.folded:
        text += " The bias is the last column."
    return text
