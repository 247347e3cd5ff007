"""Confusion matrices: what is taken for what, before and after a merge, and what changed."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from .style import (
    AROUND,
    INK,
    ORANGE,
    PURPLE,
    UPWARDS,
    Figure,
    frame,
    handles,
    heatmap,
    laid_out,
    percent,
    safe,
)

# Right answers are blue and mistakes orange; empty cells stay the page's own colour.
MISTAKEN = [(0.0, "#FBE9C6"), (1.0, ORANGE)]
MOST_CLASSES = 40  # in one matrix: more are narrowed down to those with the most mistakes
NUMBERED = 20  # up to so many classes each cell shows its count
LONGEST = 14  # letters of a class name on an axis

Cell = tuple[int, int]


def confusion(
    counts: np.ndarray,
    classes: Sequence[str],
    *,
    who: str,
    chosen: Cell | None = None,
    shown: Sequence[int] | None = None,
    most: float | None = None,
    noun: str = "example",
) -> Figure:
    """A confusion matrix (row: true class, column: what `who` says), coloured by share of the row.

    `shown`: class numbers to draw (`worth_showing` by default); `most`: the share of a class that
    has the deepest orange, to give two matrices the same scale; `noun`: what an example is, such as
    an image.  Cells carry `(true, predicted)` as
    customdata; `chosen` is framed.
    """
    shown = list(worth_showing(counts) if shown is None else shown)
    axis, grid = _axis(shown, classes), np.ix_(shown, shown)
    part, shares = counts[grid], (counts / np.maximum(counts.sum(1, keepdims=True), 1))[grid]
    diagonal = np.eye(len(shown), dtype=bool)
    top = max(largest_mistake(counts) if most is None else most, 0.02)
    figure = go.Figure()
    for name, where, scale, high in (
        ("right, share of the true class", diagonal, UPWARDS, 1.0),
        ("mistaken, share of the true class", ~diagonal, MISTAKEN, top),
    ):
        style = {"name": name, "colorscale": scale, "zmin": 0.0, "zmax": high}
        _cells(figure, axis, where & (part > 0), shares, np.char.mod("%d", part), **style)
    counted = zip(part[part > 0], shares[part > 0], strict=True)
    said = [f"{n} {noun}s, {percent(share, 0)} of the class" for n, share in counted]
    _finished(figure, axis, shown, part, said, chosen, f"what the {who} says")
    right, total = int(np.trace(counts)), int(counts.sum())
    accuracy = percent(right / max(total, 1))
    caption = f"The {who} is right on {right} of {total} {noun}s ({accuracy})."
    mistake = commonest(counts)
    if mistake is not None:
        true, taken = mistake
        size = int(counts[true].sum())
        caption += (
            f" Its commonest mistake: {int(counts[true, taken])} of {size} {noun}s of "
            f"{classes[true]} are taken for {classes[taken]}."
        )
    caption += _left_out(shown, classes)
    return Figure(figure, f"Confusion matrix of the {who}. {caption}", caption)


def confusion_change(
    before: np.ndarray,
    after: np.ndarray,
    classes: Sequence[str],
    *,
    who: Sequence[str] = ("expert", "merge"),
    chosen: Cell | None = None,
    noun: str = "example",
) -> Figure:
    """A confusion matrix of after minus before: orange for more, blue for fewer examples."""
    change = after - before
    shown = list(worth_showing(np.abs(change)))
    axis, part = _axis(shown, classes), change[np.ix_(shown, shown)]
    top = float(np.abs(change).max(initial=0)) or 1.0
    figure = go.Figure()
    style = {"name": f"more {noun}s", "colorscale": AROUND, "zmin": -top, "zmax": top}
    _cells(figure, axis, part != 0, part, np.char.mod("%+d", part), **style)
    said = [f"{n:+d} {noun}s" for n in part[part != 0]]
    _finished(figure, axis, shown, part, said, chosen, "what the model says")
    difference = int(np.trace(after) - np.trace(before))
    direction = "more" if difference > 0 else "fewer"
    caption = (
        f"Orange: more {noun}s with the {who[1]} than with the {who[0]}; blue: fewer. The "
        f"{who[1]} has {abs(difference)} {direction} right answers on the diagonal."
    )
    grown = commonest(change)
    if grown is not None:
        true, taken = grown
        caption += (
            f" The mistake that grew most: {classes[true]} taken for {classes[taken]}, from "
            f"{int(before[true, taken])} to {int(after[true, taken])}."
        )
    else:
        caption += " No mistake became more frequent."
    caption += _left_out(shown, classes)
    return Figure(figure, f"Difference of two confusion matrices. {caption}", caption)


def worth_showing(counts: np.ndarray, most: int = MOST_CLASSES) -> tuple[int, ...]:
    """All classes, or the `most` with the most mistakes (as true or as predicted class)."""
    off = counts - np.diag(np.diag(counts))
    involved = off.sum(0) + off.sum(1)
    return tuple(sorted(np.argsort(-involved, kind="stable")[:most].tolist()))


def largest_mistake(counts: np.ndarray) -> float:
    """The largest share of a class that is taken for one other class."""
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    return float((shares - np.diag(np.diag(shares))).max(initial=0))


def commonest(counts: np.ndarray) -> Cell | None:
    """The mistake with the most examples; None without mistakes."""
    off = counts - np.diag(np.diag(counts))
    if off.max(initial=0) == 0:
        return None
    true, taken = np.unravel_index(off.argmax(), off.shape)
    return int(true), int(taken)


def _cells(
    figure: go.Figure, axis: list[str], where: np.ndarray, z: np.ndarray, text: Any, **more: Any
) -> None:
    """Coloured cells with their text where `where`; the others stay empty."""
    empty: Any = None
    z, text = np.where(where, z.astype(float), empty), np.where(where, text, "")
    more |= {"showscale": False, "textfont": INK if len(axis) <= 12 else {**INK, "size": 9}}
    # The points of `_finished` lie over the cells and speak for them.
    numbered = len(axis) <= NUMBERED
    heatmap(figure, axis, axis, z.tolist(), numbered, text=text.tolist(), **more)


def _finished(
    figure: go.Figure,
    axis: list[str],
    shown: Sequence[int],
    part: np.ndarray,
    said: Sequence[str],
    chosen: Cell | None,
    title: str,
) -> None:
    """What can be clicked and hovered, the cells with a count; the axes, and the `chosen` frame."""
    places = np.argwhere(part).tolist()
    x, y = [axis[j] for _, j in places], [axis[i] for i, _ in places]
    taken = zip(y, x, said, strict=True)
    texts = [f"{true}, taken for {other}: {what}" for true, other, what in taken]
    style = {"text": texts, "customdata": [[shown[i], shown[j]] for i, j in places]}
    handles(figure, x, y, "%{text}", marker_symbol="square", marker_size=26, **style)
    count = len(axis)
    laid_out(figure, min(640, max(300, 130 + 26 * count)))
    named = axis[:: math.ceil(count / 24)]
    whole = [html.unescape(name) for name in named]  # so that no escaped letter is cut in two
    short = [safe(n if len(n) <= LONGEST else f"{n[: LONGEST - 1]}…") for n in whole]
    ticks = {"tickvals": list(named), "ticktext": short, "tickfont": {"size": 11}}
    ticks |= {"type": "category", "showgrid": False, "zeroline": False}
    figure.update_xaxes(**ticks, title=title, range=[-0.5, count - 0.5])
    figure.update_yaxes(**ticks, title="true class", range=[count - 0.5, -0.5])
    if chosen is not None and chosen[0] in shown and chosen[1] in shown:
        row, column = shown.index(chosen[0]), shown.index(chosen[1])
        frame(figure, row, column, color=PURPLE, width=4)


def _axis(shown: Sequence[int], classes: Sequence[str]) -> list[str]:
    """Names of the shown classes; where two are alike their numbers tell them apart."""
    names = [safe(classes[i]) for i in shown]
    alike = len(set(names)) < len(names)
    return [f"{name} ({i})" if alike else name for i, name in zip(shown, names, strict=True)]


def _left_out(shown: Sequence[int], classes: Sequence[str]) -> str:
    if len(classes) == len(shown):
        return ""
    return f" Of {len(classes)} classes the {len(shown)} with the most mistakes are shown."
