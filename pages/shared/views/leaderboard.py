"""All methods at their defaults, the best first: what each needs and costs, and who cannot run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from mats_core import figures
from mats_core.evaluation import normalised_interval
from mats_core.methods import METHODS
from mats_core.recipes import FamilyFile

from ..frame import Slot, session, show, tracked
from ..work import Job, Prepared, Run, leaderboard, shipped
from . import final, runs
from .comparison import against

VIEW = "All methods"  # the tab on Compare
POLL = 1.5  # seconds between two looks at a board that fills
ALL, NONE = "all experts", "none"
NEEDS = {"input": "inputs", "output": "gradients", "fisher": "gradients"}


def section(collection: FamilyFile, preparing: Job, prepared: Prepared | None) -> None:
    """Which experts, the press, the board as it fills, and what can be done with the best."""
    st.markdown(
        "Every method with its default settings, merged and tested on all validation examples, in "
        "the background. Each is kept as a draft: a board that was stopped goes on where it was."
    )
    if prepared is None:
        st.caption("The board follows when the family is prepared.")
        return
    experts = _experts(collection, prepared)
    request = leaderboard.BoardRequest(collection, experts)
    session.board = tracked.shared(Slot.RANKING, _name(request, prepared)) or session.board
    job = session.board
    mine = job if job is not None and job.request == request else None
    now, failed = leaderboard.places(request, prepared), _failed(mine)
    left = [p for p in now if not (p.run or p.reason or p.method in failed)]
    if left:
        which = "the other" if any(place.run for place in now) else "all"
        label = f"Merge {which} {len(left)} methods"
        st.button(
            label if len(left) > 1 else "Merge the last method", icon=":material/leaderboard:",
            type="primary", key="board start", on_click=_start, args=(request, preparing, prepared),
            disabled=tracked.active(Slot.RANKING) is not None,
        )  # fmt: skip
    if mine is not None and mine.active:
        st.fragment(_live, run_every=POLL)(request, prepared, mine)
        return
    _table(now, failed)
    _best(now, preparing)


def _experts(collection: FamilyFile, prepared: Prepared) -> tuple[str, ...]:
    """Who is merged: all, all but one, or three of them."""
    names = tuple(expert.name for expert in collection.experts)
    few = len(names) > leaderboard.THREE
    with st.container(horizontal=True, vertical_alignment="bottom"):
        without = st.selectbox(
            "Without this task", [NONE, *names], key=f"board without {collection.name}",
            persist_state="session", width=220, disabled=len(names) < 3,
        )  # fmt: skip
        known = _subsets(collection, prepared, names) if few else {}
        three = st.selectbox(
            f"What if T were {leaderboard.THREE}", [ALL, *known],
            key=f"board three {collection.name}", persist_state="session", width=440,
            disabled=not known,
            help="Which tasks are kept best and worst is read off the best merge of all experts.",
        )  # fmt: skip
    if three in known:
        return known[three]
    return tuple(name for name in names if name != without)


def _subsets(
    collection: FamilyFile, prepared: Prepared, names: tuple[str, ...]
) -> dict[str, tuple[str, ...]]:
    """`3 best kept: flags, textures, digits` → these; none before there is a merge of all."""
    top = leaderboard.places(leaderboard.BoardRequest(collection, names), prepared)[0].run
    if top is None:
        return {}
    found = leaderboard.subsets(top.report.tasks)
    return {f"{len(own)} {said}: {', '.join(own)}": own for said, own in found.items()}


def _name(request: leaderboard.BoardRequest, prepared: Prepared) -> str:
    return tracked.name(prepared, VIEW, *request.experts)


def _start(request: leaderboard.BoardRequest, preparing: Job, prepared: Prepared) -> None:
    """A callback: have the worker make what is missing."""
    job = leaderboard.job(request, preparing, _name(request, prepared))
    session.board = tracked.pressed(Slot.RANKING, job)


def collect() -> None:
    """Say how a board ended, once; its merges stay."""
    tracked.collect(
        Slot.RANKING, cancelled="The board was stopped; the merges that were finished are kept."
    )


def _failed(job: Job | None) -> Mapping[str, str]:
    """Why methods failed, as far as the job that tried them says."""
    now = job.snapshot() if job is not None else None
    return (now.result or now.partial or {}) if now is not None else {}


def _live(request: leaderboard.BoardRequest, prepared: Prepared, job: Job) -> None:
    _table(leaderboard.places(request, prepared), _failed(job))


def _table(board: Sequence[leaderboard.Place], failed: Mapping[str, str]) -> None:
    first = board[0].run
    rows = [_row(place, first, failed.get(place.method, "")) for place in board]
    percent = st.column_config.NumberColumn
    st.dataframe(
        pd.DataFrame(rows), hide_index=True, height=38 + 35 * len(rows), placeholder="–",
        alt=f"Leaderboard of {len(rows)} methods, the one that keeps most first.",
        column_config={
            "keeps": percent(format="%.1f %%", help="Mean over the tasks of merged / expert."),
            "seconds": percent(
                format="%.1f", help="Merging and testing, as it took when it was made here."
            ),
        },
    )  # fmt: skip
    for place in board:  # in full: a cell shows the beginning of a sentence
        if said := place.reason or failed.get(place.method, ""):
            st.caption(show.plain(f"{METHODS[place.method].title}: {said}"))


def _row(place: leaderboard.Place, first: Run | None, failed: str) -> dict[str, Any]:
    """`against the first` is paired: both answered the same examples."""
    method, run = METHODS[place.method], place.run
    row: dict[str, Any] = {"method": method.title, "needs": needs(place.method)}
    row |= dict.fromkeys(("keeps", "95 % interval", "against the first", "seconds", "tested on"))
    if run is not None:
        low, high = normalised_interval(run.report.tasks)
        mean = against(run, first).mean if first is not None and run is not first else None
        count = sum(result.merged.examples for result in run.report.tasks)
        row["keeps"] = 100 * (run.report.normalised_accuracy or 0.0)
        row["95 % interval"] = f"{100 * low:.1f} – {100 * high:.1f}"
        row["against the first"] = figures.points(mean) if mean else None
        if not shipped.of_another_machine(run):  # until then the time is another machine's
            row["seconds"] = run.report.seconds
        row["tested on"] = f"{count:,} {run.report.split}"
    why = "said below" if place.reason or failed else "" if run else "not merged yet"
    return row | {"why not": why}


def needs(method: str) -> str:
    """What a method reads of an expert's examples: inputs, gradients, both, or nothing."""
    one = METHODS[method]
    found = {NEEDS[kind.partition("_")[0]] for kind in one.reads(one.options())}
    found |= {NEEDS["input"]} if one.calibrates else set()
    return " and ".join(sorted(found, reverse=True)) or "nothing"


def _best(board: Sequence[leaderboard.Place], preparing: Job) -> None:
    """The best in a sentence, its final figure, and a way to go on with it."""
    made = [place.run for place in board if place.run is not None]
    if not made:
        return
    top = made[0]
    text = f"{METHODS[top.recipe.method].title} keeps most of {len(made)} methods"
    if len(made) > 1:
        equal = [run for run in made[1:] if (m := against(run, top).mean) and m.high >= 0]
        others = f"{len(equal)} of the others {'is' if len(equal) == 1 else 'are'}"
        text += f"; {others} not clearly worse" if equal else ", clearly more than each other one"
    st.markdown(f"**{show.plain(text)}.**")
    if st.button("Use these settings", icon=":material/merge:", key="board use"):
        runs.want(top.recipe)
    final.section(top, preparing)
