"""What the finished runs say to a lesson."""

from __future__ import annotations

from collections.abc import Sequence

from mats_core.evaluation import share
from mats_core.methods import describe

from ..frame import show
from ..work import Run
from .lessons import Lesson, Setup


def evidence(lesson: Lesson, kept: Sequence[Run]) -> str:
    """What the runs of a lesson's setups say, as a list in markdown; says which are missing."""
    lines, found = [], []
    for setup in lesson.setups:
        if not setup.method:
            continue
        run = next((run for run in reversed(kept) if matches(run, setup)), None)
        overall = run.report.normalised_accuracy if run else None
        if run is None or overall is None:
            lines.append(f"- **{setup.label}**: not merged yet.")
            continue
        found.append((setup, run))
        low = min(run.report.tasks, key=share)
        lines.append(
            f"- **{setup.label}** (run {run.number}): {100 * overall:.1f} % of the experts' "
            f"accuracy; least on {show.plain(low.name)}, {100 * share(low):.0f} %."
        )
    if not found:
        return "Merge the presets of this lesson, and their numbers appear here."
    return "\n".join(["In your runs:", "", *lines, *_largest_difference(found)])


def _largest_difference(found: list[tuple[Setup, Run]]) -> list[str]:
    """Between the first two runs, the task that changed most."""
    if len(found) < 2:
        return []
    (first, one), (second, other) = found[:2]
    before = {task.name: share(task) for task in one.report.tasks}
    changes = {t.name: share(t) - before[t.name] for t in other.report.tasks if t.name in before}
    if not changes:
        return []
    most = max(changes, key=lambda name: abs(changes[name]))
    return [
        "",
        f"From {first.label} to {second.label}, {show.plain(most)} changes most: "
        f"{100 * changes[most]:+.1f} points.".replace("-", "−"),
    ]


def matches(run: Run, setup: Setup) -> bool:
    """Whether a run is of this setup: its options, every other at its default, all experts."""
    if run.recipe.method != setup.method or len(run.recipe.experts) < run.family_size:
        return False
    expected = {option.name: option.default for option in describe(setup.method)} | setup.options
    return dict(run.report.options) == expected
