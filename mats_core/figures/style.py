"""What all figures share: the palette, a look for each task, names as text, the layout."""

from __future__ import annotations

import csv
import html
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import plotly.graph_objects as go
import plotly.io as pio

from ..errors import cut
from ..system import Shown

ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILLION, PURPLE, GREY = (
    "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#6B7178",
)  # fmt: skip
# Neighbours in this order differ in lightness as well as in hue.
PALETTE = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILLION, GREY, YELLOW)
SPARSE, LONGDASHDOTDOT = "2px,7px", "14px,4px,2px,4px,2px,4px"
DASHES = (
    "solid", "dash", "dot", "dashdot", "longdash", "longdashdot", SPARSE, LONGDASHDOTDOT,
)  # fmt: skip
MARKERS = (
    "circle", "square", "diamond", "triangle-up", "cross", "x", "star", "triangle-down",
)  # fmt: skip
MOST_POINTS = 2000  # of a curve: more are thinned out, the eye sees no difference
HEIGHT = 380
NO_DATA = "no data"  # as `meta`: a trace that is only there to be clicked, left out of the table
# Heatmaps with numbers in their cells: light enough for one dark ink, on either page.
UPWARDS = [(0, "#F4F4F2"), (0.5, "#A6D3EE"), (1, "#3A96CC")]
AROUND = [(0, "#56B4E9"), (0.5, "#F4F4F2"), (1, "#E69F00")]
INK = {"color": "#1D2733", "size": 12}
SLIM = {"thickness": 10, "outlinewidth": 0, "title": None}  # a bar of colours
CLEAR = "rgba(0,0,0,0)"
PLOTLYS = "plotly"  # its template, if none was chosen
_AXIS = dict.fromkeys(("gridcolor", "zerolinecolor", "linecolor"), "rgba(128,128,128,0.3)")
ANYWHERE = {  # a template for light and dark pages
    "layout": {
        "font": {"color": "#808A94"}, "paper_bgcolor": CLEAR, "plot_bgcolor": CLEAR,
        "xaxis": _AXIS, "yaxis": _AXIS, "colorway": PALETTE,
    }
}  # fmt: skip
PLAIN = "<extra></extra>"  # after a hover text: no box beside it
NAMED = "<extra>%{fullData.name}</extra>"  # or one with the trace's name


@dataclass(frozen=True, repr=False)
class Figure(Shown):
    """A figure with its words, which shows itself as a still picture with its caption.

    figure    the plot, which can be zoomed where plotly shows it
    alt       alternative text: what it shows
    caption   what it says about this result
    rows      its numbers as rows of a table, where these are not what the plot's traces hold
    """

    figure: go.Figure
    alt: str
    caption: str
    rows: Sequence[Mapping[str, Any]] = ()

    def __repr__(self) -> str:
        """One line; the numbers of the plot are many."""
        return f"Figure({cut(self.alt, 80)!r})"


@dataclass(frozen=True)
class Look:
    """The look of one task in all figures: its `colour`, the `dash` of lines, the `marker`."""

    colour: str
    dash: str
    marker: str


def look(index: int) -> Look:
    """The look of the `index`-th task; after eight the dashes and markers move on."""
    turn = index // len(PALETTE)
    return Look(
        PALETTE[index % len(PALETTE)],
        DASHES[(index + turn) % len(DASHES)],
        MARKERS[(index + turn) % len(MARKERS)],
    )


def looks(names: Iterable[str]) -> dict[str, Look]:
    """A look for each task of a family, by its index."""
    return {name: look(index) for index, name in enumerate(names)}


def safe(name: str) -> str:
    """A name as escaped text: plotly reads HTML in labels."""
    return html.escape(name, quote=False)


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Layer names without what all of them share: `vit.encoder.layer.0.attention.query.weight` →
    `0 · attention · query`."""
    parts = {name: _parts(name) for name in names}
    lists = list(parts.values())
    columns = takewhile(lambda column: len(set(column)) == 1, zip(*lists, strict=False))
    alike = len(list(columns)) if len(lists) > 1 else 0
    shared = min([alike, *(len(p) - 1 for p in lists)])
    return {name: " · ".join(p[shared:]) for name, p in parts.items()}


def _parts(name: str) -> list[str]:
    parts = [part for part in name.split(".") if part]
    if len(parts) > 1 and parts[-1] == "weight":
        parts = parts[:-1]
    return [p for i, p in enumerate(parts) if i == 0 or p != parts[i - 1]]


def percent(value: float, digits: int = 1) -> str:
    """A share in words: `91.3 %`."""
    return f"{100 * value:.{digits}f} %"


def to_csv(shown: Figure) -> str:
    """The numbers of a figure as CSV: its rows, or one row a point of its plot (trace, x, y, z)."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    if shown.rows:
        writer.writerow(shown.rows[0])
        writer.writerows(row.values() for row in shown.rows)
        return out.getvalue()
    writer.writerow(["trace", "x", "y", "z"])
    traces: Any = shown.figure.data
    for number, trace in enumerate(traces):
        if trace.meta == NO_DATA:
            continue
        name = html.unescape(trace.name or f"trace {number + 1}")
        if getattr(trace, "z", None) is not None:
            rows, columns = len(trace.z), len(trace.z[0]) if len(trace.z) else 0
            xs = trace.x if trace.x is not None else range(columns)
            ys = trace.y if trace.y is not None else range(rows)
            for y, row in zip(ys, trace.z, strict=True):
                writer.writerows([name, x, y, z] for x, z in zip(xs, row, strict=True))
        elif getattr(trace, "y", None) is not None:
            xs = trace.x if trace.x is not None else range(len(trace.y))
            pairs = zip(xs, trace.y, strict=True)
            writer.writerows([name, x, y, ""] for x, y in pairs if not (x is None and y is None))
    return out.getvalue()


