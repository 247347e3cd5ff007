"""Results → plotly figures; no files, no page.

Every function returns a `Figure`: what to draw, what a screen reader says, and one or two sentences
with the numbers of this very result.  One colour, dash and marker a task everywhere (Okabe–Ito;
its black, which a dark page would swallow, is grey here).  Backgrounds and fonts are left to the
page's theme.
"""

from __future__ import annotations

import html
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from .evaluate import TaskResult, gap_recovered, normalised_accuracy
from .families import group_of
from .report import LayerReport, Report
from .spectra import KINDS, Kind, Spectrum
from .trajectory import Trajectory

ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILLION, PURPLE, GREY = (
    "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#8A8F96",
)  # fmt: skip
# Neighbours in this order differ in lightness as well as in hue.
PALETTE = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILLION, GREY, YELLOW)
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "solid", "dash")
MARKERS = (
    "circle", "square", "diamond", "triangle-up", "cross", "x", "star", "triangle-down",
)  # fmt: skip
MOST_POINTS = 2000  # of a curve: more are thinned out, the eye sees no difference
HEIGHT = 380


@dataclass(frozen=True)
class Figure:
    """What to draw, its alternative text, and what it says about this result."""

    figure: go.Figure
    alt: str
    caption: str


@dataclass(frozen=True)
class Look:
    """How one task is drawn, everywhere."""

    colour: str
    dash: str
    marker: str


def look(index: int) -> Look:
    """The look of the `index`-th task; after eight the dashes and markers move on."""
    turn = index // len(PALETTE)
    return Look(
        PALETTE[index % len(PALETTE)],
        DASHES[(index + turn) % len(DASHES)],
        MARKERS[(index + turn) % len(MARKERS)],
    )


def looks(names: Iterable[str]) -> dict[str, Look]:
    """A look for each task of a family, by its place there."""
    return {name: look(index) for index, name in enumerate(names)}


