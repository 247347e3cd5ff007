"""Tasks of a new family: a file of examples for each expert, its columns and classes shown and
corrected before anything is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import streamlit as st

from mats_core.checkpoints import ListedModel
from mats_core.errors import InputError, listing
from mats_core.tasks import Guess, harness_task, same_classes

from ..frame import show
from ..work import drafts
from . import new_prompts

NONE, KEPT, NAMED = "no examples", "as it is", "a task of lm-evaluation-harness, by its name"
MANY = 12  # classes that are shown one by one


def choose(
    key: str,
    experts: Sequence[ListedModel],
    base: ListedModel | None,
    data: Sequence[Path],
    kept: Mapping[Path, str],
) -> dict[Path, Guess | None] | None:
    """The task of every expert, by the expert's path; None where it is to have none, and None
    altogether while one that is chosen cannot be read.

    `kept`: what the family says already, which stays where an expert is not in the answer.
    """
    st.markdown(
        "**3. Examples** of what each expert was trained for: with them every merge is tested. "
        "Without, the methods that need no data can be merged, and nothing is measured."
    )
    found: dict[Path, Guess | None] = {}
    unread, titles = False, drafts.titles()
    for model in experts:
        with st.container(border=True):
            speaks = drafts.speaks(model, base)
            already = kept.get(model.path, "")
            told = _file(f"{key} data {model.path}", model, data, already, speaks, titles)
            if told == KEPT:
                continue
            own = f"{key} {model.path}"
            if told == NONE:
                found[model.path] = None
                continue
            guess = _named(own) if told == NAMED else _guess(own, model, Path(told), speaks)
            found[model.path] = guess
            unread |= guess is None
    return None if unread else found


def _file(
    key: str,
    model: ListedModel,
    data: Sequence[Path],
    kept: str,
    speaks: bool,
    titles: Mapping[str, str],
) -> str:
    """The path of the file that is chosen; `NONE`, `KEPT` for what stands in the family, or `NAMED`
    for a task that is named below.  `titles`: what data sets of a cache are called."""
    proposed = None if kept else drafts.proposed_data(model, data, speaks)
    named = [NAMED] if speaks else []
    shown = {**titles, KEPT: f"as it is: {kept}"}
    options = [*([KEPT] if kept else []), NONE, *named, *map(str, data)]
    first = options.index(str(proposed)) if proposed in data else 0
    return st.selectbox(
        f"Examples of {show.label(model.name)}", options, first, key=key,
        format_func=lambda one: shown.get(one) or _short(one),
    )  # fmt: skip


def _short(path: str) -> str:
    """The last two parts of a path."""
    return path if path in (NONE, NAMED) else "/".join(Path(path).parts[-2:])


def _named(key: str) -> Guess | None:
    """A task of lm-evaluation-harness, whose name is typed; None where there is none yet."""
    name = st.text_input(
        "Name of the task", key=f"{key} named", placeholder="arc_easy",
        help="The harness words the prompts and reads the data set: from this machine's cache, or "
        "it is downloaded when the family is prepared.",
    )  # fmt: skip
    if not name.strip():
        st.caption("Type its name, such as arc_easy.")
        return None
    try:
        return Guess(Path(), "ready", reference=harness_task(name))
    except InputError as error:
        show.problem(str(error))
        return None


def _guess(key: str, model: ListedModel, file: Path, speaks: bool) -> Guess | None:
    """What the file is taken for, corrected by what is chosen."""
    try:
        found = drafts.guess(file, model.classes, speaks)
    except (InputError, OSError) as error:
        show.problem(str(error))
        return None
    if found.kind == "ready":
        st.caption("As it is described." if speaks else show.plain(_side_by_side(found, model)))
        return found
    key = f"{key} {file}"
    if found.ways:
        return new_prompts.correct(key, found)
    with st.expander("Columns and classes", expanded=not _sure(found, model)):
        st.dataframe(pd.DataFrame(found.rows), hide_index=True)
        found = _columns(key, found)
        found = _classes(key, found, model)
    of = listing(found.inputs) or "images"
    where = new_prompts.tested(found)
    st.caption(show.plain(f"{_side_by_side(found, model)} Reads {of}; {where}."))
    return found


def _sure(found: Guess, model: ListedModel) -> bool:
    return same_classes(found.found, model.classes)


def _side_by_side(found: Guess, model: ListedModel) -> str:
    theirs, ours = listing(found.classes or found.found, MANY), listing(model.classes, MANY)
    return f"Classes of the file: {theirs or 'not named'}. Of the head: {ours or 'not named'}."


def _columns(key: str, found: Guess) -> Guess:
    """Label and texts, chosen among the columns."""
    names = [*(found.labels or {})]
    left, right = st.columns(2)
    label = left.selectbox("Label", names, names.index(found.label), key=f"{key} label")
    found = found if label == found.label else found.with_label(label)
    if not found.inputs and found.kind == "image":
        return found
    others = [name for name in found.columns if name != label]
    first = [name for name in found.inputs if name in others]
    inputs = right.multiselect(
        "Texts" if found.kind == "text" else "Images", others, first, max_selections=2,
        key=f"{key} inputs {label}", help="One column, or the two of a pair.",
    )  # fmt: skip
    return replace(found, inputs=tuple(inputs))


def _classes(key: str, found: Guess, model: ListedModel) -> Guess:
    """Which class of the file each class of the head is, where their names do not say so."""
    head = model.classes
    if not head or _sure(found, model):
        return found
    if len(head) != len(found.found):
        st.warning(
            f"The head has {len(head)} classes and the column {len(found.found)}: is it another "
            "column, or another task?"
        )
        return found
    proposed = drafts.ordered(found, head)
    if len(head) > MANY:
        return replace(found, classes=proposed)
    st.markdown("Which class of the file is each class of the head?")
    chosen = []
    columns = st.columns(2)
    for place, name in enumerate(head):
        with columns[place % 2]:
            one = st.selectbox(
                f"{place} · {show.label(name)}", found.found,
                found.found.index(proposed[place]), key=f"{key} {found.label} class {place}",
            )  # fmt: skip
            chosen.append(one)
    if len(set(chosen)) < len(chosen):
        st.warning("One class of the file stands for two of the head.")
        return found
    return replace(found, classes=tuple(chosen))
