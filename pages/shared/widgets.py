"""Options → widgets: every knob is generated from a method's own declaration."""

from __future__ import annotations

import math
from typing import Any

import streamlit as st

from mats_core.methods import METHODS
from mats_core.methods.curvature import STARTS
from mats_core.recipe import OptionField, describe

from . import show

GROUPS: dict[str, str] = {
    "weights": "Weights",
    "task vectors": "Task vectors",
    "statistics": "Statistics",
}
NEEDS = {
    "weights": "needs nothing but the checkpoints",
    "task vectors": "needs what each expert changed in the base",
    "statistics": "needs statistics that were measured on each expert's own task",
}
LABELS = {
    "task_power": "Level 1: tasks",
    "dimension_power": "Level 2: dimensions",
    "layer_power": "Level 3: layers",
    "eigenvalue_power": "Directions",
    "iterations": "CG iterations",
    "normalise": "Normalise each task",
    "fold_bias": "Merge biases with their weight",
    "remaining": "Parameters without statistics",
    "rank": "Rank of each task's subspace",
}
# What stands together under a heading, and what waits behind "More settings".
SECTIONS = {
    "Polarized scaling: who speaks louder": ("task_power", "dimension_power", "layer_power"),
}
LEADING = {
    "kfac": ("iterations", "damping", "start", "preconditioner"),
    "essential": ("scaling", "task_power", "dimension_power", "layer_power"),
}
SUGGESTED = {"start": STARTS}
OWN_NUMBER = "a number"
MOST_STEPS = 100  # of a slider; a wider range is typed


def method(default: str) -> str:
    """Group and method, and what the chosen one does."""
    group = st.segmented_control(
        "Method, by what it needs",
        list(GROUPS),
        default=str(METHODS[default].group),
        required=True,
        format_func=lambda g: GROUPS[g],
        key=f"group {version()}",
        persist_state="session",
        width="stretch",
    )
    names = [name for name, m in METHODS.items() if m.group == group]
    name = st.selectbox(
        "Method",
        names,
        index=names.index(default) if default in names else 0,
        format_func=lambda n: METHODS[n].title,
        key=f"method {group} {version()}",
        persist_state="session",
        label_visibility="collapsed",
    )
    st.write(METHODS[name].summary)
    return name


def explain(name: str) -> None:
    """Formula and source of a method."""
    chosen = METHODS[name]
    with st.expander("Formula and source", icon=":material/function:"):
        st.latex(chosen.formula)
        st.caption(
            f"{show.plain(chosen.title)} {NEEDS[chosen.group]}. Source: {_link(chosen.source)}."
        )


def _link(source: str) -> str:
    """arXiv numbers as links (opened only by a click)."""
    parts = []
    for part in source.split("; "):
        before, found, number = part.partition("arXiv ")
        link = f"[arXiv {number}](https://arxiv.org/abs/{number})" if found else ""
        parts.append(show.plain(before) + link)
    return "; ".join(parts)


def options(name: str) -> dict[str, Any]:
    """A widget for every option of a method; returns their values."""
    fields = {field.name: field for field in describe(name)}
    leading = [n for n in LEADING.get(name, tuple(fields)) if n in fields]
    values: dict[str, Any] = {}
    headings = set()
    for option in leading:
        heading = next((h for h, members in SECTIONS.items() if option in members), None)
        if heading and heading not in headings:
            headings.add(heading)
            st.markdown(f"**{heading}**")
        values[option] = widget(fields[option], name)
    rest = [n for n in fields if n not in leading]
    if rest:
        with st.expander("More settings", icon=":material/tune:"):
            for option in rest:
                values[option] = widget(fields[option], name)
    return values


def widget(field: OptionField, owner: str) -> Any:
    """The widget that fits one option."""
    common: dict[str, Any] = {
        "label": LABELS.get(field.name, field.name.replace("_", " ").capitalize()),
        "key": f"{owner} {field.name} {version()}",
        "help": _help(field),
        "persist_state": "session",
    }
    if field.kind == "bool":
        return st.toggle(value=bool(field.default), **common)
    if field.kind == "choice" or field.name in SUGGESTED:
        return _choice(field, common)
    if field.kind == "text":
        return st.text_input(value=field.default or "", **common) or None
    return _number(field, common)


def _help(field: OptionField) -> str:
    default = "" if field.default is None else f" Default: {field.default}"
    source = f" ({field.source})" if field.source and default else ""
    text = f"{field.help[:1].upper()}{field.help[1:]}.{default}{source}"
    return show.plain(text + ("." if default else ""))


def _choice(field: OptionField, common: dict[str, Any]) -> Any:
    choices = list(field.choices or SUGGESTED[field.name])
    named = isinstance(field.default, str) and field.default in choices
    shown = [*choices, OWN_NUMBER] if field.numeric else choices
    picked = st.selectbox(
        options=shown,
        index=shown.index(field.default) if named else len(shown) - 1,
        format_func=lambda c: str(c).replace("_", " "),
        **common,
    )
    if picked != OWN_NUMBER:
        return picked
    return st.number_input(
        f"{common['label']}, as a number",
        value=0.1 if named else float(field.default),
        min_value=0.0,
        format="%g",
        key=f"{common['key']} number",
        persist_state="session",
    )


def _number(field: OptionField, common: dict[str, Any]) -> Any:
    kind = int if field.kind == "int" else float
    low = None if field.low is None else kind(field.low)
    high = None if field.high is None else kind(field.high)
    step = None if field.step is None else kind(field.step)
    if field.optional or field.default is None:
        return st.number_input(
            value=field.default, min_value=low, max_value=high, step=step,
            placeholder="by default", **common,
        )  # fmt: skip
    if low is not None and high is not None and step and (high - low) / step <= MOST_STEPS:
        return st.slider(
            min_value=low, max_value=high, value=kind(field.default), step=step, **common
        )
    if low == 0 and high is not None and step and float(step) != 1:
        return _series(field, high, kind, common)
    shape = {} if kind is int else {"format": "%g"}
    return st.number_input(
        value=kind(field.default), min_value=low, max_value=high, step=step, **shape, **common
    )


def _series(field: OptionField, high: float, kind: type, common: dict[str, Any]) -> Any:
    """A slider over several powers of ten: 0, then 1, 2, 3, 5, 7 times each power."""
    first = 0 if kind is int else -4 + math.floor(math.log10(high))
    powers = range(first, math.ceil(math.log10(high)) + 1)
    values = {kind(float(f"{digit}e{power}")) for power in powers for digit in (1, 2, 3, 5, 7)}
    chosen = sorted({kind(0), kind(field.default), *(v for v in values if v <= high)})
    return st.select_slider(
        options=chosen, value=kind(field.default), format_func=lambda v: f"{v:g}", **common
    )


def version() -> int:
    """Part of every key: counting it up gives all widgets their defaults back."""
    return st.session_state.get("reset count", 0)


def reset() -> None:
    """Give every knob of the page its default."""
    st.session_state["reset count"] = version() + 1


__all__ = ["GROUPS", "METHODS", "explain", "method", "options", "reset", "version", "widget"]