def safe(name: str) -> str:
    """A name as text: plotly reads HTML in labels."""
    return html.escape(name, quote=False)


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Layer names without what all of them share: `vit.encoder.layer.0.attention.query.weight` →
    `0 · attention · query`."""
    parts = {name: _parts(name) for name in names}
    lists = list(parts.values())
    shared = 0
    while len(lists) > 1 and all(
        len(p) > shared + 1 and p[shared] == lists[0][shared] for p in lists
    ):
        shared += 1
    return {name: " · ".join(p[shared:]) for name, p in parts.items()}


def _parts(name: str) -> list[str]:
    parts = [part for part in name.split(".") if part]
    if len(parts) > 1 and parts[-1] == "weight":
        parts = parts[:-1]
    return [p for i, p in enumerate(parts) if i == 0 or p != parts[i - 1]]


def percent(value: float, digits: int = 1) -> str:
    return f"{100 * value:.{digits}f} %"


def _layout(figure: go.Figure, height: int = HEIGHT, **layout: Any) -> go.Figure:
    figure.update_layout(
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 8, "r": 8, "t": 8, "b": 8},
        height=height,
        legend={"orientation": "h", "y": -0.2, "x": 0, "title": None},
        hoverlabel={"namelength": -1},
        **layout,
    )
    figure.update_xaxes(automargin=True)
    figure.update_yaxes(automargin=True)
    return figure


# Accuracy -----------------------------------------------------------------------------------------


def accuracy_bars(
    results: Sequence[TaskResult],
    tasks: Mapping[str, Look],
    *,
    label: str = "merged",
    beside: Sequence[TaskResult] = (),
    beside_label: str = "beside",
) -> Figure:
    """A bar a task that fills the expert's pale one; a second, hatched, for the run beside.

    Bars carry their 95 % interval; a diamond is the pre-trained encoder with the expert's head.
    """
    figure = go.Figure()
    _experts(figure, results, tasks)
    width = WIDTH / 2 - 0.05 if beside else WIDTH - 0.16
    places = [r.name for r in results]
    _bars(figure, results, places, tasks, label, -width if beside else -width / 2, width)
    if beside:
        _bars(figure, beside, places, tasks, beside_label, 0.0, width, hatched=True)
    _pretrained(figure, results)
    _frame(figure, results)
    ours = normalised_accuracy(results)
    worst, best = min(results, key=_share), max(results, key=_share)
    caption = (
        f"On average the merged model keeps {percent(ours)} of each expert's accuracy: "
        f"most on {best.name} ({percent(_share(best))}), least on {worst.name} "
        f"({percent(_share(worst))}). "
    )
    if beside:
        difference = 100 * (ours - normalised_accuracy(beside))
        caption += f"That is {difference:+.1f} points against {beside_label} (hatched). "
    caption += "Whiskers are 95 % intervals."
    alt = (
        f"Bars of accuracy by task. {label}: {percent(ours)} of the experts' accuracy on average, "
        f"from {percent(_share(worst))} on {worst.name} to {percent(_share(best))} on {best.name}."
    )
    return Figure(figure, alt, caption)


def baseline_bars(results: Sequence[TaskResult], tasks: Mapping[str, Look]) -> Figure:
    """Experts against the pre-trained encoder: the gap that a merge can close."""
    figure = go.Figure()
    _experts(figure, results, tasks)
    _pretrained(figure, results)
    _frame(figure, results)
    tuned = statistics.mean(r.finetuned.accuracy for r in results)
    base = statistics.mean(r.pretrained.accuracy for r in results)
    text = (
        f"Before any merge: the experts reach {percent(tuned)} on average, each on its own task; "
        f"the pre-trained encoder with their heads {percent(base)}. "
    )
    if tuned > base:
        text += (
            f"A merge has to close this gap of {100 * (tuned - base):.1f} points with one encoder "
            f"for all {len(results)} tasks."
        )
    else:
        text += "There is no gap to close: these experts are no better than their base."
    return Figure(figure, f"Bars of accuracy by task. {text}", text)


WIDTH = 0.84  # of a task's place on the axis


def _share(result: TaskResult) -> float:
    return result.merged.accuracy / max(result.finetuned.accuracy, 1e-12)


def _experts(figure: go.Figure, results: Sequence[TaskResult], tasks: Mapping[str, Look]) -> None:
    """What there is to reach: a pale bar, as wide as the task's place."""
    colours = [tasks[r.name].colour for r in results]
    figure.add_bar(
        x=list(range(len(results))),
        y=[r.finetuned.accuracy for r in results],
        width=WIDTH,
        marker={"color": [_pale(c) for c in colours], "line": {"color": colours, "width": 1}},
        customdata=[safe(r.name) for r in results],
        hovertemplate="%{customdata}: expert %{y:.1%}<extra></extra>",
        showlegend=False,
    )
    figure.add_scatter(
        x=[None], y=[None], mode="markers", name="expert",
        marker={"symbol": "square", "size": 12, "color": _pale(GREY),
                "line": {"color": GREY, "width": 1}},
    )  # fmt: skip


def _pale(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.2)"


