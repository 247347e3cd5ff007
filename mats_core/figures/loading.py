"""Layer-by-layer loading: accuracy while merged parts are swapped in, and what each part brings."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable

import plotly.graph_objects as go

from ..analysis import ORDERINGS, Loading, Ordering, Step
from ..evaluation import share
from .rows import merged
from .style import AROUND, HEIGHT, Figure, curve, heatmap, laid_out, look, percent, safe

ENOUGH = 0.9  # of the gain: how soon an ordering has that much
SMALL = 0.005  # a gain that is not worth dividing by


def loading_curves(loading: Loading, task: str | None = None) -> Figure:
    """The share of the experts' accuracy against the number of parts swapped in, by ordering.

    `task`: that task alone instead of the mean over all of them.
    """
    value = _value(task)
    figure = go.Figure()
    for index, (ordering, steps) in enumerate(loading.curves.items()):
        name, x, y = ORDERINGS[ordering], list(range(len(steps))), [value(s) for s in steps]
        said = [f"+ {safe(s.part)}" if s.part else "nothing yet: the base" for s in steps]
        hover = f"{name}<br>%{{customdata}}: %{{y:.1%}}"
        style = {"name": name, "customdata": said, "line_width": 3, "marker_size": 9}
        curve(figure, look(index), x, y, hover, **style)
    laid_out(figure)
    figure.update_xaxes(
        title="merged parts swapped in", dtick=1 if len(loading.parts) <= 20 else None
    )
    figure.update_yaxes(tickformat=".0%", title="share of the experts' accuracy")
    whose = task if task is not None else "Mean over the tasks"
    caption = f"{whose}: {_story(loading, value)}{_measured(loading)}"
    rows = [
        row
        for ordering, steps in loading.curves.items()
        for count, step in enumerate(steps)
        for row in merged(
            step.results, "merge", loading.split, ordering=ORDERINGS[ordering], parts=count,
            last=step.part or "",
        )
    ]  # fmt: skip
    return Figure(figure, f"Accuracy while merged parts are swapped in. {caption}", caption, rows)


def loading_steps(loading: Loading, task: str | None = None) -> Figure:
    """The points that each part brings at its step: a row a part, a column an ordering."""
    value = _value(task)
    orderings = list(loading.curves)
    brought = {ordering: gains(loading.curves[ordering], value) for ordering in orderings}
    rows = [[100 * brought[o][part] for o in orderings] for part in loading.parts]
    top = max((abs(v) for row in rows for v in row), default=0.0) or 1.0
    figure = go.Figure()
    columns = [ordering.replace(" ", "<br>") for ordering in orderings]
    texts = [[f"{v:+.1f}" if abs(v) >= 0.05 else "0" for v in row] for row in rows]
    scale = {"colorscale": AROUND, "reversescale": True, "zmid": 0, "zmin": -top, "zmax": top}
    names = [safe(part) for part in loading.parts]
    hover = "%{y}, %{x}: %{text} points<extra></extra>"
    heatmap(figure, columns, names, rows, text=texts, hovertemplate=hover, **scale)
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(side="top")
    laid_out(figure, max(HEIGHT, 80 + 24 * len(loading.parts)))
    mean = {part: statistics.mean(brought[o][part] for o in orderings) for part in loading.parts}
    best, worst = max(mean, key=lambda p: mean[p]), min(mean, key=lambda p: mean[p])
    caption = (
        f"Points that each part adds when its turn comes, blue for a gain. Over the orderings "
        f"{best} brings most ({100 * mean[best]:+.1f} points on average)"
    )
    if mean[worst] <= -0.0005:
        caption += f", {worst} costs most ({100 * mean[worst]:+.1f})"
    largest = max(loading.norms, key=lambda p: loading.norms[p])
    caption += f". The largest update is that of {largest}: " + (
        "size and use agree." if largest == best else "the largest is not the most useful."
    )
    return Figure(figure, f"Heatmap of what each part brings, by ordering. {caption}", caption)


def gains(steps: tuple[Step, ...], value: Callable[[Step], float]) -> dict[str, float]:
    """What each part adds to the value when it is swapped in."""
    return {str(now.part): value(now) - value(before) for before, now in itertools.pairwise(steps)}


def enough_after(steps: tuple[Step, ...], value: Callable[[Step], float]) -> int:
    """The number of parts after which `ENOUGH` of the gain from first to last is reached."""
    first, last = value(steps[0]), value(steps[-1])
    goal = first + ENOUGH * (last - first)
    return next(k for k, step in enumerate(steps) if value(step) >= goal)


def _value(task: str | None) -> Callable[[Step], float]:
    if task is None:
        return lambda step: step.normalised_accuracy
    return lambda step: share(next(r for r in step.results if r.name == task))


def _story(loading: Loading, value: Callable[[Step], float]) -> str:
    curves = loading.curves
    any_steps = next(iter(curves.values()))
    first, last = value(any_steps[0]), value(any_steps[-1])
    gain = last - first
    text = f"from {percent(first)} with the base to {percent(last)} with the whole merge. "
    if gain < SMALL:
        return text + "The merge gains nothing here, so no part contributes. "
    alone = {steps[1].part: value(steps[1]) - first for steps in curves.values() if len(steps) > 1}
    best = max(alone, key=lambda part: alone[part])
    name, part = str(best), percent(alone[best] / gain, 0)
    text += f"{name[:1].upper()}{name[1:]} alone brings {part} of that gain"
    text += ". " if len(alone) == 1 else ", the most of the parts that come first. "
    soon: dict[Ordering, int] = {o: enough_after(steps, value) for o, steps in curves.items()}
    parts = ", ".join(f"{count} ({ORDERINGS[o]})" for o, count in soon.items())
    text += f"Parts needed for {percent(ENOUGH, 0)} of the gain, of {len(loading.parts)}: {parts}. "
    ordering = max(curves, key=lambda o: max(value(step) for step in curves[o]))
    values = [value(step) for step in curves[ordering]]
    if max(values) - last >= SMALL:
        text += (
            f"With only {values.index(max(values))} parts ({ORDERINGS[ordering]}) it is "
            f"{100 * (max(values) - last):.1f} points better than with all of them. "
        )
    return text


def _measured(loading: Loading) -> str:
    first = next(iter(loading.curves.values()))[0]
    sizes = sorted({result.merged.examples for result in first.results})
    size = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    return f"Measured on {size} {loading.split} examples a task."


__all__ = ["enough_after", "gains", "loading_curves", "loading_steps"]
