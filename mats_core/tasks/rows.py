"""From tables to splits: columns and templates become rows, shares are drawn with a seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, listing
from . import answers, classes, tables
from .description import Description
from .task import SPLITS, Split, SplitName, Task, held_out, remarks
from .templates import enters, filled

if TYPE_CHECKING:
    import pandas as pd

    Frames = Mapping[SplitName, pd.DataFrame]

HUB_SPLITS = {"train": "train", "test": "test"}


@dataclass(frozen=True)
class Labelled:
    """The labels of a task's splits.

    classes  names of the classes, in the order of the labels
    labels   of each split (kept rows,), numbers into `classes`
    kept     of each split (n,) bool: the rows that have a label
    notes    what was left out or taken for another spelling, a sentence each
    """

    classes: tuple[str, ...]
    labels: dict[SplitName, np.ndarray]
    kept: dict[SplitName, np.ndarray]
    notes: tuple[str, ...]


def text_task(told: Description) -> Task:
    """A task of kind text, choices or language; raises `InputError`."""
    frames: Frames = {name: f for name in SPLITS if (f := _frame(told, name)) is not None}
    notes = [note for frame in frames.values() for note in tables.remarks_of(frame)]
    inputs: dict[SplitName, np.ndarray] = {
        name: _inputs(told, _thing(told, name), frame) for name, frame in frames.items()
    }
    names: tuple[str, ...] = ()
    labels: dict[SplitName, np.ndarray] = {
        name: np.zeros(len(rows), dtype=np.int64) for name, rows in inputs.items()
    }
    kept: dict[SplitName, np.ndarray] = {
        name: np.ones(len(rows), dtype=bool) for name, rows in inputs.items()
    }
    if told.form.classified:
        found = _labels(told, frames, inputs)
        names, labels, kept = found.classes, found.labels, found.kept
        notes += found.notes
    splits: dict[SplitName, Split] = {}
    for name, rows in inputs.items():
        asked = _asked(told, rows[kept[name]], labels[name])
        if not asked.all():
            thing = _thing(told, name)
            notes.append(f"{(~asked).sum()} of {len(rows)} {thing} have no text and are left out")
        splits[name] = Split(rows[kept[name]][asked], labels[name][asked], told.form)
    return finished(told, names, splits, notes)


def _asked(told: Description, rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(n,) bool: rows with all their texts; the prompt of a language task may be empty, and of
    answers that stand in one list a row may have fewer than others, if the right one is there."""
    needed = rows[:, 1:] if told.kind == "language" else rows
    if told.kind == "choices" and any(map(enters, told.choices)):
        right = rows[np.arange(len(rows)), 1 + labels]
        needed = np.stack([rows[:, 0], rows[:, 1], rows[:, 2], right], axis=1)
    return np.array([all(text.strip() for text in row) for row in needed], dtype=bool)


def _thing(told: Description, name: str, what: str = "rows") -> str:
    """What one split is called in a sentence, with the file that it comes from."""
    where = getattr(told, name, None)
    file = f" ('{where}')" if isinstance(where, str) and told.dataset is None else ""
    return _named(told, name, what) + file


def _named(told: Description, name: str, what: str) -> str:
    return f"{name} {what} of task '{told.name}'"


def _frame(told: Description, name: SplitName) -> pd.DataFrame | None:
    """The table of one split; None for one that is a share of the training rows."""
    where = getattr(told, name)
    if told.dataset is not None:
        return hub_frame(told, name)
    if not isinstance(where, str):
        return None
    return tables.read_table(_named(told, name, "rows"), told.path(where))


def hub_frame(told: Description, name: SplitName) -> pd.DataFrame | None:
    """One split of a hub data set; None for one that is a share of the training rows."""
    where = getattr(told, name)
    split = HUB_SPLITS.get(name) if where is None else where
    if not isinstance(split, str) or told.dataset is None:
        return None
    return tables.read_hub(_thing(told, name), told.dataset, told.subset, split, told.revision)


def _labels(told: Description, frames: Frames, inputs: Mapping[SplitName, np.ndarray]) -> Labelled:
    columns: dict[SplitName, list[Any]] = {
        name: tables.labels(_thing(told, name), frame, told.label) for name, frame in frames.items()
    }
    if told.kind != "choices":
        hub = (frame.attrs.get(told.label) for frame in frames.values())
        known = told.class_names() or next((names for names in hub if names), None)
        return labelled(told, columns, known)
    names = told.class_names() or tuple(_answer(i, c) for i, c in enumerate(told.choices))
    if len(names) != len(told.choices):
        raise InputError(
            f"classes of task '{told.name}'",
            expected=f"{len(told.choices)}, one for each of its choices",
            found=f"{len(names)}",
        )
    columns = {n: answers.places(of, inputs[n][:, 1:], names) for n, of in columns.items()}
    return labelled(told, columns, names)


