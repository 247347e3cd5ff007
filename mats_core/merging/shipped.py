"""Finished merges that are shipped beside a family, in `results.json`: shown at once, then checked.

The file holds a report of each, without what a solver said on its way, tested on all validation
examples, and the digest of each task that was asked.  Whoever shows it merges again and compares
the answers: other files, tasks or methods give others.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .. import tasks
from ..checkpoints import write_atomically
from ..errors import InputError, parsing, read_json
from ..evaluation import NOT_ASKED, TaskResult
from ..recipes import SERIES, TRIED, FamilyFile, Report, measure_all, open_inputs
from .pipeline import merge

FILE, FORMAT = "results.json", 1
WITHOUT: dict[str, Any] = dict.fromkeys(SERIES, ())  # the traces of solves


@dataclass(frozen=True)
class Shipped:
    """What a results file holds.

    reports   of the merges, tested on validation examples; fingerprints of the files are in them
    tasks     expert → digest of the task that it was asked
    """

    reports: tuple[Report, ...]
    tasks: Mapping[str, str]


def shipped_results(family: FamilyFile) -> Shipped | None:
    """The results beside a family; None where there are none that can be read, or of a format that
    is newer."""
    file = family.folder / FILE
    with contextlib.suppress(InputError), parsing(f"'{file}'", "results of merges"):
        content = read_json(file)
        if content["format"] == FORMAT:
            reports = tuple(Report.from_dict(one) for one in content["reports"])
            return Shipped(reports, dict(content["tasks"]))
    return None


def ship_results(family: FamilyFile, methods: Sequence[str]) -> Shipped:
    """The results of these methods at their defaults, written beside the family.

    Measures statistics that this machine's cache has not.  Raises `InputError` as `merge` does.
    """
    files = measure_all(family)
    inputs = open_inputs(family.recipe("average", statistics=files))
    recipes = [family.recipe(one, statistics=files, evaluate=TRIED) for one in methods]
    reports = tuple(_plain(merge(one, inputs=inputs)) for one in recipes)
    found = Shipped(reports, task_digests(family))
    plain = [one.to_dict() for one in found.reports]
    content = {"format": FORMAT, "tasks": found.tasks, "reports": plain}
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    write_atomically(family.folder / FILE, f"{text}\n".encode())
    return found


def _plain(report: Report) -> Report:
    """The report without the series of its layers, which are most of it."""
    return replace(report, layers=tuple(replace(layer, **WITHOUT) for layer in report.layers))


def task_digests(family: FamilyFile) -> dict[str, str]:
    """Expert → digest of its task, for all that name one."""
    named = [(expert.name, expert.task) for expert in family.experts if expert.task]
    return {name: tasks.load(task, root=family.folder).digest for name, task in named}


def differing(first: Sequence[TaskResult], second: Sequence[TaskResult]) -> tuple[int, int]:
    """(answers that differ, answers that both gave) of two merges to the examples of their tasks,
    which are in the same order."""
    pairs = [
        (ours, theirs)
        for one, other in zip(first, second, strict=True)
        for ours, theirs in zip(one.merged.answers, other.merged.answers, strict=True)
        if NOT_ASKED not in (ours, theirs)
    ]
    return sum(ours != theirs for ours, theirs in pairs), len(pairs)