def _bars(
    figure: go.Figure,
    results: Sequence[TaskResult],
    places: Sequence[str],
    tasks: Mapping[str, Look],
    label: str,
    offset: float,
    width: float,
    *,
    hatched: bool = False,
) -> None:
    colours = [tasks[r.name].colour for r in results]
    marker: dict[str, Any] = {"color": colours}
    if hatched:
        marker = {
            "color": [_pale(c) for c in colours],
            "line": {"color": colours, "width": 1.5},
            "pattern": {"shape": "/", "fgcolor": colours, "size": 6, "solidity": 0.3},
        }
    figure.add_bar(
        x=[places.index(r.name) for r in results],
        y=[r.merged.accuracy for r in results],
        offset=offset,
        width=width,
        customdata=[[safe(r.name), _share(r)] for r in results],
        marker=marker,
        showlegend=False,
        hovertemplate=f"{safe(label)}<br>%{{customdata[0]}}: %{{y:.1%}}, "
        "%{customdata[1]:.1%} of the expert<extra></extra>",
    )
    # Whiskers as a trace of their own: error bars of shifted bars are not drawn at their middle.
    figure.add_scatter(
        x=[places.index(r.name) + offset + width / 2 for r in results],
        y=[r.merged.accuracy for r in results],
        mode="markers",
        marker={"opacity": 0, "size": 1},
        error_y={
            "type": "data", "symmetric": False, "color": GREY, "thickness": 1.5, "width": 3,
            "array": [r.merged.interval[1] - r.merged.accuracy for r in results],
            "arrayminus": [r.merged.accuracy - r.merged.interval[0] for r in results],
        },
        hoverinfo="skip",
        showlegend=False,
    )  # fmt: skip
    figure.add_scatter(
        x=[None], y=[None], mode="markers", name=safe(label),
        marker={"symbol": "square-open" if hatched else "square", "size": 12, "color": GREY},
    )  # fmt: skip


def _pretrained(figure: go.Figure, results: Sequence[TaskResult]) -> None:
    figure.add_scatter(
        x=list(range(len(results))),
        y=[r.pretrained.accuracy for r in results],
        mode="markers",
        name="pre-trained encoder",
        marker={
            "symbol": "diamond", "size": 10, "color": "#FFFFFF",
            "line": {"width": 2, "color": "#4A5561"},
        },
        customdata=[safe(r.name) for r in results],
        hovertemplate="%{customdata}: pre-trained %{y:.1%}<extra></extra>",
    )  # fmt: skip


def _frame(figure: go.Figure, results: Sequence[TaskResult]) -> None:
    _layout(figure, barmode="overlay")
    figure.update_xaxes(
        tickvals=list(range(len(results))),
        ticktext=[safe(r.name) for r in results],
        range=[-0.6, len(results) - 0.4],
        showgrid=False,
        zeroline=False,
    )
    figure.update_yaxes(range=[0, 1.04], tickformat=".0%", title="accuracy")


# Conjugate gradients ------------------------------------------------------------------------------


def residual_curves(layers: Sequence[LayerReport]) -> Figure | None:
    """Relative residual of every layer against iterations, with the median and the largest."""
    solved = [layer for layer in layers if len(layer.residuals) > 1]
    if not solved:
        return None
    names = short_names([layer.name for layer in solved])
    groups = list(dict.fromkeys(group_of(layer.name) for layer in solved))
    titles = short_names(groups)
    figure = go.Figure()
    seen: set[str] = set()
    for layer in solved:
        group = group_of(layer.name)
        how = look(groups.index(group))
        x, y = _thinned(layer.residuals)
        figure.add_scatter(
            x=x,
            y=y,
            mode="lines",
            name=safe(titles[group].replace("* · ", "")),
            legendgroup=group,
            showlegend=group not in seen,
            line={"color": how.colour, "width": 1.2, "dash": how.dash},
            opacity=0.75,
            hovertemplate=f"{safe(names[layer.name])}<br>iteration %{{x}}: %{{y:.2e}}"
            "<extra></extra>",
        )
        seen.add(group)
    for name, choose, dash in (
        ("median of the layers", statistics.median, "solid"),
        ("largest", max, "dot"),
    ):
        longest = max(len(layer.residuals) for layer in solved)
        # A layer that stopped keeps its last residual.
        overall = [
            choose([layer.residuals[min(i, len(layer.residuals) - 1)] for layer in solved])
            for i in range(longest)
        ]
        x, y = _thinned(overall)
        figure.add_scatter(
            x=x, y=y, mode="lines", name=name, line={"color": GREY, "width": 4, "dash": dash}
        )
    _layout(figure, 420)
    figure.update_xaxes(title="iteration", rangemode="tozero")
    figure.update_yaxes(type="log", dtick=1, exponentformat="power", title="relative residual")
    last = {layer.name: layer.residuals[-1] for layer in solved}
    worst = max(last, key=lambda name: last[name])
    converged = sum(layer.status.startswith(("converged", "closed")) for layer in solved)
    caption = (
        f"{converged} of {len(solved)} layers converged. The median relative residual ended at "
        f"{statistics.median(last.values()):.1e}; the largest, {last[worst]:.1e}, belongs to "
        f"{names[worst]}. A small residual says that the equations are solved, not that the merge "
        "is good: look at the accuracy along the iterations."
    )
    return Figure(figure, f"Residual of each layer against CG iterations. {caption}", caption)


