"""What a record says of itself, before it is HTML or text: words, tables and small drawings.

A form is found by the name of the record's class, so that showing a recipe imports neither plotly
nor what estimates are made of.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import duration, listing, size
from ..evaluation import Score, TaskResult, normalised_accuracy
from ..methods import METHODS

if TYPE_CHECKING:
    from ..estimating import Advice, Estimate
    from ..figures import Figure
    from ..merging import Merge
    from ..recipes import FamilyFile, LayerReport, Recipe, Report
    from ..statistics import Statistics

MOST = 12  # rows of a table, names of a list
POINTS = 40  # of a small curve


@dataclass(frozen=True)
class Words:
    """A paragraph: `title` stands out, `text` follows; `drawn` is SVG between the two."""

    title: str = ""
    text: str = ""
    drawn: str = ""
    small: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of text under their `heads`; `drawn` has an SVG for each row, after its first cell."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    drawn: Sequence[str] = ()


@dataclass(frozen=True)
class Picture:
    """A drawing, as SVG, with the `caption` under it."""

    svg: str
    caption: str


Block = Words | Table | Picture


def form(thing: Any) -> list[Block] | None:
    """The blocks that describe a record; None for anything else."""
    for kind in type(thing).__mro__:
        if kind.__name__ in FORMS:
            return list(FORMS[kind.__name__](thing))
    return None


# Merges and reports -------------------------------------------------------------------------------


def _merge(merge: Merge) -> Iterator[Block]:
    names = listing((expert.name for expert in merge.inputs.family.experts), MOST)
    nbytes = sum(entry.nbytes for entry in merge.inputs.family.base.tensors.values())
    yield Words("Merge", f"of {names}")
    yield from _report(merge.report)
    where = merge.report.output or "in memory"
    yield Words(text=f"{len(merge.tensors)} tensors, {size(nbytes)}, {where}", small=True)


def _report(report: Report) -> Iterator[Block]:
    method = METHODS[report.method].title if report.method in METHODS else report.method
    yield Words(method, _options(report.options), small=True)
    counted = ", ".join(f"{count} {kind}" for kind, count in report.coverage.items() if count)
    took = f"{duration(report.seconds)} on {report.device}"
    yield Words(text=f"{counted} tensors; {took}" if counted else took)
    if report.routed:
        layers, by = report.routed["layers"], report.routed["by"]
        yield Words("Routed", f"by {by} in {layers} layers; {report.size:.2f} × the base's size")
    if report.tasks:
        yield from _tasks(report.tasks)
    yield from _convergence(report.layers)
    yield from (Words(text=f"note: {note}", small=True) for note in report.warnings[:MOST])


def _convergence(layers: Sequence[LayerReport]) -> Iterator[Block]:
    """The median residual along the iterations, as a line."""
    solved = [layer for layer in layers if len(layer.residuals) > 1]
    if not solved:
        return
    longest = max(len(layer.residuals) for layer in solved)
    chosen = sorted({round(i * (longest - 1) / POINTS) for i in range(POINTS + 1)})
    middle = [
        statistics.median(la.residuals[min(i, len(la.residuals) - 1)] for la in solved)
        for i in chosen
    ]
    done = sum(layer.status.startswith(("converged", "closed")) for layer in solved)
    said = (
        f"{done} of {len(solved)} layers converged; median residual {middle[-1]:.1e} after at "
        f"most {_iterations(longest - 1)}"
    )
    yield Words("Conjugate gradients", said, drawn=_line(middle))


def _layers(layers: Sequence[LayerReport]) -> Iterator[Block]:
    kinds = Counter(layer.treatment for layer in layers)
    counted = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    yield Words(f"{len(layers)} layers", counted)
    heads = ("layer", "treatment", "method", "status", "iterations", "residual")
    rows = [_row(layer) for layer in layers]
    said = [i for i, _ in enumerate(heads) if any(row[i] for row in rows)]
    yield Table([heads[i] for i in said], [[row[i] for i in said] for row in rows])


def _row(layer: LayerReport) -> Sequence[str]:
    last = f"{layer.residuals[-1]:.1e}" if layer.residuals else ""
    steps = str(layer.iterations) if layer.iterations else ""
    return (layer.name, layer.treatment, layer.method, layer.status, steps, last)


def _layer(layer: LayerReport) -> Iterator[Block]:
    how = ", ".join(filter(None, (layer.treatment, layer.method, layer.status)))
    yield Words(layer.name, f"{how}; {duration(layer.seconds)}")
    if len(layer.residuals) > 1:
        last = f"residual {layer.residuals[-1]:.1e} after {_iterations(len(layer.residuals) - 1)}"
        yield Words(text=last, drawn=_line(layer.residuals))
    weights = [float(weight) for weight in layer.details.get("task_weights", ())]
    if weights:
        shown = ", ".join(f"{weight:.2f}" for weight in weights[:MOST])
        yield Words(text=f"weights of the tasks {shown}")


def _tasks(tasks: Sequence[TaskResult]) -> Iterator[Block]:
    if not tasks:
        yield Words("No task was tested")
        return
    yield Words(f"{100 * normalised_accuracy(tasks):.1f} %", "of the experts' accuracy is kept")
    yield _results(tasks)


def _task(result: TaskResult) -> Iterator[Block]:
    yield _results([result])


def _results(tasks: Sequence[TaskResult]) -> Table:
    rows, drawn = [], []
    for task in tasks:
        low, high = task.merged.interval
        scores = [_score(one) for one in (task.merged, task.finetuned, task.pretrained)]
        metric = "" if task.merged.metric == "accuracy" else f" ({task.merged.metric})"
        between = f"{100 * low:.1f} – {100 * high:.1f}"
        rows.append((task.name + metric, scores[0], between, *scores[1:]))
        drawn.append(_bar(task.merged.value, task.finetuned.value))
    return Table(("task", "merged", "95 % interval", "expert", "pre-trained"), rows, drawn)


def _score(score: Score) -> str:
    return f"{100 * score.value:.1f} %"


# Recipes, families, statistics, estimates, figures ------------------------------------------------


def _recipe(recipe: Recipe) -> Iterator[Block]:
    yield Words("Recipe", f"of {METHODS[recipe.method].title} {_options(recipe.options)}".rstrip())
    yield Words(text=f"over {recipe.base}")
    rows = [
        [said or "–" for said in (e.name, e.model, f"{e.weight:g}", e.statistics, e.task)]
        for e in recipe.experts
    ]
    yield Table(("expert", "model", "weight", "statistics", "task"), rows)
    if recipe.output:
        yield Words(text=f"written to {recipe.output}", small=True)


def _family(family: FamilyFile) -> Iterator[Block]:
    yield Words(family.name, f"over {family.base}")
    rows = [(e.name, e.model, e.task or "–") for e in family.experts]
    yield Table(("expert", "model", "task"), rows)


def _statistics(found: Statistics) -> Iterator[Block]:
    said = found.metadata
    of = f"of {said.get('task') or 'a model'}: "
    yield Words(
        "Statistics", f"{of}{said.get('examples', '?')} examples, {said.get('labels', '?')} labels"
    )
    kinds = Counter(name.rpartition(".")[2] for name in found.shapes)
    yield Table(("kind", "tensors"), [(kind, str(count)) for kind, count in sorted(kinds.items())])
    yield Words(text=f"{len(found.layers)} layers with Grams; {found.source}", small=True)


def _estimate(found: Estimate) -> Iterator[Block]:
    yield Words(found.sentence, f"on {found.device}")
    seconds = [(name, duration(value)) for name, value in found.parts.items() if value]
    yield Table(("time for", ""), seconds)
    yield Table(("memory for", ""), [(n, size(nbytes)) for n, nbytes in found.memory.items()])
    if found.disk_bytes:
        yield Words(text=f"{size(found.disk_bytes)} are written")
    if found.largest:
        yield Words(text=f"largest layer: {found.largest}", small=True)


def _advice(found: Advice) -> Iterator[Block]:
    yield Words("Which method?", found.title)
    yield from (Words(text=reason) for reason in found.reasons)
    if found.alternatives:
        rows = [(one.title, one.sentence) for one in found.alternatives]
        yield Table(("after it", "why"), rows)
    yield from (Words(text=said, small=True) for said in found.more)
    yield from (Words(text=f"note: {said}", small=True) for said in found.notes)


def _figure(drawn: Figure) -> Iterator[Block]:
    from ..figures import picture  # plotly, which no other record needs

    yield Picture(picture(drawn.figure, drawn.alt), drawn.caption)


FORMS: Mapping[str, Callable[[Any], Iterable[Block]]] = {
    "Merge": _merge, "Report": _report, "Layers": _layers, "LayerReport": _layer,
    "Tasks": _tasks, "TaskList": _tasks, "TaskResult": _task, "Recipe": _recipe,
    "FamilyFile": _family, "Statistics": _statistics, "Estimate": _estimate, "Figure": _figure,
    "Advice": _advice,
}  # fmt: skip


# Words and drawings -------------------------------------------------------------------------------


def _options(options: Mapping[str, Any]) -> str:
    shown = ", ".join(f"{name} {value}" for name, value in options.items())
    return f"({shown})" if shown else ""


def _iterations(count: int) -> str:
    return "1 iteration" if count == 1 else f"{count} iterations"


def _line(values: Sequence[float]) -> str:
    """A small curve on a logarithmic scale."""
    step = max(1, math.ceil(len(values) / POINTS))
    logs = [math.log10(max(value, 1e-300)) for value in values[::step] if not math.isnan(value)]
    low, high = min(logs, default=0.0), max(logs, default=0.0)
    across = 118 / max(1, len(logs) - 1)
    points = " ".join(
        f"{1 + i * across:.0f},{2 + 20 * (high - v) / ((high - low) or 1):.0f}"
        for i, v in enumerate(logs)
    )
    return (
        '<svg width="120" height="24" role="img" aria-label="residual, logarithmic">'
        f'<polyline points="{points}" fill="none" stroke="var(--full)" stroke-width="2"/></svg>'
    )


def _bar(value: float, of: float) -> str:
    """A bar inside the expert's paler one."""
    widths = [max(0.0, min(1.0, share)) * 100 for share in (of, value)]
    return (
        '<svg width="100" height="12" aria-hidden="true">'
        f'<rect width="{widths[0]:.0f}" height="12" fill="var(--pale)"/>'
        f'<rect y="3" width="{widths[1]:.0f}" height="6" fill="var(--full)"/></svg>'
    )
