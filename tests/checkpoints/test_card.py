"""What a model card states of data and accuracy, as others write it."""

from __future__ import annotations

import pytest

from mats_core.checkpoints import StatedScore, stated_data, stated_scores
from mats_core.evaluation import comparison
from mats_core.evaluation.evaluate import stated_accuracy
from mats_core.evaluation.scores import Score

RESULT = "dataset: {{type: {0}, config: {1}}}\n    metrics: [{{type: accuracy, value: {2}}}]"


def index(*results: str) -> str:
    return "model-index:\n- name: x\n  results:\n" + "".join(f"  - {one}\n" for one in results)


@pytest.mark.parametrize(
    ("front", "scores", "data"),
    [
        (index(RESULT.format("glue", "sst2", 0.91)), [("glue", "sst2", 0.91)], [("glue", "sst2")]),
        (index(RESULT.format("imdb", "default", 92.5)), [("imdb", "", 0.925)], [("imdb", "")]),
        ("datasets: [owner/a, owner/b]", [], [("owner/a", ""), ("owner/b", "")]),
        ("datasets: imdb", [], [("imdb", "")]),
        (index("dataset: {type: glue, args: mnli}\n    metrics: [{type: f1, value: 1}]"), [],
         [("glue", "mnli")]),
        (index(RESULT.format("glue", "sst2", "'high'")), [], [("glue", "sst2")]),
        (index(RESULT.format("glue", "sst2", 9100)), [], [("glue", "sst2")]),
        (index("dataset: 3\n    metrics: 4"), [], []),
        ("model-index: {name: x}\ndatasets: {a: 1}", [], []),
        ("model-index: [1, [2]]\ndatasets: [1, null]", [], []),
    ],
)  # fmt: skip
def test_scores_and_data_of_a_card(tmp_path, front, scores, data):
    (tmp_path / "README.md").write_text(f"---\n{front}\n---\n# x\n")
    assert stated_scores(tmp_path) == tuple(StatedScore(*one) for one in scores)
    assert stated_data(tmp_path) == tuple(data)


@pytest.mark.parametrize(
    ("results", "task", "stated"),
    [
        ([("glue", "sst2", 0.9)], "anything", 0.9),
        ([("glue", "sst2", 0.9), ("glue", "cola", 0.6)], "bert-sst2", 0.9),
        ([("glue", "sst2", 0.9), ("glue", "cola", 0.6)], "mine", None),
        ([("glue", "sst2", 0.9), ("glue", "sst2", 0.8)], "sst2", 0.8),
        ([], "sst2", None),
    ],
)
def test_which_figure_is_that_of_a_task(tmp_path, results, task, stated):
    front = index(*(RESULT.format(*one) for one in results)) if results else "license: mit"
    (tmp_path / "README.md").write_text(f"---\n{front}\n---\n")
    assert stated_accuracy(tmp_path, task) == stated
    assert stated_accuracy(None, task) is None


@pytest.mark.parametrize(
    ("correct", "examples", "stated", "flagged"),
    [
        (60, 100, 0.9, True),
        (86, 100, 0.9, False),  # less than five points
        (840, 1000, 0.9, True),  # six points, beyond chance
        (21, 25, 0.9, False),  # six points, which may be chance
        (95, 100, 0.9, False),
        (60, 100, None, False),
    ],
)
def test_far_below_is_more_than_chance_and_more_than_five_points(
    correct, examples, stated, flagged
):
    answers = "1" * correct + "0" * (examples - correct)
    expert = Score(correct, examples, answers)
    found = comparison.doubts("x", expert, expert, classes=2, stated=stated)
    assert ["its card says" in one for one in found] == [True] * flagged
