"""Weights by depth: a curve from the first block to the last, and rules that came with settings.

The curve is a small component, whose points are dragged or moved with the arrow keys; sliders below
it hold the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import streamlit as st
from streamlit.components.v2 import component

from mats_core.methods import METHODS
from mats_core.recipes import Rule

from ..frame import keys, show, state
from ..work import runs

Rules = tuple[Mapping[str, Any], ...]
MOST = 12  # points of a curve; of more blocks several are moved together
HIGHEST = 2.0
STEP = 0.05
ALL = ""  # the curve of the whole update
HERE = Path(__file__).parent
SVG = """<svg role="group" aria-label="Weight of each block, from the first to the last. Points can
be dragged or moved with the arrow keys."></svg>"""

_picture = component(
    "depth_curve", html=SVG, css=(HERE / "curve.css").read_text("utf-8"),
    js=(HERE / "curve.js").read_text("utf-8"),
)  # fmt: skip


def rules(method: str, experts: Sequence[str], depths: Sequence[float]) -> Rules:
    """The rules by layer that are set.

    depths   of the blocks of the family; empty where it is not open yet, or has none
    """
    bands = _bands(depths)
    _settle(experts, bands)
    kept: Rules = tuple(state.value(keys.rules(), ()))
    # Open where settings brought rules or a curve: what counts is not to be hidden.
    named = [keys.curve(name, i) for name in (ALL, *experts) for i in range(len(bands))]
    moved = any(state.value(knob, 1.0) != 1.0 for knob in named)
    with st.expander("Weights by depth", bool(kept) or moved, icon=":material/stacked_line_chart:"):
        if kept:
            _told(kept)
        if not bands:
            st.caption("There is a curve once the family is open, where its model has blocks.")
            return kept
        mine = METHODS[method]
        whose = ([] if mine.calibrates else [ALL]) + (list(experts) if mine.weighted else [])
        of = st.selectbox(
            "Curve of", whose, key=keys.rest("curve"), persist_state="session",
            format_func=lambda name: name or "the whole update",
            help="What counts how much, block by block: the whole change that the method makes, "
            "or one expert's weight in it.",
        )  # fmt: skip
        _points(str(of or ALL), bands, "Block" if len(bands) == len(depths) else "Part")
    curves = [rule for name in whose for rule in _curve(name, bands)]
    return (*kept, *curves)


def put(wanted: Rules) -> None:
    """Have these rules set, before they are drawn: those of a curve move its points then."""
    state.put(keys.rules(), wanted)


def _bands(depths: Sequence[float]) -> list[tuple[float, float]]:
    """From which depth to which each point of a curve reaches."""
    count = min(MOST, len(depths))
    cuts = [round(index * len(depths) / count) for index in range(count + 1)] if count else []
    groups = [depths[low:high] for low, high in pairwise(cuts)]
    return [(round(group[0], 4), round(group[-1], 4)) for group in groups]


def _settle(experts: Sequence[str], bands: Sequence[tuple[float, float]]) -> None:
    """Rules that are a curve's move its points; others stay rules."""
    kept: Rules = tuple(state.value(keys.rules(), ()))
    if not kept or not bands or not all(_fits(rule, experts, bands) for rule in kept):
        return
    for rule in kept:
        place = bands.index((round(rule["depth"][0], 4), round(rule["depth"][1], 4)))
        weight = rule["weight"]
        for name, value in (weight if isinstance(weight, Mapping) else {ALL: weight}).items():
            state.put(keys.curve(name, place), float(value))
    state.put(keys.rules(), ())


def _fits(
    rule: Mapping[str, Any], experts: Sequence[str], bands: Sequence[tuple[float, float]]
) -> bool:
    if set(rule) != {"depth", "weight"}:
        return False
    weight = rule["weight"]
    values = weight if isinstance(weight, Mapping) else {ALL: weight}
    band = tuple(round(float(one), 4) for one in rule["depth"])
    inside = all(0 <= float(value) <= HIGHEST for value in values.values())
    return band in bands and inside and set(values) <= {ALL, *experts}


def _told(kept: Rules) -> None:
    said = [show.plain(runs.sentence(Rule.model_validate(rule))) for rule in kept]
    st.markdown("\n".join(f"- {one}" for one in said))
    what = "this rule" if len(kept) == 1 else f"these {len(kept)} rules"
    st.button(f"Remove {what}", icon=":material/close:", on_click=put, args=((),))


def _points(of: str, bands: Sequence[tuple[float, float]], noun: str) -> None:
    ends = {0: ", with the embeddings", len(bands) - 1: ", with what follows"}
    knobs = [keys.curve(of, place) for place in range(len(bands))]
    for knob in knobs:
        if not state.is_set(knob):
            state.put(knob, 1.0)
    labels = [
        f"{noun} {place + 1} of {len(bands)}{ends.get(place, '')}" for place in range(len(bands))
    ]
    picture = keys.picture(of)
    held = {
        "name": picture, "labels": labels, "values": [float(state.value(knob)) for knob in knobs],
        "highest": HIGHEST, "step": STEP, "serial": int(state.value(keys.serial(picture), 0)),
    }  # fmt: skip
    _picture(key=picture, data=held, on_state_change=partial(dragged, picture, knobs))
    for label, knob in zip(labels, knobs, strict=True):
        st.slider(label, 0.0, HIGHEST, step=STEP, key=knob, persist_state="session", format="× %g")


def dragged(picture: str, knobs: Sequence[str]) -> None:
    """Take over what the picture has sent; anything that is no curve is left alone."""
    held = state.value(picture)
    sent: Any = held.get("state") if hasattr(held, "get") else None
    try:
        values = [round(round(float(value) / STEP) * STEP, 2) for value in sent["values"]]
        serial = int(sent["serial"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return
    if len(values) != len(knobs) or not all(0 <= value <= HIGHEST for value in values):
        return
    for knob, value in zip(knobs, values, strict=True):
        state.put(knob, value)
    state.put(keys.serial(picture), serial)


def _curve(of: str, bands: Sequence[tuple[float, float]]) -> Rules:
    """A rule for every point that was moved away from 1."""
    values = [float(state.value(keys.curve(of, place), 1.0)) for place in range(len(bands))]
    return tuple(
        {"depth": list(band), "weight": {of: value} if of else value}
        for band, value in zip(bands, values, strict=True)
        if value != 1.0
    )
