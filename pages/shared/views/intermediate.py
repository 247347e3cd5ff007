"""Intermediate tasks: what a donor does for a target, over the weight between the two."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import streamlit as st

from mats_core import figures
from mats_core.analysis import LAMBDAS, Donation, Donations, gained
from mats_core.evaluation import TaskResult
from mats_core.figures import Look
from mats_core.methods import METHODS
from mats_core.recipes import FamilyFile

from ..frame import Slot, show, tracked
from ..work import DonationRequest, Job, Prepared, ask_finally, measure_donations
from . import runs

VIEW = "Intermediate tasks"  # the tab on Compare
POLL = 1.5  # seconds between two looks at a map that fills
OFFERED = ("average", "fisher", "regmean", "kfac", "task_arithmetic")
ALL = "all tasks"


def section(collection: FamilyFile, prepared: Prepared | None, looks: Mapping[str, Look]) -> None:
    """Method, target and donors, the press, the map and the curves."""
    names = [expert.name for expert in collection.experts]
    asked = [expert.name for expert in collection.experts if expert.task]
    if len(names) < 2 or not asked:
        st.info("This needs two experts, of which one has a task.")
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        method = st.selectbox(
            "Merged by", OFFERED, format_func=lambda m: METHODS[m].title, width=260,
            key="donation method", persist_state="session",
        )  # fmt: skip
        target = st.selectbox(
            "Target", [ALL, *asked], width=220, key=f"donation target {collection.name}",
            persist_state="session", format_func=show.label,
        )  # fmt: skip
        targets = tuple(asked) if target == ALL else (str(target),)
        pairs = sum(donor != one for one in targets for donor in names)
        request, name = _request(collection, prepared, method, targets, tuple(names))
        clicked = st.button(
            f"Measure: {pairs * len(LAMBDAS)} merges", type="primary", key="donation start",
            icon=":material/volunteer_activism:",
            disabled=request is None or tracked.active(Slot.DONATING) is not None,
        )  # fmt: skip
    st.markdown(
        "One target's expert and one donor's are merged with weights λ and 1 − λ, and only the "
        "target's task is tested, as in Fisher merging and MaTS. Can an expert of another task "
        "make this one better than it is alone? It goes on in the background; nothing is kept."
    )
    if request is None:
        return
    if clicked:
        todo = partial(measure_donations, request)
        title = "Measuring intermediate tasks"
        tracked.press(Slot.DONATING, request, title, todo, background=True, name=name)
    job = tracked.shared(Slot.DONATING, name)
    if job is not None and job.active:
        st.fragment(_live, run_every=POLL)(job, looks)
        return
    found: Donations | None = tracked.found(Slot.DONATING, name)
    if found is not None:
        _drawn(found, looks, f"donations {name}")
        _choice(found, name)


def _request(
    collection: FamilyFile,
    prepared: Prepared | None,
    method: str,
    targets: tuple[str, ...],
    donors: tuple[str, ...],
) -> tuple[DonationRequest | None, str]:
    """What is asked for, once the family is open, and its name."""
    if prepared is None:
        return None, ""
    recipe = collection.recipe(method, statistics=prepared.files)
    name = tracked.name(prepared, VIEW, method, *targets)
    return DonationRequest(collection.name, recipe, targets, donors), name


def _live(job: Job, looks: Mapping[str, Look]) -> None:
    found = job.snapshot().partial
    if found is not None:
        _drawn(found, looks, "donations live")


def _drawn(found: Donations, looks: Mapping[str, Look], key: str) -> None:
    """The map of all pairs, and the curves of one target."""
    drawn = figures.donation_map(found)
    if drawn is None:
        why = [point.reason for one in found.donations for point in one.points if point.reason]
        if why:
            st.warning(show.plain(f"No pair could be merged. {why[0]}"))
        return
    targets = list(dict.fromkeys(one.target for one in found.donations))
    if len(targets) > 1:
        show.figure(drawn, f"{key} map")
    target = targets[0]
    if len(targets) > 1:
        chosen = st.segmented_control(
            "Curves of", targets, default=targets[0], required=True, key=f"{key} curves",
            format_func=show.label,
        )  # fmt: skip
        target = str(chosen or targets[0])
    curves = [one for one in found.donations if one.target == target]
    lines = figures.donation_curves(curves, looks, examples=found.examples)
    if lines is not None:
        show.figure(lines, f"{key} curves of {target}")


def _choice(found: Donations, name: str) -> None:
    """A pair, its test by a press, and its recipe."""
    pairs = [one for one in found.donations if one.best is not None]
    pairs = sorted(pairs, key=lambda one: -(one.gain.value if one.gain else -1.0))
    if not pairs:
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        place = st.selectbox(
            "Target and donor", range(len(pairs)), key=f"donation pair {name}", width=420,
            format_func=lambda i: _called(pairs[i]),
        )  # fmt: skip
        one = pairs[place]
        asked = f"{name} test {one.target} {one.donor}"
        final: TaskResult | None = tracked.found(Slot.DONATED, asked)
        if final is None and st.button(
            "Final figure", icon=":material/verified:", key="donation final",
            disabled=tracked.active(Slot.DONATED) is not None,
            help="Merges by the best weight and asks the target's test examples, once. Choose on "
            "validation examples first: the best of many on test looks better than it is.",
        ):  # fmt: skip
            todo = partial(ask_finally, found, one)
            title = "Asking the target's test examples"
            tracked.press(Slot.DONATED, asked, title, todo, name=asked)
        if st.button("Use these settings", icon=":material/merge:", key="donation use"):
            runs.want(found.recipe_for(one))
    if final is not None:
        low, high = final.merged.interval
        st.markdown(
            show.plain(
                f"Final figure, asked once: {one.target} with {one.donor} reaches "
                f"{figures.percent(final.merged.value)} ({figures.percent(low)} to "
                f"{figures.percent(high)}) on {final.merged.examples:,} test examples; its expert "
                f"alone {figures.percent(final.finetuned.value)}: "
                f"{figures.points(gained(final))}."
            )
        )


def _called(one: Donation) -> str:
    weight = "" if one.best is None else f", λ {one.best.weight:g}"
    return f"{one.target} with {one.donor}{weight}"


def collect() -> None:
    """Say how a measurement ended that is not kept."""
    tracked.collect(Slot.DONATING, cancelled="The pairs were not measured to the end.")
    tracked.collect(Slot.DONATED, cancelled="The test was cancelled; nothing was kept of it.")