def labelled(
    told: Description,
    columns: Mapping[SplitName, Sequence[Any]],
    known: tuple[str, ...] | None,
    what: str = "rows",
) -> Labelled:
    """Class names in the order of the labels (those that occur, if none are `known`), and the
    labels of every split."""
    notes: list[str] = []
    kept: dict[SplitName, np.ndarray] = {}
    there: dict[SplitName, list[Any]] = {}
    for name, column in columns.items():
        thing = _thing(told, name, what)
        kept[name], note = classes.present(thing, column, known or (), drop=told.missing == "drop")
        notes += [note] if note else []
        there[name] = [value for value, keep in zip(column, kept[name], strict=True) if keep]
    said = {classes.class_name(value) for values in there.values() for value in values}
    count = sum(map(len, there.values()))
    names = known or classes.distinct(said)
    if not known:
        classes.require_few(f"labels of task '{told.name}'", names, count)
    checked_classes(told, names)
    spelt = classes.spelt(sorted(said), names)
    other = [f"'{one}' is taken for '{spelt[one]}'" for one in sorted(spelt) if spelt[one] != one]
    if other:
        notes.append(f"labels of task '{told.name}': {listing(other)}")
    if apart := [] if known else [" and ".join(map(repr, group)) for group in classes.alike(names)]:
        notes.append(
            f"classes of task '{told.name}': {listing(apart)} differ in case, blanks and "
            "punctuation alone and are different classes; if 'classes' names one of them, the "
            "others are taken for it"
        )
    numbers: dict[SplitName, np.ndarray] = {
        name: classes.labels(_thing(told, name, what), values, names, spelt, named=said <= {*spelt})
        for name, values in there.items()
    }
    return Labelled(names, numbers, kept, tuple(notes))


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
        found = f"{len(names)}" + "".join(f", '{name}'" for name in names)
        raise InputError(thing, expected="at least two", found=found)
    if told.metric == "f1" and len(names) != 2:
        raise InputError(
            f"metric 'f1' of task '{told.name}'",
            expected="two classes, the second one positive",
            found=f"{len(names)}",
            remedy="Use 'macro', the mean F1 of all classes.",
        )


def _inputs(told: Description, thing: str, frame: pd.DataFrame) -> np.ndarray:
    """Rows as `task.py` describes them: (n, columns) of str."""
    drop = told.missing == "drop"
    if told.kind == "text":
        columns = [tables.texts(thing, frame, name, empty=drop) for name in told.inputs]
    elif told.kind == "choices":
        templates = (told.prompt, *told.choices)
        columns = [filled(thing, frame, one, empty=drop or enters(one)) for one in templates]
        columns[1:] = map(_offered, columns[1:])
    else:
        columns = _language(told, thing, frame)
    return np.stack(columns, axis=1)


def _offered(answers: np.ndarray) -> np.ndarray:
    """Answers (n,), empty where nothing but the blanks of a template is left."""
    return np.array([one if one.strip() else "" for one in answers], dtype=object)


def _language(told: Description, thing: str, frame: pd.DataFrame) -> list[np.ndarray]:
    drop = told.missing == "drop"
    if told.inputs:
        text = tables.texts(thing, frame, told.inputs[0], empty=drop)
        return [np.full(len(text), "", dtype=object), text]
    prompt = filled(thing, frame, told.prompt, empty=True)
    return [prompt, filled(thing, frame, told.target, empty=drop)]


def finished(
    told: Description,
    names: tuple[str, ...],
    splits: dict[SplitName, Split],
    notes: Sequence[str] = (),
) -> Task:
    """The task, its shares drawn: test examples first, then validation examples."""
    for name, split in splits.items():
        if not len(split):
            raise InputError(_thing(told, name), expected="at least one", found="none")
    train = splits["train"]
    random = np.random.default_rng(told.seed)
    if isinstance(told.test, float):
        train, splits["test"] = _drawn(told, train, told.test, random)
    odd = remarks(told.name, names, train, splits["test"])
    if "validation" not in splits:
        if isinstance(told.validation, float):
            train, splits["validation"] = _drawn(told, train, told.validation, random)
        else:
            if _sorted(train.labels):  # the last fifth of these would be of one class
                train = train.take(random.permutation(len(train)))
            train, splits["validation"] = held_out(train)
    if not len(train):
        raise InputError(f"train rows of task '{told.name}'", expected="at least one", found="none")
    return Task(
        told.name, names, train, splits["validation"], splits["test"], told.description,
        (*dict.fromkeys(notes), *odd), ordered=_ordered(told),
    )  # fmt: skip


def _ordered(told: Description) -> bool:
    """Whether the order of the classes was given: by the description, or by a data set."""
    return told.classes is not None or told.dataset is not None or told.kind == "choices"


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
