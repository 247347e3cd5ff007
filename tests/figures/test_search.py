"""Pictures of a search and of intermediate tasks: what they hold, and what their words say."""

from __future__ import annotations

from typing import Any

from mats_core import figures
from mats_core.analysis import Donated, Donation, Donations, SearchTrial
from mats_core.evaluation import Score, TaskResult

TITLES = {"damping": "Damping <δ>", "after svc": "SVC"}


def drawn(shown: figures.Figure) -> tuple[Any, ...]:
    """The traces of a picture."""
    return tuple(shown.figure.data)


def trial(number: int, accuracy: float | None, worst: float = 0.5) -> SearchTrial:
    values = {"damping": 0.1 * number, "after svc": number > 2}
    if accuracy is None:
        return SearchTrial(number, values, reason="it was singular.")
    return SearchTrial(number, values, accuracy, 0.4, 0.9, worst, "flags", 1.0)


TRIALS = (trial(1, 0.6), trial(2, 0.5, 0.55), trial(3, 0.8, 0.4), trial(4, None), trial(5, 0.7))


def test_the_history_has_every_merge_and_the_best_so_far():
    shown = figures.search_history(TRIALS, ("mean",), TITLES, examples=150)
    assert shown is not None
    points, best = drawn(shown)
    assert list(points.customdata) == [1, 2, 3, 5]
    assert list(best.y) == [0.6, 0.6, 0.8, 0.8]
    assert "number 3, 80.0 %" in shown.caption
    assert "Damping <δ> 0.3, SVC on" in shown.caption
    assert "&lt;δ&gt;" in points.hovertext[0]
    assert "trial 1, has 60.0 %" in shown.caption
    assert "1 could not be merged" in shown.caption
    assert len(shown.rows) == 5
    assert figures.search_history(TRIALS[3:4], ("mean",), TITLES) is None


def test_the_front_is_marked_where_there_are_several_objectives():
    shown = figures.search_front(TRIALS, ("mean", "worst"), TITLES)
    assert shown is not None
    beaten, front = drawn(shown)
    assert list(front.customdata) == [3, 5, 2]
    assert list(beaten.customdata) == [1]
    assert "3 trials are beaten by no other one" in shown.caption
    assert figures.search_front(TRIALS, ("mean",), TITLES) is None


def test_importance_is_sorted_with_the_first_above():
    shown = figures.search_importance({"damping": 0.7, "after svc": 0.3}, TITLES)
    assert shown is not None
    (bars,) = drawn(shown)
    assert list(bars.y) == ["SVC", "Damping &lt;δ&gt;"]
    assert shown.caption.startswith("Damping <δ> decides most, 70 %")
    assert figures.search_importance({}, TITLES) is None


def donation(donor: str, right: tuple[int | None, ...]) -> Donation:
    def result(count: int) -> TaskResult:
        return TaskResult("t", Score(count, 100), Score(80, 100), Score(10, 100))

    points = tuple(
        Donated(index / 2, None if count is None else result(count), "" if count else "failed")
        for index, count in enumerate(right)
    )
    return Donation("t", donor, points)


def test_donors_stand_with_their_best_weight_beside_the_expert_alone():
    pairs = (donation("a", (60, 95, 80)), donation("b", (20, None, 80)))
    shown = figures.donation_map(Donations(None, pairs, 100))  # type: ignore[arg-type]
    assert shown is not None
    (heat,) = drawn(shown)
    assert list(heat.text[0]) == ["+15.0<br>λ 0.5", "+0.0<br>λ 1"]
    assert len(shown.figure.layout.shapes) == 1
    assert "1 of 2 pairs is clearly above" in shown.caption
    looks = figures.looks(["t", "a", "b"])
    lines = figures.donation_curves(pairs, looks, examples=100)
    assert lines is not None
    assert [list(one.x) for one in drawn(lines)] == [[0.0, 0.5, 1.0], [0.5], [0.0, 1.0], [1.0]]
    assert "Best for t: a at λ 0.5, 95.0 %" in lines.caption
    assert figures.donation_curves([donation("a", (None,))], looks) is None
