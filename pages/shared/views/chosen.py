"""Which inputs each expert chose for a calibration, a part of the Inside page."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import streamlit as st

from mats_core import figures
from mats_core.figures import Choice
from mats_core.recipes import ChosenInputs
from mats_core.tasks import Split

from ..frame import Slot, show, tracked
from ..work import Prepared, Run, chosen, chosen_examples, clipped, picture

SAID = 300  # characters of a text


def section(run: Run, task: str, prepared: Prepared) -> None:
    """What the expert of the task took, with every expert's score, and a press that shows it;
    nothing where it had its own examples."""
    found = chosen(run, task)
    if found is None:
        return
    st.header("Which inputs did this expert choose?", anchor=False)
    choice = _choice(found, run, prepared)
    margin = found.margin
    lead = "" if margin is None else (
        f" It answers to {figures.percent(margin.ahead, 0)} of them more than every other expert; "
        f"its lead over the next is {margin.median:+.2f} in the median, {margin.least:+.2f} at the "
        "least."
    )  # fmt: skip
    st.markdown(
        show.plain(
            f"{task} took {found.examples:,} of {found.candidates:,} inputs of the {found.inputs}, "
            f"those to which its update answers most.{lead}"
        )
    )
    name = tracked.of_run(prepared, run, "chosen inputs", task)
    there: Sequence[Split] | None = tracked.found(Slot.CHOOSING, name)
    if there is not None:
        _cards(there, choice)
    elif st.button(
        f"Show the first {len(found.first)}", icon=":material/image_search:", key="chosen start",
        disabled=tracked.active(Slot.CHOOSING) is not None,
    ):  # fmt: skip
        todo = partial(chosen_examples, run, task, lambda: prepared)
        tracked.press(Slot.CHOOSING, run.id, "Reading the chosen inputs", todo, name=name)
    show.figure(figures.chosen_scores(choice), f"chosen {run.id} {task}")


def _choice(found: ChosenInputs, run: Run, prepared: Prepared) -> Choice:
    """The record with sources by the names of their experts."""
    names = {entry.task: entry.name for entry in prepared.collection.experts if entry.task}
    names |= {entry.task: entry.name for entry in run.recipe.experts if entry.task}
    labels = tuple(names.get(one.source, one.source) for one in found.first)
    experts = tuple(entry.name for entry in run.recipe.experts)
    return Choice(found.expert, experts, labels, [one.scores for one in found.first])


def _cards(there: Sequence[Split], choice: Choice) -> None:
    """The inputs, each with where it is from, the expert's score and the next one's."""
    own = choice.experts.index(choice.expert)
    with st.container(horizontal=True, gap="small"):
        for place, (split, label, scores) in enumerate(
            zip(there, choice.labels, choice.scores, strict=True), 1
        ):
            pictured = split.form.noun == "image"
            with st.container(border=True, width=150 if pictured else 320, gap="xxsmall"):
                if pictured:
                    alt = f"Input {place}, of {label}"
                    st.image(picture(split.inputs[0]), width=96, alt=alt)
                else:
                    st.markdown(show.plain(clipped(split.text(0), SAID)))
                others = [i for i in range(len(scores)) if i != own]
                said = [f"{place} · {label}", f"{choice.expert} {scores[own]:+.2f}"]
                if others:
                    following = max(others, key=lambda i: scores[i])
                    said.append(f"{choice.experts[following]} {scores[following]:+.2f}")
                st.markdown("  \n".join(f":small[{show.plain(one)}]" for one in said))


def collect() -> None:
    """Say why there are no inputs."""
    tracked.collect(Slot.CHOOSING, cancelled="Reading the inputs was cancelled.")
