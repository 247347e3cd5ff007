"""A grid of merges over two options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from ..analysis import Axis, Cell, best
from .style import VERMILLION, Figure, frame, handles, heatmap, laid_out, percent, safe


def sweep_map(
    x: Axis,
    y: Axis,
    cells: Sequence[Cell],
    titles: Mapping[str, str],
    *,
    examples: int | None = None,
) -> Figure:
    """The mean normalised accuracy over two options; the best point framed, failures as holes.

    The points of the last trace can be clicked; their `customdata` is the index in `cells`.
    """
    columns, rows = [_text(v) for v in x.values], [_text(v) for v in y.values]
    grid: list[list[float | None]] = [[None] * len(columns) for _ in rows]
    texts, top = [[""] * len(columns) for _ in rows], best(cells)
    there, hovers = [], []
    for cell in cells:
        if cell.accuracy is None:
            hovers.append(safe(cell.reason))
            continue
        there.append(cell.accuracy)
        hovers.append(f"{percent(there[-1])} ({percent(cell.low)} to {percent(cell.high)})")
        grid[cell.y][cell.x] = there[-1]
        value = f"{100 * there[-1]:.1f}"
        texts[cell.y][cell.x] = f"<b>{value}</b>" if cell is top else value
    low, high = (min(there), max(there)) if there else (0.0, 1.0)
    high = max(high, low + 0.01)
    figure = go.Figure()
    bar = {"tickformat": ".0%" if high - low > 0.05 else ".1%", "thickness": 12}
    style = {"textfont": {"size": 12}, "showscale": True, "colorbar": bar, "name": "accuracy"}
    scale = {"colorscale": "Cividis", "zmin": low, "zmax": high}
    heatmap(figure, columns, rows, grid, text=texts, **style, **scale)
    # A ring shows the choice.
    ring = {"symbol": "circle-open", "size": 42, "color": VERMILLION, "opacity": 0}
    style = {"marker": ring | {"line": {"width": 3}}, "opacity": None, "name": "points"}
    states = {"selected": {"marker": {"opacity": 1}}, "unselected": {"marker": {"opacity": 0}}}
    points = {"customdata": list(range(len(cells))), "hovertext": hovers}
    across, down = [columns[cell.x] for cell in cells], [rows[cell.y] for cell in cells]
    handles(figure, across, down, "%{hovertext}", **style, **states, **points)
    laid_out(figure, min(620, 130 + 62 * len(rows)))
    for axis, option in ((figure.update_xaxes, x.option), (figure.update_yaxes, y.option)):
        axis(type="category", title=safe(titles.get(option, option)), showgrid=False)
    figure.update_xaxes(categoryarray=columns, range=[-0.5, len(columns) - 0.5])
    figure.update_yaxes(categoryarray=rows, range=[-0.5, len(rows) - 0.5])
    # Annotations and shapes do not fade when a point is selected; holes have no text of their own.
    for cell in cells:
        if cell.accuracy is None:
            figure.add_annotation(x=cell.x, y=cell.y, text="failed", showarrow=False)
    if top is not None:
        frame(figure, top.y, top.x, 0.47, 0.46, color=VERMILLION, width=4)
    caption = _about(cells, len(columns) * len(rows), top, titles, examples)
    found = [cell for cell in cells if cell.accuracy is not None]
    table = [
        {**{name: _text(value) for name, value in cell.options.items()},
         "metric": "normalised accuracy", "value": cell.accuracy, "low": cell.low,
         "high": cell.high, "examples a task": examples, "split": "validation"}
        for cell in found
    ]  # fmt: skip
    return Figure(figure, f"Heatmap of mean normalised accuracy. {caption}", caption, table)


def _about(
    cells: Sequence[Cell],
    total: int,
    top: Cell | None,
    titles: Mapping[str, str],
    examples: int | None,
) -> str:
    failed = [cell for cell in cells if cell.accuracy is None]
    text = "" if len(cells) == total else f"{len(cells)} of {total} points so far. "
    if top is not None and top.accuracy is not None:
        where = " and ".join(
            f"{titles.get(name, name)} {_text(value)}" for name, value in top.options.items()
        )
        alike = sum(c is not top and (c.accuracy or 0) >= top.low for c in cells)
        text += (
            f"Best (framed): {percent(top.accuracy)} of the experts' accuracy with {where}; 95 % "
            f"interval {percent(top.low)} to {percent(top.high)}"
        )
        others = {0: "no other point", 1: "one other point"}.get(alike, f"{alike} other points")
        text += f", and {others} inside it. "
    if failed:
        what = "1 point" if len(failed) == 1 else f"{len(failed)} points"
        text += f"{what} could not be merged; first reason: {failed[0].reason} "
    size = "all" if examples is None else f"at most {examples}"
    return text + f"Measured on {size} validation examples a task."


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, int | float) else str(value).replace("_", " ")
