"""Chosen inputs with their scores: whose, how many, and the expert's column."""

from __future__ import annotations

from typing import Any

import pytest

from mats_core.figures import Choice, Figure, chosen_scores, chosen_words, to_csv

CHOICE = Choice(
    "b", ("a", "b", "<c>"), ("b", "b", "<c>"), ((-1.0, 2.0, 0.5), (0.0, 1.0, 0.9), (0.1, 0.2, 0.4))
)


def traces(drawn: Figure) -> Any:
    return drawn.figure.data


def test_the_expert_s_column_is_framed_and_rows_are_inputs():
    drawn = chosen_scores(CHOICE)
    (cells,) = traces(drawn)
    layout: Any = drawn.figure.layout
    assert list(cells.x) == ["a", "b", "&lt;c&gt;"]
    assert list(cells.y) == ["1", "2", "3"]
    assert [list(row) for row in cells.z] == [list(row) for row in CHOICE.scores]
    assert list(cells.text[0]) == ["-1.00", "+2.00", "+0.50"]
    assert cells.customdata[2][0] == "&lt;c&gt;"
    (shape,) = layout.shapes
    assert (shape.x0, shape.x1, shape.y0, shape.y1) == (0.5, 1.5, -0.5, 2.5)
    assert len(to_csv(drawn).splitlines()) == 1 + 9


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        (CHOICE, "Inputs shown: 2 of b, 1 of <c>. b answers to 2 of them more than every other "
                 "expert (67 %). Its smallest lead over the next is -0.20."),
        (Choice("a", ("a",), ("a",), ((1.0,),)),
         "Inputs shown: 1 of a. a answers to 1 of them more than every other expert (100 %)."),
    ],
)  # fmt: skip
def test_the_words_count(choice: Choice, said: str):
    assert chosen_words(choice) == said
    assert chosen_scores(choice).caption == said
