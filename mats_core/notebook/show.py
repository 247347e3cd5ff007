"""`mats.show(merge)`: accuracy, convergence and spectra, as the pages draw them."""

from __future__ import annotations

import importlib
import textwrap
from html import escape
from typing import Any

from .. import figures
from ..analysis import layer_spectra
from ..checkpoints import InMemory, Weights, original
from ..merging import Merge, Report
from ..system import in_notebook

GREY = "#808A94"  # text and lines that light and dark pages both show
WIDTH = 96  # characters of a printed line
CLEAR = "rgba(0,0,0,0)"
GRID = "rgba(128,128,128,0.25)"


def show(thing: Any, *, layer: str | None = None) -> None:
    """None; shows a merge or a report with its figures, a figure of `mats_core.figures` with its
    caption, and any other record as its HTML.

    layer   the weight whose spectra are drawn, by the base's name; the largest matrix by default

    Spectra are of what the experts learned: they are left out once a module that was merged has
    other weights, such as a base into which the merge was loaded.

    In a notebook the figures can be zoomed; elsewhere the record's text or the caption is printed.
    """
    drawn_already = isinstance(thing, figures.Figure)
    if not in_notebook():
        print(textwrap.fill(thing.caption, WIDTH) if drawn_already else repr(thing))
        return
    screen: Any = importlib.import_module("IPython.display")
    display = screen.display
    if not drawn_already:
        display(thing)
    for drawn in drawings(thing, layer=layer):
        display(themed(drawn.figure))
        display(screen.HTML(f"<small>{escape(drawn.caption)}</small>"))


def drawings(thing: Any, *, layer: str | None = None) -> list[figures.Figure]:
    """The figures of a merge or a report: accuracy, convergence, and of a merge its spectra; of a
    figure itself."""
    if isinstance(thing, figures.Figure):
        return [thing]
    report = thing.report if isinstance(thing, Merge) else thing
    if not isinstance(report, Report):
        return []
    found: list[figures.Figure | None] = []
    if report.tasks:
        looks = figures.looks(task.name for task in report.tasks)
        found.append(figures.accuracy_bars(report.tasks, looks, label=report.method))
    found.append(figures.residual_curves(report.layers))
    if isinstance(thing, Merge):
        found.append(_spectra(thing, layer))
    return [drawn for drawn in found if drawn is not None]


def _spectra(merge: Merge, layer: str | None) -> figures.Figure | None:
    """The singular values of what each expert learned in one weight."""
    family = merge.inputs.family
    matrices = [name for name in family.shared if family.roles[name] == "matrix"]
    if layer is None and matrices:
        layer = max(matrices, key=lambda name: family.base.tensors[name].elements)
    weights = [family.base, *(expert.checkpoint for expert in family.experts)]
    if layer not in matrices or not all(_as_merged(one, layer) for one in weights):
        return None
    looks = figures.looks(expert.name for expert in family.experts)
    return figures.spectra(layer_spectra(family, {}, layer, "task matrix"), "task matrix", looks)


def _as_merged(weights: Weights, name: str) -> bool:
    """Whether a tensor is still the one that was merged.

    A module in memory is read where it lies, and it may hold the merged weights by now.
    """
    source, own = original(weights), weights.own(name)
    if not isinstance(source, InMemory):
        return True
    return InMemory.of(source.held, str(source.path)).digest(own) == source.digest(own)


def themed(figure: Any) -> Any:
    """The same figure without a ground, with text and grid that light and dark pages both show."""
    figure.update_layout(template="none", font={"color": GREY})
    figure.update_layout(paper_bgcolor=CLEAR, plot_bgcolor=CLEAR)
    figure.update_xaxes(gridcolor=GRID, zerolinecolor=GRID, linecolor=GRID)
    figure.update_yaxes(gridcolor=GRID, zerolinecolor=GRID, linecolor=GRID)
    return figure
