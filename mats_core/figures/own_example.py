"""What models say to one example of the user's: probabilities, model by model."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import plotly.graph_objects as go

from ..analysis import BASE, OwnAnswers
from ..errors import listing
from .style import PLAIN, UPWARDS, Figure, heatmap, laid_out, percent, safe

MOST_CLASSES = 12  # that are drawn: those that any model finds likeliest


def own_answers(found: OwnAnswers, merges: Collection[str]) -> Figure:
    """Models by classes, each cell a probability; `merges` are the names of those among them."""
    largest = found.probabilities.max(0)
    likeliest = np.sort(np.argsort(-largest, kind="stable")[:MOST_CLASSES])
    rows = [safe(name) for name in found.models]
    columns = [safe(found.classes[i]) for i in likeliest]
    table = found.probabilities[:, likeliest]
    figure = go.Figure()
    heatmap(
        figure, columns, rows, table.tolist(), text=[[f"{100 * p:.0f}" for p in r] for r in table],
        colorscale=UPWARDS, zmin=0, zmax=1,
        hovertemplate="%{y}: %{x} %{z:.1%}" + PLAIN,
    )  # fmt: skip
    laid_out(figure, 110 + 28 * len(rows), dragmode=False)
    figure.update_yaxes(range=[len(rows) - 0.5, -0.5], showgrid=False)
    figure.update_xaxes(side="top", type="category", showgrid=False)
    caption = _said(found, merges)
    if len(likeliest) < len(found.classes):
        caption += (
            f" Shown are the {len(likeliest)} of {len(found.classes)} classes that any of the "
            "models finds likeliest, in percent."
        )
    return Figure(figure, f"Answers to the example. {caption}", caption, _rows(found))


def _said(found: OwnAnswers, merges: Collection[str]) -> str:
    """The answers of expert, base and merges, and how many of the other experts agree."""
    taken = found.probabilities.argmax(1)
    at = {name: row for row, name in enumerate(found.models)}

    def answer(name: str) -> str:
        row = at[name]
        return f"{found.classes[taken[row]]} ({percent(float(found.probabilities[row].max()), 0)})"

    expert = found.task
    told = [f"{expert} says {answer(expert)}", f"the {BASE} {answer(BASE)}"]
    told += [f"{name} {answer(name)}" for name in found.models if name in merges]
    others = [name for name in found.models if name not in {*merges, expert, BASE}]
    agree = sum(taken[at[name]] == taken[at[expert]] for name in others)
    text = f"With the head of {expert}, {listing(told, len(told))}."
    if others:
        text += f" Of the {len(others)} other experts {agree} say what {expert} says."
    return text


def _rows(found: OwnAnswers) -> list[dict[str, object]]:
    return [
        {"model": name, "class": one, "probability": float(p)}
        for name, row in zip(found.models, found.probabilities, strict=True)
        for one, p in zip(found.classes, row, strict=True)
    ]
