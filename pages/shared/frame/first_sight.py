"""What is seen while PyTorch is loaded: the figures of the merges that came with the family.

They are numbers in a file, which neither models nor PyTorch are needed for; the page that follows
shows the same ones.  Nothing that is imported here loads PyTorch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from . import ahead, folders
from .state import session

LEAD = (  # of the page Merge
    "Several models were fine-tuned from one base, one for each task. Merge them into a single "
    "encoder that serves them all, and see what each task keeps."
)
PICKED = 76  # pixels: where the page has its choice of runs
RESULTS = "results.json"  # as `mats_core.merging.ship_results` writes it
NAMES = ("family", "run")  # of what an address may name


@dataclass(frozen=True)
class Sight:
    """The best of the merges that came with a family.

    method        its name
    normalised    mean over the tasks of merged / expert accuracy
    gap           share of the way from the pre-trained encoder to the experts; None if unknown
    other, more   the first of the others, and by how many points it is better; empty where the
                  two were tested on other splits
    split         of the examples that it was tested on
    """

    method: str
    normalised: float
    gap: float | None
    split: str
    other: str = ""
    more: float = 0.0


def place() -> DeltaGenerator:
    """Where it is shown; empty once PyTorch is loaded."""
    return st.empty()


@contextmanager
def shown(page: str, place: DeltaGenerator) -> Iterator[None]:
    """Meanwhile the figures of the family's merges, on the page that opens with them."""
    with place.container():
        found = _of_the_address() if page == "Merge" else None
        above = _draw(page, found) if found is not None else st.container()
        with above, st.spinner("Loading PyTorch, once"):
            ahead.wait()
            yield
    place.empty()


def _of_the_address() -> Sight | None:
    """What the family opens with that the address names; None where it names a run."""
    family, run = map(st.query_params.get, NAMES)
    known = folders.found(folders.places())
    if run is not None or session.shown_run is not None or not known:
        return None
    return sight(known.get(str(family), next(iter(known.values()))).parent)


def sight(folder: Path) -> Sight | None:
    """The best of the merges that lie beside a family; None where there are none, or in a file
    that cannot be read."""
    try:
        reports: list[dict[str, Any]] = json.loads((folder / RESULTS).read_text("utf-8"))["reports"]
        best = max(reports, key=lambda one: one["normalised_accuracy"])
        known = best["method"], float(best["normalised_accuracy"]), best["gap_recovered"]
        others = [one for one in reports if one is not best and one["split"] == best["split"]]
        if not others:
            return Sight(*known, best["split"])
        more = 100 * (known[1] - others[0]["normalised_accuracy"])
        return Sight(*known, best["split"], others[0]["method"], more)
    except Exception:  # whatever a damaged file makes of it
        return None


def _draw(page: str, found: Sight) -> DeltaGenerator:
    """Draw the title and the numbers where the page will have them; returns the place of the
    progress above them."""
    left, _ = st.columns([11, 4], gap="large", vertical_alignment="bottom")
    with left:
        st.title(page, anchor=False)
        st.markdown(LEAD)
    _, right = st.columns([5, 11], gap="medium")
    with right:
        above = st.container()
        st.space(PICKED)
        _numbers(found)
    return above


def _numbers(found: Sight) -> None:
    st.header(f"{_title(found.method)}, as it came with the family", anchor=False)
    with st.container(horizontal=True, gap="medium"):
        st.metric(
            "Normalised accuracy", f"{100 * found.normalised:.1f} %", width="content",
            delta=f"{found.more:+.1f} points" if found.other else None,
            delta_description=f"vs {found.other}" if found.other else None,
        )  # fmt: skip
        if found.gap is not None:
            st.metric("Gap recovered", f"{100 * found.gap:.1f} %", width="content")
    # In words, too: the browser draws them at once, and loads what draws metrics.
    st.caption(
        f"Normalised accuracy {100 * found.normalised:.1f} %, on {found.split} examples. The page "
        "follows when PyTorch is loaded."
    )


def _title(method: str) -> str:
    return method.replace("_", " ").capitalize()
