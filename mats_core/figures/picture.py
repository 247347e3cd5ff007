"""A figure as one small still picture: SVG that takes the colours of the page it stands in.

What plotly draws in a browser, with five megabytes of script, is drawn here without any: lines,
points, bars, cells, whiskers, the lines and words beside them.  Text and grid have the colour of
the text around the picture (`currentColor`), so that it is legible on light and dark pages alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go

from .axes import Axis, axis, plain
from .cells import Colours, bar_of_colours, cells
from .plane import Plane
from .style import HEIGHT, PALETTE
from .svg import DASHED, SIZE, tag, text, wide
from .traces import Trace, along, bars, curves, sample, stack

WIDTH = 680  # pixels of a picture, which may be shown smaller
TALLEST = 900
EDGE = 14  # beside the labels
ROW = 20  # pixels of a line of the legend
MOST_LABEL = 220  # pixels of labels beside the plot
Rows = Sequence[Sequence[tuple[float, Trace]]]


def picture(figure: go.Figure, alt: str, *, width: int = WIDTH) -> str:
    """The SVG of a figure, for a page; `alt` is what screen readers say.

    Text and grid have the colour of the element around it, nothing is fetched, and whatever comes
    from names is text.  Zooming and hovering need plotly.
    """
    plot = figure.to_plotly_json()
    layout: Mapping[str, Any] = plot["layout"]
    traces = [
        {"colour": PALETTE[number % len(PALETTE)], **trace}
        for number, trace in enumerate(plot["data"])
    ]
    stack(traces, layout.get("barmode"))
    scales = [Colours.of(t, layout) if t["type"] == "heatmap" else None for t in traces]
    shown = (
        scale
        for trace, scale in zip(traces, scales, strict=True)
        if scale is not None and trace.get("showscale") is not False
    )
    scale, rows = next(shown, None), _rows(_named(traces, layout), width)
    height = min(TALLEST, int(layout.get("height") or HEIGHT))
    mark = hashlib.sha1(str(plot).encode(), usedforsecurity=False).hexdigest()[:8]
    plane = _plane(traces, layout, (width, height), rows, with_bar=scale is not None, mark=mark)
    inside = [
        *_shapes(plane, layout, "below"),
        *(part for pair in zip(traces, scales, strict=True) for part in _trace(plane, *pair)),
        *_shapes(plane, layout, "above"),
    ]
    parts = [
        *_grid(plane, height - ROW * len(rows)),
        f'<g clip-path="url(#c{mark})">{"".join(inside)}</g>',
        *_words(plane, layout),
        *(bar_of_colours(plane, scale) if scale is not None else ()),
        *_legend(plane, rows, height),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'role="img" aria-label="{escape(alt)}" fill="currentColor" '
        f'style="max-width:100%;height:auto;font:{SIZE}px system-ui,sans-serif">'
        f"<defs>{_clip(plane)}{plane.definitions()}</defs>{''.join(parts)}</svg>"
    )


def _trace(plane: Plane, trace: Trace, scale: Colours | None) -> Iterator[str]:
    if scale is not None:
        return cells(plane, trace, scale)
    return bars(plane, trace) if trace["type"] == "bar" else curves(plane, trace)


def _clip(plane: Plane) -> str:
    """What lies outside the plot is cut off, but for half a point at its edges."""
    size = {"width": plane.width, "height": plane.height + 16}
    frame = tag("rect", x=plane.left, y=plane.top - 8, **size)
    return f'<clipPath id="c{plane.mark}">{frame}</clipPath>'


# The frame ----------------------------------------------------------------------------------------


def _plane(
    traces: Sequence[Trace],
    layout: Mapping[str, Any],
    size: tuple[float, float],
    rows: Rows,
    *,
    with_bar: bool,
    mark: str,
) -> Plane:
    """What labels, titles and the legend leave of the picture."""
    axes = {key: _axis(key, traces, layout) for key in _keys(traces)}
    down = [one for key, one in axes.items() if key[0] == "y"]
    across = [one for key, one in axes.items() if key[0] == "x"]
    left = EDGE + min(MOST_LABEL, max((_widest(one) for one in down if one.shown), default=0))
    left += 20 if any(one.title for one in down) else 0
    right = size[0] - (66 if with_bar else EDGE)
    edge = max(_edge(one, right - left) for one in across)
    above = any(one.opposite for one in across)
    top = (edge if above else 10) + (14 if layout.get("annotations") else 0)
    bottom = size[1] - (10 if above else edge) - ROW * len(rows)
    return Plane(axes, left, right, top, bottom, mark)


def _keys(traces: Sequence[Trace]) -> list[str]:
    found = {trace.get(f"{letter}axis") or letter for trace in traces for letter in "xy"}
    return sorted(found | {"x", "y"})


def _axis(key: str, traces: Sequence[Trace], layout: Mapping[str, Any]) -> Axis:
    letter = key[0]
    on = [trace for trace in traces if (trace.get(f"{letter}axis") or letter) == key]
    kinds = {trace["type"] for trace in on}
    return axis(
        layout.get(f"{letter}axis{key[1:]}") or {},
        [value for trace in on for value in along(trace, letter)],
        cells="heatmap" in kinds or (letter == "x" and "bar" in kinds),
        zero=letter == "y" and "bar" in kinds,
    )


def _widest(one: Axis) -> float:
    return max((wide(label) for _, label in one.ticks), default=0)


def _edge(one: Axis, room: float) -> float:
    """The height of the labels and the title of a horizontal axis."""
    lines = max((label.count("\n") + 1 for _, label in one.ticks), default=1)
    tall = min(90, 0.5 * _widest(one) + 8) if _slanted(one, room) else 15 * lines
    return (12 + tall if one.shown else 6) + (18 if one.title else 0)


def _slanted(one: Axis, room: float) -> bool:
    """Whether labels are too long to stand side by side."""
    return _widest(one) > room * (one.stop - one.start) / max(1, len(one.ticks))


def _grid(plane: Plane, bottom: float) -> Iterator[str]:
    """Ticks with their lines and labels, and the titles; `bottom`: where the legend begins."""
    for key, one in plane.axes.items():
        if not one.shown:
            continue
        other = plane.axes.get(("y" if key[0] == "x" else "x") + key[1:], one)
        for value, label in one.ticks:
            line = {"stroke": "currentColor", "opacity": 0.4 if one.zero and not value else 0.16}
            if key[0] == "x":
                yield from _upright(plane, key, value, label, line)
            else:
                yield from _level(plane, key, value, label, line, other)
        if one.title:
            yield _title(plane, key, one, bottom)


def _upright(
    plane: Plane, key: str, value: float, label: str, line: Mapping[str, Any]
) -> Iterator[str]:
    """A tick of a horizontal axis."""
    one, at = plane.axes[key], plane.x(key, value)
    if one.grid:
        yield tag("line", x1=at, x2=at, y1=plane.top, y2=plane.bottom, **line)
    y = plane.top - 6 if one.opposite else plane.bottom + 16
    if _slanted(one, plane.width):
        end = "start" if one.opposite else "end"
        yield text(at, y, label, end, transform=f"rotate(-30 {at:.1f} {y:.1f})")
    else:
        yield text(at, y - (14 * label.count("\n") if one.opposite else 0), label, "middle")


def _level(
    plane: Plane, key: str, value: float, label: str, line: Mapping[str, Any], other: Axis
) -> Iterator[str]:
    """A tick of a vertical axis."""
    at = plane.y(key, value)
    start, stop = (plane.left + plane.width * share for share in (other.start, other.stop))
    if plane.axes[key].grid:
        yield tag("line", x1=start, x2=stop, y1=at, y2=at, **line)
    yield text(start - 6, at + 4, label, "end")


def _title(plane: Plane, key: str, one: Axis, bottom: float) -> str:
    middle = (one.start + one.stop) / 2
    if key[0] == "x":
        at = plane.left + plane.width * middle
        return text(at, 12 if one.opposite else bottom - 6, one.title, "middle")
    at = plane.bottom - plane.height * middle
    return text(12, at, one.title, "middle", transform=f"rotate(-90 12 {at:.1f})")


# Words and lines beside ---------------------------------------------------------------------------


def _shapes(plane: Plane, layout: Mapping[str, Any], layer: str) -> Iterator[str]:
    for shape in layout.get("shapes") or ():
        if (shape.get("layer") or "above") != layer:
            continue
        xref, yref = shape.get("xref") or "x", shape.get("yref") or "y"
        x0, x1 = (plane.referred(xref, shape[end], "x") for end in ("x0", "x1"))
        y0, y1 = (plane.referred(yref, shape[end], "y") for end in ("y0", "y1"))
        line = shape.get("line") or {}
        look = {"stroke": line.get("color") or "currentColor", "opacity": shape.get("opacity")}
        look |= {"stroke_width": line.get("width", 2)}
        look |= {"stroke_dasharray": DASHED.get(line.get("dash") or "")}
        if shape.get("type") == "rect":
            size = {"width": abs(x1 - x0), "height": abs(y1 - y0)}
            fill = shape.get("fillcolor") or "none"
            yield tag("rect", x=min(x0, x1), y=min(y0, y1), **size, fill=fill, **look)
        else:
            yield tag("line", x1=x0, y1=y0, x2=x1, y2=y1, **look)


def _words(plane: Plane, layout: Mapping[str, Any]) -> Iterator[str]:
    for note in layout.get("annotations") or ():
        x = plane.referred(note.get("xref") or "x", note["x"], "x")
        y = plane.referred(note.get("yref") or "y", note["y"], "y")
        lift = -8 if note.get("yanchor") == "bottom" else 4
        yield text(x, y + lift, plain(note.get("text") or ""), "middle")


# Legend -------------------------------------------------------------------------------------------


def _named(traces: Sequence[Trace], layout: Mapping[str, Any]) -> list[Trace]:
    """The traces of the legend; one trace alone needs none."""
    if len(traces) < 2 or layout.get("showlegend") is False:
        return []
    named = (trace for trace in traces if trace.get("name") and trace["type"] != "heatmap")
    return [trace for trace in named if trace.get("showlegend") is not False]


def _rows(traces: Sequence[Trace], width: float) -> Rows:
    """The legend in lines: (left end, trace)."""
    rows: list[list[tuple[float, Trace]]] = []
    x = width
    for trace in traces:
        needed = 48 + wide(plain(trace["name"]))
        if x + needed > width:
            rows.append([])
            x = float(EDGE)
        rows[-1].append((x, trace))
        x += needed
    return rows


def _legend(plane: Plane, rows: Rows, height: float) -> Iterator[str]:
    for number, row in enumerate(rows):
        y = height - ROW * (len(rows) - number) + 12
        for x, trace in row:
            yield from sample(plane, trace, x, y - 4)
            yield text(x + 30, y, plain(trace["name"]), "start")
