"""All methods on Compare: the board is that of the merges, fills, stops, goes on, is confirmed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from mats_core.evaluation.comparison import compare, normalised_interval
from mats_core.evaluation.scores import Score, TaskResult
from mats_core.merging.pipeline import merge
from mats_core.methods.table import METHODS
from mats_core.recipes.family_file import FamilyFile, load_family, measure_all
from mats_core.recipes.plan import open_inputs, with_statistics
from mats_core.recipes.sections import TRIED
from pages.shared.views import leaderboard as views
from pages.shared.work import leaderboard, runs
from pages.shared.work.jobs import Cancelled
from pages.shared.work.leaderboard import BoardRequest
from pages.shared.work.prepare import Prepared
from tests.pages.driving import button, held, kept, press, sentences, settle, texts_of

Open = Callable[..., AppTest]
SOME = ("average", "slerp", "ties", "regmean", "kfac")
JOBS = ("preparation", "ranking")


@pytest.fixture(autouse=True)
def some_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five of the methods, one of which takes two experts and no more."""
    monkeypatch.setattr(leaderboard, "METHODS", {name: METHODS[name] for name in SOME})


@pytest.fixture
def family(tiny_family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FamilyFile:
    monkeypatch.setenv("MATS_RESULTS", str(tmp_path / "results"))
    return load_family(tiny_family)


@pytest.fixture
def prepared(family: FamilyFile) -> Prepared:
    files = measure_all(family)
    recipe = family.recipe("average", statistics=files)
    return Prepared(family, with_statistics(open_inputs(family.recipe("average")), recipe), files)


def quiet(fraction: float, text: str, partial: Any = None) -> None:
    assert 0 <= fraction <= 1


def test_the_board_is_that_of_the_merges_the_best_first(family, prepared):
    request = BoardRequest(family, ("e0", "e1", "e2"))
    assert leaderboard.fill(request, prepared, quiet) == {}
    board = leaderboard.places(request, prepared)
    values = [place.run.report.normalised_accuracy or 0.0 for place in board if place.run]
    assert len(values) == 4
    assert values == sorted(values, reverse=True)
    for place in board[:-1]:
        assert place.run is not None
        assert (place.run.draft, place.run.report.split, place.run.report.left) == (
            True, "validation", 0,
        )  # fmt: skip
        recipe = family.recipe(place.method, statistics=prepared.files, evaluate=TRIED)
        assert place.run.report.tasks == merge(recipe).tasks
    last = board[-1]
    assert (last.method, last.run) == ("slerp", None)
    assert "2" in last.reason


def test_a_board_that_was_stopped_goes_on_where_it_was(family, prepared):
    request = BoardRequest(family, ("e0", "e1", "e2"))

    def stop(fraction: float, text: str, partial: Any = None) -> None:
        if text == "Merge 2 of 4: done":
            raise Cancelled

    with pytest.raises(Cancelled):
        leaderboard.fill(request, prepared, stop)
    first = {run.id: run.created for run in runs.everything(family.name)}
    assert len(first) == 2
    said: list[str] = []

    def heard(fraction: float, text: str, partial: object = None) -> None:
        said.append(text)

    leaderboard.fill(request, prepared, heard)
    assert "Merge 2 of 2: done" in said
    assert first.items() <= {r.id: r.created for r in runs.everything(family.name)}.items()


def test_a_method_that_fails_ends_nothing(family, prepared, monkeypatch: pytest.MonkeyPatch):
    real = leaderboard.merge

    def fail(asked, ready, tell):
        if asked.method == "ties":
            raise ArithmeticError("no number\nand more")
        return real(asked, ready, tell)

    monkeypatch.setattr(leaderboard, "merge", fail)
    request = BoardRequest(family, ("e0", "e1"))
    assert leaderboard.fill(request, prepared, quiet) == {"ties": "ArithmeticError: no number"}
    board = {place.method: place.run for place in leaderboard.places(request, prepared)}
    assert [name for name, run in board.items() if run is None] == ["ties"]
    assert board["slerp"] is not None, "of two experts it can be made"


def result(name: str, right: int) -> TaskResult:
    return TaskResult(name, Score(right, 10), Score(10, 10), Score(1, 10))


def test_subsets_are_of_what_is_kept_best_and_worst():
    found = leaderboard.subsets(
        [result(n, k) for n, k in zip("abcde", (3, 9, 5, 7, 1), strict=True)]
    )
    assert found["best kept"] == ("b", "c", "d")
    assert found["worst kept"] == ("a", "c", "e")
    assert len(set(found["drawn at random"])) == 3


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("average", "nothing"), ("ties", "nothing"), ("regmean", "inputs"),
        ("essential", "inputs"), ("kfac", "inputs and gradients"), ("fisher", "gradients"),
        ("sequential", "inputs"),
    ],
)  # fmt: skip
def test_what_a_method_needs(method: str, said: str):
    assert views.needs(method) == said


