"""Plots of the study as SVG files: light background, the palette and the dashes of the pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
plt.rcParams.update(
    {
        "svg.hashsalt": "mats-explorer",  # the same figure, the same file
        "svg.fonttype": "none",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "#dddddd",
        "figure.facecolor": "white",
    }
)
Series = Mapping[str, Sequence[tuple[float, float]]]


def lines(
    file: Path,
    panels: Mapping[str, Series],
    *,
    x: str,
    y: str,
    log: bool = False,
    names: Mapping[float, str] | None = None,
) -> None:
    """One panel a family, one line a series of (x, y) points; `names` label places on the x."""
    figure, axes = plt.subplots(
        1, len(panels), figsize=(4.2 * len(panels), 3.2), squeeze=False, layout="constrained"
    )
    for axis, (title, series) in zip(axes[0], panels.items(), strict=True):
        for index, (label, points) in enumerate(series.items()):
            if not points:
                continue
            axis.plot(
                *zip(*sorted(points), strict=True),
                label=label,
                color=OKABE_ITO[index % len(OKABE_ITO)],
                linestyle=DASHES[index % len(DASHES)],
                marker=MARKERS[index % len(MARKERS)],
                markersize=4,
            )
        axis.set_title(title, fontsize=9)
        axis.set_xlabel(x)
        axis.set_ylabel(y)
        if log:  # marked where something was measured, not at powers of ten
            axis.set_xscale("log")
            places = sorted({place for points in series.values() for place, _ in points if place})
            axis.set_xticks(places, [f"{place:g}" for place in places])
            axis.minorticks_off()
        if names:
            axis.set_xticks(list(names), list(names.values()))
        axis.legend(fontsize=7, frameon=False)
    save(figure, file)


def scatter(
    file: Path, panels: Mapping[str, Sequence[tuple[float, float]]], *, x: str, y: str
) -> None:
    """One panel a family; both axes logarithmic where all numbers are above zero."""
    figure, axes = plt.subplots(
        1, len(panels), figsize=(4.2 * len(panels), 3.2), squeeze=False, layout="constrained"
    )
    for axis, (title, points) in zip(axes[0], panels.items(), strict=True):
        axis.scatter(*zip(*points, strict=True), s=14, color=OKABE_ITO[0], alpha=0.8)
        if all(first > 0 for first, _ in points):
            axis.set_xscale("log")
        axis.set_title(title, fontsize=9)
        axis.set_xlabel(x)
        axis.set_ylabel(y)
    save(figure, file)


def bars(file: Path, panels: Mapping[str, Mapping[str, tuple[float, float]]], *, x: str) -> None:
    """One panel a family: horizontal bars of (value, half of the interval)."""
    most = max(len(values) for values in panels.values())
    figure, axes = plt.subplots(
        1, len(panels), figsize=(4.2 * len(panels), 0.9 + 0.26 * most), squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for axis, (title, values) in zip(axes[0], panels.items(), strict=True):
        labels = list(values)[::-1]
        axis.barh(
            labels,
            [values[name][0] for name in labels],
            xerr=[values[name][1] for name in labels],
            color=OKABE_ITO[5],
            ecolor="#444444",
            capsize=2,
        )
        low = min(value - half for value, half in values.values())
        axis.set_xlim(left=max(0.0, low - 3))
        axis.set_title(title, fontsize=9)
        axis.set_xlabel(x)
    save(figure, file)


def save(figure: plt.Figure, file: Path) -> None:  # type: ignore[name-defined]
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, format="svg", metadata={"Date": None})
    plt.close(figure)
