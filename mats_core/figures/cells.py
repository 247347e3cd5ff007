"""Heatmaps in a still picture: coloured cells, their numbers, and the bar of their colours."""

from __future__ import annotations

import base64
import math
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from plotly.colors import get_colorscale

from .axes import axis, plain
from .plane import Plane
from .style import GREY, INK
from .svg import SIZE, group, tag, text, titled

MOST = 900  # cells that are drawn one by one; more become an image
STEPS = 40  # of a bar of colours
DESCRIBED = ("tickvals", "ticktext", "tickformat", "title")  # of such a bar
Rgb = tuple[int, int, int]


@dataclass(frozen=True)
class Colours:
    """A scale of colours.

    stops      (share, colour), in order
    low, high  the values at its ends
    turned     whether it runs backwards
    bar        of the colours beside the plot, as plotly describes it
    """

    stops: Sequence[tuple[float, str]]
    low: float
    high: float
    turned: bool
    bar: Mapping[str, Any]

    @classmethod
    def of(cls, trace: Mapping[str, Any], layout: Mapping[str, Any]) -> Colours:
        """Those of a heatmap, which several may share."""
        shared = layout.get(trace.get("coloraxis") or "")
        held, first = (shared, "c") if shared else (trace, "z")
        values = [v for row in trace["z"] for v in row if _there(v)]
        low, high = held.get(f"{first}min"), held.get(f"{first}max")
        scale = held.get("colorscale") or "Cividis"
        stops = get_colorscale(scale) if isinstance(scale, str) else scale
        return cls(
            tuple((share, colour) for share, colour in stops),
            min(values, default=0.0) if low is None else float(low),
            max(values, default=1.0) if high is None else float(high),
            bool(held.get("reversescale")),
            held.get("colorbar") or {},
        )

    def at(self, value: Any) -> Rgb | None:
        """The colour of a value; None where there is none."""
        if not _there(value):
            return None
        return self.along((float(value) - self.low) / ((self.high - self.low) or 1.0))

    def along(self, share: float) -> Rgb:
        """The colour at a share of the scale, between its neighbours."""
        share = min(1.0, max(0.0, 1 - share if self.turned else share))
        for (low, one), (high, two) in pairwise(self.stops):
            if share <= high:
                part = (share - low) / ((high - low) or 1.0)
                pairs = zip(_rgb(one), _rgb(two), strict=True)
                red, green, blue = (round(a + (b - a) * part) for a, b in pairs)
                return red, green, blue
        return _rgb(self.stops[-1][1])


def cells(plane: Plane, trace: Mapping[str, Any], scale: Colours) -> Iterator[str]:
    """The cells of a heatmap, with their text where it has one, and under the pointer what its
    `meta` says of each (`said`)."""
    z = [list(row) for row in trace["z"]]
    rows, columns = len(z), len(z[0]) if z else 0
    if not rows * columns:
        return
    xs = range(columns) if trace.get("x") is None else trace["x"]
    ys = range(rows) if trace.get("y") is None else trace["y"]
    centres = [plane.place(trace, x, ys[0])[0] for x in xs]
    middles = [plane.place(trace, xs[0], y)[1] for y in ys]
    wide, tall = _pitch(centres, plane.width), _pitch(middles, plane.height)
    colours = [[scale.at(value) for value in row] for row in z]
    if rows * columns > MOST:
        yield _image(colours, centres, middles, wide, tall)
        return
    gap, said = float(trace.get("xgap") or 0) / 2, (trace.get("meta") or {}).get("said")
    for down, (middle, row) in enumerate(zip(middles, colours, strict=True)):
        for across, (centre, colour) in enumerate(zip(centres, row, strict=True)):
            if colour:
                left, top = centre - (wide - gap) / 2, middle - (tall - gap) / 2
                size = {"width": wide - gap, "height": tall - gap, "fill": _hex(colour)}
                tip = said[down][across] if said else ""
                yield titled(tag("rect", x=left, y=top, **size), tip)
    if trace.get("texttemplate") and trace.get("text") is not None:
        yield from _numbers(trace, colours, centres, middles, tall)