def captions(app: AppTest) -> str:
    return " ".join(caption.value.replace("\\", "") for caption in app.caption)


def board_of(app: AppTest) -> Any:
    return next(t.value for t in app.dataframe if "needs" in t.value.columns)


def test_one_press_fills_the_board_and_another_confirms_the_best(open_app: Open):
    app = open_app("compare")
    app.session_state["compare view"] = "All methods"
    settle(app, "preparation")
    assert list(board_of(app)["why not"]) == [*["not merged yet"] * 4, "said below"]
    assert "SLERP: method 'slerp': expected exactly 2 experts, found 3" in captions(app)
    settle(press(app, "Merge all 4 methods"), *JOBS)
    assert sentences(app) == ""
    table = board_of(app)
    first, *others = sorted(kept(), key=lambda r: -(r.report.normalised_accuracy or 0))
    assert len(others) == 3
    titles = [METHODS[run.recipe.method].title for run in (first, *others)]
    assert list(table["method"]) == [*titles, METHODS["slerp"].title]
    low, high = normalised_interval(first.report.tasks)
    assert table["95 % interval"][0] == f"{100 * low:.1f} – {100 * high:.1f}"
    mean = compare(others[0].report.tasks, first.report.tasks, same_examples=True).mean
    assert mean is not None
    assert table["against the first"][1].startswith(f"{100 * mean.value:+.1f}".replace("-", "−"))
    assert list(table["tested on"])[:4] == ["72 validation"] * 4
    assert f"{titles[0]} keeps most of 4 methods" in texts_of(app)
    settle(press(app, "Final figure"), "preparation", "final figure")
    assert sentences(app) == ""
    finals = [run for run in kept() if run.final]
    assert [(run.id, run.draft) for run in finals] == [(first.id, False)]
    assert "Final figure, asked once" in texts_of(app)


def test_a_board_that_fills_is_found_by_another_window(open_app: Open):
    first, other = (open_app("compare") for _ in range(2))
    for app in (first, other):
        app.session_state["compare view"] = "All methods"
        settle(app, "preparation")
    with held():
        press(first, "Merge all 4 methods")
        other.run()
        assert other.session_state["ranking"] is first.session_state["ranking"]
        assert button(other, "Merge all 4 methods").disabled
    settle(other, *JOBS)
    assert sentences(other) == ""
    assert len(kept()) == 4


def test_without_a_task_the_board_is_of_the_others(open_app: Open):
    app = open_app("compare")
    app.session_state["compare view"] = "All methods"
    settle(app, "preparation")
    next(s for s in app.selectbox if s.label == "Without this task").set_value("e1").run()
    settle(press(app, "Merge all 5 methods"), *JOBS)
    assert sentences(app) == ""
    assert len(kept()) == 5
    for run in kept():
        assert [entry.name for entry in run.recipe.experts] == ["e0", "e2"]
        assert [task.name for task in run.report.tasks] == ["e0", "e2"]
    assert list(board_of(app)["tested on"]) == ["48 validation"] * 5
