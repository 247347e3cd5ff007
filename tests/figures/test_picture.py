"""Still pictures of figures: everything lies where its number says, and names stay text."""

from __future__ import annotations

import base64
import io
import re
import xml.etree.ElementTree as ET
from itertools import pairwise

import numpy as np
import plotly.graph_objects as go
import pytest
from PIL import Image

from mats_core.figures import PALETTE, picture
from mats_core.figures.axes import axis, plain
from mats_core.figures.style import UPWARDS, laid_out
from mats_core.figures.svg import thinned

SVG = "{http://www.w3.org/2000/svg}"


def drawn(figure: go.Figure, alt: str = "what it shows") -> ET.Element:
    return ET.fromstring(picture(figure, alt))


def marks(tree: ET.Element, name: str) -> list[ET.Element]:
    """The elements of one kind inside the plot."""
    (plot,) = [g for g in tree.iter(f"{SVG}g") if g.get("clip-path")]
    return list(plot.iter(f"{SVG}{name}"))


def labels(tree: ET.Element) -> dict[str, tuple[float, float]]:
    return {
        "".join(one.itertext()): (float(one.get("x", 0)), float(one.get("y", 0)))
        for one in tree.iter(f"{SVG}text")
    }


def attribute(element: ET.Element, name: str) -> float:
    return float(element.get(name, "nan"))


def test_heights_of_bars_are_their_values_and_colours_stay():
    figure = laid_out(go.Figure(go.Bar(x=["a", "b", "c"], y=[1.0, 2.0, 4.0])))
    bars = marks(drawn(figure), "rect")
    heights = [attribute(bar, "height") for bar in bars]
    assert heights[1] / heights[0] == pytest.approx(2, abs=0.01)
    assert heights[2] / heights[0] == pytest.approx(4, abs=0.02)
    ends = [attribute(bar, "y") + attribute(bar, "height") for bar in bars]
    assert max(ends) - min(ends) < 0.02  # all stand on zero
    assert {bar.get("fill") for bar in bars} == {PALETTE[0]}


def test_bars_are_stacked_or_side_by_side():
    traces = [
        go.Bar(x=["a", "b"], y=y, name=name) for y, name in (([1, 2], "one"), ([3, 1], "two"))
    ]
    stacked = marks(drawn(go.Figure(traces, {"barmode": "stack"})), "rect")
    lower, upper = stacked[0], stacked[2]
    assert attribute(upper, "y") + attribute(upper, "height") == pytest.approx(
        attribute(lower, "y"), abs=0.02
    )
    assert attribute(upper, "height") == pytest.approx(3 * attribute(lower, "height"), abs=0.05)
    beside = marks(drawn(go.Figure(traces)), "rect")
    first, second = beside[0], beside[2]
    assert attribute(first, "x") + attribute(first, "width") == pytest.approx(
        attribute(second, "x"), abs=0.02
    )


@pytest.mark.parametrize(("kind", "y"), [("linear", [1.0, 2.0, 3.0]), ("log", [0.01, 0.1, 1.0])])
def test_points_lie_at_their_values(kind, y):
    figure = go.Figure(go.Scatter(x=[0, 1, 3], y=y, mode="markers"))
    figure.update_yaxes(type=kind)
    points = marks(drawn(figure), "circle")
    across, down = ([attribute(p, c) for p in points] for c in ("cx", "cy"))
    assert (across[2] - across[0]) / (across[1] - across[0]) == pytest.approx(3, abs=0.01)
    assert down[0] - down[1] == pytest.approx(down[1] - down[2], abs=0.02)  # even steps, upwards
    assert down[0] > down[1]


def test_ticks_stand_beside_what_they_name():
    figure = go.Figure(go.Scatter(x=[0, 10], y=[0.2, 0.8], mode="markers"))
    figure.update_yaxes(tickformat=".0%", range=[0, 1])
    tree = drawn(figure)
    points, said = marks(tree, "circle"), labels(tree)
    assert said["20%"][1] - 4 == pytest.approx(attribute(points[0], "cy"), abs=0.1)
    assert said["80%"][1] - 4 == pytest.approx(attribute(points[1], "cy"), abs=0.1)
    assert said["10"][0] == pytest.approx(attribute(points[1], "cx"), abs=0.1)