def trajectory_curves(runs: Mapping[str, Trajectory]) -> Figure:
    """Mean normalised accuracy against CG iterations, a line for each solve."""
    figure = go.Figure()
    sentences = []
    for index, (label, trajectory) in enumerate(runs.items()):
        how = look(index)
        points = trajectory.points
        figure.add_scatter(
            x=[str(p.iteration) for p in points],
            y=[p.normalised_accuracy for p in points],
            mode="lines+markers",
            name=safe(label),
            line={"color": how.colour, "width": 3, "dash": how.dash},
            marker={"symbol": how.marker, "size": 9},
            hovertemplate=f"{safe(label)}<br>after %{{x}} iterations: %{{y:.1%}}<extra></extra>",
        )
        sentences.append(_story(label, trajectory))
    _layout(figure)
    longest = max(runs.values(), key=lambda t: len(t.points))
    figure.update_xaxes(
        type="category",
        title="CG iterations",
        categoryorder="array",
        categoryarray=[str(p.iteration) for p in longest.points],
    )
    figure.update_yaxes(tickformat=".0%", title="share of the experts' accuracy")
    sample = next(iter(runs.values()))
    size = f"{sample.examples} " if sample.examples else ""
    caption = " ".join(sentences) + f" Measured on {size}{sample.split} examples a task."
    return Figure(figure, "Normalised accuracy against CG iterations. " + caption, caption)


def _story(label: str, trajectory: Trajectory) -> str:
    points = trajectory.points
    best = max(points, key=lambda p: p.normalised_accuracy)
    last = points[-1]
    text = (
        f"{label[:1].upper()}{label[1:]}: best after {best.iteration} iterations "
        f"({percent(best.normalised_accuracy)})"
    )
    lost = 100 * (best.normalised_accuracy - last.normalised_accuracy)
    if lost >= 0.5:
        return f"{text}, {lost:.1f} points lower after {last.iteration}: stopping early helps."
    if best is last:
        return f"{text}, and still the best at the end."
    return f"{text}; it stays there up to {last.iteration}."


def trajectory_tasks(trajectory: Trajectory, tasks: Mapping[str, Look]) -> Figure:
    """Accuracy of each task against CG iterations."""
    figure = go.Figure()
    changes = {}
    for name in (result.name for result in trajectory.points[0].results):
        how = tasks[name]
        values = [
            next(_share(r) for r in point.results if r.name == name) for point in trajectory.points
        ]
        changes[name] = values[-1] - max(values)
        figure.add_scatter(
            x=[str(p.iteration) for p in trajectory.points],
            y=values,
            mode="lines+markers",
            name=safe(name),
            line={"color": how.colour, "dash": how.dash, "width": 2},
            marker={"symbol": how.marker, "size": 7},
            hovertemplate=f"{safe(name)}: %{{y:.1%}} after %{{x}}<extra></extra>",
        )
    _layout(figure)
    figure.update_xaxes(type="category", title="CG iterations")
    figure.update_yaxes(tickformat=".0%", title="share of the expert's accuracy")
    loser = min(changes, key=lambda name: changes[name])
    caption = (
        f"Task by task. {loser} falls furthest below its own best: "
        f"{-100 * changes[loser]:.1f} points at the end."
        if changes[loser] < -0.005
        else "Task by task. No task ends visibly below its own best."
    )
    return Figure(figure, f"Share of accuracy of each task by iteration. {caption}", caption)


