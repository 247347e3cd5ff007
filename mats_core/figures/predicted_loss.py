"""What the statistics predict that a merge costs, beside what it cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from ..analysis import Interference
from .correlation import correlation_words
from .style import GREY, Figure, Look, curve, laid_out, safe, short_names


def interference_map(found: Interference) -> Figure:
    """The predicted cost by layer (rows) and task (columns), on a logarithmic scale of colours."""
    titles = short_names(list(found.layers))
    rows = [titles[name] for name in found.layers]
    shown = np.where(found.predicted > 0, found.predicted, np.nan)
    figure, finite = go.Figure(), shown[np.isfinite(shown)]
    # Labels of the colour bar at whole powers of ten.
    ends = np.log10(finite if len(finite) else np.ones(1))
    ticks = list(range(math.floor(ends.min()), math.ceil(ends.max()) + 1))
    labels = [f"10<sup>{tick}</sup>" for tick in ticks]
    bar = {"title": {"text": "nats", "side": "top"}, "thickness": 12}
    figure.add_heatmap(
        z=[[None if math.isnan(v) else v for v in row] for row in np.log10(shown)],
        x=[safe(name) for name in found.tasks],
        y=[safe(row) for row in rows],
        customdata=found.predicted,
        colorscale="Cividis",
        colorbar=bar | {"tickvals": ticks, "ticktext": labels},
        xgap=1,
        ygap=1,
        hovertemplate="%{y}<br>%{x}: %{customdata:.2e} nats<extra></extra>",
    )
    laid_out(figure, min(900, max(300, 90 + 17 * len(rows))))
    figure.update_yaxes(autorange="reversed", showgrid=False, dtick=1 if len(rows) <= 60 else None)
    figure.update_xaxes(side="top", showgrid=False)
    if not len(finite):
        caption = "The merge equals every expert: no cost is predicted."
        return Figure(figure, f"Heatmap of predicted loss. {caption}", caption)
    layer, task = np.unravel_index(np.nanargmax(found.predicted), found.predicted.shape)
    totals = found.totals
    worst = int(np.nanargmax(totals))
    caption = (
        f"Costliest for one expert: layer {rows[int(layer)]} for {found.tasks[int(task)]} "
        f"({found.predicted[layer, task]:.2g} nats an example). Over all layers "
        f"{found.tasks[worst]} is predicted to suffer most ({totals[worst]:.2g} nats). "
        "Light is costly; each step of the colour bar's labels is a factor of ten."
    )
    return Figure(figure, f"Heatmap of predicted loss, layers by tasks. {caption}", caption)


def predicted_against_measured(found: Interference, looks: Mapping[str, Look]) -> Figure | None:
    """Predicted cost (logarithmic) against measured cost, a point a task; None without both."""
    totals, measured = found.totals, found.measured
    places = [i for i in range(len(found.tasks)) if totals[i] > 0 and np.isfinite(measured[i])]
    if not places:
        return None
    figure = go.Figure()
    for i in places:
        name, look = safe(found.tasks[i]), looks[found.tasks[i]]
        hover = f"{name}<br>predicted %{{x:.3g}} nats<br>measured %{{y:.3g}} nats"
        text = {"text": [name], "textposition": _side(totals, measured, places, i)}
        marker = {"color": look.colour, "symbol": look.marker, "size": 12}
        error = {"type": "data", "array": [1.96 * found.errors[i]], "color": look.colour}
        style = {"name": name, "mode": "markers+text", "marker": marker, "showlegend": False}
        curve(figure, look, [totals[i]], [measured[i]], hover, error_y=error, **text, **style)
    figure.add_hline(y=0, line={"color": GREY, "width": 1, "dash": "dot"})
    laid_out(figure, 420)
    low, high = math.log10(min(totals[places])), math.log10(max(totals[places]))
    room = 0.15 * (high - low) + 0.15  # for the names
    figure.update_xaxes(type="log", dtick=1, exponentformat="power")
    title = "predicted increase of the loss, nats"
    figure.update_xaxes(range=[low - room / 2, high + 1.5 * room], title=title)
    figure.update_yaxes(title="measured increase of the loss, nats")
    caption = _verdict(found, places)
    return Figure(figure, f"Predicted against measured loss by task. {caption}", caption)


def _side(x: np.ndarray, y: np.ndarray, places: Sequence[int], own: int) -> str:
    """Where a point's name does not cover its neighbour: left if one stands close to its right."""
    wide = np.log10(x[places]).max() - np.log10(x[places]).min()
    tall = y[places].max() - y[places].min()
    crowded = any(
        0 <= np.log10(x[i] / x[own]) < 0.15 * wide and abs(y[i] - y[own]) < 0.06 * tall
        for i in places
        if i != own
    )
    return "middle left" if crowded else "middle right"


def _verdict(found: Interference, places: Sequence[int]) -> str:
    known = found.correlation
    predicted, measured = found.totals[places].sum(), found.measured[places].sum()
    text = "Too few tasks, or no differences between them, to compare the order. "
    if known is not None:
        orders = known.clear and known.value > 0
        how = "orders the tasks as measured" if orders else "does not explain their order"
        text = f"The prediction {how}: {correlation_words(known)}. "
    ratio = measured / predicted
    if ratio >= 2 or 0 < ratio <= 0.5:
        factor = float(f"{max(ratio, 1 / ratio):.2g}")
        text += (
            f"The amount differs: the measured loss rose {factor:g} times "
            f"{'more' if ratio >= 2 else 'less'} than predicted, probably "
            "because the prediction takes the curvature at each expert, where its training "
            "examples are almost solved, and one layer at a time."
        )
    else:
        text += f"In sum {predicted:.2g} nats were predicted and {measured:.2g} measured."
    return text + " Whiskers are 95 % intervals."
