"""From tables to splits: columns and templates become rows, shares are drawn with a seed."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, member
from . import tables
from .description import Description
from .task import SPLITS, Split, SplitName, Task, held_out

if TYPE_CHECKING:
    import pandas as pd

    Frames = Mapping[SplitName, pd.DataFrame]

Labelled = tuple[tuple[str, ...], dict[SplitName, np.ndarray]]
HUB_SPLITS = {"train": "train", "test": "test"}


def text_task(told: Description) -> Task:
    """A task of kind text, choices or language; raises `InputError`."""
    frames: Frames = {name: f for name in SPLITS if (f := _frame(told, name)) is not None}
    classes, labels = _labels(told, frames) if told.form.classified else ((), {})
    splits: dict[SplitName, Split] = {}
    for name, frame in frames.items():
        inputs = _inputs(told, _thing(told, name), frame)
        none = np.zeros(len(inputs), dtype=np.int64)
        splits[name] = Split(inputs, labels.get(name, none), told.form)
    return finished(told, classes, splits)


def _thing(told: Description, name: str, what: str = "rows") -> str:
    return f"{name} {what} of task '{told.name}'"


def _frame(told: Description, name: SplitName) -> pd.DataFrame | None:
    """The table of one split; None for one that is a share of the training rows."""
    where = getattr(told, name)
    if told.dataset is not None:
        return hub_frame(told, name)
    if not isinstance(where, str):
        return None
    return tables.read_table(_thing(told, name), told.path(where))


def hub_frame(told: Description, name: SplitName) -> pd.DataFrame | None:
    """One split of a hub data set; None for one that is a share of the training rows."""
    where = getattr(told, name)
    split = HUB_SPLITS.get(name) if where is None else where
    if not isinstance(split, str) or told.dataset is None:
        return None
    return tables.read_hub(_thing(told, name), told.dataset, told.subset, split, told.revision)


def _labels(told: Description, frames: Frames) -> Labelled:
    columns: dict[SplitName, list[Any]] = {
        name: list(tables.column(_thing(told, name), frame, told.label))
        for name, frame in frames.items()
    }
    if told.kind != "choices":
        hub = (frame.attrs.get(told.label) for frame in frames.values())
        known = told.class_names() or next((names for names in hub if names), None)
        return labelled(told, columns, known)
    classes = told.class_names() or tuple(_answer(i, c) for i, c in enumerate(told.choices))
    if len(classes) != len(told.choices):
        raise InputError(
            f"classes of task '{told.name}'",
            expected=f"{len(told.choices)}, one for each of its choices",
            found=f"{len(classes)}",
        )
    return labelled(told, columns, classes)


def labelled(
    told: Description,
    columns: Mapping[SplitName, Sequence[Any]],
    known: tuple[str, ...] | None,
    what: str = "rows",
) -> Labelled:
    """Class names in the order of the labels (those that occur, if none are `known`), and the
    labels of every split."""
    values = [value for column in columns.values() for value in column]
    classes = known or tables.distinct([tables.class_name(value) for value in values])
    checked_classes(told, classes)
    named = tables.are_names(values, classes)
    return classes, {
        name: tables.labels(_thing(told, name, what), column, classes, named=named)
        for name, column in columns.items()
    }


def _answer(place: int, template: str) -> str:
    """The class that an answer stands for; one that differs by row is only a number."""
    return f"choice {place + 1}" if "{" in template else template.strip()


def checked_classes(told: Description, names: tuple[str, ...]) -> None:
    """Raise `InputError` for fewer than two classes; F1 needs two, the second is the positive."""
    thing = f"classes of task '{told.name}'"
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(thing, expected="a different name for each", found=", ".join(twice))
    if len(names) < 2:
        raise InputError(thing, expected="at least two", found=f"{len(names)}")
    if told.metric == "f1" and len(names) != 2:
        raise InputError(
            f"metric 'f1' of task '{told.name}'",
            expected="two classes, the second one positive",
            found=f"{len(names)}",
            remedy="Use 'macro', the mean F1 of all classes.",
        )


def _inputs(told: Description, thing: str, frame: pd.DataFrame) -> np.ndarray:
    """Rows as the module `base` describes them: (n, columns) of str."""
    if told.kind == "text":
        columns = [tables.texts(thing, frame, name) for name in told.inputs]
    elif told.kind == "choices":
        columns = [filled(thing, frame, template) for template in (told.prompt, *told.choices)]
    else:
        columns = _language(told, thing, frame)
    return np.stack(columns, axis=1)


def _language(told: Description, thing: str, frame: pd.DataFrame) -> list[np.ndarray]:
    if told.inputs:
        text = tables.texts(thing, frame, told.inputs[0])
        return [np.full(len(text), "", dtype=object), text]
    prompt = filled(thing, frame, told.prompt, empty=True)
    return [prompt, filled(thing, frame, told.target)]


def filled(thing: str, frame: pd.DataFrame, template: str, *, empty: bool = False) -> np.ndarray:
    """A template filled in for every row: columns for their names in braces."""
    try:
        pieces = [(literal, name) for literal, name, *_ in string.Formatter().parse(template)]
    except ValueError as error:
        raise InputError(
            f"template '{template}' of {thing}",
            expected="columns in braces",
            found=str(error),
            remedy="Write {{ and }} for literal braces.",
        ) from None
    columns = {}
    for _, name in pieces:
        if name is not None:
            member(f"column in the template '{template}'", name, [str(c) for c in frame.columns])
            columns[name] = tables.texts(thing, frame, name, empty=True)
    found = [
        "".join(
            literal + (columns[name][row] if name is not None else "") for literal, name in pieces
        )
        for row in range(len(frame))
    ]
    bare = [row for row, text in enumerate(found) if not text.strip()]
    if bare and not empty:
        raise InputError(
            f"template '{template}' of {thing}",
            expected="a text in every row",
            found=f"none in row {bare[0] + 1}",
            remedy="Remove the rows whose columns are empty.",
        )
    return np.array(found, dtype=object)


def finished(told: Description, classes: tuple[str, ...], splits: dict[SplitName, Split]) -> Task:
    """The task, its shares drawn: test examples first, then validation examples."""
    train = splits["train"]
    random = np.random.default_rng(told.seed)
    if isinstance(told.test, float):
        train, splits["test"] = _drawn(told, train, told.test, random)
    if "validation" not in splits:
        if isinstance(told.validation, float):
            train, splits["validation"] = _drawn(told, train, told.validation, random)
        else:
            if _sorted(train.labels):  # the last fifth of these would be of one class
                train = train.take(random.permutation(len(train)))
            train, splits["validation"] = held_out(train)
    if not len(train):
        raise InputError(f"train rows of task '{told.name}'", expected="at least one", found="none")
    return Task(told.name, classes, train, splits["validation"], splits["test"], told.description)


def _drawn(
    told: Description, train: Split, share: float, random: np.random.Generator
) -> tuple[Split, Split]:
    """(remaining rows, drawn rows): `share` of the rows is drawn; both keep their order."""
    count = round(share * len(train))
    if not 0 < count < len(train):
        raise InputError(
            f"share {share:g} of {len(train)} rows of task '{told.name}'",
            expected="at least one row on either side",
            found=f"{count} and {len(train) - count}",
        )
    chosen = np.zeros(len(train), dtype=bool)
    chosen[random.permutation(len(train))[:count]] = True
    return train.take(np.flatnonzero(~chosen)), train.take(np.flatnonzero(chosen))


def _sorted(labels: np.ndarray) -> bool:
    return len(labels) > 1 and labels[0] != labels[-1] and bool((np.diff(labels) >= 0).all())
