"""Which grid to sweep: a method, two of its settings, and the values to try."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from mats_core.analysis import Axis, knobs, suggested
from mats_core.errors import InputError
from mats_core.methods import METHODS, PROPOSED, OptionField
from mats_core.recipes import FamilyFile, Recipe, parse_options

from ..frame import show
from ..work import Prepared, Run, SweepRequest

SIZES = (50, 150, 400)  # validation examples a task
MOST_POINTS = 100
ON = {"on": True, "off": False}


def controls(
    collection: FamilyFile, kept: list[Run], prepared: Prepared | None
) -> tuple[SweepRequest | None, str]:
    """What to sweep, or what is wrong with it."""
    newest = kept[-1].recipe.method if kept else ""
    methods = [name for name in METHODS if len(knobs(name)) > 1]
    first = newest if newest in methods else PROPOSED
    method = st.selectbox(
        "Method", methods, index=methods.index(first),
        format_func=lambda m: METHODS[m].title, key="sweep method", persist_state="session",
    )  # fmt: skip
    fields = {field.name: field for field in knobs(method)}
    order = sorted(fields, key=lambda name: fields[name].more)  # those behind "More settings" last
    x = _axis("Across", method, fields, order, 0)
    y = _axis("Upwards", method, fields, [name for name in order if name != x[0]], 0)
    same = [run for run in reversed(kept) if run.recipe.method == method]
    labels = {run.id: run.label for run in same}
    like = None
    if same:
        like = st.selectbox(
            "All other settings", [None, *labels], key=f"sweep like {method} {len(same)}",
            format_func=lambda i: "by default" if i is None else f"as in {labels[i]}",
        )  # fmt: skip
    asked = examples("sweep")
    run = next((run for run in same if run.id == like), None)
    return _request(collection, method, (x, y), fields, run, asked, prepared)


def examples(owner: str) -> int:
    """Validation examples of each task that a trial is asked."""
    chosen = st.segmented_control(
        "Validation examples a task", SIZES, default=SIZES[1], required=True,
        key=f"{owner} examples", persist_state="session",
        help="More examples tell close trials apart, and take longer.",
    )  # fmt: skip
    return int(chosen or SIZES[1])


def seconds_of(recipe: Recipe, kept: Sequence[Run]) -> list[float]:
    """What finished merges of a recipe's kind took."""
    wanted = recipe.method, recipe.rounds
    return [r.report.seconds for r in kept if (r.recipe.method, r.recipe.rounds) == wanted]


def _axis(
    label: str, method: str, fields: dict[str, OptionField], names: Sequence[str], first: int
) -> tuple[str, list[str]]:
    """An option and its values as texts."""
    name = st.selectbox(
        label, names, index=first, key=f"sweep {label} {method} {len(names)} {names[0]}",
        format_func=lambda n: fields[n].title, persist_state="session",
    )  # fmt: skip
    field = fields[name]
    texts = [text_of(value) for value in suggested(method, field)]
    numeric = field.kind in ("int", "float") or field.numeric
    values = st.multiselect(
        "Values", texts, default=texts, accept_new_options=numeric, wrap=True,
        key=f"sweep values {label} {method} {name}", persist_state="session",
        help=show.plain(f"{show.capital(field.help)}."),
        placeholder="Type a value and press Enter" if numeric else "Choose values",
    )  # fmt: skip
    return name, list(values)


def text_of(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def _value(field: OptionField, text: str) -> Any:
    """A typed value; raises `InputError` for what is no number where one is needed."""
    if field.kind == "bool":
        return ON[text]
    if text in field.choices:
        return text
    try:
        number = float(text.replace(",", "."))
        return int(number) if field.kind == "int" and number == int(number) else number
    except (ValueError, OverflowError):
        raise InputError(
            f"value of {field.title}", expected="a number", found=f"'{text}'"
        ) from None


def _request(
    collection: FamilyFile,
    method: str,
    axes: tuple[tuple[str, list[str]], ...],
    fields: dict[str, OptionField],
    run: Run | None,
    examples: int,
    prepared: Prepared | None,
) -> tuple[SweepRequest | None, str]:
    try:
        parsed = [_parsed(method, fields[name], texts) for name, texts in axes]
        points = len(parsed[0].values) * len(parsed[1].values)
        if points > MOST_POINTS:
            raise InputError(
                "sweep", expected=f"at most {MOST_POINTS} points", found=str(points),
                remedy="Take some values out.",
            )  # fmt: skip
        files = prepared.files if prepared else None
        recipe = run.recipe if run else collection.recipe(method, statistics=files)
    except InputError as error:
        return None, str(error)
    x, y = parsed
    # As in the names of runs: the knobs' own labels need their surroundings.
    titles = {axis.option: fields[axis.option].words for axis in parsed}
    return SweepRequest(collection.name, recipe, x, y, titles, examples, like=run), ""


def _parsed(method: str, field: OptionField, texts: Sequence[str]) -> Axis:
    """Values in their own order: numbers by size, choices as declared."""
    if not texts:
        raise InputError(f"values of {field.title}", expected="at least one", found="none")
    values = list(dict.fromkeys(_value(field, text) for text in texts))
    for value in values:
        parse_options(method, {field.name: value})
    names = sorted((v for v in values if isinstance(v, str)), key=field.choices.index)
    return Axis(field.name, (*names, *sorted(v for v in values if not isinstance(v, str))))
