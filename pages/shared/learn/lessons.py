"""Five lessons on the sample family: a literal table, their cards, and the banner beside the work.

A lesson sets up another page and asks a question about what is seen there; its answer quotes the
runs that there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import streamlit as st

from mats_core.evaluation import share
from mats_core.methods import describe

from ..frame import Wanted, families, session, show, state
from ..work import Run, runs


@dataclass(frozen=True)
class Setup:
    """One thing to look at: a merge with its options, or a page with its controls."""

    label: str
    method: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    page: str = "merge"
    controls: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Lesson:
    """Two sentences before, what to do, and a question after."""

    title: str
    before: str
    look: str
    question: str
    answer: str
    setups: tuple[Setup, ...]


LESSONS = (
    Lesson(
        "Why does averaging fail here?",
        "Eight experts were fine-tuned from one base, each good at its own task. Their average is "
        "the first thing that anyone tries.",
        "Press Merge. Compare every task's bar with its expert and with the pre-trained encoder; "
        "then set up ESM, and merge again.",
        "Which tasks does the average serve hardly better than the base did, and what have they in "
        "common?",
        "An average of T models keeps 1/T of each expert's move. A task that needed a long move "
        "from the base stays near the base; one that the base could almost do already loses "
        "little. Walking further (task arithmetic) helps a bit, until the moves disturb each "
        "other. ESM keeps of each expert the directions in which its outputs move, sets those of "
        "different tasks at right angles, and can then go further along all of them.",
        (Setup("Average", "average"), Setup("ESM", "essential")),
    ),
    Lesson(
        "What does RegMean see?",
        "RegMean asks of every layer that the merged weights give each expert's outputs on that "
        "expert's own inputs. All it knows of the inputs is their Gram matrix A: which inputs are "
        "large, and which occur together.",
        "Press Merge. Then set up the same without off-diagonal entries, where it knows how large "
        "each input is and no longer which occur together.",
        "How much of RegMean's gain over the average comes from which inputs occur together?",
        "With the diagonal alone it falls back almost to the average: single inputs matter about "
        "equally to all tasks, and what tells the tasks apart are the *combinations*, a few steep "
        "directions of A in each layer. In the picture of the Learn page: ellipses turned by 45°, "
        "of which the diagonal sees nothing.",
        (
            Setup("RegMean", "regmean"),
            Setup("Diagonal of A only", "regmean", {"off_diagonal": 0.0}),
            Setup("Look at A", page="subspaces", controls={"subspaces kind": "input"}),
        ),
    ),
    Lesson(
        "Why can more CG iterations hurt?",
        "K-FAC also asks which outputs of a layer matter to the loss, and conjugate gradients (CG) "
        "solve its equations. Every iteration solves them better; here nothing damps them.",
        "Merge with 50 iterations, then with 200, and compare the accuracy. Under Convergence, see "
        "the residuals and follow the accuracy along the iterations.",
        "Most residuals still fall, slowly. What happens to the accuracy, and why?",
        "CG settles the steep directions first, which many examples have measured well. Later "
        "iterations follow flat ones, whose small curvature is mostly the noise of a few hundred "
        "examples, and walk far along them: the equations are solved better, the models are merged "
        "worse. Stopping early and damping (δ = 0.1) hold it back in the same way. It depends on "
        "the family: with a base that was pre-trained long, more iterations may go on helping.",
        (
            Setup("50 iterations", "kfac", {"damping": 0.0, "iterations": 50}),
            Setup("200 iterations", "kfac", {"damping": 0.0, "iterations": 200}),
            Setup("200, damped", "kfac", {"damping": 0.1, "iterations": 200}),
        ),
    ),
    Lesson(
        "What does the essential subspace keep?",
        "Of all that fine-tuning changed in a layer, ESM keeps the few directions along which the "
        "layer's outputs move most. A layer with 192 outputs has room for 24 directions of each of "
        "the eight tasks.",
        "See on the Subspaces page what energy 24 directions keep. Then merge as published (an "
        "eighth of a layer's outputs for each task), with 12 directions a task, and with 48.",
        "48 directions keep more of every expert than 12 do. Why is the merge worse?",
        "A few directions hold most of what moves the outputs, so 12 lose little. But eight times "
        "48 directions do not fit into 192 dimensions: they must overlap, and the polar step, "
        "which needs room to set them at right angles, bends all of them. Keeping less of each "
        "task keeps more of all tasks.",
        (
            Setup("As published", "essential"),
            Setup("12 directions", "essential", {"rank": 12}),
            Setup("48 directions", "essential", {"rank": 48}),
            Setup("Look at the energy", page="subspaces",
                  controls={"subspaces kind": "essential"}),
        ),
    ),
    Lesson(
        "Who shouts loudest?",
        "Polarized scaling makes the loud louder: tasks, input dimensions and layers that moved "
        "far get more weight. Each of the three levels has a power; 0 switches it off.",
        "Merge, and open Polarized scaling: who is loud, and who quiet? Then merge with all levels "
        "off, and with the tasks at power 4. Mind the ±: a point of difference is within it.",
        "Which task pays when the loud become louder? Is it worth it on this family?",
        "The quiet one pays: with every power its own move shrinks further. On this family the "
        "mean hardly notices any level, because all experts were fine-tuned alike and moved about "
        "equally far; where experts differ more, as with real data sets, it can decide. That is "
        "why every level has a switch: look at the weights first, then choose.",
        (
            Setup("All levels at 2", "essential"),
            Setup("All off", "essential",
                  {"task_power": 0.0, "dimension_power": 0.0, "layer_power": 0.0}),
            Setup("Tasks at 4", "essential", {"task_power": 4.0}),
        ),
    ),
)  # fmt: skip


def overview() -> None:
    """The lessons as cards, each of which opens the page that it is about."""
    _follow()
    st.header("Five lessons on the sample family", anchor=False)
    st.markdown(
        "A real transformer and eight experts. Each lesson sets up another page for you, and stays "
        "with you there until you close it."
    )
    if not families.found():
        st.info("There is no family of models to open; build the sample family first.")
        return
    for first in range(0, len(LESSONS), 3):
        for index, column in zip(range(first, first + 3), st.columns(3), strict=True):
            if index < len(LESSONS):
                with column:
                    _card(index, LESSONS[index])


def _card(index: int, lesson: Lesson) -> None:
    with st.container(border=True, height="stretch", vertical_alignment="distribute"):
        st.markdown(f"**{index + 1} · {lesson.title}**\n\n{lesson.before}")
        st.button(
            "Open this lesson", key=f"lesson {index}", icon=":material/play_lesson:",
            width="stretch", on_click=open_lesson, args=(index,),
        )  # fmt: skip


# A preset may be for a widget of this very page, which only a callback may set; a page can be left
# only outside of one.  So the callbacks below say where to go, and the next run goes there.


def open_lesson(index: int) -> None:
    """A callback: a lesson's first page, with its preset, on the sample family if there is one."""
    session.lesson = index
    samples = [
        label for label, file in families.found().items() if file.is_relative_to(families.SAMPLES)
    ]
    if samples:
        session.family = samples[0]
    set_up(LESSONS[index].setups[0])


