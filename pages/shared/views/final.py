"""The final figure of a run: a press asks its test examples, once; what they said stands here."""

from __future__ import annotations

from functools import partial

import streamlit as st

from mats_core import figures
from mats_core.evaluation import half_width

from ..frame import Slot, browser, session, show, tracked
from ..work import Job, Run, Shelf, final


def section(run: Run, preparing: Job) -> None:
    """The final figure of a run, or the press that asks for it."""
    if not run.report.tasks:
        return
    if run.final is not None:
        st.markdown(f":material/verified: {show.plain(said(run))}")
        return
    busy = tracked.active(Slot.FINISHING) is not None
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button(
            "Final figure", icon=":material/verified:", key=f"final {run.id}", disabled=busy,
            on_click=_ask, args=(run, preparing),
            help="Asks the test examples of every task, once for this merge. Choose on validation "
            "examples first: the best of many merges on test looks better than it is. Where a task "
            "names no validation rows they are the last of its training rows, which an expert may "
            "have been trained on.",
        )  # fmt: skip
        st.caption(show.plain(f"Test examples were not asked. {_counted(run.family)}"))


def said(run: Run) -> str:
    """`Final figure, asked once (2026-11-30): 84.3 % ± 1.2 … on 4,000 test examples.`"""
    report = run.final_report
    assert report is not None
    assert run.final is not None
    kept = report.normalised_accuracy or 0.0
    count = sum(result.merged.examples for result in report.tasks)
    return (
        f"Final figure, asked once (on {run.final.asked[:10]} at {run.final.asked[11:16]} UTC): "
        f"{figures.percent(kept)} of the experts' accuracy, ± {100 * half_width(report.tasks):.1f} "
        f"points, on {count:,} {report.split} examples. {_counted(run.family)}"
    )


def _counted(family: str) -> str:
    """How many merges were asked, which is how often one could have chosen on test examples."""
    count = final.asked(family)
    if count > 1:
        return f"{count} merges of this family have been asked."
    return f"{count or 'No'} merge of this family has been asked."


def _ask(run: Run, preparing: Job) -> None:
    """A callback: hand the test of a run to the worker."""
    shelf = session.inside_shelf = session.inside_shelf or Shelf()
    todo = partial(final.ask, shelf, run, preparing.outcome)
    job = Job(run.id, "Asking the test examples", todo, after=preparing)
    tracked.pressed(Slot.FINISHING, job)


def collect() -> None:
    """Say the final figure that was just asked for, or when it was asked before."""
    cancelled = "The test was cancelled before its end; nothing was kept of it."
    tracked.collect(Slot.FINISHING, _told, cancelled=cancelled)


def _told(job: Job) -> None:
    browser.say(said(job.outcome()))
