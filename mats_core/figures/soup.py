"""A greedy soup: the accuracy of the average as experts are added."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import plotly.graph_objects as go

from ..analysis import Ingredient
from ..errors import listing
from .style import BLUE, GREY, ORANGE, PLAIN, Figure, laid_out, percent, safe


def soup_steps(tried: Sequence[Ingredient], *, examples: int | None = None) -> Figure | None:
    """Mean accuracy over all tasks of each expert alone, of the average with it, and of the average
    that is kept, in the order of the trials; None before an expert was tried.

    examples  validation examples of each task that every average was asked; None: all
    """
    if not tried:
        return None
    names = [safe(one.name) for one in tried]
    figure = go.Figure()
    best = accumulate((one.together if one.kept else 0.0 for one in tried), max)
    figure.add_scatter(
        x=names, y=list(best), mode="lines", name="the average so far", hoverinfo="skip",
        line={"color": ORANGE, "width": 3, "shape": "hv"},
    )  # fmt: skip
    for name, kept, symbol in (("stays", True, "circle"), ("is left out", False, "circle-open")):
        some = [one for one in tried if one.kept == kept]
        figure.add_scatter(
            x=[safe(one.name) for one in some], y=[one.together for one in some], mode="markers",
            name=f"with it: {name}", marker={"size": 11, "color": BLUE, "symbol": symbol},
            hovertemplate="the average with %{x}: %{y:.1%}" + PLAIN,
        )  # fmt: skip
    figure.add_scatter(
        x=names, y=[one.alone for one in tried], mode="markers", name="the expert alone",
        marker={"size": 8, "color": GREY, "symbol": "x"},
        hovertemplate="%{x} alone: %{y:.1%}" + PLAIN,
    )  # fmt: skip
    laid_out(figure, 360)
    figure.update_xaxes(title="experts, in the order in which they were tried", type="category")
    figure.update_yaxes(tickformat=".0%", title="mean accuracy over all tasks")
    kept = [one.name for one in tried if one.kept]
    last = max(one.together for one in tried if one.kept)
    asked = "all" if examples is None else f"at most {examples}"
    caption = (
        f"{listing(kept, len(kept))} {'stays' if len(kept) == 1 else 'stay'}: their average has a "
        f"mean accuracy of {percent(last)}, the best expert alone {percent(tried[0].alone)}, on "
        f"{asked} validation examples of each task."
    )
    rows = [
        {
            "expert": one.name, "alone": one.alone, "together": one.together, "kept": one.kept,
            "split": "validation",
        }
        for one in tried
    ]  # fmt: skip
    return Figure(figure, f"Steps of a greedy soup. {caption}", caption, rows)
