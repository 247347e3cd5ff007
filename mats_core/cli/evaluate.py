"""`evaluate`: accuracy of an output on its tasks, or of any model on one."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ..system import uncollected
from .shared import ADAPTERS_BASE, base_of, noted, task_table


def add(commands: Any) -> None:
    """Add the command to the grammar."""
    command = commands.add_parser(
        "evaluate",
        help="accuracy of a merged directory on its tasks, or of one model on one",
        description="For an output of `merge`: accuracy per task beside the expert and the "
        "pre-trained encoder, from the recipe it holds. For any other model: give --task.",
    )
    command.add_argument("model", help="a directory; with --task also a hub id")
    command.add_argument("--base", help=ADAPTERS_BASE)
    command.add_argument("--task", help="a .yaml or .npz file, or sample:NAME")
    command.add_argument("--split", choices=("train", "validation", "test"), default="test")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=_evaluate)


def _evaluate(arguments: argparse.Namespace) -> None:
    if arguments.task:
        _evaluate_one(arguments)
        return
    with uncollected():
        from ..evaluation import evaluate
        from ..merging import evaluating_output
    from ..system import bar, drain

    with noted(), bar() as show:
        results = drain(evaluating_output(Path(arguments.model), arguments.split), show)
    if arguments.json:
        from ..recipes import task_dict

        summary = {
            "tasks": [task_dict(result) for result in results],
            "normalised_accuracy": evaluate.normalised_accuracy(results),
            "gap_recovered": evaluate.gap_recovered(results),
        }
        print(json.dumps(summary, indent=2))
    else:
        print("\n".join(task_table(results)))
        print(f"normalised accuracy {100 * evaluate.normalised_accuracy(results):.1f} %")


def _evaluate_one(arguments: argparse.Namespace) -> None:
    """Any model on one task."""
    import numpy as np

    from .. import tasks

    with uncollected():
        from ..api import evaluate
    from ..evaluation import metrics

    task = tasks.load(arguments.task)
    with noted():
        found = evaluate(arguments.model, task, split=arguments.split, base=base_of(arguments))
    right = np.array([answer == "1" for answer in found.answers])
    labels = task.split(arguments.split).labels  # by the task's own names of its classes
    each = metrics.per_class(labels, right, len(task.classes)) if task.classes else ()
    classes = dict(zip(task.classes, map(float, each), strict=True))
    if arguments.json:
        content = {"task": task.name, found.metric: found.value, "examples": found.examples}
        content["interval"] = list(found.interval)
        content["classes"] = {name: None if k != k else k for name, k in classes.items()}
        print(json.dumps(content, ensure_ascii=False))
        return
    low, high = (100 * bound for bound in found.interval)
    named = "" if found.metric == "accuracy" else f"{found.metric} "
    print(f"{task.name}: {named}{100 * found.value:.1f} % ({low:.1f} – {high:.1f})")
    width = max(map(len, classes), default=0)
    for name, accuracy in classes.items():
        there = "none there" if accuracy != accuracy else f"{100 * accuracy:.1f} %"
        print(f"  {name:<{width}}  {there}")
