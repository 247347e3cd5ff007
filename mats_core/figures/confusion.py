"""Confusion matrices: what is taken for what, before and after a merge, and what changed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from .base import BLUE, GREY, ORANGE, VERMILLION, Figure, laid_out, percent, safe

# Right answers are blue and mistakes orange; empty cells stay the page's own colour.
RIGHT = [(0, "#D6E6F2"), (1, BLUE)]
MISTAKEN = [(0, "#FBE6D3"), (1, VERMILLION)]
MORE_FEWER = [(0, BLUE), (0.5, "#F4F4F2"), (1, ORANGE)]
MOST_CLASSES = 40  # in one matrix: more are narrowed down to those with the most mistakes
NUMBERED = 20  # up to so many classes each cell shows its count
SHORTEST = 14  # letters of a class name on an axis

Cell = tuple[int, int]


def confusion(
    counts: np.ndarray,
    classes: Sequence[str],
    *,
    who: str,
    chosen: Cell | None = None,
    shown: Sequence[int] | None = None,
    most: float | None = None,
) -> Figure:
    """A confusion matrix (row: true class, column: what `who` says), coloured by share of the row.

    `shown`: class numbers to draw (`worth_showing` by default); `most`: the share of a class that
    has the deepest orange, to give two matrices the same scale.  Cells carry `(true, predicted)` as
    customdata; `chosen` is framed.
    """
    shown = list(worth_showing(counts) if shown is None else shown)
    part = counts[np.ix_(shown, shown)]
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    visible = shares[np.ix_(shown, shown)]
    diagonal = np.eye(len(shown), dtype=bool)
    figure = go.Figure()
    _cells(figure, np.where(diagonal & (part > 0), visible, np.nan), RIGHT, 1.0)
    top = largest_mistake(counts) if most is None else most
    _cells(figure, np.where(~diagonal & (part > 0), visible, np.nan), MISTAKEN, max(top, 0.02))
    _handles(figure, part, visible, shown, classes, who)
    _numbers(figure, part, np.where(diagonal, visible, visible / max(top, 0.02)))
    _frame(figure, shown, classes, chosen, f"what the {who} says")
    right, total = int(np.trace(counts)), int(counts.sum())
    caption = f"The {who} is right on {right} of {total} images ({percent(right / max(total, 1))})."
    mistake = commonest(counts)
    if mistake is not None:
        true, taken = mistake
        size = int(counts[true].sum())
        caption += (
            f" Its commonest mistake: {int(counts[true, taken])} of {size} images of "
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
) -> Figure:
    """After minus before, cell by cell: orange where there are more, blue where there are fewer."""
    change = after - before
    shown = list(worth_showing(np.abs(change)))
    part = change[np.ix_(shown, shown)]
    top = float(np.abs(change).max(initial=0)) or 1.0
    figure = go.Figure()
    _cells(figure, np.where(part != 0, part, np.nan), MORE_FEWER, top, low=-top)
    _handles(figure, part, None, shown, classes, f"{who[1]} minus {who[0]}")
    _numbers(figure, part, np.abs(part) / top, signed=True)
    _frame(figure, shown, classes, chosen, "what the model says")
    difference = int(np.trace(after) - np.trace(before))
    direction = "more" if difference > 0 else "fewer"
    caption = (
        f"Orange: more images with the {who[1]} than with the {who[0]}; blue: fewer. The "
        f"{who[1]} has {abs(difference)} {direction} right answers on the diagonal."
    )
    off = np.where(np.eye(len(change), dtype=bool), 0, change)
    if off.max(initial=0) > 0:
        true, taken = (int(i) for i in np.unravel_index(off.argmax(), off.shape))
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
    """The mistake with the most images; None where there is none."""
    off = counts - np.diag(np.diag(counts))
    if off.max(initial=0) == 0:
        return None
    true, taken = np.unravel_index(off.argmax(), off.shape)
    return int(true), int(taken)


def _cells(
    figure: go.Figure, values: np.ndarray, scale: list, high: float, *, low: float = 0.0
) -> None:
    # The markers of `_handles` lie over the cells and speak for them.
    figure.add_heatmap(
        z=values, zmin=low, zmax=high, colorscale=scale, showscale=False, hoverinfo="skip",
        xgap=2, ygap=2,
    )  # fmt: skip


def _handles(
    figure: go.Figure,
    part: np.ndarray,
    shares: np.ndarray | None,
    shown: Sequence[int],
    classes: Sequence[str],
    who: str,
) -> None:
    """Unseen markers that can be clicked and hovered: a heatmap's cells cannot be selected."""
    rows, columns = np.nonzero(part)
    said = [
        f"{part[i, j]:+d} images" if shares is None else f"{part[i, j]} images, {shares[i, j]:.0%}"
        for i, j in zip(rows, columns, strict=True)
    ]
    unseen = {"marker": {"opacity": 0}}
    figure.add_scatter(
        x=columns.tolist(),
        y=rows.tolist(),
        mode="markers",
        marker={"symbol": "square", "size": 26, "opacity": 0, "color": GREY},
        selected=unseen,
        unselected=unseen,
        customdata=[[shown[i], shown[j]] for i, j in zip(rows, columns, strict=True)],
        text=[
            f"{safe(classes[shown[i]])}, taken for {safe(classes[shown[j]])}: {what}"
            for i, j, what in zip(rows, columns, said, strict=True)
        ],
        hovertemplate=f"{safe(who)}<br>%{{text}}<extra></extra>",
        showlegend=False,
    )


