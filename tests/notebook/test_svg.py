"""Pictures from numbers: what is drawn is where the numbers say, and names are escaped."""

from __future__ import annotations

import re

import pytest

from mats_core.notebook import svg
from mats_core.notebook.svg import Bar, Curve
from tests.notebook.markup_cases import Balanced

HOSTILE = "<script>alert('x')</script>&\"'"


def test_a_bar_stands_where_its_numbers_say():
    drawn = svg.bar(Bar(0.5, (0.4, 0.625), 0.9, ((0.25, "average"),)))
    Balanced(drawn)
    assert '<rect width="90.0%"' in drawn
    assert '<rect y="4" width="50.0%"' in drawn
    assert 'x1="40.0%" x2="62.5%"' in drawn
    assert 'x1="25.0%" x2="25.0%"' in drawn
    assert 'aria-label="50.0 %"' in drawn


@pytest.mark.parametrize("value", [-1, 2, float("nan"), float("inf")])
def test_a_bar_stays_inside(value):
    for width in re.findall(r'width="([\d.]+)%"', svg.bar(Bar(value, None, value))):
        assert 0 <= float(width) <= 100


def test_a_chart_reaches_from_end_to_end_and_upwards():
    drawn = svg.chart([Curve("a", [0, 5, 10], [0.2, 0.4, 0.6])], said="s", across="x", upwards="y")
    Balanced(drawn)
    assert 'points="0.0,100.0 50.0,50.0 100.0,0.0"' in drawn
    assert svg.chart([Curve("a", [0], [1])], said="", across="", upwards="") == ""


def test_powers_of_ten_are_as_far_apart_as_their_exponents():
    curves = [Curve("r", [0, 1, 2], [1.0, 0.1, 0.01])]
    drawn = svg.chart(curves, said="", across="", upwards="", logarithmic=True)
    assert 'points="0.0,0.0 50.0,50.0 100.0,100.0"' in drawn
    flat = svg.chart(
        [Curve("r", [0, 1], [0.0, 0.0])], said="", across="", upwards="", logarithmic=True
    )
    assert "nan" not in flat


def test_words_stay_apart_where_all_tags_are_stripped():
    """As GitHub shows a notebook: neither styles nor drawings, but their text."""
    curves = [Curve(name, [0, 14], [1.0, 1e-4]) for name in ("median", "largest")]
    drawn = svg.chart(curves, said="s", across="iteration", upwards="residual", logarithmic=True)
    text = re.sub(r"<[^>]+>", "", drawn)
    assert "10-4 10-3 10-2 10-1 100" in text
    assert "0 14 iteration" in text
    assert "median largest" in text


def test_a_share_is_shown_in_percent():
    drawn = svg.chart([Curve("", [0, 1], [0.0, 0.9])], said="", across="", upwards="", share=True)
    assert re.findall(r">(\d+ %)<", drawn) == ["0 %", "30 %", "60 %", "90 %"]


def test_cells_are_the_darker_the_larger_and_survive_what_is_no_number():
    drawn = svg.cells({"r": [0.0, 1.0, 2.0, float("nan")]}, list("abcd"), said="t", most=2.0)
    Balanced(drawn)
    assert [float(a) for a in re.findall(r"220,([\d.]+)\)", drawn)] == pytest.approx(
        [0, 0.275, 0.55, 0], abs=0.01
    )
    assert re.findall(r">(\S+)</td>", drawn) == ["0.00", "1.00", "2.00", "–"]


def test_names_are_escaped():
    shown = [
        svg.bar(Bar(0.5, marks=((0.5, HOSTILE),))),
        svg.chart([Curve(HOSTILE, [0, 1], [0, 1])], said=HOSTILE, across=HOSTILE, upwards=HOSTILE),
        svg.cells({HOSTILE: [1.0]}, [HOSTILE], said=HOSTILE),
    ]
    for drawn in shown:
        Balanced(drawn)
        assert "<script" not in drawn
        assert "&lt;script&gt;" in drawn


def test_looks_of_more_tasks_than_colours_differ():
    assert len({svg.look(index) for index in range(16)}) == 16


def test_nothing_is_fetched():
    assert not re.search(r"https?:|@import|url\(|src=|<script|<link", svg.STYLE + svg.framed("x"))