def _thinned(values: Sequence[float]) -> tuple[list[int], list[float]]:
    step = max(1, math.ceil(len(values) / MOST_POINTS))
    chosen = list(range(0, len(values), step))
    if chosen and chosen[-1] != len(values) - 1:
        chosen.append(len(values) - 1)
    return chosen, [values[i] for i in chosen]


# Polarized scaling --------------------------------------------------------------------------------


def task_weights(report: Report, names: Sequence[str]) -> Figure | None:
    """The weight that each task got in each layer, and the factor of each layer."""
    layers = [layer for layer in report.layers if layer.details.get("task_weights")]
    if not layers:
        return None
    titles = short_names([layer.name for layer in layers])
    rows = [list(layer.details["task_weights"]) for layer in layers]
    factors = [float(layer.details.get("layer_weight", 1.0)) for layer in layers]
    values = [[*row, factor] for row, factor in zip(rows, factors, strict=True)]
    columns = [*(safe(name) for name in names), "<b>layer</b>"]
    figure = go.Figure(
        go.Heatmap(
            x=columns,
            y=[safe(titles[layer.name]) for layer in layers],
            z=[[math.log2(max(v, 1e-3)) for v in row] for row in values],
            text=[[f"{v:.2f}" for v in row] for row in values],
            texttemplate="%{text}" if len(layers) <= 60 else None,
            zmid=0,
            zmin=-2,
            zmax=2,
            colorscale=[(0, VERMILLION), (0.5, "#F4F4F2"), (1, BLUE)],
            colorbar={
                "tickvals": [-2, -1, 0, 1, 2],
                "ticktext": ["¼", "½", "1", "2", "4"],
                "title": None, "thickness": 10, "outlinewidth": 0,
            },
            hovertemplate="%{y}<br>%{x}: × %{text}<extra></extra>",
            xgap=2,
            ygap=2,
        )
    )  # fmt: skip
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(side="top")
    _layout(figure, max(HEIGHT, 70 + 22 * len(layers)))
    means = [statistics.mean(row[i] for row in rows) for i in range(len(names))]
    loud, quiet = means.index(max(means)), means.index(min(means))
    top = max(range(len(factors)), key=lambda i: factors[i])
    caption = (
        f"How loud each task speaks in each layer: {names[loud]} most (× {means[loud]:.2f} on "
        f"average), {names[quiet]} least (× {means[quiet]:.2f}). The last column is the factor of "
        f"the whole layer, largest in {titles[layers[top].name]} (× {factors[top]:.2f}). "
        "× 1 everywhere means that a level is switched off."
    )
    return Figure(figure, f"Heatmap of polarized-scaling weights. {caption}", caption)


def dimension_weights(layer: LayerReport) -> Figure | None:
    """The weights of a layer's input dimensions, largest first."""
    weights = sorted((float(w) for w in layer.details.get("dimension_weights", ())), reverse=True)
    if not weights:
        return None
    x, y = _thinned(weights)
    figure = go.Figure(
        go.Scatter(
            x=[i + 1 for i in x],
            y=[max(v, 1e-6) for v in y],
            mode="lines",
            fill="tozeroy",
            line={"color": BLUE, "width": 2},
            hovertemplate="dimension no. %{x}: × %{y:.2f}<extra></extra>",
        )
    )
    _layout(figure, 260)
    figure.update_xaxes(title="input dimensions, strongest first")
    figure.update_yaxes(title="weight", rangemode="tozero")
    above = sum(w > 1 for w in weights)
    caption = (
        f"{above} of {len(weights)} input dimensions are amplified, the strongest × "
        f"{weights[0]:.1f}; the weakest keeps × {weights[-1]:.2f}."
    )
    return Figure(figure, f"Weights of input dimensions. {caption}", caption)


