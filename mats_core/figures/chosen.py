"""Which inputs an expert chose for its calibration, with its answer to each beside the others'."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from ..errors import listing
from .style import AROUND, GREY, Figure, frame, heatmap, laid_out, percent, safe


@dataclass(frozen=True)
class Choice:
    """Inputs that an expert chose.

    expert    its name
    experts   of all of them, in the order of the scores
    labels    one an input: where it comes from, such as `digits`
    scores    (inputs, experts): how much more each expert's update answers to an input than the
              others' do, mean of log ‖Δ x‖² / ‖x‖² over the layers less its means
    """

    expert: str
    experts: tuple[str, ...]
    labels: tuple[str, ...]
    scores: Sequence[Sequence[float]]


def chosen_scores(choice: Choice) -> Figure:
    """The scores of the chosen inputs, a row an input, a column an expert; its column is framed."""
    rows = [f"{place}" for place in range(1, len(choice.labels) + 1)]
    columns = [safe(name) for name in choice.experts]
    largest = max((abs(v) for row in choice.scores for v in row), default=0.0) or 1.0
    figure = go.Figure()
    heatmap(
        figure, columns, rows, [list(row) for row in choice.scores],
        text=[[f"{v:+.2f}" for v in row] for row in choice.scores],
        customdata=[[safe(label)] * len(columns) for label in choice.labels],
        colorscale=AROUND, reversescale=True, zmid=0, zmin=-largest, zmax=largest,
        hovertemplate="input %{y}, of %{customdata}: %{x} %{z:+.2f}<extra></extra>",
    )  # fmt: skip
    laid_out(figure, 90 + 26 * len(rows), dragmode=False)
    figure.update_yaxes(type="category", autorange="reversed", title="input", showgrid=False)
    figure.update_xaxes(type="category", side="top", showgrid=False)
    own = choice.experts.index(choice.expert)
    frame(figure, 0, own, 0.5, 0.0, color=GREY, width=2)
    figure.update_shapes(y0=-0.5, y1=len(rows) - 0.5)
    caption = chosen_words(choice)
    table = [
        {"input": place, "of": label, "expert": name, "score": value}
        for place, (label, row) in enumerate(zip(choice.labels, choice.scores, strict=True), 1)
        for name, value in zip(choice.experts, row, strict=True)
    ]
    return Figure(figure, f"Scores of the chosen inputs by expert. {caption}", caption, table)


def chosen_words(choice: Choice) -> str:
    """Where the chosen inputs come from, and how many the expert answers to most of all."""
    own = choice.experts.index(choice.expert)
    first = sum(row[own] >= max(row) for row in choice.scores)
    of = Counter(choice.labels).most_common()
    told = [f"{count} of {name}" for name, count in of]
    margins = [row[own] - max(v for i, v in enumerate(row) if i != own)
               for row in choice.scores if len(row) > 1]  # fmt: skip
    part = percent(first / len(choice.labels), 0)
    text = (
        f"Inputs shown: {listing(told, len(told))}. {choice.expert} answers to {first} of them "
        f"more than every other expert ({part})."
    )
    if margins:
        text += f" Its smallest lead over the next is {min(margins):+.2f}."
    return text
