"""The way through the lessons: their cards on Learn, and the banner beside the work."""

from __future__ import annotations

import streamlit as st

from mats_core.analysis import Survey

from ..frame import (
    Slot,
    Wanted,
    browser,
    families,
    keys,
    navigation,
    session,
    show,
    shown,
    state,
    surveys,
    tracked,
)  # fmt: skip
from ..work import Run, merge, runs
from ..work import lesson as lesson_work
from .evidence import answerable, evidence, finding, made, missing
from .lessons import LESSONS, Lesson, Setup


def overview() -> None:
    """The lessons as cards, each of which opens the page that it is about."""
    _follow()
    st.header("Six lessons on real models", anchor=False)
    st.markdown(
        "Each lesson sets up another page for you, on the family that is open, and stays with you "
        "there until you close it. You guess first; the answer is computed from your runs."
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
        with st.container(gap="xxsmall"):
            st.subheader(f"{index + 1} · {lesson.title}", anchor=False)
            st.markdown(lesson.before)
        st.button(
            f"Open this lesson: {lesson.title}", key=f"lesson {index}", width="stretch",
            icon=":material/play_lesson:", on_click=open_lesson, args=(index,),
        )  # fmt: skip


# A preset may be for a widget of this very page, which only a callback may set; a page can be left
# only outside of one.  So the callbacks below say where to go, and the next run goes there.


def open_lesson(index: int) -> None:
    """A callback: a lesson's first page, with its preset, on the family that was chosen, else on
    the sample family if there is one."""
    session.lesson = index
    samples = [label for label, file in families.found().items() if families.is_sample(file)]
    if samples and session.chosen_family is None:
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
        browser.go(page)


def banner(page: str) -> None:
    """The open lesson: what to do, its question and the reader's guess, then the answer with the
    numbers of the runs so far.

    Nothing where no lesson is open.  `page`: the title of the page that it stands on.
    """
    _follow()
    index = session.lesson
    if not isinstance(index, int) or not 0 <= index < len(LESSONS):
        return
    lesson, kept = LESSONS[index], _kept()
    navigation.entitle(f"Lesson {index + 1}: {lesson.title}", page)
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center"):
            title = f"Lesson {index + 1} of {len(LESSONS)} · {lesson.title}"
            st.header(f":material/school: {title}", anchor=False, width="stretch")
            st.button(
                "Close", key="lesson close", type="tertiary", icon=":material/close:",
                on_click=_close,
            )  # fmt: skip
        st.markdown(lesson.look)
        with st.container(horizontal=True):
            todo = tuple(missing(lesson, kept))
            if todo:
                tracked.shared(Slot.LESSON, _name(index))
            _run(todo)
            for number, setup in enumerate(lesson.setups):
                st.button(setup.label, key=f"lesson {index} setup {number}", icon=_icon(setup),
                          on_click=set_up, args=(setup,))  # fmt: skip
        guess = st.radio(
            f":material/help: **{lesson.question}**", list(range(len(lesson.asked.guesses))),
            index=None, format_func=lambda g: lesson.asked.guesses[g],
            key=keys.guess(index), persist_state="session", horizontal=True,
            on_change=_start, args=(todo,),
        )  # fmt: skip
        if guess is None:
            begins = " The merges that are missing begin with your guess." if todo else ""
            st.caption(f"Guess first; then see what the numbers say.{begins}")
        else:
            _answer(lesson, kept, guess)
        _next(index)


def collect() -> None:
    """Show the merges of a lesson that was run, before anything of a run is drawn."""
    said = "The lesson was stopped; its finished merges are kept."
    tracked.collect(Slot.LESSON, lambda job: _show(), cancelled=said)


def _show() -> None:
    """The lesson's first merge, with its second beside it."""
    if session.lesson is None:
        return
    there = made(LESSONS[session.lesson], _kept())
    for place in sorted(there, reverse=True):
        shown.show(there[place])


def _run(todo: tuple[Setup, ...]) -> None:
    """One press for all merges that the lesson is about and that were not made yet."""
    busy = tracked.active(Slot.LESSON) is not None
    if todo or busy:
        label = f"Run this lesson: {len(todo)} merge{'s' if len(todo) != 1 else ''}"
        st.button(
            label, key="lesson run", type="primary", icon=":material/play_arrow:", disabled=busy,
            on_click=_start, args=(todo,),
        )  # fmt: skip


def _start(setups: tuple[Setup, ...]) -> None:
    """A callback: hand all merges of these setups to the worker, as one job, once."""
    if not setups or tracked.active(Slot.LESSON) is not None:
        return
    collection = families.current()
    experts = tuple(expert.name for expert in collection.experts)
    requests = [
        merge.Request(collection, setup.method, dict(setup.options), experts) for setup in setups
    ]
    name = _name(session.lesson or 0)
    job = lesson_work.job(requests, families.preparation(collection), name)
    tracked.pressed(Slot.LESSON, job)


def _name(index: int) -> str:
    """The name of the job that makes a lesson's merges, by which another window finds it."""
    return f"{families.current().folder} lesson {index}"


def _answer(lesson: Lesson, kept: list[Run], guess: int) -> None:
    """What the numbers say, whether the guess was right, and what the formulas say."""
    found = finding(lesson, kept, _surveyed(lesson, kept))
    if found is not None:
        said = "" if found.drawn is not None else found.text  # the figure says it under itself
        if found.right:
            right = guess in found.right
            mark = "check: **As you guessed.**" if right else "close: **Not what you guessed.**"
            said = f":material/{mark} {said}"
        st.markdown(said)
        if found.drawn is not None:
            show.figure(found.drawn, f"lesson {lesson.title}")
    elif answerable(lesson, kept):
        st.caption("The answer follows when every layer of this family has been looked at.")
    st.markdown(evidence(lesson, kept))
    st.markdown(lesson.formulas)


def _surveyed(lesson: Lesson, kept: list[Run]) -> Survey | None:
    """The survey of the family, where the lesson needs it; begun where there is none."""
    if lesson.asked.kind != "reasons" or not answerable(lesson, kept):
        return None
    prepared = families.preparation(families.current()).snapshot().result
    if prepared is None:
        return None
    before = tracked.active(Slot.SURVEYING)
    known = surveys.survey(prepared.inputs)
    if isinstance(known, Survey):
        return known
    if before is None and known.active:
        st.rerun()  # for its progress, which is drawn above
    return None


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