# At the foot of the picture, which makes room for it: below a plot by a share of its height, it
# would cover the axis' title where there is little room.
BELOW = {
    "orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "x": 0, "title": None,
}  # fmt: skip


def laid_out(figure: go.Figure, height: int = HEIGHT, **layout: Any) -> go.Figure:
    """The same figure with the layout that all share.

    Ground, text and grid are the page's: Streamlit's theme has them, and so has the report.  Where
    the template would be plotly's, which is made for white paper, they are such that the figure can
    be read on light and dark pages and in a picture without ground; another one that was chosen as
    the default stays.
    """
    if pio.templates.default == PLOTLYS:
        figure.update_layout(template=ANYWHERE)
    figure.update_layout(
        margin={"l": 8, "r": 8, "t": 8, "b": 8},
        height=height,
        legend=BELOW,
        hoverlabel={"namelength": -1},
        modebar={"bgcolor": CLEAR, "color": GREY, "activecolor": BLUE},
        **layout,
    )
    figure.update_xaxes(automargin=True)
    figure.update_yaxes(automargin=True)
    return figure


def curve(figure: go.Figure, look: Look, x: Any, y: Any, hover: str, **more: Any) -> None:
    """A line with markers in its task's look; `more` are plotly's own names, and come first.

    A hover text that does not end in `NAMED` has no box beside it.
    """
    style = {
        "mode": "lines+markers",
        "line": {"color": look.colour, "dash": look.dash, "width": 2},
        "marker": {"symbol": look.marker, "size": 7},
        "hovertemplate": hover if NAMED in hover else hover + PLAIN,
    }
    figure.add_scatter(x=x, y=y, **(style | more))


def whiskers(above: Any, below: Any, **more: Any) -> dict[str, Any]:
    """The `error_y` of an interval: how far it reaches from the value."""
    look = {"type": "data", "symmetric": False, "thickness": 1.5, "width": 3, **more}
    return {**look, "array": above, "arrayminus": below}


def heatmap(figure: go.Figure, x: Any, y: Any, z: Any, labelled: bool = True, **more: Any) -> None:
    """A heatmap: its `text` in the cells where it is `labelled`, else a bar of its colours."""
    style = {"xgap": 2, "ygap": 2, "textfont": INK, "texttemplate": "%{text}" if labelled else None}
    style |= {"showscale": not labelled, "colorbar": SLIM}
    style |= {} if "hovertemplate" in more else {"hoverinfo": "skip"}
    figure.add_heatmap(x=x, y=y, z=z, **(style | more))


def handles(figure: go.Figure, x: Any, y: Any, hover: str, **more: Any) -> None:
    """Unseen points on the cells of a heatmap, which cannot be selected itself: points can."""
    style = {"mode": "markers", "meta": NO_DATA, "showlegend": False, "opacity": 0}
    style |= {"marker": {"size": 12, "color": GREY}, "hovertemplate": hover + PLAIN}
    figure.add_scatter(x=x, y=y, **(style | more))


def frame(
    figure: go.Figure, row: int, column: int, x: float = 0.5, y: float = 0.5, **line: Any
) -> None:
    """A frame around a cell of a heatmap, `x` and `y` away from its middle."""
    ends = {"x0": column - x, "x1": column + x, "y0": row - y, "y1": row + y}
    figure.add_shape(type="rect", line=line, **ends)


def laid_out_cells(figure: go.Figure, height: int, columns: int, rows: int) -> None:
    """The layout of a heatmap that is clicked: names above it, the first row at the top."""
    laid_out(figure, height, hoverdistance=-1, dragmode=False)
    figure.update_yaxes(range=[rows - 0.5, -0.5], showgrid=False, zeroline=False)
    figure.update_xaxes(side="top", range=[-0.5, columns - 0.5], showgrid=False)


def thinned(values: Sequence[float]) -> tuple[list[int], list[float]]:
    step = max(1, math.ceil(len(values) / MOST_POINTS))
    chosen = list(range(0, len(values), step))
    if chosen and chosen[-1] != len(values) - 1:
        chosen.append(len(values) - 1)
    return chosen, [values[i] for i in chosen]


def pale(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.2)"
