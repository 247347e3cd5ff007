"""Elements of a still picture: shapes and text as SVG, escaped."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from typing import Any

SIZE = 12  # of letters
LETTER = 6.3  # pixels of one, on average
DASHED = {"dash": "7 4", "dot": "2 3", "dashdot": "7 3 2 3", "longdash": "11 4",
          "longdashdot": "11 3 2 3", "2px,7px": "2 7",
          "14px,4px,2px,4px,2px,4px": "14 4 2 4 2 4"}  # fmt: skip
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
    said = " ".join(
        f'{key.replace("_", "-")}="{_number(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name} {said}/>"


def _number(value: Any) -> str:
    return f"{round(value, 2):g}" if isinstance(value, float) else escape(str(value))


def text(x: float, y: float, words: str, anchor: str, **attributes: Any) -> str:
    """Words at a place; `anchor` says which end of them stands there.  Lines go downwards."""
    more = "".join(
        f' {key.replace("_", "-")}="{_number(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    lines = escape(words).split("\n")
    said = lines[0] + "".join(f'<tspan x="{x:.1f}" dy="1.2em">{line}</tspan>' for line in lines[1:])
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{said}</text>'


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


def wide(words: str) -> float:
    """Pixels of the longest line, more or less."""
    return LETTER * max(map(len, words.split("\n")))
