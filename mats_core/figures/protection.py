"""What a subspace protects: two of them side by side, and all of them on one axis."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
import torch
from plotly.subplots import make_subplots
from torch import Tensor

from ..analysis import SUBSPACES, Protection, Subspace
from .style import (
    BLUE,
    GREY,
    NAMED,
    ORANGE,
    SLIM,
    VERMILLION,
    Figure,
    Look,
    curve,
    laid_out,
    percent,
    thinned,
)

CELLS = 48  # of a map, each way: enough to see where the weight lies
RANGE = 2.0  # powers of ten either side of the identity's 1
LOOKS: dict[Subspace, Look] = {
    "identity": Look(GREY, "dash", "square"),
    "diagonal Fisher": Look(ORANGE, "dot", "diamond"),
    "input Gram": Look(BLUE, "longdash", "triangle-up"),
    "K-FAC": Look(VERMILLION, "solid", "circle"),
}


def called(subspace: Subspace) -> str:
    """`K-FAC (MaTS)`: the subspace and the method that uses it."""
    return f"{subspace[:1].upper()}{subspace[1:]} ({SUBSPACES[subspace]})"


def times(value: float) -> str:
    """`×47`, `×0.69`: a ratio in two digits."""
    return f"×{value:.0f}" if value >= 10 else f"×{value:.2g}"


def pooled(values: Tensor, cells: int = CELLS) -> tuple[Tensor, int]:
    """Means over square blocks, so that no side has more than `cells`; and the block's side."""
    step = max(1, math.ceil(max(values.shape) / cells))
    means = torch.nn.functional.avg_pool2d(
        values[None].double(), step, ceil_mode=True, count_include_pad=False
    )
    return means[0], step


def protection_maps(found: Sequence[Protection], task: str) -> Figure:
    """Maps of the cost of every direction `u_i v_jᵀ` under each subspace, on one scale."""
    figure = make_subplots(
        1, len(found), shared_yaxes=True, horizontal_spacing=0.04,
        subplot_titles=[own.subspace for own in found],
    )  # fmt: skip
    for column, own in enumerate(found, 1):
        means, step = pooled(own.costs)
        places = [1 + step * i for i in range(len(means))]
        figure.add_heatmap(
            x=places, y=places, z=means.clamp_min(1e-12).log10().tolist(),
            coloraxis="coloraxis", name=called(own.subspace), customdata=means.tolist(),
            hovertemplate="output direction %{y}, input direction %{x}:<br>"
            "×%{customdata:.2g} the mean<extra></extra>", row=1, col=column,
        )  # fmt: skip
    bar = SLIM | {"orientation": "h", "y": -0.2, "yanchor": "top", "tickvals": [-2, -1, 0, 1, 2]}
    bar["ticktext"] = ["×0.01", "×0.1", "×1", "×10", "×100"]
    scale = {"colorscale": "Cividis", "cmin": -RANGE, "cmax": RANGE, "colorbar": bar}
    laid_out(figure, 420, dragmode=False, coloraxis=scale)
    figure.update_layout(margin={"t": 34})
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_yaxes(title="output directions", col=1)
    figure.update_xaxes(title="input directions", showgrid=False)
    told = "; ".join(f"{called(own.subspace)} {times(own.change)}" for own in found)
    caption = (
        f"The price of moving the weight along each pair of directions, strongest of what {task} "
        "changed at the top left; ×1 is the average price. To undo what the expert learnt costs: "
        f"{told}. Bright is protected, dark is free for the other tasks."
    )
    return Figure(figure, f"Maps of protected directions, side by side. {caption}", caption)


def protection_along(found: Sequence[Protection], task: str, rank: int) -> Figure:
    """The relative cost along the directions of the update, strongest first."""
    figure = go.Figure()
    for own in found:
        look = LOOKS[own.subspace]
        x, y = thinned(own.along.tolist())
        x, y = [i + 1 for i in x], [max(v, 1e-6) for v in y]
        hover, name = "direction no. %{x}: ×%{y:.2g}" + NAMED, called(own.subspace)
        curve(figure, look, x, y, hover, name=name, marker_maxdisplayed=12)
    laid_out(figure, 340)
    rank = min(rank, len(found[0].strengths))
    figure.add_vline(rank + 0.5, line={"color": GREY, "width": 2, "dash": "dash"})
    figure.update_xaxes(type="log", title="direction of the change, strongest first", dtick=1)
    figure.update_yaxes(type="log", title="price, × the mean", dtick=1)
    held = float(found[0].strengths[:rank].sum())
    means = "; ".join(f"{own.subspace} {times(float(own.along[:rank].mean()))}" for own in found)
    caption = (
        f"The first {rank} directions hold {percent(held)} of what {task} changed here. Mean price "
        f"along them: {means}. Where a line lies under ×1, that subspace protects other things "
        "than what the expert learnt."
    )
    return Figure(figure, f"Price along the directions of the change. {caption}", caption)


def concentration(found: Mapping[Subspace, Protection]) -> Figure:
    """The share of each subspace's trace that its strongest eigenvectors hold."""
    figure = go.Figure()
    for own in found.values():
        look, total = LOOKS[own.subspace], len(own.eigenvalues)
        chosen = sorted({min(total, round(10 ** (k / 40))) for k in range(40 * 9)} | {total})
        share = own.eigenvalues.cumsum(0)[[i - 1 for i in chosen]]
        hover, name = "%{x:,} directions: %{y:.0%}" + NAMED, called(own.subspace)
        curve(figure, look, chosen, share.tolist(), hover, name=name, marker_maxdisplayed=8)
    figure.add_hline(0.9, line={"color": GREY, "width": 1, "dash": "dash"})
    laid_out(figure, 340)
    figure.update_xaxes(type="log", dtick=1, title="eigenvectors of the subspace, strongest first")
    figure.update_yaxes(range=[0, 1.02], tickformat=".0%", title="share of its trace")
    total = len(next(iter(found.values())).eigenvalues)
    told = ", ".join(
        f"{own.subspace} {own.needed():,}" for own in found.values() if own.subspace != "identity"
    )
    caption = (
        f"Of {total:,} directions so many hold 90 % of the trace: {told}; the identity treats all "
        "alike. The fewer directions a subspace needs, the more room it leaves to other tasks."
        if told
        else f"The identity treats all {total:,} directions alike."
    )
    return Figure(figure, f"Share of the trace against directions, by subspace. {caption}", caption)
