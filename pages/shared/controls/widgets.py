"""Options → widgets: every knob is generated from a method's own declaration."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import streamlit as st

from mats_core.methods import METHODS, OptionField, describe, reference

from ..frame import keys, session, show, state

GROUPS: dict[str, str] = {
    "weights": "Weights",
    "task vectors": "Task vectors",
    "statistics": "Statistics",
}
DATA = "statistics"  # the group that needs examples
OWN_NUMBER = "a number"


def method(default: str, lacking: str = "") -> str:
    """Group and method, and what the chosen one does.

    `lacking`: why there are no statistics; the group that reads them is grey, and says so.
    """
    group = st.segmented_control(
        "Method, by what it needs",
        list(GROUPS),
        **_unless_set(keys.group(), default=str(METHODS[default].group)),
        required=True,
        format_func=lambda g: f":gray[{GROUPS[g]}]" if lacking and g == DATA else GROUPS[g],
        key=keys.group(),
        persist_state="session",
        width="stretch",
    )
    names = [name for name, m in METHODS.items() if m.group == group]
    name = st.selectbox(
        "Method",
        names,
        **_unless_set(keys.method(group), index=names.index(default) if default in names else 0),
        format_func=lambda n: METHODS[n].title,
        key=keys.method(group),
        persist_state="session",
        label_visibility="collapsed",
    )
    st.write(METHODS[name].summary)
    if lacking:
        st.caption(show.plain(f"{GROUPS[DATA]} in grey: {lacking}."))
    return name


def explain(name: str) -> None:
    """Formula and source of a method."""
    chosen = METHODS[name]
    with st.expander("Formula and source", icon=":material/function:"):
        # A line for each part: all of it is seen in a narrow column.
        lines = chosen.formula.replace(r",\quad ", r" \\[0.3em] ")
        st.latex(rf"\begin{{gathered}} {lines} \end{{gathered}}")
        said = f"{show.plain(chosen.title)} needs {reference.needs(name)}."
        said = f"{said} Source: {_link(chosen.source)}."
        st.markdown(f":small[{said}]")  # a caption would make its links pale


def _link(source: str) -> str:
    """arXiv numbers as links (opened only by a click)."""
    parts = []
    for part in source.split("; "):
        before, found, number = part.partition("arXiv ")
        link = f"[arXiv {number}](https://arxiv.org/abs/{number})" if found else ""
        parts.append(show.plain(before) + link)
    return "; ".join(parts)


def options(name: str, experts: int | None = None) -> dict[str, Any]:
    """A widget for every option of a method; returns their values.

    experts   how many are merged, by which some defaults differ; None: many
    """
    values: dict[str, Any] = {}
    headings = set()
    fields = _begun(name, experts)
    for field in fields:
        _follow(field, name, experts)
    for field in (field for field in fields if not field.more):
        if field.section and field.section.title not in headings:
            headings.add(field.section.title)
            st.header(field.section.title, anchor=False)
            st.caption(field.section.sentence)
        values[field.name] = widget(field, name)
    rest = [field for field in fields if field.more]
    if rest:
        with st.expander("More settings", icon=":material/tune:"):
            for field in rest:
                values[field.name] = widget(field, name)
    return values


def _begun(name: str, experts: int | None) -> list[OptionField]:
    """The options of a method, with the values that its widgets begin with."""
    first, fields = METHODS[name].exploring, describe(name, experts)
    return [replace(field, default=first.get(field.name, field.default)) for field in fields]


def _follow(field: OptionField, owner: str, experts: int | None) -> None:
    """Give a knob that stands at its default the one of as many experts as are chosen now."""
    if not field.by_experts:
        return
    key = keys.option(owner, field.name)
    counted = keys.counted_by(key)
    before = state.value(counted, None)
    state.put(counted, field.default)
    if before not in (None, field.default) and state.value(key, None) == before:
        state.put(key, field.default)


def put(field: OptionField, owner: str, value: Any) -> None:
    """Give an option's widget a value before it is drawn."""
    key = keys.option(owner, field.name)
    if field.switch:
        state.put(keys.switch(key), bool(value))
        if value:
            state.put(key, float(value))
    elif field.kind == "choice" or field.checkpoint:
        named = value in (field.choices or field.checkpoint)
        state.put(key, value if named else OWN_NUMBER)
        if not named:
            state.put(keys.number(key), float(value))
    elif field.kind in ("int", "float") and value is not None:
        state.put(key, (int if field.kind == "int" else float)(value))
    elif value is not None:
        state.put(key, value)


