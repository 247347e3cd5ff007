"""Why one merge is better than another: by task as measured, by layer as predicted, and both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from ..analysis import Why
from ..errors import listing
from ..evaluation import Comparison, Difference, TaskResult
from .comparison import ALL_TASKS
from .correlation import correlation_words
from .style import (
    BLUE,
    GREY,
    ORANGE,
    PLAIN,
    Figure,
    Look,
    curve,
    laid_out,
    percent,
    safe,
    short_names,
    whiskers,
)

SIDES = ("middle right", "middle left")  # of neighbours, for their names
Names = tuple[str, str]  # labels of the first merge and of the second


def points(part: Difference) -> str:
    """Words such as `+2.1 points (+0.4 to +3.8)`."""
    text = f"{100 * part.value:+z.1f} points ({100 * part.low:+z.1f} to {100 * part.high:+z.1f})"
    return text.replace("-", "−")


def asked_of_both(first: Sequence[TaskResult], second: Sequence[TaskResult], split: str) -> str:
    """Words such as `4,000 test examples of 8 tasks`, of which both were asked."""
    others = {result.name: result.merged for result in second}
    pairs = [(r.merged, others[r.name]) for r in first if r.name in others]
    count = sum(min(ours.examples, theirs.examples) for ours, theirs in pairs)
    return f"{count:,} {split} examples of {len(pairs)} task{'s' if len(pairs) != 1 else ''}"


def verdict(found: Comparison, names: Names) -> str:
    """Whether the first is better than the second, in a sentence; what it rests on is the mean of
    the differences in normalised accuracy."""
    if found.mean is None:
        return f"{names[0]} and {names[1]} were tested on no task in common."
    how = "better" if found.mean.low > 0 else "worse" if found.mean.high < 0 else ""
    said = f"{points(found.mean)} of mean normalised accuracy"
    if not how:
        return f"{names[0]} is not clearly better or worse than {names[1]}: {said}."
    return f"{names[0]} is {how} than {names[1]}: {said}."


def why_tasks(found: Comparison, looks: Mapping[str, Look], names: Names, tested: str) -> Figure:
    """The measured differences by task, largest first, and in the mean, with 95 % intervals.

    `tested`: on what, in words.
    """
    ordered = sorted(found.tasks, key=lambda name: -found.tasks[name].value)
    figure = go.Figure()
    figure.add_vline(x=0, line={"color": GREY, "width": 2})
    parts = [(name, found.tasks[name], looks[name]) for name in ordered]
    if found.mean is not None:
        parts.append((ALL_TASKS, found.mean, Look(GREY, "solid", "diamond-tall")))
    for name, part, look in parts:
        error = whiskers([part.high - part.value], [part.value - part.low], color=look.colour)
        hover = f"{safe(name)}: {points(part)}"
        style = {"name": safe(name), "mode": "markers", "marker_size": 11, "showlegend": False}
        curve(figure, look, [part.value], [safe(name)], hover, error_x=error, **style)
    laid_out(figure, 90 + 34 * len(parts))
    rows = [safe(name) for name, _, _ in parts]
    figure.update_yaxes(categoryorder="array", categoryarray=rows[::-1], type="category")
    figure.update_xaxes(tickformat="+.0%", title=f"{safe(names[0])} minus {safe(names[1])}")
    better = [name for name in ordered if found.tasks[name].low > 0]
    worse = [name for name in ordered if found.tasks[name].high < 0]
    paired = all(part.paired for part in found.tasks.values())
    rest = len(ordered) - len(better) - len(worse)
    chance = f"; on the other {rest} of {len(ordered)} tasks it may be chance" if rest else ""
    caption = (
        f"{verdict(found, names)} Clearly better on {listing(better, 8) or 'no task'}; clearly "
        f"worse on {listing(worse, 8) or 'none'}{chance}. Differences in accuracy with 95 % "
        f"intervals, {'answer by answer, ' if paired else ''}on {tested}."
    )
    table = [
        {
            "task": name, "difference": part.value, "low": part.low, "high": part.high,
            "paired": part.paired,
        }
        for name, part, _ in parts
    ]  # fmt: skip
    return Figure(figure, f"Differences by task. {caption}", caption, table)


def why_layers(why: Why, names: Names) -> Figure | None:
    """What the first merge saves in each layer, nats summed over the experts, as predicted; None
    without a layer."""
    saved = why.by_layer
    if not saved:
        return None
    titles = short_names(list(saved))
    rows, values = [safe(titles[name]) for name in saved], list(saved.values())
    figure = go.Figure()
    figure.add_bar(
        x=values, y=rows, orientation="h",
        marker={"color": [BLUE if value >= 0 else ORANGE for value in values]},
        hovertemplate="%{y}: %{x:+.3g} nats" + PLAIN,
    )  # fmt: skip
    figure.add_vline(x=0, line={"color": GREY, "width": 1})
    laid_out(figure, min(900, max(280, 80 + 17 * len(rows))))
    figure.update_yaxes(autorange="reversed", showgrid=False, dtick=1 if len(rows) <= 60 else None)
    figure.update_xaxes(title="predicted saving, nats an example")
    caption = _layers_caption(why, names)
    table = [{"layer": name, "saved": value} for name, value in saved.items()]
    return Figure(figure, f"Bars of predicted cost by layer. {caption}", caption, table)


def _layers_caption(why: Why, names: Names) -> str:
    saved = why.by_layer
    titles = short_names(list(saved))
    ours, theirs = (float(np.nansum(cost)) for cost in (why.first, why.second))
    better = sum(value > 0 for value in saved.values())
    text = (
        f"To second order the experts' losses rise by {ours:.3g} nats an example in {names[0]}, "
        f"summed over experts and layers, and by {theirs:.3g} in {names[1]}; by less in {better} "
        f"of {len(saved)} layers. "
    )
    gain = theirs - ours
    if not gain:
        return text.strip()
    most = max(saved, key=lambda name: saved[name] / gain)
    share = saved[most] / gain
    whose = "saving" if gain > 0 else "extra cost"
    return text + f"The largest part of the {whose}, {percent(share, 0)}, is {titles[most]}'s."


def why_explained(
    why: Why, found: Comparison, looks: Mapping[str, Look], names: Names, tested: str
) -> Figure | None:
    """Predicted saving against measured difference, a point a task, and whether the one explains
    the other; None where no task has both."""
    saved = why.by_task
    shared = [task for task in found.tasks if task in saved]
    if not shared:
        return None
    figure = go.Figure()
    for place, task in enumerate(sorted(shared, key=lambda task: saved[task])):
        part, look = found.tasks[task], looks[task]
        error = whiskers([part.high - part.value], [part.value - part.low], color=look.colour)
        hover = f"{safe(task)}<br>predicted %{{x:+.3g}} nats<br>measured {points(part)}"
        style = {"mode": "markers+text", "text": [safe(task)], "textposition": SIDES[place % 2]}
        style |= {"name": safe(task), "marker_size": 11, "showlegend": False}
        curve(figure, look, [saved[task]], [part.value], hover, error_y=error, **style)
    figure.add_hline(y=0, line={"color": GREY, "width": 1, "dash": "dot"})
    figure.add_vline(x=0, line={"color": GREY, "width": 1, "dash": "dot"})
    laid_out(figure, 400)
    low, high = min(saved[t] for t in shared), max(saved[t] for t in shared)
    room = 0.15 * (high - low) or 0.1  # for the names
    figure.update_xaxes(range=[min(low, 0) - room, max(high, 0) + room])
    figure.update_xaxes(title="predicted saving, nats an example")
    figure.update_yaxes(tickformat="+.0%", title="measured difference")
    caption = f"{explained(why, found)} Measured on {tested}, {names[0]} minus {names[1]}."
    return Figure(figure, f"Predicted against measured, by task. {caption}", caption)


def explained(why: Why, found: Comparison) -> str:
    """How much of the measured difference by task the prediction explains, in a sentence."""
    known = why.explained(found.tasks)
    if known is None:
        return (
            "The prediction cannot be compared with what was measured: fewer than three tasks have "
            "both, or they do not differ."
        )
    said = correlation_words(known)
    if not known.clear:
        return f"The prediction does not explain which tasks gain: {said}."
    if known.value < 0:
        return f"The prediction is the wrong way round: {said}."
    return (
        f"The prediction explains which tasks gain, {percent(known.value**2, 0)} of the variance "
        f"of their order: {said}."
    )
