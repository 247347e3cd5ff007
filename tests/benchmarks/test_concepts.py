"""The pictures of `docs/concepts.md` are those of today's numbers, and the text quotes them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.concepts import FOLDER, PICTURES

TEXT = (FOLDER.parent / "concepts.md").read_text("utf-8")


def told(file: Path) -> dict[str, Any]:
    inside = re.search(r"<metadata>(.*)</metadata>", file.read_text("utf-8"))
    assert inside is not None
    return json.loads(inside[1])


def flat(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for key, one in value.items() for leaf in (key, *flat(one))]
    if isinstance(value, list | tuple):
        return [leaf for one in value for leaf in flat(one)]
    return [value]


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_that_of_today_s_numbers(name):
    compute, draw = PICTURES[name]
    file = FOLDER / name
    kept = told(file)
    assert draw(kept) == file.read_text("utf-8"), "stale: python -m benchmarks.concepts --write"
    for now, then in zip(flat(compute()), flat(kept), strict=True):
        # A spectrum is measured: another machine may round it differently.
        assert now == (pytest.approx(then, abs=5e-3) if isinstance(then, float) else then)


def test_the_text_quotes_the_numbers_of_the_pictures():
    merges = told(FOLDER / "two_tasks.svg")["merges"]
    for merge in merges.values():
        assert f"{sum(merge['losses']):.2f}" in TEXT
    family = told(FOLDER / "sample_family.svg")
    for values in family["shares"].values():
        assert f"{values[family['room'] - 1]:.1%}".replace("%", " %") in TEXT
    for normalised, gap in family["told"].values():
        assert f"{normalised:.1f} %" in TEXT
        assert f"{gap} %" in TEXT