def _numbers(
    figure: go.Figure, part: np.ndarray, depth: np.ndarray, *, signed: bool = False
) -> None:
    """Counts in the cells, white on deep colours and dark on pale ones."""
    if len(part) > NUMBERED:
        return
    rows, columns = np.nonzero(part)
    size = 12 if len(part) <= 12 else 9
    figure.add_scatter(
        x=columns.tolist(),
        y=rows.tolist(),
        mode="text",
        text=[f"{part[i, j]:+d}" if signed else str(part[i, j])
              for i, j in zip(rows, columns, strict=True)],
        textfont={"size": size, "color": [
            "#FFFFFF" if depth[i, j] > 0.6 and not (signed and part[i, j] > 0) else "#1B1F24"
            for i, j in zip(rows, columns, strict=True)]},
        hoverinfo="skip",
        showlegend=False,
    )  # fmt: skip


def _frame(
    figure: go.Figure,
    shown: Sequence[int],
    classes: Sequence[str],
    chosen: Cell | None,
    title: str,
) -> None:
    count = len(shown)
    laid_out(figure, min(640, max(300, 130 + 26 * count)))
    names = [_short(classes[i]) for i in shown]
    step = max(1, count // 24 + (count % 24 > 0)) if count > 24 else 1
    ticks = {
        "tickvals": list(range(0, count, step)), "ticktext": names[::step], "showgrid": False,
        "zeroline": False, "tickfont": {"size": 11}, "range": [-0.5, count - 0.5],
    }  # fmt: skip
    figure.update_xaxes(**ticks, title=title, side="bottom")
    figure.update_yaxes(**{**ticks, "range": [count - 0.5, -0.5]}, title="true class")
    if chosen is not None and chosen[0] in shown and chosen[1] in shown:
        y, x = shown.index(chosen[0]), shown.index(chosen[1])
        figure.add_shape(
            type="rect", x0=x - 0.5, x1=x + 0.5, y0=y - 0.5, y1=y + 0.5,
            line={"color": GREY, "width": 3},
        )  # fmt: skip


def _short(name: str) -> str:
    return safe(name if len(name) <= SHORTEST else f"{name[: SHORTEST - 1]}…")


def _left_out(shown: Sequence[int], classes: Sequence[str]) -> str:
    hidden = len(classes) - len(shown)
    if not hidden:
        return ""
    return f" Of {len(classes)} classes the {len(shown)} with the most mistakes are shown."
