"""Curves and bars in a still picture: lines, points, whiskers, names, and their keys."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .axes import plain
from .plane import Plane
from .svg import DASHED, Point, mark, nth, path, runs, tag, text

Trace = Mapping[str, Any]  # as plotly's; `colour` is the one that it has by its number


def bars(plane: Plane, trace: Trace) -> Iterator[str]:
    """The bars of a trace, which stand upright."""
    marker, axes = trace.get("marker") or {}, plane.axes[trace.get("xaxis") or "x"]
    hatched = (marker.get("pattern") or {}).get("shape")
    line, bases = marker.get("line") or {}, trace.get("base")
    for number, (x, y) in enumerate(zip(trace["x"], trace["y"], strict=True)):
        wide = nth(trace.get("width"), number) or 0.8
        offset = nth(trace.get("offset"), number)
        start = axes.number(x) + (-wide / 2 if offset is None else offset)
        base = nth(bases, number) or 0.0
        left, right = (plane.x(trace.get("xaxis") or "x", v) for v in (start, start + wide))
        one, two = (plane.place(trace, x, v)[1] for v in (base, base + (y or 0.0)))
        if math.isnan(left + right + one + two):
            continue
        colour = nth(marker.get("color"), number) or trace["colour"]
        fill = plane.hatched(nth(line.get("color"), number) or colour) if hatched else colour
        edge = {"stroke": nth(line.get("color"), number), "stroke_width": line.get("width")}
        size = {"width": right - left, "height": abs(one - two)}
        yield tag("rect", x=left, y=min(one, two), **size, fill=fill, **edge)


def curves(plane: Plane, trace: Trace) -> Iterator[str]:
    """Line, whiskers, points and names of a trace, as many of them as it has."""
    x, y = trace.get("x"), trace.get("y")
    if x is None or y is None or trace.get("opacity") == 0:
        return
    points = [plane.place(trace, a, b) for a, b in zip(x, y, strict=True)]
    mode = trace.get("mode") or "lines"
    shown = [] if trace.get("opacity") is None else [f'<g opacity="{trace["opacity"]}">']
    yield from shown
    if "lines" in mode:
        yield from _line(plane, trace, points)
    yield from _whiskers(plane, trace, points)
    if "markers" in mode:
        yield from _points(plane, trace, points)
    if "text" in mode:
        yield from _named(plane, trace, points)
    yield from ["</g>"] * len(shown)


def _colour(trace: Trace, part: str, number: int = 0) -> str:
    own = nth((trace.get(part) or {}).get("color"), number)
    other = (trace.get("line" if part == "marker" else "marker") or {}).get("color")
    return own or nth(other, number) or trace["colour"]


def _line(plane: Plane, trace: Trace, points: Sequence[Point]) -> Iterator[str]:
    line, colour = trace.get("line") or {}, _colour(trace, "line")
    look = {"stroke": colour, "stroke_width": line.get("width", 2), "fill": "none"}
    look |= {"stroke_dasharray": DASHED.get(line.get("dash") or "")}
    for run in runs(points):
        seen = path(run)
        if trace.get("fill") == "tozeroy":
            zero = plane.y(trace.get("yaxis") or "y", 0.0)
            around = f"{run[0][0]:.1f},{zero:.1f} {seen} {run[-1][0]:.1f},{zero:.1f}"
            yield tag("polygon", points=around, fill=colour, opacity=0.25)
        yield tag("polyline", points=seen, **look)


def _points(plane: Plane, trace: Trace, points: Sequence[Point]) -> Iterator[str]:
    marker = trace.get("marker") or {}
    if marker.get("opacity") == 0:
        return
    most = marker.get("maxdisplayed") or 0
    every = max(1, math.ceil(len(points) / most)) if most else 1
    for number in range(0, len(points), every):
        if not math.isnan(sum(points[number])):
            yield mark(
                *points[number],
                str(nth(marker.get("symbol"), number) or "circle"),
                float(nth(marker.get("size"), number) or 6) / 2,
                _colour(trace, "marker", number),
                marker.get("line") or {},
            )


def _named(plane: Plane, trace: Trace, points: Sequence[Point]) -> Iterator[str]:
    for number, (a, b) in enumerate(points):
        where = str(nth(trace.get("textposition"), number) or "middle center")
        end = "end" if "left" in where else "start" if "right" in where else "middle"
        by = {"left": -9, "right": 9}.get(where.split()[-1], 0)
        lift = -8 if "top" in where else 18 if "bottom" in where else 4
        if not math.isnan(a + b):
            yield text(a + by, b + lift, plain(nth(trace.get("text"), number) or ""), end)


def _whiskers(plane: Plane, trace: Trace, points: Sequence[Point]) -> Iterator[str]:
    for letter in "xy":
        error = trace.get(f"error_{letter}") or {}
        if error.get("array") is None:
            continue
        look = {"stroke": error.get("color") or _colour(trace, "marker")}
        look["stroke_width"] = error.get("thickness", 1.5)
        below = error.get("arrayminus")
        below = error["array"] if below is None else below
        pairs = enumerate(zip(trace["x"], trace["y"], strict=True))
        for number, (x, y) in pairs:
            up, down = float(error["array"][number]), float(below[number])
            ends = [(x, y + up), (x, y - down)] if letter == "y" else [(x + up, y), (x - down, y)]
            (a, b), (c, d) = (plane.place(trace, *end) for end in ends)
            if not math.isnan(sum(points[number]) + a + b + c + d):
                yield tag("line", x1=a, y1=b, x2=c, y2=d, **look)


def sample(plane: Plane, trace: Trace, x: float, y: float) -> Iterator[str]:
    """What a trace looks like, for the legend: from `x` on, around the height `y`."""
    if trace["type"] == "bar":
        colour = nth((trace.get("marker") or {}).get("color"), 0) or trace["colour"]
        yield tag("rect", x=x + 6, y=y - 5, width=14, height=10, fill=colour)
        return
    mode = trace.get("mode") or "lines"
    if "lines" in mode:
        yield from _line(plane, {**trace, "fill": None}, [(x, y), (x + 24, y)])
    if "markers" in mode:
        marker = trace.get("marker") or {}
        symbol, size = nth(marker.get("symbol"), 0) or "circle", marker.get("size")
        colour = _colour(trace, "marker")
        half = min(6.0, float(nth(size, 0) or 6) / 2)
        yield mark(x + 12, y, str(symbol), half, colour, marker.get("line") or {})


def along(trace: Trace, letter: str) -> Iterator[Any]:
    """Every value that an axis has to reach: points, whiskers, and the ends of bars."""
    values = trace.get(letter)
    if values is None and trace["type"] == "heatmap":
        rows = trace["z"]
        values = range(len(rows)) if letter == "y" else range(len(rows[0]) if len(rows) else 0)
    values = list(values if values is not None else ())
    yield from values
    if trace["type"] == "bar" and letter == "y":
        yield from (v + (nth(trace.get("base"), i) or 0.0) for i, v in enumerate(values))
    error = trace.get(f"error_{letter}") or {}
    if error.get("array") is not None:
        minus = error.get("arrayminus")
        below = error["array"] if minus is None else minus
        for value, up, down in zip(values, error["array"], below, strict=True):
            yield from (value + up, value - down)


def stack(traces: Sequence[dict[str, Any]], mode: str | None) -> None:
    """Give bars that stand on each other their bases, and those side by side their places."""
    bars = [trace for trace in traces if trace["type"] == "bar"]
    if mode == "overlay" or len(bars) < 2:
        return
    if mode == "stack":
        reached: dict[Any, float] = {}
        for trace in bars:
            trace["base"] = [reached.get(x, 0.0) for x in trace["x"]]
            reached |= {
                x: reached.get(x, 0.0) + y for x, y in zip(trace["x"], trace["y"], strict=True)
            }
        return
    wide = 0.8 / len(bars)
    for number, trace in enumerate(bars):
        trace["width"], trace["offset"] = wide, -0.4 + number * wide
