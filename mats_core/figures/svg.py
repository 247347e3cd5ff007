"""Elements of a still picture: shapes and text as SVG, escaped."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

SIZE = 12  # of letters
LETTER = 6.3  # pixels of one, on average
DASHED = {"dash": "7 4", "dot": "2 3", "dashdot": "7 3 2 3", "longdash": "11 4",
          "longdashdot": "11 3 2 3", "2px,7px": "2 7",
          "14px,4px,2px,4px,2px,4px": "14 4 2 4 2 4"}  # fmt: skip
SEEN = 0.1  # pixels: what lies nearer to a line is not told from it
Point = tuple[float, float]
Corners = tuple[Point, ...]
SHAPES: dict[str, Corners] = {
    "square": ((-1, -1), (1, -1), (1, 1), (-1, 1)),
    "diamond": ((0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)),
    "triangle-up": ((0, -1.2), (1.15, 0.9), (-1.15, 0.9)),
    "triangle-down": ((0, 1.2), (1.15, -0.9), (-1.15, -0.9)),
    "cross": ((-0.4, -1.2), (0.4, -1.2), (0.4, -0.4), (1.2, -0.4), (1.2, 0.4), (0.4, 0.4),
              (0.4, 1.2), (-0.4, 1.2), (-0.4, 0.4), (-1.2, 0.4), (-1.2, -0.4), (-0.4, -0.4)),
    "star": tuple(
        ((1.4 if i % 2 == 0 else 0.6) * math.sin(math.pi * i / 5),
         -(1.4 if i % 2 == 0 else 0.6) * math.cos(math.pi * i / 5)) for i in range(10)
    ),
}  # fmt: skip
TURNED = math.sqrt(0.5)
SHAPES["x"] = tuple(((x - y) * TURNED, (x + y) * TURNED) for x, y in SHAPES["cross"])


def tag(name: str, **attributes: Any) -> str:
    """An empty element; attributes that are None are left out, `_` in their names is `-`."""
    return f"<{name}{_said(attributes)}/>"


def titled(element: str, words: str) -> str:
    """An element of `tag` that says these words under the pointer, where there are any."""
    name = element[1:].partition(" ")[0]
    return f"{element[:-2]}><title>{escape(words)}</title></{name}>" if words else element


def _number(value: Any) -> str:
    return f"{round(value, 2):g}" if isinstance(value, float) else escape(str(value))


def text(x: float, y: float, words: str, anchor: str | None, **attributes: Any) -> str:
    """Words at a place; `anchor` says which end of them stands there, None: what holds them does.
    Lines go downwards."""
    more = _said({"text_anchor": anchor, **attributes})
    lines = escape(words).split("\n")
    across = _tenth(x)
    said = lines[0] + "".join(
        f'<tspan x="{across}" dy="1.2em">{line}</tspan>' for line in lines[1:]
    )
    return f'<text x="{across}" y="{_tenth(y)}"{more}>{said}</text>'


def group(inside: Iterable[str], **attributes: Any) -> str:
    """Elements that have these attributes in common, which are said once."""
    return f"<g{_said(attributes)}>{''.join(inside)}</g>"


def _said(attributes: Mapping[str, Any]) -> str:
    return "".join(
        f' {key.replace("_", "-")}="{_number(value)}"'
        for key, value in attributes.items()
        if value is not None
    )


def mark(x: float, y: float, symbol: str, half: float, colour: str, line: Mapping[str, Any]) -> str:
    """A point of a curve, `half` its size to each side."""
    hollow = symbol.endswith("-open")
    look = {"fill": "none" if hollow else colour}
    look |= {"stroke": colour, "stroke_width": 2} if hollow else {}
    if line.get("width") and not hollow:
        look |= {"stroke": nth(line.get("color"), 0) or "currentColor"}
        look |= {"stroke_width": line["width"]}
    corners = SHAPES.get(symbol.removesuffix("-open"))
    if corners is None:
        return tag("circle", cx=x, cy=y, r=half, **look)
    points = " ".join(f"{x + half * a:.1f},{y + half * b:.1f}" for a, b in corners)
    return tag("polygon", points=points, **look)


def nth(values: Any, number: int) -> Any:
    """A value of each point, of which one may be said for all."""
    if values is None or isinstance(values, str | int | float):
        return values
    return values[number] if number < len(values) else None


def runs(points: Iterable[Point]) -> Iterator[list[Point]]:
    """Points between the gaps, which have no place."""
    run: list[Point] = []
    for point in [*points, (math.nan, math.nan)]:
        if not math.isnan(sum(point)):
            run.append(point)
        elif run:
            yield run
            run = []


def path(points: Sequence[Point]) -> str:
    """The points of a line as SVG takes them, without those that change nothing to be seen."""
    return " ".join(f"{_tenth(x)},{_tenth(y)}" for x, y in thinned(points))


def thinned(points: Sequence[Point], within: float = SEEN) -> list[Point]:
    """The points of which a line is made that passes all of them within so many pixels.

    From each point that is kept, the line goes on as long as one direction passes all that follow
    (Sklansky & Gonzalez, Pattern Recognition 12, 327–331, 1980).
    """
    kept = list(points[:1])
    last, cone = kept[-1:], None
    for point in points[1:]:
        now = _narrowed(cone, kept[-1], point, within)
        if now is None:  # another line begins where this one ended
            kept += last
            now = _narrowed(None, kept[-1], point, within)
        last, cone = [point], now
    return kept + last if len(points) > 1 else kept


Cone = tuple[float, float, float, float]  # its middle, the angles to both sides, how far it reaches


def _narrowed(cone: Cone | None, start: Point, point: Point, within: float) -> Cone | None:
    """The directions from `start` that pass a point as well; None where there are none.

    A cone of None has all directions.
    """
    across, down = point[0] - start[0], point[1] - start[1]
    far = math.hypot(across, down)
    middle, low, high, reach = cone or (math.atan2(down, across), -math.pi, math.pi, 0.0)
    if far <= within:
        return (middle, low, high, reach) if reach <= within else None
    if reach <= within:  # no direction was told apart so far
        middle, low, high = math.atan2(down, across), -math.pi, math.pi
    turned = math.remainder(math.atan2(down, across) - middle, math.tau)
    if far < reach - within or not low <= turned <= high:
        return None
    half = math.asin(within / far)
    return middle, max(low, turned - half), min(high, turned + half), max(reach, far)


def _tenth(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def wide(words: str) -> float:
    """Pixels of the longest line, more or less."""
    return LETTER * max(map(len, words.split("\n")))
