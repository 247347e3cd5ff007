"""Layers × tasks: one quantity of a whole family as a heatmap, or layer by layer as lines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import plotly.graph_objects as go
from torch import Tensor

from ..analysis import KINDS, Kind, Quantity, Survey, chance_conflict
from .style import (
    AROUND,
    GREY,
    UPWARDS,
    VERMILLION,
    Figure,
    Look,
    curve,
    frame,
    handles,
    heatmap,
    laid_out,
    laid_out_cells,
    pale,
    safe,
    short_names,
)

MOST_LABELLED = 60  # layers: more of them, and the numbers in the cells become unreadable
ROW, MOST_HEIGHT = 23, 1500  # pixels


@dataclass(frozen=True)
class Wording:
    """How a quantity is called, what it means in a sentence, and how its numbers are written."""

    title: str
    meaning: str
    percent: bool = True

    def number(self, value: float, digits: int = 1) -> str:
        return f"{100 * value:.{digits}f} %" if self.percent else f"{value:.{digits + 1}f}"

    def cell(self, value: float) -> str:
        """As short as a cell on a phone; percent signs are left to the caption."""
        if not math.isfinite(value):
            return ""
        shown = 100 * value if self.percent else value
        digits = 0 if abs(shown) >= 10 else 1 if self.percent or abs(shown) >= 1 else 2
        return f"{shown:.{digits}f}"


QUANTITIES: dict[Quantity, Wording] = {
    "relative norm": Wording(
        "Size of the change", "How far fine-tuning moved each weight, ‖Δ‖ / ‖W0‖, in percent."
    ),
    "norm": Wording(
        "Size of the change, absolute", "How far fine-tuning moved each weight, ‖Δ‖.", False
    ),
    "effective rank": Wording(
        "Effective rank",
        "How many directions really count: the exponential of the spectrum's entropy.",
        False,
    ),
    "stable rank": Wording(
        "Stable rank", "The spectrum's sum over its largest value: 1 means one direction.", False
    ),
    "energy": Wording("Energy kept at rank r", "The share, in percent, that the strongest keep."),
    "sign conflict": Wording(
        "Sign conflict",
        "Percentage of the entries that a task changed in which the others outvote it: the sum of "
        "all changes has the other sign.",
    ),
    "sign conflict by mass": Wording(
        "Sign conflict, by size",
        "Percentage of the size of a task's change (the sum of |Δ|) that the others outvote.",
    ),
    "cosine": Wording(
        "Cosine to the other tasks",
        "Whether a task's change points where the others' do: the mean cosine, between -1 and 1.",
        False,
    ),
    "overlap": Wording(
        "Overlap with the other tasks",
        "Percentage of a task's essential directions that lie in another task's, on average.",
    ),
    "cost of averaging": Wording(
        "Where averaging hurts",
        "Where the plain average is predicted to hurt: each layer's percentage of its task's "
        "quadratic loss (K-FAC), so every column adds up to 100.",
    ),
}


def family_heatmap(
    survey: Survey,
    names: Sequence[str],
    quantity: Quantity,
    *,
    kind: Kind = "essential",
    rank: int = 1,
    chosen: tuple[str, str] | None = None,
) -> Figure | None:
    """One quantity over layers × tasks; None where nothing of it was measured.

    `names` are all layers, of which the survey may hold the first few while it runs.  `chosen`
    (layer, task) is framed.  A point of no size lies on each cell: heatmaps cannot be selected,
    points can, and they carry (layer, task) as `customdata`.
    """
    values = survey.values(quantity, kind, rank)
    if bool(values.isnan().all()):
        return None
    how, titles = QUANTITIES[quantity], short_names(list(names))
    rows, columns = [safe(titles[name]) for name in names], [safe(task) for task in survey.tasks]
    table = values.tolist() + [[math.nan] * len(columns)] * (len(names) - len(values))
    labelled = len(rows) <= MOST_LABELLED
    figure, shown = go.Figure(), [[v if math.isfinite(v) else None for v in row] for row in table]
    numbers = [[how.cell(v) for v in row] for row in table]
    scale = _colours(survey, quantity)
    heatmap(figure, columns, rows, shown, labelled, text=numbers, **scale)
    x, y = columns * len(rows), [row for row in rows for _ in columns]
    data = [[name, task] for name in names for task in survey.tasks]
    said = [how.number(v) if math.isfinite(v) else "not measured" for row in table for v in row]
    handles(figure, x, y, "%{y}<br>%{x}: %{text}", customdata=data, text=said)
    if chosen and chosen[0] in names and chosen[1] in survey.tasks:
        row, column = list(names).index(chosen[0]), survey.tasks.index(chosen[1])
        # Two lines, dark in light: seen on any colour and in both themes.
        frame(figure, row, column, color="#FFFFFF", width=5)
        frame(figure, row, column, color=VERMILLION, width=2.5)
    laid_out_cells(figure, min(MOST_HEIGHT, 60 + ROW * len(rows)), len(columns), len(rows))
    caption = _caption(survey, values, quantity, titles, kind, rank)
    return Figure(figure, f"Heatmap of layers by tasks: {how.title}. {caption}", caption)


def _colours(survey: Survey, quantity: Quantity) -> dict[str, object]:
    """A scale that diverges around the value by chance, if known, else a sequential one."""
    middle = _chance(survey, quantity)
    if quantity == "energy":  # 98 beside 100 % is no contrast
        return {"colorscale": UPWARDS, "zmin": 0, "zmax": 1}
    if middle is None:
        return {"colorscale": UPWARDS}
    values = survey.values(quantity)
    spread = max(float((values - middle).nan_to_num().abs().max()), 0.02)
    low, high = middle - spread, middle + spread
    return {"colorscale": AROUND, "zmid": middle, "zmin": low, "zmax": high}


def _chance(survey: Survey, quantity: Quantity) -> float | None:
    """What unrelated tasks would have, all layers alike."""
    entries, mass = chance_conflict(len(survey.tasks))
    return {"sign conflict": entries, "sign conflict by mass": mass, "cosine": 0.0}.get(quantity)


def _caption(
    survey: Survey,
    values: Tensor,
    quantity: Quantity,
    titles: Mapping[str, str],
    kind: Kind = "essential",
    rank: int = 1,
) -> str:
    how, flat = QUANTITIES[quantity], values.reshape(-1)

    def place(index: int) -> str:
        row, column = divmod(index, len(survey.tasks))
        where = f"{survey.tasks[column]} in {titles[survey.layers[row].name]}"
        return f"{where} ({how.number(float(flat[index]))})"

    top, least = int(flat.nan_to_num(-math.inf).argmax()), int(flat.nan_to_num(math.inf).argmin())
    found = f"Most: {place(top)}. Least: {place(least)}. Mean: {how.number(float(flat.nanmean()))}."
    return f"{_meaning(quantity, kind, rank)} {found} {_beside(survey, quantity)}".rstrip()


def _meaning(quantity: Quantity, kind: Kind, rank: int) -> str:
    if quantity == "energy":
        return f"The percentage that the {rank} strongest of the {KINDS[kind]} hold."
    if quantity in ("effective rank", "stable rank"):
        return f"{QUANTITIES[quantity].meaning} Here of the {KINDS[kind]}."
    return QUANTITIES[quantity].meaning


def _beside(survey: Survey, quantity: Quantity) -> str:
    """What to hold the numbers against."""
    how, chance = QUANTITIES[quantity], _chance(survey, quantity)
    if quantity == "cosine":
        return "0 is a right angle: the tasks then change the weight in unrelated directions."
    if chance is not None:
        return f"Unrelated tasks would have {how.number(chance)}."
    if quantity == "energy":
        rooms = sorted({layer.room for layer in survey.layers})
        each = " or ".join(str(room) for room in rooms[:4])
        return f"With {len(survey.tasks)} tasks each has room for d_out / T = {each} directions."
    if quantity == "overlap":
        shares = [layer.room / layer.shape[0] for layer in survey.layers]
        return f"Unrelated subspaces of d_out / T directions would have {how.number(max(shares))}."
    return ""


def layer_profile(
    survey: Survey, quantity: Quantity, looks: Mapping[str, Look], chosen: str
) -> Figure | None:
    """One quantity by layer, a line for each task, with the chosen layer marked."""
    values = survey.values(quantity)
    if bool(values.isnan().all()):
        return None
    how, names = QUANTITIES[quantity], [layer.name for layer in survey.layers]
    titles = short_names(names)
    rows = [safe(titles[name]) for name in names]
    figure = go.Figure()
    if chosen in names:
        at = names.index(chosen)
        figure.add_hrect(at - 0.5, at + 0.5, fillcolor=GREY, opacity=0.25, line_width=0)
    for index, task in enumerate(survey.tasks):
        look = looks[task]
        x = [v if math.isfinite(v) else None for v in values[:, index].tolist()]
        marker = {"marker_size": 8, "marker_color": look.colour}
        paler = replace(look, colour=pale(look.colour))
        hover = f"{safe(task)}, %{{y}}: %{{x:{'.1%' if how.percent else '.3g'}}}"
        curve(figure, paler, x, rows, hover, name=safe(task), line_width=1.5, **marker)
    chance = _chance(survey, quantity)
    if chance is not None:
        figure.add_vline(chance, line={"color": GREY, "width": 2, "dash": "dash"})
    laid_out(figure, min(MOST_HEIGHT, 150 + 18 * len(rows)))
    figure.update_yaxes(range=[len(rows) - 0.5, -0.5])
    figure.update_xaxes(title=how.title, tickformat=".0%" if how.percent else None)
    caption = _caption(survey, values, quantity, titles)
    return Figure(figure, f"{how.title} by layer, a line a task. {caption}", caption)
