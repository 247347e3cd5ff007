"""Small pictures as inline SVG and HTML: bars, curves, tables of cells.  Pure text from numbers.

Nothing is scaled as a picture is: positions are shares of the width, texts and lines keep their
size, so a picture is as wide as its column.  Colours are the variables of `STYLE`, which follow the
page's theme.

`chart` stands beside `figures.picture` because it is asked for at every state of a solve under way:
three curves of 60 points take it 0.2 ms, and 55 ms by way of plotly's figure (50 for the figure, 6
for its picture; one thread of a virtual machine).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

# Okabe–Ito, one a task in this order, lighter where the page is dark.
COLOURS = ("blue", "orange", "green", "purple", "sky", "vermillion", "grey", "yellow")
DASHES = ("", "6 3", "2 3", "8 3 2 3")
DARK = """--full:#56B4E9;--pale:rgba(86,180,233,.25);--up:#4CC39A;--down:#FF9D5C;\
--blue:#56A8E9;--green:#35C79A;--vermillion:#F0803C;--purple:#E0A0C8;--sky:#9AD3F5"""
OURS = ".mats-x.mats-x.mats-x"  # stronger than what pages say of all tables
STYLE = f"""\
<style>.mats-x{{--line:rgba(128,128,128,.4);--full:#0072B2;--pale:rgba(0,114,178,.16);--up:#00734F;
--down:#A84300;--blue:#0072B2;--orange:#E69F00;--green:#009E73;--purple:#CC79A7;--sky:#56B4E9;
--vermillion:#D55E00;--grey:#6B7178;--yellow:#C9B800;color:var(--jp-ui-font-color0,inherit);
font-size:13px;line-height:1.45;overflow-wrap:anywhere}}
.mats-live .widget-html-content{{min-width:0}}
.mats-x b{{font-weight:600}}.mats-x .n{{font-size:24px;font-weight:600;overflow-wrap:normal}}
.mats-x table{{border-collapse:collapse;color:inherit;background:none;width:100%;font-size:inherit;
margin:.3em 0}}
{OURS} tr{{background:none}}
{OURS} :is(td,th){{border:0;border-bottom:1px solid var(--line);
padding:.2em 1em .2em 0;text-align:left;background:none;color:inherit;vertical-align:middle;
overflow-wrap:normal}}.mats-x .bar{{width:40%;min-width:90px}}
.mats-x{{container-type:inline-size}}@container(max-width:460px){{.mats-x .bar{{display:none}}}}
.mats-x th{{white-space:nowrap}}{OURS} :is(td,th):last-child{{padding-right:0}}
{OURS} .r{{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}}
{OURS} .up{{color:var(--up)}}{OURS} .down{{color:var(--down)}}
.mats-x .quiet{{opacity:.8;font-size:12px}}
{OURS} .cell{{text-align:center;padding:.2em .3em}}
.mats-x svg{{display:block;overflow:visible}}.mats-x text{{fill:currentColor;font-size:11px}}
.mats-x progress{{width:100%;height:8px}}.mats-x p{{margin:.3em 0}}
.mats-x pre{{white-space:pre-wrap;background:none;color:inherit;font-size:12px}}
.mats-x .all{{user-select:all}}.mats-x button{{font:inherit;padding:.1em .7em;cursor:pointer}}
.mats-x .key i{{display:inline-block;width:18px;border-top:3px solid;vertical-align:middle;
margin:0 .3em 0 0}}
.mats-x .key span{{display:inline-block;margin-right:.9em}}
.mats-x h4{{margin:.8em 0 .2em;font-size:14px;font-weight:600;color:inherit}}
@media(prefers-color-scheme:dark){{body:not([data-jp-theme-light],.vscode-light) .mats-x{{{DARK}}}}}
[data-jp-theme-light=false] .mats-x,.vscode-dark .mats-x,html[theme=dark] .mats-x{{{DARK}}}
</style>""".replace("\n", "")  # twice in every saved panel


def framed(*parts: str) -> str:
    """Parts of HTML in one frame; `STYLE` must stand once on the same page."""
    return f'<div class="mats-x">{"".join(parts)}</div>'


