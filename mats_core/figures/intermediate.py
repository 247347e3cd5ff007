"""Intermediate tasks: what every donor does for every target, and the curve over the weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from ..analysis import Donation, Donations
from .style import AROUND, GREY, NAMED, Figure, Look, curve, frame, heatmap, laid_out, percent, safe
from .why import points


def donation_map(found: Donations) -> Figure | None:
    """By how much the best merge with each donor is above the target's expert, on the validation
    examples by which it was chosen; the best donor of a target framed.  None without a merge."""
    pairs = [one for one in found.donations if one.gain is not None]
    if not pairs:
        return None
    targets = list(dict.fromkeys(one.target for one in pairs))
    donors = list(dict.fromkeys(one.donor for one in pairs))
    z: list[list[float | None]] = [[None] * len(donors) for _ in targets]
    text = [[""] * len(donors) for _ in targets]
    for one in pairs:
        row, column = targets.index(one.target), donors.index(one.donor)
        assert one.gain is not None
        assert one.best is not None
        z[row][column] = one.gain.value
        text[row][column] = f"{100 * one.gain.value:+.1f}<br>λ {one.best.weight:g}"
    most = max(0.01, *(abs(one.gain.value) for one in pairs if one.gain is not None))
    figure = go.Figure()
    colours = {"colorscale": AROUND, "zmin": -most, "zmax": most}
    heatmap(figure, [safe(d) for d in donors], [safe(t) for t in targets], z, text=text, **colours)
    laid_out(figure, 110 + 46 * len(targets))
    figure.update_xaxes(title="donor", side="top", showgrid=False)
    figure.update_yaxes(title="target", autorange="reversed", showgrid=False)
    for target in targets:
        top = found.best_for(target)
        if top is not None and top.best is not None and top.best.weight < 1:
            frame(figure, targets.index(target), donors.index(top.donor), 0.48, 0.47, width=3)
    clear = [one for one in pairs if one.gain is not None and one.gain.low > 0]
    caption = (
        "Points of the target's accuracy above its expert alone, with the best weight λ of the "
        f"target. {len(clear)} of {len(pairs)} pairs {'is' if len(clear) == 1 else 'are'} clearly "
        f"above it. The best of {len(found.donations[0].points)} weights on the same validation "
        f"examples, {_asked(found)} of a target: it flatters; where λ is 1 no donor helped."
    )
    rows = [
        {
            "target": one.target, "donor": one.donor, "weight": one.best.weight,
            "gain": one.gain.value, "low": one.gain.low, "high": one.gain.high,
            "split": "validation",
        }
        for one in pairs
        if one.gain is not None and one.best is not None
    ]  # fmt: skip
    return Figure(figure, f"Heatmap of targets by donors. {caption}", caption, rows)


def donation_curves(
    donations: Sequence[Donation], looks: Mapping[str, Look], *, examples: int | None = None
) -> Figure | None:
    """The target's accuracy over its weight, a curve for each donor, with the 95 % interval at each
    donor's best weight, and its expert alone; None without a merge.

    donations   of one target
    """
    there = [one for one in donations if one.best is not None]
    if not there:
        return None
    figure = go.Figure()
    for one in there:
        good = [(p.weight, p.result.merged) for p in one.points if p.result is not None]
        look, name = looks[one.donor], safe(one.donor)
        hover = "λ %{x:g}: %{y:.1%}" + NAMED
        curve(figure, look, [w for w, _ in good], [s.value for _, s in good], hover, name=name)
        assert one.best is not None
        assert one.best.result is not None
        score = one.best.result.merged
        low, high = score.interval
        figure.add_scatter(
            x=[one.best.weight], y=[score.value], mode="markers", showlegend=False, name=name,
            marker={"symbol": look.marker, "size": 13, "color": look.colour}, hoverinfo="skip",
            error_y={"type": "data", "symmetric": False, "array": [high - score.value],
                     "arrayminus": [score.value - low], "color": look.colour, "width": 4},
        )  # fmt: skip
    alone = next(p.result.finetuned for p in there[0].points if p.result is not None)
    figure.add_hline(alone.value, line={"color": GREY, "dash": "dash", "width": 2})
    figure.add_annotation(
        x=0, xref="paper", y=alone.value, text="the expert alone", showarrow=False, xanchor="left",
        yanchor="bottom", font={"color": GREY},
    )  # fmt: skip
    laid_out(figure, 420)
    figure.update_xaxes(title="λ, weight of the target; the donor has 1 − λ", range=[-0.03, 1.03])
    figure.update_yaxes(tickformat=".0%", title=f"accuracy on {safe(there[0].target)}")
    best = max(there, key=lambda one: _best(one))
    assert best.best is not None
    gain = best.gain
    said = f", {points(gain)} against the expert alone" if gain is not None else ""
    size = "all" if examples is None else f"at most {examples}"
    caption = (
        f"Best for {best.target}: {best.donor} at λ {best.best.weight:g}, {percent(_best(best))}"
        f"{said}. Large marks: each donor's best weight, with the 95 % interval. Chosen on {size} "
        "validation examples, which flatters it."
    )
    rows = [
        {
            "target": one.target, "donor": one.donor, "weight": point.weight,
            "value": point.result.merged.value, "low": point.result.merged.interval[0],
            "high": point.result.merged.interval[1], "examples": point.result.merged.examples,
            "split": "validation",
        }
        for one in there
        for point in one.points
        if point.result is not None
    ]  # fmt: skip
    return Figure(figure, f"Accuracy over the weight of the target. {caption}", caption, rows)


def _best(one: Donation) -> float:
    assert one.best is not None
    assert one.best.result is not None
    return one.best.result.merged.value


def _asked(found: Donations) -> str:
    return "all" if found.examples is None else f"at most {found.examples}"
