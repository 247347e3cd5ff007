"""Accuracy against the number of examples a task: how many of them a calibration needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from ..analysis import Stand
from ..evaluation import compare, normalised_accuracy
from .kept import mean_line
from .rows import merged
from .style import BLUE, GREY, ORANGE, Figure, Look, laid_out, percent
from .why import points

ALONE, STEADIED = "examples alone", "steadied"
LOOKS = {ALONE: Look(BLUE, "solid", "circle"), STEADIED: Look(ORANGE, "dash", "square")}
FEW = 8


def example_lines(stands: Sequence[Stand], *, examples: int | None, of: int) -> Figure | None:
    """The mean share of the experts' accuracy against the number of examples a task, with its 95 %
    interval, of the examples alone and steadied; None before a step is finished.

    stands    of a ladder that counts examples; one without results is left out
    examples  at most so many validation examples a task
    of        the number of steps, of which some may not be finished yet
    """
    there = [stand for stand in stands if stand.results]
    if not there:
        return None
    ways = {label: _way(there, label == STEADIED) for label in LOOKS}
    figure = go.Figure()
    for label, way in ways.items():
        hover = f"%{{x}} examples a task, {label}: %{{y:.1%}}"
        counts = [str(count_of(stand)) for stand in way]
        row = [stand.results for stand in way]
        bold = {"name": label, "line_width": 4, "marker_size": 10}
        mean_line(figure, LOOKS[label], counts, row, hover, **bold)
    figure.add_hline(y=1, line={"color": GREY, "width": 1, "dash": "dot"})
    laid_out(figure, 420)
    places = [str(count) for count in sorted({count_of(stand) for stand in there})]
    figure.update_xaxes(
        type="category", categoryorder="array", categoryarray=places,
        title="unlabelled examples a task",
    )  # fmt: skip
    figure.update_yaxes(tickformat=".0%", title="share of the experts' accuracy")
    caption = _caption(stands, ways, examples, of)
    alt = f"Accuracy against the number of examples a task. {caption}"
    return Figure(figure, alt, caption, _rows(there))


def count_of(stand: Stand) -> int:
    """The examples of each task that a step calibrates on; 0 where it has none."""
    return int(stand.rung.options.get("examples", 0))


def _way(stands: Sequence[Stand], steadied: bool) -> list[Stand]:
    """The steps of one line; a number of examples that has one step only is in both."""
    several = Counter(map(count_of, stands))
    return [
        stand
        for stand in sorted(stands, key=count_of)
        if several[count_of(stand)] == 1 or _is_steadied(stand) == steadied
    ]


def _is_steadied(stand: Stand) -> bool:
    """Whether a step has what the method's defaults give to few examples."""
    return "update_share" not in stand.rung.options


def _rows(stands: Sequence[Stand]) -> list[dict[str, Any]]:
    return [
        row
        for stand in stands
        for row in merged(
            stand.results, stand.rung.title, "validation", calibrated_on=count_of(stand),
            steadied=_is_steadied(stand),
        )
    ]  # fmt: skip


def _caption(
    stands: Sequence[Stand], ways: dict[str, list[Stand]], examples: int | None, of: int
) -> str:
    text = "" if len(stands) == of else f"{len(stands)} of {of} steps so far. "
    by = {label: {count_of(stand): stand for stand in way} for label, way in ways.items()}
    none, most = by[ALONE].get(0), max(by[ALONE])
    if none is not None:
        text += (
            f"Without any example the merge keeps {percent(normalised_accuracy(none.results))} of "
            "the experts' accuracy. "
        )
    if most:
        text += f"{most} a task keep {percent(normalised_accuracy(by[ALONE][most].results))}. "
    if none is not None and most > FEW:
        whole = compare(by[ALONE][most].results, none.results, same_examples=True).mean
        if whole is not None and whole.low > 0:
            text += _parts_said(by, none, whole.value)
    text += _between(by)
    failed = [stand for stand in stands if stand.reason]
    if failed:
        text += f"{failed[0].rung.title} could not be merged: {failed[0].reason} "
    size = "all" if examples is None else f"at most {examples}"
    return f"{text}Whiskers: 95 % intervals. Measured on {size} validation examples a task."


def _parts_said(by: dict[str, dict[int, Stand]], none: Stand, whole: float) -> str:
    """Which part of the gain over no example a few of them have."""
    parts = []
    for label, way in by.items():
        if FEW in way:
            own = compare(way[FEW].results, none.results, same_examples=True).mean
            if own is not None:
                parts.append(f"{percent(own.value / whole, 0)} ({label})")
    return f"Of that gain {FEW} a task have {' and '.join(parts)}. " if parts else ""


def _between(by: dict[str, dict[int, Stand]]) -> str:
    """With how many examples it makes a clear difference to steady them."""
    found = {}
    for count, stand in by[STEADIED].items():
        if count in by[ALONE] and by[ALONE][count] is not stand:
            both = compare(stand.results, by[ALONE][count].results, same_examples=True).mean
            if both is not None and both.clear:
                found[count] = both
    said = [f"{count} ({points(one)})" for count, one in found.items()]
    if not said:
        return ""
    return f"Steadying makes a clear difference with {', '.join(said)}. "