@dataclass(frozen=True)
class Bar:
    """What one bar shows, as shares of the width.

    value      the bar itself
    interval   of the value; None: no whisker
    of         the paler bar behind it; None: none
    marks      further values, as ticks: each with what it is
    said       for screen readers; the value by default
    """

    value: float
    interval: tuple[float, float] | None = None
    of: float | None = None
    marks: tuple[tuple[float, str], ...] = ()
    said: str = ""


def bar(shown: Bar) -> str:
    """A horizontal bar with its interval, over a paler one, and ticks of what stands beside it."""
    parts = []
    if shown.of is not None:
        parts.append(f'<rect width="{_share(shown.of)}" height="18" fill="var(--pale)"/>')
    width = _share(shown.value)
    parts.append(f'<rect y="4" width="{width}" height="10" fill="var(--full)"/>')
    if shown.interval is not None:
        low, high = map(_share, shown.interval)
        parts.append(_line(low, high, 9, 9, "currentColor", 1.5))
    marks = zip(shown.marks, ("var(--orange)", "var(--purple)"), strict=False)
    for (value, what), colour in marks:
        at = _share(value)
        line = _line(at, at, 0, 18, colour, 3)
        parts.append(f"<g><title>{escape(what)}</title>{line}</g>")
    said = escape(shown.said) or f"{100 * shown.value:.1f} %"
    return f'<svg width="100%" height="18" role="img" aria-label="{said}">{"".join(parts)}</svg>'


def _line(x1: str, x2: str, y1: float, y2: float, colour: str, width: float) -> str:
    return (
        f'<line x1="{x1}" x2="{x2}" y1="{y1}" y2="{y2}" stroke="{colour}" stroke-width="{width}"/>'
    )


def _share(value: float) -> str:
    inside = min(1.0, max(0.0, value)) if math.isfinite(value) else 0.0
    return f"{100 * inside:.1f}%"


