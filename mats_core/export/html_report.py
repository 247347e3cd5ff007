"""A finished merge as one HTML file: plots, numbers, settings, and how to repeat it.

The file opens without a network: plotly.js is in it once, a content policy forbids every request,
and whatever comes from files (names, classes, paths) is text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template

from ..analysis import Trajectory
from ..evaluation import TaskResult
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
from ..merging import VERSION, Report
from ..methods import METHODS, describe
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
        bars = accuracy_bars(report.tasks, looks, label=merge.title)
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
    body = [_head(merge, created)]
    for number, (heading, figure) in enumerate(figures, 1):
        body.append(_figure(f"figure-{number}", heading, figure))
    body += [
        _accuracies(merge.report),
        _settings(merge),
        _experts(merge),
        _treatment(merge.report),
        _repeat(merge, place),
    ]
    numbered = enumerate(figures, 1)
    drawn = ",".join(f'"figure-{n}":{to_json(figure.figure)}' for n, (_, figure) in numbered)
    return Template(PAGE.read_text("utf-8")).substitute(
        title=escape(f"{merge.title} · {merge.family}"),
        body="\n".join(part for part in body if part),
        plotly=plotly_script(),
        figures="{" + drawn + "}",
        config=script_json(CONFIG),
    )


def _head(merge: Finished, created: str) -> str:
    report, method = merge.report, METHODS[merge.recipe.method]
    when = f" Made {escape(created)}." if created else ""
    numbers = "".join(
        f"<div><dt>{HEADLINE[name]}</dt><dd>{percent(value)}</dd></div>"
        for name, value in headline(report).items()
        if value is not None
    )
    return (
        f"<h1>{escape(merge.title)}</h1>"
        f"<p>{escape(method.title)} of {len(merge.recipe.experts)} experts of the family "
        f"<strong>{escape(merge.family)}</strong>. {escape(method.summary)} "
        f'<span class="soft">Source: {escape(method.source)}.</span></p>'
        f'<p class="soft">Merged in {report.seconds:.1f} s on {escape(report.device)} in '
        f"{escape(report.dtype)}.{when} MaTS Explorer {VERSION}.</p>"
        + (f'<dl class="numbers">{numbers}</dl>' if numbers else "")
    )


def _figure(id: str, heading: str, figure: Figure) -> str:
    height = int(figure.figure.to_dict()["layout"].get("height") or HEIGHT)
    return (
        f"<section><h2>{escape(heading)}</h2><figure>"
        f'<div id="{id}" role="img" aria-label="{escape(figure.alt)}" '
        f'style="min-height:{height}px"></div>'
        f"<figcaption>{escape(figure.caption)}</figcaption></figure></section>"
    )


def _accuracies(report: Report) -> str:
    if not report.tasks:
        return ""
    rows = [
        [
            escape(result.name),
            percent(result.merged.value),
            _interval(result),
            percent(result.finetuned.value),
            percent(result.pretrained.value),
            str(result.merged.examples),
        ]
        for result in report.tasks
    ]
    head = ["task", "merged", "95 % interval", "expert", "pre-trained", "examples"]
    caption = f"Accuracy on {report.split} examples; the interval is Wilson's."
    table = _table(head, rows, caption, numbers=range(1, 6))
    search = ""
    if report.search:
        trials = [
            [
                escape(", ".join(f"{name} {value}" for name, value in trial.options.items())),
                percent(trial.normalised_accuracy),
            ]
            for trial in report.search
        ]
        search = _table(["tried", "kept"], trials, "Chosen on validation examples.", numbers=[1])
    return f"<section><h2>Accuracies</h2>{table}{search}</section>"


def _interval(result: TaskResult) -> str:
    low, high = result.merged.interval
    return f"{100 * low:.1f} – {100 * high:.1f} %"


def _settings(merge: Finished) -> str:
    report = merge.report
    rows = [
        [
            escape(field.name.replace("_", " ")),
            escape(_value(report.options.get(field.name, field.default))),
            "" if report.options.get(field.name, field.default) == field.default else "changed",
            escape(field.help),
        ]
        for field in describe(merge.recipe.method)
    ]
    if report.rounds > 1:
        meaning = "statistics measured again at the merge, and the experts merged once more"
        rows.append(["rounds of statistics", str(report.rounds), "changed", meaning])
    rows += [
        ["seed", str(report.seed), "", "of everything that is drawn at random"],
        ["arithmetic", escape(report.dtype), "", f"on {escape(report.device)}"],
    ]
    table = _table(["setting", "value", "", "meaning"], rows, "")
    warnings = "".join(f"<li>{escape(warning)}</li>" for warning in report.warnings)
    return (
        f"<section><h2>Settings</h2>{table}{f'<ul>{warnings}</ul>' if warnings else ''}</section>"
    )


def _value(value: object) -> str:
    return "by default" if value is None else str(value)


def _experts(merge: Finished) -> str:
    prints = merge.report.fingerprints
    entries = merge.portable.experts
    rows = [["base", "", f"<code>{escape(prints.get('base', ''))}</code>"]]
    rows += [
        [escape(e.name), f"{e.weight:g}", f"<code>{escape(prints.get(e.name, ''))}</code>"]
        for e in entries
    ]
    caption = "SHA-256 over names, types, shapes and bytes of each checkpoint's tensors."
    table = _table(["checkpoint", "weight", "fingerprint"], rows, caption, numbers=[1])
    return f"<section><h2>What was merged</h2>{table}</section>"


def _treatment(report: Report) -> str:
    """Every tensor is accounted for."""
    counts = ", ".join(f"{count} {kind}" for kind, count in report.coverage.items() if count)
    rows = [
        [
            escape(layer.name),
            escape(layer.treatment),
            escape(layer.method),
            escape(layer.status),
            str(layer.iterations or ""),
            f"{layer.residuals[-1]:.1e}" if layer.residuals else "",
        ]
        for layer in report.layers
    ]
    head = ["tensor", "treatment", "method", "status", "iterations", "residual"]
    table = _table(head, rows, "", numbers=[4, 5])
    return (
        f"<section><h2>What happened to every tensor</h2><p>{len(report.layers)} tensors: "
        f"{escape(counts)}.</p><details><summary>All of them</summary>{table}</details></section>"
    )


def _repeat(merge: Finished, place: str) -> str:
    place = place or f"path/to/{merge.recipe.folder.resolve().name}"
    lines = "\n".join(commands(merge, place))
    return (
        "<section><h2>Do it again</h2><p>Save the recipe as "
        f"<code>{escape(merge.stem)}.yaml</code> in the family's folder and call, in the folder of "
        f"MaTS Explorer:</p><pre>{escape(lines)}</pre><details><summary>The recipe</summary>"
        f"<pre>{escape(recipe_yaml(merge, place))}</pre></details></section>"
    )


def _table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    caption: str,
    numbers: Sequence[int] | range = (),
) -> str:
    """A table of cells that are HTML already."""

    def cells(tag: str, values: Sequence[str]) -> str:
        return "".join(
            f'<{tag} class="number">{v}</{tag}>' if i in numbers else f"<{tag}>{v}</{tag}>"
            for i, v in enumerate(values)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return (
        f'<div class="wide"><table>{title}<thead><tr>{cells("th", head)}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
