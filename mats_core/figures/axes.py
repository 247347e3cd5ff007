"""The axes of a still picture: where a value lies, and the ticks with their labels."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import unescape
from itertools import pairwise
from typing import Any

TICKS = 6  # at most so many on a linear axis
ROOM = 0.05  # of the range beside the outermost points
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
STEPS = (1, 2, 5, 10)


@dataclass(frozen=True)
class Axis:
    """One axis of a plot.

    kind         `linear`, `log` or `category`
    low, high    its ends: of a log axis as powers of ten, of categories as their numbers
    categories   in order
    ticks        (value, label), the value as `low` and `high` are
    title        beside it
    start, stop  its share of the picture's width or height
    opposite     whether labels stand at the top
    grid         whether ticks have lines
    shown        whether it has labels at all
    zero         whether its zero is marked
    """

    kind: str
    low: float
    high: float
    categories: tuple[Any, ...]
    ticks: tuple[tuple[float, str], ...]
    title: str
    start: float = 0.0
    stop: float = 1.0
    opposite: bool = False
    grid: bool = True
    shown: bool = True
    zero: bool = False

    def number(self, value: Any) -> float:
        """A value in the units of `low` and `high`; NaN where it has no place."""
        return number(value, self.kind, self.categories)

    def share(self, value: float) -> float:
        """How far along the axis a number lies, as a share of the picture's width or height."""
        along = (value - self.low) / ((self.high - self.low) or 1.0)
        return self.start + (self.stop - self.start) * along


def number(value: Any, kind: str, categories: Sequence[Any] = ()) -> float:
    """A value as its axis counts: a category's number, a power of ten, or the value itself."""
    if value is None:
        return math.nan
    if kind == "category" and isinstance(value, str):
        return float(categories.index(value)) if value in categories else math.nan
    value = float(value)
    return value if kind != "log" else math.log10(value) if value > 0 else math.nan


def axis(
    layout: Mapping[str, Any],
    values: Sequence[Any],
    *,
    cells: bool = False,
    zero: bool = False,
) -> Axis:
    """The axis of all `values` on it, as a layout describes it.

    `cells`: cells or bars reach half a step to either side; `zero`: bars start there.
    """
    kind = layout.get("type") or ("category" if any(isinstance(v, str) for v in values) else "")
    kind = kind if kind in ("log", "category") else "linear"
    named = [*(layout.get("categoryarray") or ()), *values] if kind == "category" else []
    categories = tuple(dict.fromkeys(value for value in named if isinstance(value, str)))
    placed = [number(value, kind, categories) for value in values]
    there = [value for value in placed if math.isfinite(value)] or [0.0, 1.0]
    low, high = _ends(layout, there, kind, cells=cells, zero=zero)
    title = layout.get("title") or {}
    start, stop = layout.get("domain") or (0.0, 1.0)
    return Axis(
        kind,
        low,
        high,
        categories,
        tuple(_ticks(layout, there, kind, min(low, high), max(low, high), categories)),
        plain(title.get("text") or "" if isinstance(title, Mapping) else title),
        start,
        stop,
        layout.get("side") == "top",
        layout.get("showgrid") is not False,
        layout.get("visible") is not False and layout.get("showticklabels") is not False,
        kind == "linear" and layout.get("zeroline") is not False,
    )


def _ends(
    layout: Mapping[str, Any], values: Sequence[float], kind: str, *, cells: bool, zero: bool
) -> tuple[float, float]:
    if layout.get("range") is not None:
        low, high = (float(value) for value in layout["range"])
        return low, high
    low, high = min(values), max(values)
    if zero or layout.get("rangemode") == "tozero":
        low, high = min(low, 0.0), max(high, 0.0)
    if cells:
        steps = sorted(set(values))
        half = min((b - a for a, b in pairwise(steps)), default=1.0) / 2
        low, high = low - half, high + half
    else:
        room = ROOM * ((high - low) or abs(high) or 1.0)
        low = low if low == 0 and (zero or layout.get("rangemode") == "tozero") else low - room
        high += room
    return (high, low) if layout.get("autorange") == "reversed" else (low, high)


# Ticks --------------------------------------------------------------------------------------------


def _ticks(
    layout: Mapping[str, Any],
    values: Sequence[float],
    kind: str,
    low: float,
    high: float,
    categories: Sequence[Any],
) -> Iterable[tuple[float, str]]:
    form = layout.get("tickformat") or ""
    if layout.get("tickvals") is not None:
        texts = layout.get("ticktext")
        values = [number(value, kind, categories) for value in layout["tickvals"]]
        labels = values if texts is None else texts
        found = [(v, _label(t, form)) for v, t in zip(values, labels, strict=True)]
    elif kind == "category":
        every = 1 if layout.get("dtick") else max(1, math.ceil(len(categories) / 40))
        found = [(float(i), plain(categories[i])) for i in range(0, len(categories), every)]
    elif kind == "log":
        found = list(_powers(low, high))
    else:
        counted = all(value == round(value) for value in values)  # nothing lies between two of them
        least = 1.0 if counted and high - low >= 2 else 0.0
        step = float(layout.get("dtick") or max(least, _step(low, high)))
        found = list(_even(low, high, step, form))
    slack = 1e-6 * (high - low)
    return [(v, text) for v, text in found if low - slack <= v <= high + slack]


def _powers(low: float, high: float) -> Iterable[tuple[float, str]]:
    """Whole powers of ten, each or every other; with their multiples where there are few."""
    whole = range(math.ceil(low - 1e-9), math.floor(high + 1e-9) + 1)
    if len(whole) < 2:
        for power in range(math.floor(low), math.ceil(high) + 1):
            yield from ((power + math.log10(m), f"{m * 10.0**power:.3g}") for m in (1, 2, 5))
        return
    every = math.ceil(len(whole) / 9)
    for power in whole[::every]:
        small = -2 <= power <= 3
        yield float(power), f"{10.0**power:g}" if small else "10" + str(power).translate(RAISED)


def _step(low: float, high: float) -> float:
    rough = (high - low) / TICKS or 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    return next(step * power for step in STEPS if step * power >= rough * (1 - 1e-9))


def _even(low: float, high: float, step: float, form: str) -> Iterable[tuple[float, str]]:
    step *= max(1, math.ceil((high - low) / step / (4 * TICKS)))
    for place in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1):
        yield place * step, _label(place * step, form)


def _label(value: Any, form: str) -> str:
    if isinstance(value, str):
        return plain(value)
    text = format(float(value), form) if form else f"{float(value):.4g}"
    return text.replace("-", "−")


def plain(text: Any) -> str:
    """A label of plotly as text: its few tags are read, what was escaped is shown as it is."""
    text = str(text).replace("<br>", "\n")
    text = re.sub(r"<sup>([^<]*)</sup>", lambda found: found[1].translate(RAISED), text)
    return unescape(re.sub(r"</?(?:b|i|sub|span)[^>]*>", "", text))