@dataclass(frozen=True)
class Curve:
    """A line of a chart.

    label    its name
    x, y     its points
    colour   one of `COLOURS`
    dash     of the line, as in SVG; "" for a solid one
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str = "blue"
    dash: str = ""


def look(index: int) -> tuple[str, str]:
    """The colour and the dash of the `index`-th task."""
    turn = index // len(COLOURS)
    return COLOURS[index % len(COLOURS)], DASHES[(index + turn) % len(DASHES)]


def chart(
    curves: Sequence[Curve],
    *,
    said: str,
    across: str,
    upwards: str,
    logarithmic: bool = False,
    share: bool = False,
    height: int = 190,
) -> str:
    """Lines over one axis, with their names below; "" where no curve has two points.

    said          what a screen reader says
    across        the title of the horizontal axis, and
    upwards       of the vertical one
    logarithmic   whether that is one of powers of ten
    share         whether its numbers are shown as percentages
    """
    drawn = [one for one in curves if len(one.x) > 1]
    if not drawn:
        return ""
    level = _log if logarithmic else float
    ys = [level(y) for one in drawn for y in one.y]
    xs = [float(x) for one in drawn for x in one.x]
    low, high = _ends(ys, whole=logarithmic)
    left, right = min(xs), max(xs)

    def across_at(x: float) -> float:
        return 100 * (x - left) / ((right - left) or 1)

    def up_at(y: float) -> float:
        return 100 * (high - level(y)) / (high - low)

    lines = "".join(
        f'<polyline points="{_points(one, across_at, up_at)}" fill="none" '
        f'stroke="var(--{one.colour})" stroke-width="2" vector-effect="non-scaling-stroke"'
        + (f' stroke-dasharray="{one.dash}"' if one.dash else "")
        + "/>"
        for one in drawn
    )
    ticks = _ticks(low, high, whole=logarithmic)
    labels = [_label(tick, logarithmic=logarithmic, share=share) for tick in ticks]
    places = [100 * (high - tick) / (high - low) for tick in ticks]
    grid = "".join(
        f'<line x1="0" x2="100" y1="{place:.1f}" y2="{place:.1f}" stroke="var(--line)" '
        'vector-effect="non-scaling-stroke"/>'
        for place in places
    )
    area = height - 34
    # With spaces between: where drawings are stripped of their tags, their words are left.
    texts = " ".join(
        f'<text x="44" y="{8 + area * place / 100 + 4:.0f}" text-anchor="end">{label}</text>'
        for place, label in zip(places, labels, strict=True)
    )
    below = f'y="{height - 10}"'
    texts += f' <text x="50" {below}>{left:g}</text>'
    texts += f' <text x="100%" {below} text-anchor="end">{right:g}</text>'
    texts += f' <text x="50%" {below} text-anchor="middle">{escape(across)}</text>'
    inner = (
        f'<svg x="50" y="8" width="100%" height="{area}" style="width:calc(100% - 52px)" '
        f'viewBox="0 0 100 100" preserveAspectRatio="none">{grid}{lines}</svg>'
    )
    whole = (
        f'<svg width="100%" height="{height}" role="img" aria-label="{escape(said)}">'
        f"{inner}{texts}</svg>"
    )
    return f'<div class="quiet">{escape(upwards)}</div>{whole}{_key(drawn)}'


def _points(one: Curve, across: object, up: object) -> str:
    assert callable(across)
    assert callable(up)
    points = zip(one.x, one.y, strict=True)
    return " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in points)


def _key(curves: Sequence[Curve]) -> str:
    named = (one for one in curves if one.label)
    said = "".join(key(one.colour, one.label, dashed=bool(one.dash)) for one in named)
    return f'<div class="quiet key">{said}</div>' if said else ""


def key(colour: str, name: str, *, dashed: bool = False) -> str:
    """A colour of `STYLE` and what has it, which stay together on one line."""
    line = f"border-color:var(--{colour});border-top-style:{'dashed' if dashed else 'solid'}"
    return f'<span><i style="{line}"></i>{escape(name)}</span> '


def _log(value: float) -> float:
    return math.log10(max(float(value), 1e-16))


def _ends(values: Sequence[float], *, whole: bool) -> tuple[float, float]:
    low, high = min(values), max(values)
    if whole:
        low, high = math.floor(low), math.ceil(high)
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    return low, high


def _ticks(low: float, high: float, *, whole: bool) -> list[float]:
    if not whole:
        return [low + (high - low) * part / 3 for part in range(4)]
    every = max(1, math.ceil((high - low) / 4))
    return [float(tick) for tick in range(math.ceil(low), math.floor(high) + 1, every)]


def _label(tick: float, *, logarithmic: bool, share: bool) -> str:
    if logarithmic:
        return f'10<tspan dy="-4" font-size="8">{tick:.0f}</tspan>'
    return f"{100 * tick:.0f} %" if share else f"{tick:.3g}"


def cells(
    rows: Mapping[str, Sequence[float]],
    columns: Sequence[str],
    *,
    said: str,
    most: float = 1.0,
    form: str = ".2f",
) -> str:
    """A table of numbers, each on a ground that is the stronger the nearer it comes to `most`.

    rows      name → a number for each of the columns
    columns   their names
    said      what the table is
    form      how a number is written
    """
    heads = "".join(f'<th class="cell" scope="col">{escape(name)}</th>' for name in columns)
    lines = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(_cell(value, most, form) for value in values)
        + "</tr>"
        for name, values in rows.items()
    )
    top = f'<caption class="quiet" style="text-align:left">{escape(said)}</caption>'
    return table(f"{top}<tr><th></th>{heads}</tr>{lines}")


def table(rows: str) -> str:
    """A table of rows of HTML, which is moved sideways where its column is too narrow."""
    return f'<div style="overflow-x:auto"><table>{rows}</table></div>'


def _cell(value: float, most: float, form: str) -> str:
    ground = 0.55 * min(1.0, max(0.0, value / most)) if math.isfinite(value) else 0.0
    written = format(value, form) if math.isfinite(value) else "–"
    return f'<td class="cell" style="background:rgba(86,150,220,{ground:.2f})">{written}</td>'
