"""Which share of each layer's input directions the examples of a calibration decide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from ..analysis import Decided, usual_share
from .style import Figure, curve, laid_out, look, percent, safe, short_names

STEADIED = "with the update's share"


def decided_lines(runs: Mapping[str, Sequence[Decided]], lead: str = "") -> Figure | None:
    """The share of every layer's input directions that the examples decide, the mean over the
    experts, a line a run; None where no run has recorded it.

    runs   label → what was decided, layer by layer
    lead   what the caption begins with
    """
    lines: dict[str, list[tuple[Decided, float]]] = {}
    for label, found in runs.items():
        if found:
            lines[label] = [(one, sum(one.alone) / len(one.alone)) for one in found]
        if any(one.steadied for one in found):
            lines[f"{label}, {STEADIED}"] = [
                (one, sum(one.steadied) / len(one.steadied)) for one in found
            ]
    if not lines:
        return None
    figure = go.Figure()
    names = short_names([one.name for one, _ in max(lines.values(), key=len)])
    for index, (label, points) in enumerate(lines.items()):
        said = [f"{safe(names.get(one.name, one.name))}, {one.width} inputs" for one, _ in points]
        x, y = list(range(1, len(points) + 1)), [value for _, value in points]
        hover = f"{safe(label)}<br>%{{customdata}}: %{{y:.0%}}"
        curve(figure, look(index), x, y, hover, name=safe(label), customdata=said)
    laid_out(figure, 400)
    figure.update_xaxes(title="calibrated layers, in the order of the walk")
    figure.update_yaxes(
        tickformat=".0%", range=[0, 1.02], title="input directions above the damping"
    )
    rows = [
        {"run": label, "layer": one.name, "width": one.width, "share": value}
        for label, points in lines.items()
        for one, value in points
    ]
    caption = f"{lead} {decided_words(runs)}".strip()
    return Figure(figure, f"Share of input directions decided, by layer. {caption}", caption, rows)


def decided_words(runs: Mapping[str, Sequence[Decided]]) -> str:
    """The median shares of each run, and which layer its examples decide least of."""
    told = []
    for label, found in runs.items():
        alone, steadied = usual_share(found), usual_share(found, steadied=True)
        if alone is None:
            continue
        text = f"{label} {percent(alone, 0)}"
        told.append(text + (f", steadied {percent(steadied, 0)}" if steadied is not None else ""))
    if not told:
        return ""
    first = next(found for found in runs.values() if found)
    widths = sorted({one.width for one in first})
    wide = f"{widths[0]}" if len(widths) == 1 else f"{widths[0]} to {widths[-1]}"
    return (
        f"Of the {wide} input directions of a layer these decide, in the median over layers and "
        f"tasks: {'; '.join(told)}."
    )
