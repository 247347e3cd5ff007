"""Small ways to show things: text as text, figures with their words, jobs with their progress."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import streamlit as st

from mats_core import figures
from mats_core.figures import Figure

from ..work import Job, Snapshot
from . import caches

POLL = 0.5  # seconds; the chart is not redrawn meanwhile, only the progress bar


def plain(text: str) -> str:
    """Text whose every character is shown as it is: names never become markdown."""
    return re.sub(r"([\\`*_{}\[\]()#+\-.!|~$<>:])", r"\\\1", text)


def problem(text: str) -> None:
    """An error, as a sentence."""
    st.error(plain(text), icon=":material/error:")


def keep(kind: str, text: str) -> None:
    """Say something on this page until the next piece of work begins."""
    st.session_state["notice"] = (kind, text)


def forget() -> None:
    st.session_state.pop("notice", None)


def notices() -> None:
    """What was kept to be said."""
    kind, text = st.session_state.get("notice", ("", ""))
    if kind == "error":
        problem(text)
    elif kind == "info":
        st.info(plain(text))


def figure(drawn: Figure, key: str, **chart: Any) -> Any:
    """A figure, with what it says about this result under it, and its numbers to take away.

    `chart` goes to `st.plotly_chart` (`on_select`, ...), whose answer is returned.  The camera in
    the figure's own bar saves a PNG.
    """
    name = re.sub(r"[^\w]+", "-", key).strip("-").lower()
    with st.container(gap="xsmall"):
        answer = st.plotly_chart(
            drawn.figure,
            theme="streamlit",
            key=key,
            alt=drawn.alt,
            config={
                "displaylogo": False,
                "modeBarButtonsToRemove": ["lasso2d", "select2d"],
                "toImageButtonOptions": {"format": "png", "filename": name, "scale": 2},
            },
            **chart,
        )
        with st.container(horizontal=True, vertical_alignment="top", gap="small"):
            st.markdown(f":small[{plain(drawn.caption)}]", width="stretch")
            st.download_button(
                "CSV", lambda: figures.to_csv(drawn.figure).encode(), f"{name}.csv", "text/csv",
                key=f"csv {key}", type="tertiary", icon=":material/download:", on_click="ignore",
                help="The numbers of this figure. The camera above it saves a picture.",
            )  # fmt: skip
    return answer


def progress(
    jobs: Sequence[Job | None],
    *,
    cancel: Job | None = None,
    quiet: Sequence[Job] = (),
    live: Callable[[Any], None] | None = None,
) -> None:
    """The first active job's progress; reruns the page when any of them ends.

    `quiet` jobs are watched too, without a bar.  `live` draws what the job has found so far.
    """
    there = [job for job in jobs if job is not None]
    before = [job.active for job in (*there, *quiet)]

    def poll() -> None:
        if [job.active for job in (*there, *quiet)] != before:
            st.rerun()
        active = [job for job in there if job.active]
        if not active:
            return
        job = next((one for one in active if one.snapshot().state == "running"), active[0])
        now = job.snapshot()
        with st.container(horizontal=True, vertical_alignment="center"):
            st.progress(now.fraction, text=plain(_where(job, now)))
            if cancel is not None and cancel.active:
                st.button("Cancel", on_click=cancel.cancel, icon=":material/close:")
        if live is not None and now.partial is not None:
            live(now.partial)

    st.fragment(poll, run_every=POLL if any(before) else None)()


def _where(job: Job, now: Snapshot) -> str:
    """What the job does, and for how long it still will."""
    if now.state == "waiting":
        ahead = caches.worker().ahead(job)
        jobs = "1 other piece of work" if ahead == 1 else f"{ahead} other pieces of work"
        return f"Waiting: {jobs} before this one" if ahead else "Next in line"
    if now.fraction < 0.08 or now.seconds < 1.5:
        return now.text
    left = now.seconds * (1 - now.fraction) / now.fraction
    return f"{now.text} · about {left:.0f} s left" if left >= 1 else now.text