def _numbers(
    trace: Mapping[str, Any],
    colours: Sequence[Sequence[Rgb | None]],
    centres: Sequence[float],
    middles: Sequence[float],
    tall: float,
) -> Iterator[str]:
    """The text of each cell: dark on light cells and light on dark ones."""
    size = min((trace.get("textfont") or {}).get("size") or SIZE, tall)
    inked: dict[str, list[str]] = {}
    for middle, row, words in zip(middles, colours, trace["text"], strict=True):
        for centre, colour, said in zip(centres, row, words, strict=True):
            ink = GREY if colour is None else INK["color"] if _light(colour) else "#FFFFFF"
            shown = plain("" if said is None else said)
            if shown:
                inked.setdefault(ink, []).append(text(centre, middle + 4, shown, None))
    for ink, texts in inked.items():
        look = {"text_anchor": "middle", "fill": ink, "font_size": size}
        yield group(texts, **look, pointer_events="none")  # the cell below has its own tip


def bar_of_colours(plane: Plane, scale: Colours) -> Iterator[str]:
    """The bar of a scale's colours, with its ticks, to the right of the plot."""
    described = {key: scale.bar[key] for key in DESCRIBED if scale.bar.get(key) is not None}
    along = axis({**described, "range": (scale.low, scale.high)}, [scale.low, scale.high])
    step = plane.height / STEPS
    for part in range(STEPS):
        fill, top = _hex(scale.along((part + 0.5) / STEPS)), plane.bottom - step * (part + 1)
        yield tag("rect", x=plane.right + 8, y=top, width=10, height=step + 0.5, fill=fill)
    for value, label in along.ticks:
        y = plane.bottom - plane.height * along.share(value)
        yield text(plane.right + 22, y + 4, label, "start")
    if along.title:
        yield text(plane.right + 8, plane.top - 6, along.title, "start")


def _there(value: Any) -> bool:
    return value is not None and math.isfinite(value)


def _light(colour: Rgb) -> bool:
    red, green, blue = colour
    return 0.299 * red + 0.587 * green + 0.114 * blue > 140


def _hex(colour: Rgb) -> str:
    red, green, blue = colour
    return f"#{red:02x}{green:02x}{blue:02x}"


def _pitch(places: Sequence[float], whole: float) -> float:
    """The size of a cell, from the distances of their middles."""
    ordered = sorted(places)
    steps = [b - a for a, b in pairwise(ordered)]
    return min(steps, default=whole)


def _rgb(colour: str) -> Rgb:
    if colour.startswith("#"):
        red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    else:
        red, green, blue = (int(part) for part in colour.strip("rgb()").split(","))
    return red, green, blue


def _image(
    colours: Sequence[Sequence[Rgb | None]],
    xs: Sequence[float],
    ys: Sequence[float],
    wide: float,
    tall: float,
) -> str:
    """Many cells as one small PNG, which is part of the picture."""
    flat = [row if xs[0] <= xs[-1] else row[::-1] for row in colours]
    flat = flat if ys[0] <= ys[-1] else flat[::-1]
    lines = b"".join(
        b"\0" + b"".join(bytes((*one, 255)) if one else b"\0\0\0\0" for one in row) for row in flat
    )
    size = struct.pack(">IIBBBBB", len(flat[0]), len(flat), 8, 6, 0, 0, 0)
    chunks = ((b"IHDR", size), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b""))
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
    link = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    place = {"x": min(xs) - wide / 2, "y": min(ys) - tall / 2}
    place |= {"width": wide * len(xs), "height": tall * len(ys)}
    look = {"preserveAspectRatio": "none", "style": "image-rendering:pixelated"}
    return tag("image", **place, href=link, **look)
