"""What goes with an outcome by task: rank correlations of several traits, and a verdict."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

import plotly.graph_objects as go

from ..analysis import TRAITS, Correlation, Trait, clear_among
from ..errors import listing
from .correlation import correlation_words
from .style import BLUE, GREY, Figure, Look, curve, laid_out, safe, whiskers

WIDE = 26  # characters of a label's line


def reasons_verdict(found: Mapping[Trait, Correlation], outcome: str) -> str:
    """A sentence on what goes with an outcome, such as `what a task keeps`; that nothing does where
    no trait is more than chance after all of them were looked at."""
    if not found:
        return f"Nothing can be said about {outcome}: fewer than three tasks, or no differences."
    clear = clear_among(found)
    looked = f"{len(found)} traits looked at, Holm's correction"
    if not clear:
        nearest = min(found, key=lambda trait: found[trait].chance)
        return (
            f"Nothing here correlates with {outcome} beyond chance ({looked}). Nearest: "
            f"{TRAITS[nearest]}, {correlation_words(found[nearest])}."
        )
    told = [_told(trait, found[trait]) for trait in clear]
    return f"With {outcome} goes {listing(told)} ({looked}). A correlation is no cause."


def _broken(trait: Trait) -> str:
    """A trait in short lines: beside the axis of a phone there is little room."""
    return "<br>".join(safe(line) for line in textwrap.wrap(TRAITS[trait], WIDE))


def _told(trait: Trait, found: Correlation) -> str:
    way = "the more, the more" if found.value > 0 else "the more, the less"
    return f"{TRAITS[trait]} ({way}: {correlation_words(found)})"


def reasons_figure(found: Mapping[Trait, Correlation], outcome: str, tested: str) -> Figure | None:
    """The rank correlation of each trait with an outcome, with its 95 % interval; None without any.

    `tested`: on what the outcome was measured, in words.
    """
    if not found:
        return None
    figure, clear = go.Figure(), clear_among(found)
    for trait, one in found.items():
        look = Look(BLUE if trait in clear else GREY, "solid", "circle")
        error = whiskers([one.high - one.value], [one.value - one.low], color=look.colour)
        style = {"mode": "markers", "marker_size": 11, "showlegend": False, "name": trait}
        hover = f"{safe(TRAITS[trait])}: {safe(correlation_words(one))}"
        curve(figure, look, [one.value], [_broken(trait)], hover, error_x=error, **style)
    figure.add_vline(x=0, line={"color": GREY, "width": 1})
    laid_out(figure, 80 + 46 * len(found))
    rows = [_broken(trait) for trait in found]
    figure.update_yaxes(type="category", categoryorder="array", categoryarray=rows[::-1])
    figure.update_xaxes(range=[-1.05, 1.05], title="rank correlation")
    caption = (
        f"{reasons_verdict(found, outcome)} Whiskers are 95 % intervals (Fisher's z for ranks). "
        f"Measured on {tested}."
    )
    table = [
        {
            "trait": trait, "correlation": one.value, "low": one.low, "high": one.high,
            "chance": one.chance, "tasks": one.count,
        }
        for trait, one in found.items()
    ]  # fmt: skip
    return Figure(figure, f"Rank correlations of traits of a task. {caption}", caption, table)
