"""What the finished runs say to a lesson: its numbers, its answer, and what goes with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mats_core import figures
from mats_core.analysis import TRAITS, Survey, clear_among, decided, reasons, traits
from mats_core.evaluation import Difference, compare, share
from mats_core.figures import Figure
from mats_core.methods import describe
from mats_core.recipes import TRIED

from ..frame import show
from ..work import Run
from .lessons import Lesson, Setup

QUARTER = 0.25
NEITHER = 2  # of the guesses of a difference


@dataclass(frozen=True)
class Finding:
    """What answers a lesson: the numbers of the right guesses (none where the numbers say nothing),
    a sentence in markdown, and a figure."""

    right: frozenset[int]
    text: str
    drawn: Figure | None = None


def made(lesson: Lesson, kept: Sequence[Run]) -> dict[int, Run]:
    """The newest run of each setup that is a merge and was tested on validation examples, by its
    number."""
    there = [run for run in kept if run.report.tasks and run.report.split == TRIED.split]
    found = {}
    for place, setup in enumerate(lesson.setups):
        run = next((run for run in reversed(there) if matches(run, setup)), None)
        if run is not None:
            found[place] = run
    return found


def missing(lesson: Lesson, kept: Sequence[Run]) -> list[Setup]:
    """The setups that are merges and have no run yet."""
    there = made(lesson, kept)
    return [s for place, s in enumerate(lesson.setups) if s.method and place not in there]


def matches(run: Run, setup: Setup) -> bool:
    """Whether a run is of this setup: its options, every other at its default, all experts."""
    if run.recipe.method != setup.method or len(run.recipe.experts) < run.family_size:
        return False
    fields = describe(setup.method, len(run.recipe.experts))
    usual = {option.name: option.default for option in fields}
    # An option that is younger than the run was at its default.
    return usual | dict(run.report.options) == usual | setup.options


def evidence(lesson: Lesson, kept: Sequence[Run]) -> str:
    """What the runs of a lesson's setups reached, as a list in markdown; says which are missing."""
    there = made(lesson, kept)
    lines = []
    for place, setup in enumerate(lesson.setups):
        if setup.method and place not in there:
            lines.append(f"- **{setup.label}**: not merged yet.")
        elif setup.method:
            lines.append(_line(setup, there[place]))
    if not there:
        return "Run this lesson, or merge its presets, and their numbers appear here."
    return "\n".join(["In your runs:", "", *lines])


def _line(setup: Setup, run: Run) -> str:
    results = run.report.tasks
    low = min(results, key=share)
    asked = sum(r.merged.examples for r in results)
    kept = figures.headline(run.report)["normalised"] or 0.0
    return (
        f"- **{setup.label}** (run {run.number}): {100 * kept:.1f} % of the experts' "
        f"accuracy on {asked:,} {run.report.split} examples; least on {show.plain(low.name)}, "
        f"{100 * share(low):.0f} %."
    )


def answerable(lesson: Lesson, kept: Sequence[Run]) -> bool:
    """Whether the runs that the question is about are there."""
    return set(lesson.asked.of) <= set(made(lesson, kept))


def finding(lesson: Lesson, kept: Sequence[Run], survey: Survey | None) -> Finding | None:
    """What answers a lesson; None while runs are missing, or a survey that it needs."""
    if not answerable(lesson, kept):
        return None
    there = made(lesson, kept)
    setups = [lesson.setups[i] for i in lesson.asked.of]
    runs = [there[i] for i in lesson.asked.of]
    if lesson.asked.kind == "difference":
        return _difference(setups, runs)
    if lesson.asked.kind == "part":
        return _part(setups, runs)
    if lesson.asked.kind == "examples":
        return _examples(setups, runs)
    return _reasons(setups, runs, survey) if survey is not None else None


def _between(first: Run, second: Run) -> Difference | None:
    """The difference in mean normalised accuracy, answer by answer."""
    return compare(first.report.tasks, second.report.tasks, same_examples=True).mean


def _asked(first: Run, second: Run) -> str:
    return figures.asked_of_both(first.report.tasks, second.report.tasks, first.report.split)


