"""Spectra of one layer, all tasks in one plot, and the energy that few directions keep."""

from __future__ import annotations

import math
from collections.abc import Mapping

import plotly.graph_objects as go

from ..analysis import KINDS, Kind, Spectrum
from .style import GREY, Figure, Look, curve, laid_out, percent, safe, thinned


def spectra(found: Mapping[str, Spectrum], kind: Kind, tasks: Mapping[str, Look]) -> Figure | None:
    """The spectra of all tasks in one layer, in one logarithmic plot."""
    if not found:
        return None
    figure = go.Figure()
    top = max(float(s.values.max()) for s in found.values()) or 1.0
    for name, own in found.items():
        places, values = thinned([float(v) for v in own.values])
        roots = [math.sqrt(v) for v in values] if kind == "task matrix" else values
        # Below float32's noise the numbers say nothing; None leaves a gap.
        y = [r if v > 1e-9 * top else None for v, r in zip(values, roots, strict=True)]
        x, hover = [i + 1 for i in places], f"{safe(name)}<br>no. %{{x}}: %{{y:.3g}}"
        curve(figure, tasks[name], x, y, hover, name=safe(name), marker_maxdisplayed=12)
    laid_out(figure, 420)
    figure.update_xaxes(title="number of the direction, strongest first")
    title = "singular value" if kind == "task matrix" else "eigenvalue"
    figure.update_yaxes(type="log", dtick=1, exponentformat="power", title=title)
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
    """The share of the energy that the first r directions hold, with a line at `rank`."""
    figure = go.Figure()
    for name, own in found.items():
        values = own.values.double()
        total = float(values.sum()) or 1.0
        x, y = thinned([0.0, *(values.cumsum(0) / total).tolist()])
        hover = f"{safe(name)}: %{{y:.1%}} with %{{x}} directions"
        curve(figure, tasks[name], x, y, hover, name=safe(name), mode="lines")
    figure.add_vline(x=rank, line={"color": GREY, "width": 2, "dash": "dash"})
    laid_out(figure, 320)
    most = max(len(own.values) for own in found.values())
    figure.update_xaxes(title="directions kept", range=[0, min(most, max(10, 3 * rank))])
    figure.update_yaxes(range=[0, 1.02], tickformat=".0%", title="energy kept")
    kept = {name: own.energy(rank) for name, own in found.items()}
    best, worst = max(kept, key=lambda n: kept[n]), min(kept, key=lambda n: kept[n])
    most_kept, least_kept = percent(kept[best]), percent(kept[worst])
    who = f"{best} keeps {most_kept} of its energy and {worst} {least_kept}"
    if most_kept == least_kept:
        who = f"{'each' if len(kept) > 1 else best} keeps {most_kept} of its energy"
    caption = f"With {rank} directions a task, {who}."
    return Figure(figure, f"Energy kept against rank. {caption}", caption)