def test_a_gap_breaks_a_line_and_whiskers_reach_the_interval():
    error = {"type": "data", "array": [1, 1, 1, 1, 1], "arrayminus": [0.5] * 5}
    curve = go.Scatter(x=[0, 1, 2, 3, 4], y=[1, 2, None, 3, 4], mode="lines", error_y=error)
    figure = go.Figure(go.Scatter(x=[0, 4], y=[1, 4], mode="lines"))
    tree = drawn(figure.add_trace(curve.update(error_y=None)))
    runs = [len(line.get("points", "").split()) for line in marks(tree, "polyline")]
    assert runs == [2, 2, 2]
    figure = go.Figure(go.Scatter(x=[0, 1], y=[2, 4], mode="markers", error_y={**error,
                                  "array": [1, 1], "arrayminus": [0.5, 0.5]}))  # fmt: skip
    tree = drawn(figure)
    (one, two), (line, _) = marks(tree, "circle"), marks(tree, "line")
    unit = (attribute(one, "cy") - attribute(two, "cy")) / 2
    assert attribute(one, "cy") - attribute(line, "y1") == pytest.approx(unit, abs=0.05)
    assert attribute(line, "y2") - attribute(one, "cy") == pytest.approx(unit / 2, abs=0.05)


def test_cells_have_the_colours_of_the_scale_with_the_first_row_where_it_belongs():
    z = [[0.0, 0.5], [1.0, None]]
    heat = go.Heatmap(x=["a", "b"], y=["up", "down"], z=z, colorscale=UPWARDS, zmin=0, zmax=1)
    figure = go.Figure(heat.update(showscale=False))
    figure.update_yaxes(autorange="reversed")
    tree = drawn(figure)
    cells, said = marks(tree, "rect"), labels(tree)
    assert [(cell.get("fill") or "").upper() for cell in cells] == [c for _, c in UPWARDS]
    assert attribute(cells[0], "y") < attribute(cells[2], "y")
    assert said["up"][1] < said["down"][1]


def test_many_cells_become_an_image_with_their_colours():
    z = [[(i + j) / 98 for j in range(50)] for i in range(50)]
    tree = drawn(go.Figure(go.Heatmap(z=z, colorscale=UPWARDS)))
    (image,) = marks(tree, "image")
    data = base64.b64decode((image.get("href") or "").partition(",")[2])
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert pixels.shape == (50, 50, 3)
    ends = ["#" + bytes(pixels[place]).hex().upper() for place in ((49, 0), (0, 49))]
    assert ends == [UPWARDS[0][1], UPWARDS[-1][1]]  # plotly's first row is at the bottom
    assert len(ET.tostring(tree)) < 12_000


@pytest.mark.parametrize("name", ['<script>x</script>"', "a & b' <b>", "]]>", "‮<svg/onload=x>"])
def test_names_are_text(name):
    safe = name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")  # as figures do
    figure = go.Figure([go.Bar(x=[safe], y=[1], name=safe), go.Bar(x=[safe], y=[2], name=safe)])
    figure.update_xaxes(title=safe)
    tree = drawn(figure, alt=name)  # it parses, so nothing got out
    assert tree.get("aria-label") == name
    assert sum(name in text for text in labels(tree)) >= 1
    assert {one.tag for one in tree.iter()} <= {
        f"{SVG}{kind}" for kind in ("svg", "defs", "clipPath", "rect", "g", "text", "line")
    }


def test_two_pictures_on_a_page_do_not_share_names():
    bars = [go.Figure(go.Bar(x=["a"], y=[y], marker={"pattern": {"shape": "/"}})) for y in (1, 2)]
    found = [set(re.findall(r'id="([^"]+)"', picture(one, ""))) for one in bars]
    assert len(found[0]) == 2  # what is cut off, and the hatching
    assert not found[0] & found[1]