# Spectra ------------------------------------------------------------------------------------------


def spectra(found: Mapping[str, Spectrum], kind: Kind, tasks: Mapping[str, Look]) -> Figure | None:
    """All tasks' spectra of one layer in one logarithmic plot."""
    if not found:
        return None
    figure = go.Figure()
    top = max(float(s.values.max()) for s in found.values()) or 1.0
    for name, own in found.items():
        how = tasks[name]
        values = [float(v) for v in own.values]
        x, y = _thinned(values)
        # Below float32's noise the numbers say nothing; None leaves a gap.
        shown = [v if v > 1e-9 * top else None for v in y]
        figure.add_scatter(
            x=[i + 1 for i in x],
            y=[math.sqrt(v) if v is not None and kind == "task matrix" else v for v in shown],
            mode="lines+markers",
            name=safe(name),
            line={"color": how.colour, "dash": how.dash, "width": 2},
            marker={"symbol": how.marker, "size": 7, "maxdisplayed": 12},
            hovertemplate=f"{safe(name)}<br>no. %{{x}}: %{{y:.3g}}<extra></extra>",
        )
    _layout(figure, 420)
    figure.update_xaxes(title="number of the direction, strongest first")
    figure.update_yaxes(
        type="log",
        dtick=1,
        exponentformat="power",
        title="singular value" if kind == "task matrix" else "eigenvalue",
    )
    ranks = {name: own.effective_rank for name, own in found.items()}
    wide, narrow = max(ranks, key=lambda n: ranks[n]), min(ranks, key=lambda n: ranks[n])
    size = len(next(iter(found.values())).values)
    caption = (
        f"{KINDS[kind][:1].upper()}{KINDS[kind][1:]}. Of {size} directions {narrow} uses about "
        f"{ranks[narrow]:.0f} and {wide} about {ranks[wide]:.0f} (effective rank). The faster a "
        "curve falls, the fewer directions its task really needs."
    )
    return Figure(figure, f"Logarithmic plot of {KINDS[kind]}. {caption}", caption)


def energy_curves(found: Mapping[str, Spectrum], tasks: Mapping[str, Look], rank: int) -> Figure:
    """Share of the energy that the first r directions keep, with a line at `rank`."""
    figure = go.Figure()
    for name, own in found.items():
        how = tasks[name]
        values = own.values.double()
        total = float(values.sum()) or 1.0
        x, y = _thinned([0.0, *(values.cumsum(0) / total).tolist()])
        figure.add_scatter(
            x=x,
            y=y,
            mode="lines",
            name=safe(name),
            line={"color": how.colour, "dash": how.dash, "width": 2},
            hovertemplate=f"{safe(name)}: %{{y:.1%}} with %{{x}} directions<extra></extra>",
        )
    figure.add_vline(x=rank, line={"color": GREY, "width": 2, "dash": "dash"})
    _layout(figure, 320)
    figure.update_xaxes(title="directions kept")
    figure.update_yaxes(range=[0, 1.02], tickformat=".0%", title="energy kept")
    kept = {name: own.energy(rank) for name, own in found.items()}
    best, worst = max(kept, key=lambda n: kept[n]), min(kept, key=lambda n: kept[n])
    caption = (
        f"With {rank} directions a task, {best} keeps {percent(kept[best])} of its energy and "
        f"{worst} {percent(kept[worst])}."
    )
    return Figure(figure, f"Energy kept against rank. {caption}", caption)


def headline(report: Report) -> dict[str, float | None]:
    """The numbers over a result: None where nothing was evaluated."""
    if not report.tasks:
        return {"normalised": None, "gap": None, "accuracy": None}
    return {
        "normalised": normalised_accuracy(report.tasks),
        "gap": gap_recovered(report.tasks),
        "accuracy": statistics.mean(r.merged.accuracy for r in report.tasks),
    }
