"""What stands in the Learn page's picture: one dictionary of the session, kept by picture and
sliders alike."""

from __future__ import annotations

import copy
import math
from typing import Any

import streamlit as st

from mats_core import figures
from mats_core.analysis import Task

from ..frame import keys, session, state
from . import ellipses

NAMES = ("A", "B")
LOOKS = figures.looks(NAMES)
WIDE, HIGH, SHORT, LONG = 4.0, 3.0, 0.2, 3.0  # as in picture.js
LIMITS = {
    "x": (-WIDE, WIDE, 0.05),
    "y": (-HIGH, HIGH, 0.05),
    "angle": (0, 179, 1),
    "a": (SHORT, LONG, 0.05),
    "b": (SHORT, LONG, 0.05),
}
WORDS = {
    "x": "centre, parameter 1",
    "y": "centre, parameter 2",
    "angle": "turned by (degrees)",
    "a": "half-axis along",
    "b": "half-axis across",
}
POINTS = {"start": "Start of CG", "origin": "Pre-trained model"}


def _scene(*tasks: tuple[float, float, int, float, float]) -> dict[str, Any]:
    return {
        "tasks": [
            {"name": name, **dict(zip(LIMITS, numbers, strict=True))}
            for name, numbers in zip(NAMES, tasks, strict=True)
        ],
        "start": [-3.2, 1.6],
        "origin": [-3.2, -2.0],
    }


PRESETS = {
    "Crossed valleys": _scene((-2.0, 0.0, 15, 2.4, 0.5), (0.6, -1.6, 65, 2.2, 0.5)),
    "Upright": _scene((-1.8, 0.8, 0, 2.4, 0.5), (1.2, -1.2, 90, 2.2, 0.5)),
    "Equally round": _scene((-1.6, 0.6, 0, 0.9, 0.9), (1.6, -0.8, 0, 0.9, 0.9)),
    "One valley": _scene((-1.6, -0.6, 20, 2.6, 0.4), (1.6, 0.55, 20, 2.6, 0.4)),
    "Loud and quiet": _scene((-1.8, 0.6, 20, 2.6, 2.0), (1.5, -0.6, 60, 0.6, 0.3)),
}


def current() -> dict[str, Any]:
    if session.toy is None:
        put(PRESETS["Crossed valleys"])
    assert session.toy is not None
    return session.toy


def put(scene: dict[str, Any], serial: int | None = None) -> None:
    """Take a scene over; `serial` counts what the picture has sent."""
    before = (session.toy or {}).get("serial", 0)
    session.toy = {
        **copy.deepcopy(scene), "serial": before if serial is None else max(before, serial)
    }  # fmt: skip


def tasks() -> list[Task]:
    return [
        Task(t["name"], (t["x"], t["y"]), t["angle"], (t["a"], t["b"])) for t in current()["tasks"]
    ]


def on_picture() -> None:
    """The picture has moved."""
    take(ellipses.moved(state.value(keys.TOY_PICTURE)))


def take(sent: Any) -> None:
    """What a browser sent, brought within the limits; anything else is left alone."""
    try:
        scene = {
            "tasks": [
                {"name": name, **{field: _within(field, t[field]) for field in LIMITS}}
                for name, t in zip(NAMES, sent["tasks"], strict=True)
            ],
            **{p: [_within(field, v) for field, v in zip("xy", sent[p], strict=True)]
               for p in POINTS},
        }  # fmt: skip
        serial = int(sent["serial"])
    except (KeyError, TypeError, ValueError):
        return
    put(scene, serial)
    session.toy_preset = None


def _within(field: str, value: Any) -> float:
    low, high, step = LIMITS[field]
    value = float(value)
    if not math.isfinite(value):
        raise ValueError(field)
    value = min(high, max(low, round(value / step) * step))
    return int(value) if isinstance(step, int) else round(value, 2)


def on_preset() -> None:
    if session.toy_preset in PRESETS:
        put(PRESETS[session.toy_preset])


def sliders() -> None:
    """The same numbers as sliders, in step with the picture."""
    scene = current()
    for task, column in zip(scene["tasks"], st.columns(len(NAMES)), strict=True):
        with column:
            st.markdown(f"**Task {task['name']}**")
            for field in LIMITS:
                _slider(f"{task['name']} {WORDS[field]}", field, task, field)
    for (point, title), column in zip(POINTS.items(), st.columns(len(POINTS)), strict=True):
        with column:
            st.markdown(f"**{title}**")
            for index, field in enumerate("xy"):
                label = f"{title}, parameter {index + 1}"
                _slider(label, field, scene[point], index)


def _slider(label: str, field: str, home: Any, place: Any) -> None:
    low, high, step = LIMITS[field]
    key = keys.slider(label)
    state.put(key, home[place])

    def changed() -> None:
        home[place] = state.value(key)
        session.toy_preset = None

    st.slider(label, low, high, step=step, key=key, on_change=changed)
