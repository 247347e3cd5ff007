"""The way from the base over each expert to a merge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import plotly.graph_objects as go

from ..analysis import Between
from .style import GREY, Figure, Look, curve, laid_out, safe

Height = Literal["accuracy", "loss"]


def way_between(found: Between, looks: Mapping[str, Look], height: Height = "loss") -> Figure:
    """Loss or accuracy along the way, a line a task: base at −1, expert at 0, merge at 1."""
    figure = go.Figure()
    values = found.loss if height == "loss" else found.accuracy
    form = ".3g" if height == "loss" else ".1%"
    for name, row in zip(found.tasks, values.tolist(), strict=True):
        hover = f"{safe(name)}, x = %{{x:g}}: %{{y:{form}}}"
        curve(figure, looks[name], list(found.places), row, hover, name=safe(name))
    for x in (-1, 0, 1):
        figure.add_vline(x=x, line={"color": GREY, "width": 1, "dash": "dot"})
    laid_out(figure, 400)
    figure.update_xaxes(tickvals=[-1, 0, 1], ticktext=["base", "expert", "merge"])
    if height == "loss":
        figure.update_yaxes(title="loss, nats an example")
    else:
        figure.update_yaxes(tickformat=".0%", title="accuracy")
    caption = f"{_said(found)} Measured on {sum(found.examples):,} validation examples."
    table = [
        {"task": name, "x": x, "accuracy": a, "loss": loss, "examples": n, "split": "validation"}
        for name, right, lost, n in zip(
            found.tasks, found.accuracy.tolist(), found.loss.tolist(), found.examples, strict=True
        )
        for x, a, loss in zip(found.places, right, lost, strict=True)
    ]
    return Figure(figure, f"The way from base over expert to merge. {caption}", caption, table)


def _said(found: Between) -> str:
    """Where the way from expert to merge has a barrier, and which task falls furthest on it."""
    barriers = found.barriers
    most = max(barriers, key=lambda name: barriers[name])
    start = found.places.index(0)
    falls = {
        name: float(row[start] - row[-1])
        for name, row in zip(found.tasks, found.accuracy, strict=True)
    }
    worst = max(falls, key=lambda name: falls[name])
    text = (
        f"From its expert to the merge {worst} falls furthest, by {100 * falls[worst]:.1f} points "
        "of accuracy. "
        if falls[worst] > 0
        else "No task's accuracy falls from its expert to the merge. "
    )
    if barriers[most] <= 0:
        return text + "On no way does the loss rise above the straight line between its ends."
    many = sum(value > 0 for value in barriers.values())
    return text + (
        f"Above the straight line between its ends the loss rises on {many} of {len(barriers)} "
        f"ways, most for {most}: by {barriers[most]:.2g} nats."
    )
