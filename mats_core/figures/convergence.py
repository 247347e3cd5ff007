"""Conjugate gradients: residuals of every layer, and accuracy along the iterations."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

import plotly.graph_objects as go

from ..analysis import Trajectory
from ..evaluation import share
from ..names import group_of
from ..recipes import LayerReport
from .rows import merged
from .style import GREY, Figure, Look, curve, laid_out, look, percent, safe, short_names, thinned


def residual_curves(layers: Sequence[LayerReport]) -> Figure | None:
    """The relative residual of every layer against iterations, with the median and the largest."""
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
        x, y = thinned(layer.residuals)
        hover = f"{safe(names[layer.name])}<br>iteration %{{x}}: %{{y:.2e}}"
        label, first = safe(titles[group].replace("* · ", "")), group not in seen
        grouped = {"name": label, "legendgroup": group, "showlegend": first, "opacity": 0.75}
        curve(figure, how, x, y, hover, mode="lines", line_width=1.2, **grouped)
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
        x, y = thinned(overall)
        figure.add_scatter(
            x=x, y=y, mode="lines", name=name, line={"color": GREY, "width": 4, "dash": dash}
        )
    laid_out(figure, 420)
    figure.update_xaxes(title="iteration", rangemode="tozero")
    figure.update_yaxes(type="log", dtick=1, exponentformat="power", title="relative residual")
    last = {layer.name: layer.residuals[-1] for layer in solved}
    worst = max(last, key=lambda name: last[name])
    converged = sum(layer.status.startswith(("converged", "closed")) for layer in solved)
    caption = (
        f"{converged} of {len(solved)} layers converged. The median relative residual ended at "
        f"{statistics.median(last.values()):.1e}; the largest, {last[worst]:.1e}, belongs to "
        f"{names[worst]}. {_estimated(solved, names)}A small residual says that the equations are "
        "solved, not that the merge is good: look at the accuracy along the iterations."
    )
    return Figure(figure, f"Residual of each layer against CG iterations. {caption}", caption)


def _estimated(layers: Sequence[LayerReport], names: Mapping[str, str]) -> str:
    """What is said of the update's error; "" where it was estimated of no layer."""
    last = {one.name: one.errors[-1] for one in layers if one.errors and isfinite(one.errors[-1])}
    if not last:
        return ""
    worst = max(last, key=lambda name: last[name])
    return (
        f"The update is estimated to lack {percent(statistics.median(last.values()))} of the "
        f"solution in the median, {percent(last[worst])} in {names[worst]}; with little damping "
        "it may lack more. "
    )


def solve_at(layers: Sequence[LayerReport], iteration: int) -> tuple[float, float]:
    """(median relative residual, distance ‖X − X₀‖_F over all layers) after so many iterations.

    A layer that stopped before keeps its last values.
    """
    solved = [layer for layer in layers if layer.residuals]
    residuals = [la.residuals[min(iteration, len(la.residuals) - 1)] for la in solved]
    moved = [la.distances[min(iteration, len(la.distances) - 1)] for la in solved if la.distances]
    return statistics.median(residuals or [0.0]), sum(d * d for d in moved) ** 0.5


def trajectory_curves(runs: Mapping[str, Trajectory]) -> Figure:
    """The mean normalised accuracy against CG iterations, a line for each solve."""
    figure = go.Figure()
    sentences = []
    for index, (label, trajectory) in enumerate(runs.items()):
        x = [str(p.iteration) for p in trajectory.points]
        y = [p.normalised_accuracy for p in trajectory.points]
        hover = f"{safe(label)}<br>after %{{x}} iterations: %{{y:.1%}}"
        curve(figure, look(index), x, y, hover, name=safe(label), line_width=3, marker_size=9)
        sentences.append(_story(label, trajectory))
    laid_out(figure)
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
    rows = [row for label, solve in runs.items() for row in _rows(solve, label)]
    return Figure(figure, "Normalised accuracy against CG iterations. " + caption, caption, rows)


def _rows(solve: Trajectory, label: str) -> list[dict[str, Any]]:
    return [
        row
        for point in solve.points
        for row in merged(point.results, label, solve.split, iteration=point.iteration)
    ]


def _story(label: str, trajectory: Trajectory) -> str:
    points = trajectory.points
    best = max(points, key=lambda p: p.normalised_accuracy)
    last = points[-1]
    text = (
        f"{label[:1].upper()}{label[1:]}: best after {_count(best.iteration)} "
        f"({percent(best.normalised_accuracy)})"
    )
    lost = 100 * (best.normalised_accuracy - last.normalised_accuracy)
    if lost >= 0.5:
        return f"{text}, {lost:.1f} points lower after {last.iteration}: stopping early helps."
    if best is last:
        return f"{text}, and still the best at the end."
    return f"{text}; it stays there up to {last.iteration}."


def _count(iterations: int) -> str:
    return "1 iteration" if iterations == 1 else f"{iterations} iterations"


def trajectory_tasks(trajectory: Trajectory, tasks: Mapping[str, Look]) -> Figure:
    """The accuracy of each task against CG iterations."""
    figure = go.Figure()
    changes = {}
    x = [str(point.iteration) for point in trajectory.points]
    for name in (result.name for result in trajectory.points[0].results):
        y = [share(r) for point in trajectory.points for r in point.results if r.name == name]
        changes[name] = y[-1] - max(y)
        hover = f"{safe(name)}: %{{y:.1%}} after %{{x}}"
        curve(figure, tasks[name], x, y, hover, name=safe(name))
    laid_out(figure)
    figure.update_xaxes(type="category", title="CG iterations")
    figure.update_yaxes(tickformat=".0%", title="share of the expert's accuracy")
    loser = min(changes, key=lambda name: changes[name])
    caption = (
        f"Task by task. {loser} falls furthest below its best: "
        f"{-100 * changes[loser]:.1f} points at the end."
        if changes[loser] < -0.005
        else "Task by task. No task ends visibly below its best."
    )
    rows = _rows(trajectory, "merge")
    return Figure(figure, f"Share of accuracy of each task by iteration. {caption}", caption, rows)