def set_up(setup: Setup) -> None:
    """A callback: put a preset where its page finds it, and say that the next run goes there."""
    if setup.method:
        session.wanted = Wanted(setup.method, dict(setup.options))
    for key, value in setup.controls.items():
        state.put(key, value)
    session.lesson_goes_to = setup.page


def _follow() -> None:
    page = session.lesson_goes_to
    del session.lesson_goes_to
    if page is not None:
        st.switch_page(f"pages/{page}.py")


def banner() -> None:
    """The open lesson: what to do, its question, the answer with the numbers of the runs so far.

    Nothing where no lesson is open.
    """
    _follow()
    index = session.lesson
    if not isinstance(index, int) or not 0 <= index < len(LESSONS):
        return
    lesson = LESSONS[index]
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(
                f":material/school: **Lesson {index + 1} of {len(LESSONS)} · {lesson.title}**",
                width="stretch",
            )
            st.button(
                "Close", key="lesson close", type="tertiary", icon=":material/close:",
                on_click=_close,
            )  # fmt: skip
        st.markdown(lesson.look)
        with st.container(horizontal=True):
            for number, setup in enumerate(lesson.setups):
                st.button(setup.label, key=f"lesson {index} setup {number}", icon=_icon(setup),
                          on_click=set_up, args=(setup,))  # fmt: skip
        st.markdown(f":material/help: **{lesson.question}**")
        with st.expander("Answer"):
            st.markdown(lesson.answer)
            if said := evidence(lesson, _kept()):
                st.markdown(said)
        _next(index)


def _close() -> None:
    session.lesson = None


def _back() -> None:
    _close()
    session.lesson_goes_to = "learn"


def _icon(setup: Setup) -> str:
    return ":material/tune:" if setup.method else ":material/area_chart:"


def _next(index: int) -> None:
    last = index + 1 == len(LESSONS)
    label = "Back to Learn" if last else f"Next lesson: {LESSONS[index + 1].title}"
    st.button(
        label, key="lesson next", type="tertiary",
        icon=":material/school:" if last else ":material/arrow_forward:",
        on_click=_back if last else open_lesson, args=() if last else (index + 1,),
    )  # fmt: skip


def _kept() -> list[Run]:
    return runs.everything(families.current().name)


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