def _difference(setups: Sequence[Setup], runs: Sequence[Run]) -> Finding:
    found = _between(runs[0], runs[1])
    if found is None:
        return Finding(frozenset(), "The two runs were tested on no task in common.")
    right = 0 if found.low > 0 else 1 if found.high < 0 else NEITHER
    how = ("It rises", "It falls", "It does not change clearly")[right]
    text = (
        f"{how}: from {setups[1].label} to {setups[0].label} by {figures.points(found)} of mean "
        f"normalised accuracy, on {_asked(runs[0], runs[1])}."
    )
    return Finding(frozenset({right}), text)


def _part(setups: Sequence[Setup], runs: Sequence[Run]) -> Finding:
    whole, own = _between(runs[0], runs[2]), _between(runs[0], runs[1])
    tested = _asked(runs[0], runs[2])
    if whole is None or own is None:
        return Finding(frozenset(), "These runs were tested on no task in common.")
    names = [setup.label for setup in setups]
    gain = f"{names[0]} is {figures.points(whole)} from {names[2]}, on {tested}"
    if not whole.low > 0:
        return Finding(frozenset(), f"There is no clear gain to divide: {gain}.")
    part = own.value / whole.value
    right = 0 if part < QUARTER else 1 if part <= 1 - QUARTER else 2
    text = (
        f"{gain}; over {names[1]} it is {figures.points(own)}, {figures.percent(part, 0)} of that "
        "gain."
    )
    return Finding(frozenset({right}), text)


def _examples(setups: Sequence[Setup], runs: Sequence[Run]) -> Finding:
    """What part of the gain of many examples few have; and which input directions both decide."""
    gains = [_between(run, runs[3]) for run in runs[:3]]
    whole, alone, steadied = gains
    names, tested = [setup.label for setup in setups], _asked(runs[0], runs[3])
    if whole is None or alone is None or steadied is None:
        return Finding(frozenset(), "These runs were tested on no task in common.")
    gain = f"{names[0]} is {figures.points(whole)} from {names[3]}, on {tested}"
    right, said = frozenset[int](), f"There is no clear gain to divide: {gain}."
    if whole.low > 0:
        parts = [one.value / whole.value for one in (alone, steadied)]
        enough = [place for place, part in enumerate(parts) if part >= 1 - QUARTER]
        right = frozenset({enough[0] if enough else NEITHER})
        told = [f"{n} has {figures.percent(p, 0)}" for n, p in zip(names[1:3], parts, strict=True)]
        said = f"{gain}. Of that gain {told[0]}, {told[1]}."
    between = _between(runs[2], runs[1])
    if between is not None:
        clear = "" if between.clear else ", which may be chance"
        said += f" From {names[1]} to {names[2]}: {figures.points(between)}{clear}."
    found = {name: decided(run.report) for name, run in zip(names[:3], runs[:3], strict=True)}
    drawn = figures.decided_lines(found, said)
    return Finding(right, said, drawn)


def _reasons(setups: Sequence[Setup], runs: Sequence[Run], survey: Survey) -> Finding:
    kept, said, tested = _outcome(setups, runs)
    found = reasons(traits(survey, runs[0].report.tasks), kept)
    clear = clear_among(found)
    order = list(TRAITS)
    right = frozenset(order.index(trait) for trait in clear) if found else frozenset[int]()
    if found and not clear:
        right = frozenset({len(order)})
    drawn = figures.reasons_figure(found, said, tested)
    text = figures.reasons_verdict(found, said)
    return Finding(right, show.plain(text), drawn)


def _outcome(setups: Sequence[Setup], runs: Sequence[Run]) -> tuple[Mapping[str, float], str, str]:
    """By task what the first run keeps, or what it keeps more than the second; in words; and on
    what both were tested."""
    ours = {r.name: share(r) for r in runs[0].report.tasks}
    if len(runs) == 1:
        said = f"what a task keeps in {setups[0].label}"
        return ours, said, _asked(runs[0], runs[0])
    theirs = {r.name: share(r) for r in runs[1].report.tasks}
    gained = {name: ours[name] - theirs[name] for name in ours if name in theirs}
    said = f"what a task gains from {setups[1].label} to {setups[0].label}"
    return gained, said, _asked(runs[0], runs[1])
