"""Where things lie in a still picture: the rectangle of the plot, and the axes along it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any

from .axes import Axis


@dataclass(frozen=True)
class Plane:
    """The rectangle in which a figure is drawn, in pixels from the top left.

    axes       by their names in plotly: `x`, `y`, `x2`, …
    mark       what sets names inside this picture apart from those of other ones
    hatchings  patterns that were asked for, by their colour
    """

    axes: Mapping[str, Axis]
    left: float
    right: float
    top: float
    bottom: float
    mark: str
    hatchings: dict[str, str] = field(default_factory=dict)

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top

    def x(self, key: str, value: float) -> float:
        """Pixels of a number on a horizontal axis."""
        return self.left + self.width * self.axes[key].share(value)

    def y(self, key: str, value: float) -> float:
        """Pixels of a number on a vertical axis."""
        return self.bottom - self.height * self.axes[key].share(value)

    def place(self, trace: Mapping[str, Any], x: Any, y: Any) -> tuple[float, float]:
        """Pixels of a point of a trace; NaN where it has no place."""
        across, down = trace.get("xaxis") or "x", trace.get("yaxis") or "y"
        return (
            self.x(across, self.axes[across].number(x)),
            self.y(down, self.axes[down].number(y)),
        )

    def referred(self, ref: str, value: Any, letter: str) -> float:
        """Pixels of an end of a shape: on an axis, or as a share of one's length or the plot's."""
        at = self.x if letter == "x" else self.y
        if ref == "paper":
            along = self.width if letter == "x" else -self.height
            return (self.left if letter == "x" else self.bottom) + along * float(value)
        key = ref.removesuffix(" domain")
        one = self.axes[key]
        if ref != key:
            return at(key, one.low + (one.high - one.low) * float(value))
        return at(key, one.number(value))

    def hatched(self, colour: str) -> str:
        """The fill of what is hatched in a colour."""
        self.hatchings.setdefault(colour, f"p{self.mark}{len(self.hatchings)}")
        return f"url(#{self.hatchings[colour]})"

    def definitions(self) -> str:
        """The patterns that were asked for, as SVG."""
        return "".join(
            f'<pattern id="{name}" width="6" height="6" patternUnits="userSpaceOnUse" '
            f'patternTransform="rotate(45)"><rect width="2" height="6" '
            f'fill="{escape(colour)}"/></pattern>'
            for colour, name in self.hatchings.items()
        )