@pytest.mark.parametrize(
    ("layout", "values", "wanted"),
    [
        ({"range": [0, 1]}, [], ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        ({"range": [0, 1], "tickformat": ".0%"}, [], ["0%", "20%", "40%", "60%", "80%", "100%"]),
        ({"range": [0, 4]}, [0, 4], ["0", "1", "2", "3", "4"]),
        ({"type": "log", "range": [-4, 0]}, [], ["10⁻⁴", "10⁻³", "0.01", "0.1", "1"]),
        ({"type": "log", "range": [0, 0.5]}, [], ["1", "2"]),
        ({"tickvals": [0, 1], "ticktext": ["a<br>b", "10<sup>-3</sup>"]}, [0, 1], ["a\nb", "10⁻³"]),
        ({}, ["x", "y", "x"], ["x", "y"]),
        ({"categoryorder": "array", "categoryarray": ["y", "x"]}, ["x", "y"], ["y", "x"]),
    ],
)
def test_ticks(layout, values, wanted):
    assert [label for _, label in axis(layout, values).ticks] == wanted


def test_tags_are_read_and_what_was_escaped_is_shown():
    assert plain("<b>layer</b>") == "layer"
    assert plain("&lt;b&gt;x&lt;/b&gt;") == "<b>x</b>"
    assert plain("one<br>two") == "one\ntwo"


def apart(point: complex, start: complex, end: complex) -> float:
    """How far a point is from the nearest of 20001 points between two others."""
    return float(np.abs(point - start - (end - start) * np.linspace(0, 1, 20001)).min())


CURVES = {
    "a straight line": ([(float(i), 3.0 * i) for i in range(200)], 2),
    "a knee": ([(float(i), float(abs(i - 50))) for i in range(101)], 3),
    "there and back": ([(0.0, 0.0), (50.0, 0.0), (0.0, 0.0)], 3),
    "energy": ([(i * 0.7, 300 * 0.99**i) for i in range(768)], 60),
    "a circle": (
        [(90 * np.cos(2 * np.pi * i / 400), 90 * np.sin(2 * np.pi * i / 400)) for i in range(401)],
        110,
    ),
    "one point": ([(1.0, 2.0)], 1),
}


@pytest.mark.parametrize("name", CURVES)
def test_points_that_change_nothing_to_be_seen_are_left_out(name):
    points, most = CURVES[name]
    kept = thinned(points)
    assert len(kept) <= most
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert set(kept) <= set(points)
    places = [points.index(kept[0]), *(points.index(p) for p in kept[1:-1]), len(points) - 1]
    for first, last in pairwise(places):
        for point in points[first:last:7]:
            assert apart(complex(*point), complex(*points[first]), complex(*points[last])) < 0.11


def test_noise_keeps_its_points():
    """Where every point is seen, none is left out."""
    points = [(float(i), float(i % 2)) for i in range(60)]
    assert thinned(points) == points


def test_long_curves_and_many_numbers_stay_small():
    """As large as the sample family makes them: curves of 768 directions, 12 × 13 factors."""
    falling = [[float(v) for v in np.cumsum(0.99 ** np.arange(768))] for _ in range(8)]
    curves = [go.Scatter(y=[v / row[-1] for v in row], name=f"task {i}") for i, row in
              enumerate(falling)]  # fmt: skip
    assert len(picture(laid_out(go.Figure(curves)), "")) < 5_000
    z = [[(i + j) / 24 for j in range(13)] for i in range(12)]
    said = [[f"{value:.2f}" for value in row] for row in z]
    heat = go.Heatmap(z=z, text=said, texttemplate="%{text}", colorscale=UPWARDS)
    assert len(picture(laid_out(go.Figure(heat)), "")) < 23_000
    tree = drawn(laid_out(go.Figure(heat)))
    assert sum(f"{value:.2f}" in labels(tree) for row in z for value in row) == 156
