"""The map of layers: cells that carry what they open, and a caption of this run's numbers."""

from __future__ import annotations

import math
from typing import Any

import pytest

from mats_core.analysis import LayerRow
from mats_core.figures import layer_map


def row(name: str, **kept: float) -> LayerRow:
    return LayerRow(f"net.{name}.weight", 0.1, 0.5, 2.0, 0.3, 0.1, kept)


ROWS = [row("0.query", pets=0.5, birds=-0.25), row("1.query", pets=0.75, birds=math.nan)]


def test_cells_carry_their_layer_and_task_and_the_caption_their_numbers():
    drawn = layer_map(ROWS, chosen="net.1.query.weight")
    assert drawn is not None
    figure: Any = drawn.figure
    cells, points = figure.data
    assert [list(line) for line in cells.text] == [["50", "-25"], ["75", ""]]
    assert cells.zmid == 0
    assert [list(one) for one in points.customdata] == [
        [one.name, task] for one in ROWS for task in ("pets", "birds")
    ]
    assert list(zip(points.x, points.y, strict=True))[2] == (cells.x[0], cells.y[1])
    (frame,) = figure.layout.shapes
    assert (frame.y0, frame.y1, frame.x0, frame.x1) == (0.5, 1.5, -0.5, 1.5)
    assert "Most: pets in 1 · query (75 %). Least: birds in 0 · query (-25 %)." in drawn.caption
    assert drawn.rows[1] == {"layer": "net.0.query.weight", "task": "birds", "kept": -0.25}


@pytest.mark.parametrize("kept", [{}, {"pets": math.nan}])
def test_without_grams_there_is_nothing_to_draw(kept: dict[str, float]):
    assert layer_map([row("0.query", **kept)]) is None


def test_large_numbers_are_as_short_as_a_cell_on_a_phone():
    drawn = layer_map([row("0.query", pets=-162.4, birds=-9.994)])
    assert drawn is not None
    figure: Any = drawn.figure
    assert list(figure.data[0].text[0]) == ["-16k", "-999"]
    assert list(figure.data[1].text) == ["-16240 %", "-999 %"]
    assert "(k: thousands)" in drawn.caption


def test_nothing_is_framed_where_no_layer_is_open():
    drawn = layer_map(ROWS)
    assert drawn is not None
    figure: Any = drawn.figure
    assert not figure.layout.shapes
