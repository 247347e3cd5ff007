"""Like with like: whatever stands beside a merge is of the same examples, counted here by hand."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from mats_core.evaluation import Score, TaskResult
from mats_core.merging import Event
from mats_core.notebook import render, views
from mats_core.notebook.answers import Answers, State
from mats_core.notebook.subjects import Request
from mats_core.recipes import Report
from tests.notebook.markup_cases import Balanced

EXPERT, BASE = Score(8, 10, "1111111100"), Score(2, 10, "1100000000")
NAMES = ("one", "two", "three")


def report(method: str, answers: list[str]) -> Report:
    tasks = tuple(
        TaskResult(name, Score(row.count("1"), len(row) - row.count("-"), row), EXPERT, BASE)
        for name, row in zip(NAMES, answers, strict=True)
    )
    return Report(method, {}, 0, "cpu", "", "float32", 1.0, (), tasks)


def answers(seed: int, asked: int) -> list[str]:
    """100 rows a task, of which another `asked` are answered in each."""
    draw = random.Random(seed)
    rows = []
    for _ in NAMES:
        places = set(draw.sample(range(100), asked))
        rows.append("".join(draw.choice("0111") if i in places else "-" for i in range(100)))
    return rows


def state(ours: Report, average: Report) -> State:
    merges: list[Any] = [SimpleNamespace(report=one) for one in (ours, average)]
    return State(merge=merges[0], average=merges[1], answered=True)


@pytest.mark.parametrize(("ours", "theirs"), [(100, 100), (100, 30), (30, 100), (60, 60), (90, 20)])
def test_a_difference_and_both_its_numbers_are_of_the_same_examples(ours, theirs):
    first, second = answers(1, ours), answers(2, theirs)
    shown = state(report("ties", first), report("average", second))
    text = render.result(shown)
    Balanced(text)
    found = re.search(
        r"<b>([+-][\d.]+) points</b> against the average \(([\d.]+) %\).*? on the (same )?"
        r"(\d+) test examples( that both answered, where this merge keeps ([\d.]+) %)?", text
    )  # fmt: skip
    assert found is not None
    shared = [
        [(a, b) for a, b in zip(x, y, strict=True) if "-" not in a + b]
        for x, y in zip(first, second, strict=True)
    ]
    kept = [
        100 * sum(sum(p[k] == "1" for p in row) / len(row) / 0.8 for row in shared) / 3
        for k in (0, 1)
    ]
    assert float(found[2]) == pytest.approx(kept[1], abs=0.051)
    assert float(found[1]) == pytest.approx(kept[0] - kept[1], abs=0.051)
    assert int(found[4]) == sum(map(len, shared))
    if int(found[4]) == 3 * ours:  # then the large number is of them as well
        assert found[3] == "same "
        (large,) = re.findall(r'mats-number">([\d.]+) %', text)
        assert float(large) == pytest.approx(kept[0], abs=0.051)
    else:
        assert float(found[6]) == pytest.approx(kept[0], abs=0.051)
    table = views.tasks(shown)
    marks = [float(m) for m in re.findall(r"<title>average: ([\d.]+) %</title>", table)]
    right = [100 * sum(b == "1" for _, b in row) / len(row) for row in shared]
    assert marks == pytest.approx(right, abs=0.051)
    fewer = f"on the {sum(map(len, shared))} examples that both answered"
    assert (fewer in table) == (int(found[4]) < 3 * ours)
    assert "unpaired" not in table


def test_another_metric_on_other_examples_is_said_as_such():
    ours, theirs = report("ties", answers(1, 100)), report("average", answers(1, 100))
    f1 = Score(40, 50, "", "f1", 0.7, (0.6, 0.8))
    tasks = [replace(task, merged=f1) for task in theirs.tasks]
    text = render.result(state(ours, replace(theirs, tasks=tuple(tasks))))
    assert "not all on the same examples" in text
    assert "on other examples" in views.tasks(state(ours, replace(theirs, tasks=tuple(tasks))))


def test_the_first_number_says_of_how_many_examples_it_is():
    average: Any = SimpleNamespace(report=report("average", answers(3, 40)))
    said = render.result(State(average=average))
    assert "of the experts' accuracy, on 120 test examples so far, 180 to come.</p>" in said


def test_what_the_merge_was_asked_the_average_was_asked_before():
    coarse = state(report("ties", answers(1, 30)), report("average", answers(1, 30)))
    tested: list[str] = []

    def testing(merge: Any) -> Any:
        tested.append(merge.report.method)
        yield Event(text="Testing")
        return SimpleNamespace(
            report=report(merge.report.method, answers(1, 100)), recipe=None, fine=True
        )

    subject: Any = SimpleNamespace(testing=testing)
    known = Answers(subject)
    known.state = coarse
    for shown in known._tested(Request("ties", (), NAMES)):
        assert hasattr(shown.average, "fine") or not hasattr(shown.merge, "fine")
    assert tested == ["average", "ties"]
    assert hasattr(known.state.merge, "fine")
    assert "on the same 300 test examples" in render.result(known.state)
