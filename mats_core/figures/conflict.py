"""Who conflicts with whom: the measured matrix, and the forecast one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from ..analysis import Conflicts, Forecast
from .comparison import count_clear
from .correlation import correlation_words
from .style import AROUND, Figure, handles, heatmap, laid_out_cells, safe
from .why import points

Said = Callable[[int, int], str]  # of row and column


def conflict_matrix(found: Conflicts) -> Figure:
    """What every task (column) does to the accuracy of every other one (row) as measured; changes
    beyond chance in bold."""
    tasks = found.tasks

    def text(i: int, j: int) -> str:
        part = found.measured[tasks[i], tasks[j]]
        said = f"{100 * part.value:+.1f}".replace("-", "−")
        return f"<b>{said}</b>" if part.clear else said

    def hover(i: int, j: int) -> str:
        t, s = tasks[i], tasks[j]
        return f"{safe(s)} changes {safe(t)} by {points(found.measured[t, s])}"

    table: list[dict[str, Any]] = [
        {"task": t, "by": s, "difference": part.value, "low": part.low, "high": part.high}
        for (t, s), part in found.measured.items()
    ]
    # Blue is better: a rise of the accuracy.
    colours = [(1 - share, colour) for share, colour in reversed(AROUND)]
    return _matrix(
        tasks, 100 * found.values, colours, (text, hover), "measured", _said(found), table
    )


def forecast_matrix(found: Forecast, measured: Conflicts | None = None) -> Figure:
    """What every task (column) is expected to do to the answers of every other one (row);
    `measured` by the same way: the caption says whether both have one order."""
    tasks = found.tasks

    def text(i: int, j: int) -> str:
        return f"{100 * found.moved[i, j]:z.1f}".replace("-", "−")

    def hover(i: int, j: int) -> str:
        return f"{safe(tasks[j])} moves {text(i, j)} % of the answers of {safe(tasks[i])}"

    table: list[dict[str, Any]] = [
        {"task": t, "by": s, "moved": float(found.moved[i, j])}
        for i, t in enumerate(tasks)
        for j, s in enumerate(tasks)
        if i != j
    ]
    colours = list(AROUND)  # blue is better: fewer answers are moved
    caption = _expected(found, measured)
    return _matrix(tasks, 100 * found.moved, colours, (text, hover), "forecast", caption, table)


def _matrix(
    tasks: Sequence[str],
    values: np.ndarray,
    colours: Any,
    said: tuple[Said, Said],
    side: str,
    caption: str,
    table: list[dict[str, Any]],
) -> Figure:
    """The matrix of ordered pairs, with what a cell and its hover say."""
    names, many = [safe(task) for task in tasks], len(tasks)
    text, hover = said
    texts = [[text(i, j) if i != j else "" for j in range(many)] for i in range(many)]
    rows = [[None if math.isnan(v) else v for v in row] for row in values.tolist()]
    end = float(np.nanmax(abs(values))) or 1.0
    figure = go.Figure()
    heatmap(figure, names, names, rows, many <= 12, text=texts, colorscale=colours,
            zmid=0, zmin=-end, zmax=end)  # fmt: skip
    couples = [(i, j) for i in range(many) for j in range(many) if i != j]
    handles(figure, [names[j] for _, j in couples], [names[i] for i, _ in couples],
            "%{hovertext}", hovertext=[hover(i, j) for i, j in couples])  # fmt: skip
    laid_out_cells(figure, max(260, 90 + 38 * many), many, many)
    figure.update_yaxes(title="this task …")
    figure.update_xaxes(title="… when this one is merged in")
    return Figure(figure, f"Matrix of tasks, {side}. {caption}", caption, table)


def _said(found: Conflicts) -> str:
    parts = found.measured
    worst = min(parts, key=lambda pair: parts[pair].value)
    text = (
        f"Lowest: {worst[1]} changes {worst[0]} by {points(parts[worst])}. Bold: beyond "
        f"chance; {count_clear(list(parts.values()))}. A change of less than "
        f"{100 * found.chance:.1f} points (the middle half-width of the 95 % intervals) may be "
        "chance. "
    )
    compared = (
        "Merges of two, against each expert alone"
        if found.way == "pairs"
        else "The merge of all, against the merge of all but one"
    )
    size = "all" if found.examples is None else f"at most {found.examples}"
    return f"{text}{compared}, answer by answer on {size} validation examples a task."


def _expected(found: Forecast, measured: Conflicts | None) -> str:
    worst = np.unravel_index(int(np.nanargmax(found.moved)), found.moved.shape)
    t, s = (found.tasks[int(place)] for place in worst)
    text = (
        f"Percent of an expert's answers, in probability, that TSV-M of the same experts moves to "
        f"other classes, on {found.examples} inputs a task without their labels; most: {s} moves "
        f"{100 * found.moved[worst]:.1f} % of {t}. It ranks, and does not tell the amount."
    )
    known = None if measured is None else found.explains(measured.values)
    if known is None:
        return text
    verdict = "goes with" if known.clear and known.value > 0 else "does not explain"
    return (
        f"{text} It {verdict} the measured falls of the accuracy: {correlation_words(known)}, "
        "tasks permuted as a whole (Mantel)."
    )
