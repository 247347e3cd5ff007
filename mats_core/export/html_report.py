"""A finished merge as one HTML file: plots, numbers, settings, and how to repeat it.

The file opens without a network: plotly.js is in it once, a content policy forbids every request,
and whatever comes from files (names, classes, paths) is text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment

from ..analysis import Trajectory
from ..figures import (
    CONFIG,
    HEIGHT,
    Figure,
    Look,
    accuracy_bars,
    dimension_weights,
    headline,
    percent,
    plotly_script,
    residual_curves,
    script_json,
    short_names,
    task_weights,
    to_json,
    trajectory_curves,
)
from ..methods import METHODS, describe
from ..recipes import VERSION
from .command import commands, recipe_yaml
from .portable import Finished

PAGE = Path(__file__).with_name("report.html")
Named = tuple[str, Figure]
HEADLINE = {
    "normalised": "of each expert's accuracy kept",
    "gap": "of the gap to the experts closed",
    "accuracy": "mean accuracy",
}


def run_figures(
    merge: Finished,
    looks: Mapping[str, Look],
    trajectories: Mapping[str, Trajectory] | None = None,
) -> list[Named]:
    """The figures, (heading, figure), that a run alone can show."""
    report = merge.report
    drawn: list[tuple[str, Figure | None]] = []
    if report.tasks:
        bars = accuracy_bars(report.tasks, looks, label=merge.title, split=report.split)
        drawn.append(("Accuracy, task by task", bars))
    drawn.append(("Residuals of conjugate gradients", residual_curves(report.layers)))
    if trajectories:
        drawn.append(("Accuracy along the iterations", trajectory_curves(trajectories)))
    names = [entry.name for entry in merge.recipe.experts]
    drawn.append(("Polarized scaling: tasks and layers", task_weights(report, names)))
    scaled = [layer for layer in report.layers if layer.details.get("dimension_weights")]
    if scaled:
        first = max(scaled, key=lambda layer: max(layer.details["dimension_weights"]))
        title = short_names([layer.name for layer in scaled])[first.name]
        drawn.append((f"Polarized scaling: dimensions of {title}", dimension_weights(first)))
    return [(heading, figure) for heading, figure in drawn if figure is not None]


def html_report(
    merge: Finished, figures: Sequence[Named], place: str = "", created: str = ""
) -> str:
    """The report as one HTML page that opens offline.

    `figures`: (heading, figure) in order; `place`: the family's folder, as typed.
    """
    place = place or f"path/to/{merge.recipe.folder.resolve().name}"
    drawn = [f'"figure-{n}":{to_json(one.figure)}' for n, (_, one) in enumerate(figures, 1)]
    counts = merge.report.coverage.items()
    pages = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    pages.filters["percent"] = percent
    return pages.from_string(PAGE.read_text("utf-8")).render(
        merge=merge,
        report=merge.report,
        experts=merge.portable.experts,
        method=METHODS[merge.recipe.method],
        options=describe(merge.recipe.method),
        asked=sum(task.merged.examples for task in merge.report.tasks),
        numbers={HEADLINE[name]: value for name, value in headline(merge.report).items()},
        size=f"{merge.report.size:.2f} ×" if merge.report.routed else "",
        counts=", ".join(f"{count} {kind}" for kind, count in counts if count),
        commands="\n".join(commands(merge, place)),
        recipe=recipe_yaml(merge, place),
        created=created,
        version=VERSION,
        figures=figures,
        height=HEIGHT,
        drawn="{" + ",".join(drawn) + "}",
        config=script_json(CONFIG),
        plotly=plotly_script(),
    )
