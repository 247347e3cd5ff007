"""Polarized scaling: the weights that tasks, dimensions and layers really got."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import plotly.graph_objects as go

from ..recipes import LayerReport, Report
from .style import (
    BLUE,
    HEIGHT,
    PLAIN,
    SLIM,
    VERMILLION,
    Figure,
    Look,
    curve,
    heatmap,
    laid_out,
    safe,
    short_names,
    thinned,
)


def task_weights(report: Report, names: Sequence[str]) -> Figure | None:
    """The weight that each task got in each layer, and the factor of each layer."""
    layers = [layer for layer in report.layers if layer.details.get("task_weights")]
    if not layers:
        return None
    titles = short_names([layer.name for layer in layers])
    rows = [list(layer.details["task_weights"]) for layer in layers]
    factors = [float(layer.details.get("layer_weight", 1.0)) for layer in layers]
    values = [[*row, factor] for row, factor in zip(rows, factors, strict=True)]
    columns = [*(safe(name) for name in names), "<b>layer</b>"]
    figure, scale = go.Figure(), [(0, VERMILLION), (0.5, "#F4F4F2"), (1, BLUE)]
    bar = SLIM | {"tickvals": [-2, -1, 0, 1, 2], "ticktext": ["¼", "½", "1", "2", "4"]}
    style = {"colorscale": scale, "zmid": 0, "zmin": -2, "zmax": 2, "showscale": True}
    style |= {"colorbar": bar, "textfont": None}
    y, labelled = [safe(titles[layer.name]) for layer in layers], len(layers) <= 60
    z = [[math.log2(max(v, 1e-3)) for v in row] for row in values]
    text, hover = [[f"{v:.2f}" for v in row] for row in values], "%{y}<br>%{x}: × %{text}"
    heatmap(figure, columns, y, z, labelled, text=text, hovertemplate=hover + PLAIN, **style)
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(side="top")
    laid_out(figure, max(HEIGHT, 70 + 22 * len(layers)))
    means = [statistics.mean(row[i] for row in rows) for i in range(len(names))]
    loud, quiet = means.index(max(means)), means.index(min(means))
    top = max(range(len(factors)), key=lambda i: factors[i])
    caption = (
        f"How loud each task speaks in each layer: {names[loud]} most (× {means[loud]:.2f} on "
        f"average), {names[quiet]} least (× {means[quiet]:.2f}). The last column is the factor of "
        f"the whole layer, largest in {titles[layers[top].name]} (× {factors[top]:.2f}). "
        "× 1 everywhere means that a level is switched off."
    )
    return Figure(figure, f"Heatmap of polarized-scaling weights. {caption}", caption)


def dimension_weights(layer: LayerReport) -> Figure | None:
    """The weights of a layer's input dimensions, largest first."""
    weights = sorted((float(w) for w in layer.details.get("dimension_weights", ())), reverse=True)
    if not weights:
        return None
    x, y = thinned(weights)
    figure, look = go.Figure(), Look(BLUE, "solid", "circle")
    x, y, hover = [i + 1 for i in x], [max(v, 1e-6) for v in y], "dimension no. %{x}: × %{y:.2f}"
    curve(figure, look, x, y, hover, mode="lines", fill="tozeroy")
    laid_out(figure, 260)
    figure.update_xaxes(title="input dimensions, strongest first")
    figure.update_yaxes(title="weight", rangemode="tozero")
    above = sum(w > 1 for w in weights)
    caption = (
        f"{above} of {len(weights)} input dimensions are amplified, the strongest × "
        f"{weights[0]:.1f}; the weakest keeps × {weights[-1]:.2f}."
    )
    return Figure(figure, f"Weights of input dimensions. {caption}", caption)
