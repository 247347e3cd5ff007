"""Who conflicts with whom: the measured matrix, and the predicted one."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import plotly.graph_objects as go

from ..analysis import Conflicts
from .comparison import count_clear
from .correlation import correlation_words
from .style import AROUND, Figure, handles, heatmap, laid_out_cells, safe
from .why import points

Side = Literal["measured", "predicted"]
UNITS = ((1.0, "Nats"), (1e3, "Thousandths of a nat"), (1e6, "Millionths of a nat"))
SIDES: dict[Side, str] = {"measured": "Measured", "predicted": "Predicted"}


def conflict_matrix(found: Conflicts, side: Side = "measured") -> Figure | None:
    """What every task (column) does to every other one (row): to its accuracy as measured, changes
    beyond chance in bold, or to its loss as predicted; None where nothing is known."""
    values = 100 * found.values if side == "measured" else found.predicted
    if np.isnan(values).all():
        return None
    names, many = [safe(task) for task in found.tasks], len(found.tasks)
    texts = [[_text(found, side, i, j, values[i, j]) for j in range(many)] for i in range(many)]
    rows = [[None if math.isnan(v) else v for v in row] for row in values.tolist()]
    end = float(np.nanmax(abs(values))) or 1.0
    # Blue is better on both: a rise of the accuracy, a fall of the loss.
    colours = [(share, colour) for share, colour in AROUND]
    if side == "measured":
        colours = [(1 - share, colour) for share, colour in reversed(AROUND)]
    figure = go.Figure()
    heatmap(figure, names, names, rows, many <= 12, text=texts, colorscale=colours,
            zmid=0, zmin=-end, zmax=end)  # fmt: skip
    couples = [(i, j) for i in range(many) for j in range(many) if i != j]
    hovers = [_hover(found, side, i, j) for i, j in couples]
    handles(figure, [names[j] for _, j in couples], [names[i] for i, _ in couples],
            "%{hovertext}", hovertext=hovers)  # fmt: skip
    laid_out_cells(figure, max(260, 90 + 38 * many), many, many)
    figure.update_yaxes(title="this task …")
    figure.update_xaxes(title="… when this one is merged in")
    caption = _measured(found) if side == "measured" else _predicted(found)
    table = [
        {
            "task": t, "by": s, "difference": part.value, "low": part.low, "high": part.high,
            "predicted nats": found.predicted[found.tasks.index(t), found.tasks.index(s)],
        }
        for (t, s), part in found.measured.items()
    ]  # fmt: skip
    return Figure(figure, f"Matrix of tasks, {side}. {caption}", caption, table)


def _text(found: Conflicts, side: Side, i: int, j: int, value: float) -> str:
    if math.isnan(value):
        return ""
    if side == "predicted":
        factor, _ = _unit(found)
        digits = 0 if factor * np.nanmax(abs(found.predicted)) >= 100 else 1
        return f"{factor * value:z.{digits}f}".replace("-", "−")
    text = f"{value:+.1f}".replace("-", "−")
    clear = found.measured[found.tasks[i], found.tasks[j]].clear
    return f"<b>{text}</b>" if clear else text


def _unit(found: Conflicts) -> tuple[float, str]:
    """The unit in which the largest prediction has a digit before its point: cells are small."""
    largest = float(np.nanmax(abs(found.predicted)))
    return next((unit for unit in UNITS if largest * unit[0] >= 1), UNITS[-1])


def _hover(found: Conflicts, side: Side, i: int, j: int) -> str:
    t, s = found.tasks[i], found.tasks[j]
    if side == "measured":
        return f"{safe(s)} changes {safe(t)} by {points(found.measured[t, s])}"
    return f"{safe(s)} raises the loss of {safe(t)} by {found.predicted[i, j]:.3g} nats"


def _measured(found: Conflicts) -> str:
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


def _predicted(found: Conflicts) -> str:
    known, unit = found.explained, _unit(found)[1]
    if known is None:
        return f"{unit} an example; too few pairs with statistics to compare the order of both."
    said = correlation_words(known)
    orders = known.clear and known.value > 0
    verdict = "goes with" if orders else "does not explain"
    return (
        f"{unit} an example by which the loss of a task is predicted to rise in the "
        f"same merges. The prediction {verdict} the measured falls of the accuracy: {said}, tasks "
        "permuted as a whole (Mantel)."
    )
