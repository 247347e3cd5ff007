"""What is seen before PyTorch is loaded: the numbers that the page shows afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mats_core.recipes import Report
from pages.shared.frame.first_sight import RESULTS, sight
from tests.importing import loads_none_of

ROOT = Path(__file__).resolve().parents[3]
SAMPLES = ROOT / "sample_models" / "drawn"


def test_it_needs_no_pytorch():
    lines = "from pages.shared.frame import first_sight, navigation"
    loads_none_of(lines, "torch", "transformers")


def test_the_best_is_shown_against_the_first_of_the_others():
    plain = json.loads((SAMPLES / RESULTS).read_text("utf-8"))["reports"]
    reports = {one["method"]: Report.from_dict(one) for one in plain}
    found = sight(SAMPLES)
    assert found is not None
    best = max(reports.values(), key=lambda one: one.normalised_accuracy or 0.0)
    assert (found.method, found.split) == (best.method, best.split)
    assert found.normalised == pytest.approx(best.normalised_accuracy)
    assert found.gap == pytest.approx(best.gap_recovered)
    other = reports[found.other].normalised_accuracy
    assert other is not None
    assert found.more == pytest.approx(100 * (found.normalised - other))


NUMBERS = {"method": "a", "normalised_accuracy": 0.5, "gap_recovered": None, "split": "validation"}


@pytest.mark.parametrize(
    ("reports", "other"),
    [
        ([NUMBERS], ""),
        ([NUMBERS, {**NUMBERS, "method": "b", "normalised_accuracy": 0.4}], "b"),
        ([NUMBERS, {**NUMBERS, "method": "b", "normalised_accuracy": 0.4, "split": "test"}], ""),
    ],
)
def test_merges_of_another_split_are_not_compared(tmp_path: Path, reports: list, other: str):
    (tmp_path / RESULTS).write_text(json.dumps({"reports": reports}), "utf-8")
    found = sight(tmp_path)
    assert found is not None
    assert (found.method, found.other) == ("a", other)
    assert found.more == pytest.approx(10 if other else 0)


def test_the_page_stands_where_it_will_stand_once_pytorch_is_loaded(open_app, monkeypatch):
    """Streamlit tells panels apart by their places: one that moves is another, and closed."""
    places = []
    for loading in (True, False):
        monkeypatch.setattr("pages.shared.frame.ahead.loading", lambda is_so=loading: is_so)
        app = open_app()
        places.append({place: node.type for place, node in app.main.children.items()})
        assert app.expander, "there are panels to open"
    assert places[0] == places[1]


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"reports": []}', '{"reports": [{}]}'])
def test_a_file_that_cannot_be_read_shows_nothing(tmp_path: Path, text: str | None):
    if text is not None:
        (tmp_path / RESULTS).write_text(text, "utf-8")
    assert sight(tmp_path) is None
