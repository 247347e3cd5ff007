"""What a file of examples may be the task of: columns, label and classes, guessed to be corrected.

A guess is made from names and from the values in the first rows; it is shown before it is used, and
becomes the short YAML that a person would have written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from ..checkpoints import CachedData, cached_data
from ..errors import InputError, cut, needed, parsing, undisturbed
from . import tables
from .answers import places
from .classes import class_name, class_number, distinct, matched, says_nothing
from .column_names import LABELS, PAIRS, TEXTS, first_of, pair_of
from .description import read
from .folders import ENDINGS, listed
from .loading import FILES, of_harness
from .templates import filled
from .wording import Wording, longest, wordings

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 5  # rows
ROWS = 20_000  # that are looked at
MANY = 300  # classes
LARGEST = 200_000_000  # bytes of a table that is read to be guessed about
HELD_OUT = 0.2  # of the rows, where no file of test rows lies beside
CELL = 200  # characters of a cell that is shown
TRAIN, HALVES_OF_DATA = "train", ("test", "validation", "dev")
HALVES = (("train", "test"), ("train", "validation"), ("train", "dev"), ("training", "testing"))


@dataclass(frozen=True)
class Guess:
    """What a file, or a folder of images, is taken for.

    file       the file or folder of the training rows
    kind       `text`, `image`, `choices` or `language`; `ready` where no description is needed
    columns    of the table
    rows       the first ones, as texts by column
    inputs     the column of texts, or the two of a pair
    label      the column of classes
    labels     column → the classes in it, of columns that may hold classes
    test       the file of the test rows beside it; None where a share is held out
    classes    in the order of the head; empty: those that occur
    prompt     template of what a language model reads, with {columns} in braces
    choices    templates of the answers that it chooses from
    target     template of the text that should follow
    ways       in which a language model may be asked, the likeliest first
    sample     the first rows as they are, by column
    reference  of a task that a source makes, which has no file
    data       the data set of a cache that `file` is the folder of; None for other files
    tested     its split of test rows; empty where a share is held out
    """

    file: Path
    kind: str
    columns: tuple[str, ...] = ()
    rows: tuple[Mapping[str, str], ...] = ()
    inputs: tuple[str, ...] = ()
    label: str = ""
    labels: Mapping[str, tuple[str, ...]] | None = None
    test: Path | None = None
    classes: tuple[str, ...] = ()
    prompt: str = ""
    choices: tuple[str, ...] = ()
    target: str = ""
    ways: tuple[Wording, ...] = ()
    sample: Mapping[str, tuple[Any, ...]] | None = None
    reference: str = ""
    data: CachedData | None = None
    tested: str = ""

    @property
    def split(self) -> str:
        """The split of the training rows, of a data set of a cache."""
        splits = self.data.splits if self.data else ()
        return TRAIN if TRAIN in splits else "".join(splits[:1])

    @property
    def found(self) -> tuple[str, ...]:
        """The classes that occur in the column of labels."""
        return (self.labels or {}).get(self.label, ())

    def with_label(self, column: str) -> Guess:
        """The same with another column of labels; its texts are the other ones."""
        inputs = tuple(name for name in self.inputs if name != column)
        return replace(self, label=column, inputs=inputs, classes=self._called(column))

    def asking(self, way: Wording) -> Guess:
        """The same, with a language model asked in this way."""
        label, labels = way.label, way.labels or {}
        found = replace(self, kind=way.kind, prompt=way.prompt, choices=way.choices)
        return replace(found, target=way.target, labels=labels, label="").with_label(label)

    def _called(self, column: str) -> tuple[str, ...]:
        """What a column calls the answers that stand beside it, in their order."""
        return (self.labels or {}).get(column, ()) if self.kind == "choices" else ()

    def asked(self) -> tuple[Mapping[str, str], ...]:
        """What a language model is asked in the first rows: `reads`, and `answers` with the `right`
        one, or what `follows`.  Raises `InputError` for a template that names no column.
        """
        pd = needed("examples", "pandas", "pandas", "data")
        frame = pd.DataFrame({name: [*cells] for name, cells in (self.sample or {}).items()})

        def texts(template: str) -> list[str]:
            return [*filled("the first rows", frame, template, empty=True)]

        reads = texts(self.prompt)
        if self.kind == "language":
            return _records(reads=reads, follows=texts(self.target))
        offered = [*zip(*map(texts, self.choices), strict=True)]
        names = self.classes or [one.strip() for one in self.choices]
        said = [_cell(cell) for cell in frame[self.label]]
        numbers = places(said, np.array(offered, dtype=object), names)
        right = [_right(one, row, names) for one, row in zip(numbers, offered, strict=True)]
        several = [" | ".join(filter(None, map(str.strip, row))) for row in offered]
        return _records(reads=reads, answers=several, right=right)


def _records(**columns: Sequence[str]) -> tuple[Mapping[str, str], ...]:
    rows = zip(*columns.values(), strict=True)
    return tuple({n: cut(one, CELL) for n, one in zip(columns, row, strict=True)} for row in rows)


def _right(label: Any, answers: Sequence[str], names: Sequence[str]) -> str:
    """The answer that a label means, as `rows` reads it; empty where it means none."""
    at = names.index(label) if label in names else class_number(str(label))
    return answers[at].strip() if at is not None and 0 <= at < len(answers) else ""


def guessed(file: Path, head: Sequence[str] = (), *, speaks: bool = False) -> Guess:
    """What a file or folder is taken for, as a task of an expert whose classes are `head`, or that
    `speaks`: a language model, which is asked in words.

    Raises `InputError` for what cannot be read, is too large to be looked at, or holds no classes.
    """
    if file.is_dir():
        known = next((one for one in cached_data() if one.folder == file), None)
        return _of_cache(known, head, speaks) if known else _images(file)
    if file.name.lower().endswith(FILES):
        return Guess(file, "ready", labels={"": _ready(file)})
    if file.stat().st_size > LARGEST:
        raise InputError(
            f"'{file}'", expected=f"at most {LARGEST / 1e6:.0f} MB", found="more",
            remedy="Describe it in a .yaml: docs/tasks.md.",
        )  # fmt: skip
    return _table(file, tables.read_table("rows", file), head, speaks)


def same_classes(found: Iterable[str], head: Sequence[str]) -> bool:
    """Whether classes of a file are those of a head by their names, which say something."""
    names = tuple(found)
    if not names or not head or says_nothing(names) or says_nothing(head):
        return False
    return len(matched(names, head)) == len(names)


def _ready(file: Path) -> tuple[str, ...]:
    """The classes of a task in a file of arrays, or of one that is described."""
    if file.suffix.lower() != ".npz":
        if of_harness(file):
            return ()
        return read(file).class_names() or ()
    with parsing(f"task '{file}'", "arrays of a task with its classes"):
        return undisturbed(lambda: _classes(file))


def _classes(file: Path) -> tuple[str, ...]:
    with np.load(file, allow_pickle=False) as arrays:
        return tuple(map(str, arrays["classes"]))


def _images(folder: Path) -> Guess:
    """A folder with a subfolder of images for each class, or with one such folder a split."""
    train, test = _halves_of(folder)
    found = listed("images", train, named=False)
    names = distinct(found.labels)
    rows = tuple(
        {"image": file.name, "label": label}
        for file, label in list(zip(found.files, found.labels, strict=True))[:SHOWN]
    )
    return Guess(train, "image", ("image", "label"), rows, (), "label", {"label": names}, test)


def _of_cache(data: CachedData, head: Sequence[str], speaks: bool) -> Guess:
    """A data set of a cache: its training rows, and a split whose rows have labels to test on."""
    train = Guess(data.folder, "", data=data).split
    found = _table(data.folder, _split(data, train), head, speaks)
    halves = (one for one in HALVES_OF_DATA if one != train and _has_labels(data, one, found.label))
    return replace(found, data=data, tested=next(halves, ""), test=None)


def _split(data: CachedData, name: str) -> pd.DataFrame:
    thing = f"rows of '{data.title}'"
    return tables.read_hub(thing, data.reference, data.subset or None, name, None, ROWS)


def _has_labels(data: CachedData, split: str, label: str) -> bool:
    """Whether a split is there and its labels are not hidden."""
    if split not in data.splits:
        return False
    if not label:
        return True
    cells = _split(data, split).head(SHOWN)[label]
    return any((class_number(_cell(cell) or "-1") or 0) >= 0 for cell in cells)


def _halves_of(folder: Path) -> tuple[Path, Path | None]:
    for train, test in HALVES:
        if (folder / train).is_dir():
            return folder / train, folder / test if (folder / test).is_dir() else None
    return folder, None


def _table(file: Path, frame: pd.DataFrame, head: Sequence[str], speaks: bool) -> Guess:
    part = frame.head(ROWS)
    texts = {str(name): [_cell(value) for value in part[name]] for name in part.columns}
    if paths := next((n for n, cells in texts.items() if _are_images(cells)), ""):
        kind, inputs = "image", (paths,)
    else:
        kind, inputs = "text", ()
    labels = {name: distinct(filter(None, cells)) for name, cells in texts.items()}
    labels = {n: names for n, names in labels.items() if 1 < len(names) <= _most(len(part))}
    labels = {n: names for n, names in labels.items() if n not in inputs}
    columns = tuple(texts)
    rows = tuple({n: cut(texts[n][k], CELL) for n in columns} for k in range(min(SHOWN, len(part))))
    if speaks and kind == "text":
        cells = {str(name): part[name].tolist() for name in part.columns}
        if ways := wordings(cells, texts, labels):
            first = {name: tuple(values[:SHOWN]) for name, values in cells.items()}
            found = Guess(file, kind, columns, rows, test=_beside(file), ways=ways, sample=first)
            return found.asking(ways[0])
    if not labels:
        raise InputError(
            f"'{file}'", expected="a column of classes that repeat", found=f"{[*texts]}",
            remedy="A task of texts without classes is described in a .yaml: docs/tasks.md.",
        )  # fmt: skip
    label = _label(labels, head)
    inputs = inputs or _inputs(texts, label)
    return Guess(file, kind, columns, rows, inputs, label, labels, _beside(file))


def _cell(value: Any) -> str:
    return class_name(value.decode("utf-8", "replace") if isinstance(value, bytes) else value)


def _most(rows: int) -> int:
    return min(MANY, max(2, rows // 2))


def _are_images(cells: Sequence[str]) -> bool:
    first = cells[:SHOWN]
    return bool(first) and all(cell.lower().endswith(ENDINGS) for cell in first)


def _label(labels: Mapping[str, tuple[str, ...]], head: Sequence[str]) -> str:
    """The column of classes: the one with the head's, else by its name, else that of fewest."""

    def rank(name: str) -> tuple[bool, bool, bool, int]:
        known = name.lower() in LABELS or name.lower().endswith(("label", "class"))
        same = len(labels[name]) == len(head)
        return not same_classes(labels[name], head), not known, not same, len(labels[name])

    return min(labels, key=rank)


