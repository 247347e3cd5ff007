"""The views of a panel, each from what is known to HTML; "" where there is nothing to see.

Every sentence is computed from the numbers of this very state.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
import torch

from ..evaluation import Difference, TaskResult
from ..figures import percent, short_names
from ..methods import METHODS
from ..names import group_of
from ..recipes import LayerReport, Report
from . import svg
from .answers import LayerView, Run, State
from .beside import Beside, beside

SHOWN = 12  # rows of a table, and curves of a chart
POINTS = 60  # of a curve


def others(state: State, pinned: Run | None = None) -> list[Beside]:
    """What the average and a pinned run reach beside the newest result, on the same examples."""
    merge, average = state.merge, state.average
    if merge is None:
        return []
    found = []
    if average is not None and merge.report.method != "average":
        found.append(beside("average", merge.report, average.report))
    if pinned is not None:
        found.append(beside(pinned.label, merge.report, pinned.report))
    return [one for one in found if one is not None]


def tasks(state: State, pinned: Run | None = None) -> str:
    """What every task keeps, beside its expert, the average and a pinned run; distances without
    tasks."""
    merge, average = state.merge, state.average
    shown = merge or average
    if shown is None:
        return ""
    if not shown.report.tasks:
        return _distances(state)
    there = others(state, pinned)
    rows = []
    for task in shown.report.tasks[: 4 * SHOWN]:
        marks = [
            (r.merged.value, f"{one.name}: {percent(r.merged.value)}")
            for one in there
            for r in one.theirs
            if r.name == task.name
        ]
        rows.append(_row(task, marks, [one.comparison.tasks.get(task.name) for one in there]))
    versus = "".join(f'<th class="r" scope="col">− {escape(one.name)}</th>' for one in there)
    head = (
        '<tr><th scope="col">task</th><th class="bar"></th><th class="r" scope="col">merged</th>'
        f'{versus}<th class="r" scope="col">expert</th><th class="r" scope="col">pre-trained</th>'
        "</tr>"
    )
    return svg.table(head + "".join(rows)) + _legend(there)


def _row(
    task: TaskResult, marks: list[tuple[float, str]], versus: Sequence[Difference | None]
) -> str:
    drawn = svg.bar(
        svg.Bar(task.merged.value, task.merged.interval, task.finetuned.value, tuple(marks))
    )
    cells = "".join(_difference(one) for one in versus)
    metric = "" if task.merged.metric == "accuracy" else f" ({task.merged.metric})"
    return (
        f'<tr><td>{escape(task.name + metric)}</td><td class="bar">{drawn}</td>'
        f'<td class="r">{percent(task.merged.value)}</td>{cells}'
        f'<td class="r">{percent(task.finetuned.value)}</td>'
        f'<td class="r">{percent(task.pretrained.value)}</td></tr>'
    )


def _difference(found: Difference | None) -> str:
    if found is None:
        return '<td class="r">–</td>'
    kind = "" if not found.clear else " up" if found.value > 0 else " down"
    said = f"{100 * found.value:+.1f}"
    ends = f"{100 * found.low:+.1f} to {100 * found.high:+.1f}"
    paired = "paired" if found.paired else "unpaired"
    value = f"<b>{said}</b>" if found.clear else said
    return f'<td class="r{kind}" title="95 % interval {ends}, {paired}">{value}</td>'


def _legend(there: Sequence[Beside]) -> str:
    marks = "".join(
        svg.key(colour, one.name + _fewer(one))
        for one, colour in zip(there, ("orange", "purple"), strict=False)
    )
    points = "Differences in points, bold where the 95 % interval excludes zero." if there else ""
    return (
        f'<div class="quiet key">{svg.key("full", "merged, with its 95 % interval")}'
        f"{svg.key('pale', 'expert')}{marks}{points}</div>"
    )


def _fewer(one: Beside) -> str:
    """Where a mark and its difference are of fewer examples than the merge was asked."""
    if not one.same:
        return ", on other examples"
    return "" if one.whole else f", on the {one.examples:,} examples that both answered"


def _distances(state: State) -> str:
    found = state.distances
    if found is None:
        return ""
    ours, mean = found.of("merge"), found.of("average")
    most = max(1.0, *ours.values(), *mean.values())
    rows = "".join(
        f'<tr><td>{escape(name)}</td><td class="bar">'
        + svg.bar(_distance_bar(ours[name], mean[name], most))
        + f'</td><td class="r">× {ours[name]:.2f}</td><td class="r">× {mean[name]:.2f}</td></tr>'
        for name in list(ours)[: 4 * SHOWN]
    )
    head = '<tr><th>expert</th><th class="bar"></th><th class="r">this merge</th>'
    head += '<th class="r">average</th></tr>'
    return (
        f'{svg.table(head + rows)}<div class="quiet key">Distance from each expert over the '
        "distance between that expert and the base, which is the pale bar. "
        f"{svg.key('orange', 'average')}</div>"
    )


def _distance_bar(ours: float, mean: float, most: float) -> svg.Bar:
    marks = ((mean / most, f"average: × {mean:.2f}"),)
    return svg.Bar(ours / most, None, 1 / most, marks, f"× {ours:.2f}")


def solve(state: State) -> str:
    """Residuals of a solve, while it runs and after it, and the accuracy along its iterations."""
    layers: dict[str, tuple[float, ...]] = dict(state.residuals)
    running = bool(layers or state.current)
    if not running and state.merge is not None:
        solved = [la for la in state.merge.report.layers if len(la.residuals) > 1]
        layers = {layer.name: layer.residuals for layer in solved}
    if not running and not layers:
        return ""
    curves = residual_curves(layers)
    if len(state.current) > 1:
        now = state.current
        curves.append(svg.Curve("this layer", range(len(now)), now, "vermillion", "2 3"))
    drawn = svg.chart(
        curves, said="relative residual by iteration", across="iteration",
        upwards="relative residual", logarithmic=True,
    )  # fmt: skip
    ended = "" if running or state.merge is None else f"<p>{_ended(state.merge.report)}</p>"
    return f"<h4>Conjugate gradients</h4>{drawn}{ended}{_along(state)}"


def residual_curves(layers: Any) -> list[svg.Curve]:
    """The median and the largest residual of layers (name → residuals) along the iterations."""
    rows = list(layers.values())
    if not rows:
        return []
    longest = max(map(len, rows))
    places = sorted({round(i * (longest - 1) / POINTS) for i in range(POINTS + 1)})
    at = [[row[min(place, len(row) - 1)] for row in rows] for place in places]
    return [
        svg.Curve("median of the layers", places, [statistics.median(a) for a in at], "blue"),
        svg.Curve("largest", places, [max(a) for a in at], "grey", "6 3"),
    ]


def _ended(report: Report) -> str:
    """Why the solves ended, and whether more iterations could change anything."""
    solved = [layer for layer in report.layers if len(layer.residuals) > 1]
    done = [layer for layer in solved if layer.status.startswith("converged")]
    limit = METHODS[report.method].solve
    asked = int(report.options.get(limit.limit, 0)) if limit else 0
    most = max(layer.iterations for layer in solved)
    if len(done) == len(solved) and most < asked:
        return (
            f"All {len(solved)} layers reached the tolerance after at most {most} of the {asked} "
            f"iterations that were allowed: allowing more than {most} changes nothing."
        )
    return (
        f"{len(done)} of {len(solved)} layers reached the tolerance; the longest solve took {most} "
        f"of {asked} iterations."
    )


def _along(state: State) -> str:
    if state.trajectory is None:
        return ""
    points = state.trajectory.points
    x = [point.iteration for point in points]
    y = [point.normalised_accuracy for point in points]
    best, last = max(points, key=lambda p: p.normalised_accuracy), points[-1]
    drawn = svg.chart(
        [svg.Curve("", x, y, "blue")], said="accuracy by iteration", across="iteration",
        upwards="share of the experts' accuracy", share=True,
    )  # fmt: skip
    lost = 100 * (best.normalised_accuracy - last.normalised_accuracy)
    count = f"{best.iteration} iteration{'' if best.iteration == 1 else 's'}"
    said = f"Best after {count} ({percent(best.normalised_accuracy)})"
    said += f", {lost:.1f} points lower after {last.iteration}." if lost > 0 else "."
    split, examples = state.trajectory.split, state.trajectory.examples
    tested = f'<span class="quiet">on {examples or "all"} {split} examples a task</span>'
    return f"<h4>Accuracy along the iterations</h4>{drawn}<p>{said} {tested}</p>"


def why(state: State) -> str:
    """Where the merge is better than the average, layer by layer."""
    if state.why is None:
        return _by_layer(state)
    gains = state.why.by_layer
    total, base = (float(np.nansum(cost)) for cost in (state.why.first, state.why.second))
    names = short_names(list(gains))
    order = sorted(gains, key=lambda name: -abs(gains[name]))[:SHOWN]
    most = max((abs(gain) for gain in gains.values()), default=0.0) or 1.0
    rows = "".join(
        f'<tr><td>{escape(names[name])}</td><td class="bar">'
        + svg.bar(svg.Bar(abs(gains[name]) / most, said=f"{-gains[name]:+.4f} nats"))
        + f'</td><td class="r {"up" if gains[name] >= 0 else "down"}">{-gains[name]:+.4f}</td></tr>'
        for name in order
    )
    better = sum(gain > 0 for gain in gains.values())
    head = (
        f"To second order the experts' losses rise by {total:.3g} nats an example in this merge, "
        f"summed over the experts, and by {base:.3g} in their average; by less than there in "
        f"{better} of {len(gains)} layers."
    )
    if base > total:
        largest = max(gains, key=lambda name: gains[name])
        share = percent(gains[largest] / (base - total))
        head += f" The largest part of the gain, {share}, is {escape(names[largest])}'s."
    top = '<tr><th>layer</th><th class="bar"></th><th class="r">nats</th></tr>'
    return f"<h4>Beside the average, by layer</h4><p>{head}</p>{svg.table(top + rows)}"


def _by_layer(state: State) -> str:
    """Without statistics: how far the merge is from the experts in each layer, beside the
    average."""
    found, merge = state.distances, state.merge
    if found is None or merge is None or any(own is not None for own in merge.inputs.statistics):
        return ""
    ours, mean = found.by_layer("merge"), found.by_layer("average")
    names = short_names(list(ours))
    order = sorted(ours, key=lambda name: -abs(ours[name] - mean[name]))[:SHOWN]
    most = max(1.0, *ours.values(), *mean.values())
    rows = "".join(
        f'<tr><td>{escape(names[name])}</td><td class="bar">'
        + svg.bar(_distance_bar(ours[name], mean[name], most))
        + f'</td><td class="r">× {ours[name]:.2f}</td><td class="r">× {mean[name]:.2f}</td></tr>'
        for name in order
    )
    farther = sum(ours[name] > mean[name] for name in ours)
    head = (
        f"The merge is farther from the experts than their average in {farther} of {len(ours)} "
        "layers. Whether that costs anything, statistics would say."
    )
    top = '<tr><th>layer</th><th class="bar"></th><th class="r">this merge</th>'
    top += '<th class="r">average</th></tr>'
    return f"<h4>Beside the average, by layer</h4><p>{head}</p>{svg.table(top + rows)}"


def weights(state: State) -> str:
    """The weights that polarized scaling gave to tasks and layers, by group of like layers."""
    if state.merge is None:
        return ""
    report = state.merge.report
    weighed = [layer for layer in report.layers if layer.details.get("task_weights")]
    if not weighed:
        return ""
    groups: dict[str, list[LayerReport]] = {}
    for layer in weighed:
        groups.setdefault(group_of(layer.name), []).append(layer)
    titles = short_names(list(groups))
    rows = {
        titles[group].replace("* · ", ""): [
            *(
                statistics.mean(c)
                for c in zip(*(la.details["task_weights"] for la in of), strict=True)
            ),
            statistics.mean(float(la.details.get("layer_weight", 1.0)) for la in of),
        ]
        for group, of in list(groups.items())[:SHOWN]
    }
    names = [expert.name for expert in state.merge.inputs.family.experts]
    most = max(value for row in rows.values() for value in row)
    table = svg.cells(
        rows, [*names, "whole layer"], most=most,
        said="Factor of each task, mean over like layers; 1: as without polarized scaling",
    )  # fmt: skip
    return f"<h4>Polarized scaling</h4>{table}"


def layer(state: State) -> str:
    """What the experts learned in the layer that is looked at: spectra, and their overlap."""
    shown = state.layer
    if shown is None or state.request is None or state.request.layer != shown.name:
        return ""
    return f"<h4>{escape(shown.name)}</h4>{_spectra(shown)}{_overlap(shown)}"


def _spectra(shown: LayerView) -> str:
    curves = []
    for number, (name, spectrum) in enumerate(list(shown.spectra.items())[:SHOWN]):
        values = spectrum.values / spectrum.values.sum().clamp_min(1e-30)
        kept = values.cumsum(0)[:POINTS].tolist()
        colour, dash = svg.look(number)
        curves.append(svg.Curve(name, range(1, len(kept) + 1), kept, colour, dash))
    ranks = {name: spectrum.effective_rank for name, spectrum in shown.spectra.items()}
    low, high = min(ranks, key=lambda n: ranks[n]), max(ranks, key=lambda n: ranks[n])
    what = "of the output shift" if shown.kind == "essential" else "of the task matrix"
    drawn = svg.chart(
        curves, said="energy by directions", across="directions",
        upwards=f"share of the energy {what}", share=True,
    )  # fmt: skip
    said = (
        f"Effective rank from {ranks[low]:.1f} ({escape(low)}) to {ranks[high]:.1f} "
        f"({escape(high)}) of {len(next(iter(shown.spectra.values())).values)} directions."
    )
    return f"{drawn}<p>{said}</p>"


def _overlap(shown: LayerView) -> str:
    names = list(shown.spectra)
    if len(names) < 2:
        return ""
    pairs = shown.overlap.clone()
    pairs.fill_diagonal_(-torch.inf)
    one, other = divmod(int(pairs.argmax()), len(names))
    rows = {name: shown.overlap[index, :SHOWN].tolist() for index, name in enumerate(names[:SHOWN])}
    table = svg.cells(
        rows, names[:SHOWN],
        said=f"Overlap of the first {shown.rank} directions; 1: the same subspace",
    )  # fmt: skip
    return (
        f"{table}<p>{escape(names[one])} and {escape(names[other])} share most: "
        f"{float(pairs.max()):.2f}.</p>"
    )