def _level(field: OptionField, common: dict[str, Any]) -> float:
    """A level of polarized scaling: a switch, and its power."""
    key = common["key"]
    switch, power = st.columns([6, 7], vertical_alignment="center")
    on = switch.toggle(
        common["label"], **_unless_set(keys.switch(key), value=bool(field.default)),
        key=keys.switch(key), persist_state="session",
    )  # fmt: skip
    low = float(field.step or 0.25)
    value = power.slider(
        f"Power of {common['label']}", low, float(field.high or 4),
        **_unless_set(key, value=float(field.default or low)), step=low, key=key, disabled=not on,
        label_visibility="collapsed", persist_state="session", format="power %g",
    )  # fmt: skip
    return float(value) if on else 0.0


def _unless_set(key: str, **default: Any) -> dict[str, Any]:
    """A default, unless the widget was given a value already: Streamlit wants one of the two."""
    return {} if state.is_set(key) else default


def widget(field: OptionField, owner: str) -> Any:
    """The widget that fits one option."""
    common: dict[str, Any] = {
        "label": field.title,
        "key": keys.option(owner, field.name),
        "help": _help(field),
        "persist_state": "session",
    }
    control = field.control
    if control == "switch":
        return _level(field, common)
    if control == "toggle":
        return st.toggle(**_unless_set(common["key"], value=bool(field.default)), **common)
    if control == "choice":
        return _choice(field, common)
    if control == "text":
        default = _unless_set(common["key"], value=field.default or "")
        return st.text_input(**default, **common) or None
    return _number(field, common)


def _help(field: OptionField) -> str:
    default = "" if field.default is None else f" Default: {field.default}"
    source = f" ({field.source})" if field.source and default else ""
    text = f"{show.capital(field.help)}.{default}{source}"
    return show.plain(text + ("." if default else ""))


def _choice(field: OptionField, common: dict[str, Any]) -> Any:
    choices = list(field.choices or field.checkpoint)
    named = isinstance(field.default, str) and field.default in choices
    shown = [*choices, OWN_NUMBER] if field.numeric else choices
    picked = st.selectbox(
        options=shown,
        **_unless_set(common["key"], index=shown.index(field.default) if named else len(shown) - 1),
        format_func=lambda c: str(c).replace("_", " "),
        **common,
    )
    if picked != OWN_NUMBER:
        return picked
    return st.number_input(
        f"{common['label']}, as a number",
        **_unless_set(keys.number(common["key"]), value=0.1 if named else float(field.default)),
        min_value=0.0,
        format="%g",
        key=keys.number(common["key"]),
        persist_state="session",
    )


def _number(field: OptionField, common: dict[str, Any]) -> Any:
    kind = int if field.kind == "int" else float
    low = None if field.low is None else kind(field.low)
    high = None if field.high is None else kind(field.high)
    step = None if field.step is None else kind(field.step)
    if field.optional or field.default is None:
        return st.number_input(
            **_unless_set(common["key"], value=field.default), min_value=low, max_value=high,
            step=step, placeholder="by default", **common,
        )  # fmt: skip
    if field.control == "slider":
        default = _unless_set(common["key"], value=kind(field.default))
        return st.slider(min_value=low, max_value=high, step=step, **default, **common)
    if field.control == "series":
        return _series(field, kind, common)
    shape = {} if kind is int else {"format": "%g"}
    default = _unless_set(common["key"], value=kind(field.default))
    return st.number_input(min_value=low, max_value=high, step=step, **default, **shape, **common)


def _series(field: OptionField, kind: type, common: dict[str, Any]) -> Any:
    """A slider over several powers of ten."""
    chosen = field.series(state.value(common["key"], 0))  # of a preset, between the marks
    default = _unless_set(common["key"], value=kind(field.default))
    return st.select_slider(options=chosen, format_func=lambda v: f"{v:g}", **default, **common)


def reset() -> None:
    """Give every knob of the page its default."""
    session.reset_count += 1


__all__ = ["GROUPS", "METHODS", "explain", "method", "options", "reset", "widget"]
