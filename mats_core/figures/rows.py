"""The rows of accuracies in a figure's table: one a number, with all that it takes to read it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..evaluation import Score, TaskResult


def tidy(task: str, model: str, score: Score, split: str, **more: Any) -> dict[str, Any]:
    """A row; `more`: columns after the model, such as the iteration that it was tested after."""
    low, high = score.interval
    return {
        "task": task, "model": model, **more, "metric": score.metric, "value": score.value,
        "low": low, "high": high, "examples": score.examples, "split": split,
    }  # fmt: skip


def merged(
    results: Iterable[TaskResult], model: str, split: str, **more: Any
) -> list[dict[str, Any]]:
    """The rows of a merge on its tasks."""
    return [tidy(r.name, model, r.merged, split, **more) for r in results]