def _inputs(texts: Mapping[str, Sequence[str]], label: str) -> tuple[str, ...]:
    """The pair that is known by its names, else the column that is; else the longest texts."""
    others = {name: cells for name, cells in texts.items() if name != label}
    if pair := pair_of(PAIRS, others):
        return pair
    known = first_of(TEXTS, others) or longest(others)
    return (known,) if known else ()


def _beside(file: Path) -> Path | None:
    """The file of test rows beside one of training rows: `test.csv` of `train.csv`."""
    for train, test in HALVES:
        name = re.sub(rf"(?<![a-z]){train}(?![a-z])", test, file.name, count=1, flags=re.IGNORECASE)
        if name != file.name and (file.parent / name).is_file():
            return file.parent / name
    return None


def described(found: Guess, train: str, test: str | None, name: str) -> str:
    """The YAML of a guess as it stands; `train` and `test` are its files as the YAML names them."""
    content: dict[str, Any] = {"kind": found.kind, "name": name}
    if found.data is not None:
        content["dataset"] = found.data.reference
        content |= {"subset": found.data.subset} if found.data.subset else {}
    content |= {"train": train, "test": test if test is not None else HELD_OUT}
    if found.kind in ("choices", "language"):
        content |= {"prompt": found.prompt} if found.prompt else {}
    if found.kind == "language":
        content["target"] = found.target
    if found.choices:
        content["choices"] = [*found.choices]
    if found.columns and found.inputs:
        content["inputs"] = [*found.inputs]
    if found.kind in ("text", "choices") or found.inputs:
        content["label"] = found.label
    if found.classes:
        content["classes"] = [*found.classes]
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=10**6)
