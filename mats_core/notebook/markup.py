"""Records as HTML of a few kB: no script, nothing fetched, colours that follow the page's theme.

The text form comes first and is hidden by the style, so that it is what remains where a notebook
strips styles (an untrusted file, a diff).
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any

from ..errors import duration, listing, size
from ..merging import FamilyFile, LayerReport, Merge, Recipe, Report
from ..methods import METHODS
from ..statistics import Statistics

MOST = 12  # rows of a table
STYLE = """\
<style>.mats{--ink:var(--jp-content-font-color1,var(--vscode-editor-foreground,currentColor));
--line:rgba(128,128,128,.35);--full:#0072B2;--pale:rgba(86,180,233,.3);color:var(--ink);
font-size:13px;line-height:1.45;max-width:56em}
.mats .t{display:none}.mats b{font-weight:600}.mats small{opacity:.75}
.mats table{border-collapse:collapse;margin:.4em 0;color:inherit;background:none}
.mats td,.mats th{border:0;border-bottom:1px solid var(--line);padding:.15em .7em .15em 0;
text-align:left;background:none;color:inherit}.mats svg{vertical-align:middle}
@media(prefers-color-scheme:dark){.mats{--full:#56B4E9}}
[data-jp-theme-light=false] .mats,.vscode-dark .mats{--full:#56B4E9}</style>"""


def markup(thing: Any) -> str:
    """HTML of a merge, a report, a recipe, statistics or a family file; text for anything else."""
    text = escape(repr(thing))
    described = next((form for kind, form in FORMS.items() if isinstance(thing, kind)), None)
    body = "".join(described(thing)) if described else f"<pre>{text}</pre>"
    return f'<div class="mats"><pre class="t">{text}</pre>{STYLE}{body}</div>'


def _merge(merge: Merge) -> Iterable[str]:
    names = listing((expert.name for expert in merge.inputs.family.experts), MOST)
    nbytes = sum(entry.nbytes for entry in merge.inputs.family.base.tensors.values())
    yield f"<b>Merge</b> of {escape(names)}<br>"
    yield from _report(merge.report)
    where = escape(merge.report.output) if merge.report.output else "in memory"
    yield f"<br><small>{len(merge.tensors)} tensors, {size(nbytes)}, {where}</small>"


def _report(report: Report) -> Iterable[str]:
    method = METHODS[report.method].title if report.method in METHODS else report.method
    counted = ", ".join(f"{count} {kind}" for kind, count in report.coverage.items() if count)
    yield f"<b>{escape(method)}</b> {_options(report.options)}<br>{counted} tensors; "
    yield f"{duration(report.seconds)} on {escape(report.device)}"
    if report.normalised_accuracy is not None:
        yield f"<br>keeps <b>{100 * report.normalised_accuracy:.1f} %</b> of the experts' accuracy"
    if report.tasks:
        rows = []
        for task in report.tasks:
            scores = [score.value for score in (task.merged, task.finetuned, task.pretrained)]
            shares = [f"{100 * score:.1f} %" for score in scores]
            rows.append((escape(task.name), _bar(scores[0], scores[1]), *shares))
        yield _table(("task", "", "merged", "expert", "pre-trained"), rows)
    yield _convergence(report.layers)
    yield from (f"<br><small>note: {escape(note)}</small>" for note in report.warnings[:MOST])


def _convergence(layers: Sequence[LayerReport]) -> str:
    """The median residual along the iterations, as a line."""
    solved = [layer for layer in layers if len(layer.residuals) > 1]
    if not solved:
        return ""
    longest = max(len(layer.residuals) for layer in solved)
    chosen = sorted({round(i * (longest - 1) / 40) for i in range(41)})
    middle = [
        statistics.median(la.residuals[min(i, len(la.residuals) - 1)] for la in solved)
        for i in chosen
    ]
    done = sum(layer.status.startswith(("converged", "closed")) for layer in solved)
    return (
        f"<br>conjugate gradients {_line(middle)} {done} of {len(solved)} layers converged; "
        f"median residual {middle[-1]:.1e} after at most {longest - 1} iterations"
    )


def _line(values: Sequence[float]) -> str:
    logs = [math.log10(max(value, 1e-300)) for value in values]
    low, high = min(logs), max(logs)
    step = 118 / max(1, len(logs) - 1)
    points = " ".join(
        f"{1 + i * step:.0f},{2 + 20 * (high - v) / ((high - low) or 1):.0f}"
        for i, v in enumerate(logs)
    )
    return (
        '<svg width="120" height="24" role="img" aria-label="median residual, logarithmic">'
        f'<polyline points="{points}" fill="none" stroke="var(--full)" stroke-width="2"/></svg>'
    )


def _bar(value: float, of: float) -> str:
    """A bar inside the expert's paler one."""
    widths = [max(0.0, min(1.0, share)) * 100 for share in (of, value)]
    return (
        f'<svg width="100" height="12"><rect width="{widths[0]:.0f}" height="12" '
        f'fill="var(--pale)"/><rect y="3" width="{widths[1]:.0f}" height="6" '
        'fill="var(--full)"/></svg>'
    )


def _recipe(recipe: Recipe) -> Iterable[str]:
    yield f"<b>Recipe</b> {escape(METHODS[recipe.method].title)} {_options(recipe.options)}<br>"
    yield f"base {escape(recipe.base)}"
    rows = [
        [escape(said or "–") for said in (e.name, e.model, f"{e.weight:g}", e.statistics, e.task)]
        for e in recipe.experts
    ]
    yield _table(("expert", "model", "weight", "statistics", "task"), rows)
    if recipe.output:
        yield f"<small>written to {escape(recipe.output)}</small>"


def _statistics(found: Statistics) -> Iterable[str]:
    said = found.metadata
    yield f"<b>Statistics</b> of {escape(said.get('task') or 'a model')}: "
    yield f"{escape(said.get('examples', '?'))} examples, {escape(said.get('labels', '?'))} labels"
    kinds = Counter(name.rpartition(".")[2] for name in found.shapes)
    yield _table(("kind", "layers"), [(escape(k), str(n)) for k, n in sorted(kinds.items())])
    yield f"<small>{len(found.layers)} layers with Grams; {escape(found.source)}</small>"


def _family(family: FamilyFile) -> Iterable[str]:
    yield f"<b>{escape(family.name)}</b>, base {escape(family.base)}"
    rows = [(escape(e.name), escape(e.model), escape(e.task or "–")) for e in family.experts]
    yield _table(("expert", "model", "task"), rows)


FORMS: dict[type, Callable[[Any], Iterable[str]]] = {
    Merge: _merge,
    Report: _report,
    Recipe: _recipe,
    Statistics: _statistics,
    FamilyFile: _family,
}


def _options(options: Mapping[str, Any]) -> str:
    shown = ", ".join(f"{name} {value}" for name, value in options.items())
    return f"<small>{escape(shown)}</small>" if shown else ""


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are HTML already."""
    top = "".join(f"<th>{head}</th>" for head in heads)
    body = "".join(f"<tr>{''.join(f'<td>{c}</td>' for c in row)}</tr>" for row in rows[:MOST])
    more = f"<small>and {len(rows) - MOST} more</small>" if len(rows) > MOST else ""
    return f"<table><tr>{top}</tr>{body}</table>{more}"
