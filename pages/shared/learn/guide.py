"""The way through the lessons: their cards on Learn, and the banner beside the work."""

from __future__ import annotations

import streamlit as st

from ..frame import Wanted, browser, families, navigation, session, state
from ..work import Run, runs
from .evidence import evidence
from .lessons import LESSONS, Lesson, Setup


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
            f"Open this lesson: {lesson.title}", key=f"lesson {index}", width="stretch",
            icon=":material/play_lesson:", on_click=open_lesson, args=(index,),
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
        browser.go(page)


def banner(page: str) -> None:
    """The open lesson: what to do, its question, the answer with the numbers of the runs so far.

    Nothing where no lesson is open.  `page`: the title of the page that it stands on.
    """
    _follow()
    index = session.lesson
    if not isinstance(index, int) or not 0 <= index < len(LESSONS):
        return
    lesson = LESSONS[index]
    navigation.entitle(f"Lesson {index + 1}: {lesson.title}", page)
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
