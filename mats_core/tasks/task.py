"""Tasks and splits: plain arrays, whatever file they came from.

Symbols: n examples, c columns.  The rows of a split are

    image      inputs (n, height, width, channels) uint8, labels (n,)
    text       inputs (n, c) of str: one text, or the two texts of a pair; labels (n,)
    choices    inputs (n, 1 + k) of str: a prompt and its k answers, the last of which are empty
               where a row has fewer; labels (n,), the right answer
    language   inputs (n, 2) of str: a prompt (may be empty) and the text that should follow;
               labels (n,), all zero, without classes
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NoReturn

import numpy as np

from ..errors import InputError, listing, member

Kind = Literal["image", "text", "choices", "language"]
KINDS: tuple[Kind, ...] = ("image", "text", "choices", "language")
MetricName = Literal["accuracy", "f1", "matthews", "macro", "likelihood"]
METRICS: tuple[MetricName, ...] = ("accuracy", "f1", "matthews", "macro")
SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")
VALIDATION_MOST = 500
ARRAYS = ("x_train", "y_train", "x_test", "y_test", "classes")
CHUNK = 1 << 24  # bytes hashed at once: an array on disk is not read into memory whole


@dataclass(frozen=True)
class Length:
    """How long an answer is, by which its log-likelihood is divided.

    unit      characters, or bytes of UTF-8
    skipped   characters at its head that are not counted: what separates it from the prompt
    """

    unit: Literal["characters", "bytes"]
    skipped: int = 0

    def of(self, answer: str) -> int:
        """The length of an answer, at least 1."""
        counted = answer[self.skipped :]
        return max(1, len(counted.encode() if self.unit == "bytes" else counted))


@dataclass(frozen=True)
class Form:
    """The kind of a task's rows, and how a model is asked about them.

    kind               image, text, choices or language: the shape of the rows (see above)
    metric             what a score is: see `mats_core.evaluation`; `likelihood` of a language task
    max_length         tokens an example is cut to; as many as the model takes by default
    length_normalised  of choices: an answer's log-likelihood is divided by its tokens, or by a
                       length of its text
    """

    kind: Kind = "image"
    metric: MetricName = "accuracy"
    max_length: int | None = None
    length_normalised: bool | Length = False

    @property
    def classified(self) -> bool:
        """Whether every example has one right class."""
        return self.kind != "language"

    @property
    def noun(self) -> str:
        """The noun for an example: `image` or `text`."""
        return "image" if self.kind == "image" else "text"


IMAGES = Form()


@dataclass(frozen=True)
class Split:
    """Rows and labels, example by example; see the module's text for their shapes.

    inputs   the rows
    labels   (n,) numbers of the right classes or answers
    form     kind and metric
    """

    inputs: np.ndarray
    labels: np.ndarray
    form: Form = IMAGES

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int | None) -> Split:
        """The split's first `count` examples (all for None)."""
        return self.take(slice(count))

    def take(self, rows: np.ndarray | slice) -> Split:
        """The examples at `rows`, in this order."""
        return Split(self.inputs[rows], self.labels[rows], self.form)

    def text(self, row: int) -> str:
        """One example in words; raises `InputError` for an image."""
        if self.form.kind == "image":
            raise InputError("example", expected="a text", found="an image")
        columns = [str(part) for part in self.inputs[row]]
        if self.form.kind == "choices":
            columns = columns[:1]
        return (" ¶ " if self.form.kind == "text" else " → ").join(c for c in columns if c)

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of rows, labels and form."""
        digest = hashlib.sha256(repr(self.form).encode())
        add(digest, self.inputs)
        add(digest, self.labels)
        return digest.hexdigest()


@dataclass(frozen=True)
class Task:
    """What a model is measured and tested on.

    name         of the task
    classes      class names in the order of the labels; empty for language
    train        examples for statistics
    validation   examples for choosing options
    test         examples for the final figure
    description  a sentence about the data; may be empty
    notes        what users should know about these data, a sentence each
    ordered      whether the order of the classes was given with the data; else it is that of their
                 names, and a model's own order is as good
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    description: str = ""
    notes: tuple[str, ...] = ()
    ordered: bool = True

    @property
    def form(self) -> Form:
        """The form that the three splits share."""
        return self.test.form

    def split(self, name: str) -> Split:
        """The split with this name; raises `InputError` for an unknown one."""
        member("split", name, SPLITS)
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]

    def reordered(self, classes: tuple[str, ...], places: Sequence[int]) -> Task:
        """The task with other classes: class k becomes class `places[k]` of them."""
        if classes == self.classes and list(places) == [*range(len(classes))]:
            return self
        moved = np.asarray(places, dtype=np.int64)
        parts = (self.train, self.validation, self.test)
        train, validation, test = (replace(p, labels=moved[p.labels]) for p in parts)
        return replace(
            self, classes=classes, train=train, validation=validation, test=test, ordered=True
        )

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of everything that is evaluated or measured."""
        digest = hashlib.sha256("\0".join(self.classes).encode())
        if self.form != IMAGES:  # pictures have the digest that files of statistics know
            digest.update(repr(self.form).encode())
        for split in (self.train, self.validation, self.test):
            add(digest, split.inputs)
            add(digest, split.labels)
        return digest.hexdigest()

    @classmethod
    def from_arrays(cls, name: str, arrays: Mapping[str, Any], description: str = "") -> Task:
        """A task from the five arrays of an `.npz`: uint8 images (n, height, width[, channels]),
        integer labels and class names.  Raises `InputError` for what does not fit together.
        """
        missing = [key for key in ARRAYS if key not in arrays]
        if missing:
            raise InputError(
                f"task '{name}'",
                expected=f"arrays {', '.join(ARRAYS)}",
                found=f"no {', '.join(missing)}",
            )
        classes = tuple(str(label) for label in arrays["classes"])
        train = _images(name, "train", arrays["x_train"], arrays["y_train"], len(classes))
        test = _images(name, "test", arrays["x_test"], arrays["y_test"], len(classes))
        return cls(
            name, classes, *held_out(train), test, description, remarks(name, classes, train, test)
        )


def held_out(train: Split) -> tuple[Split, Split]:
    """Training and validation examples: the last fifth, at most `VALIDATION_MOST`."""
    cut = len(train) - min(VALIDATION_MOST, len(train) // 5)
    return train.first(cut), train.take(slice(cut, None))


def remarks(name: str, classes: tuple[str, ...], train: Split, test: Split) -> tuple[str, ...]:
    """What is odd about a task's halves: examples that lie in both, classes that are not tested."""
    found = []
    nouns = f"{test.form.noun}s"
    both = repeated(test.inputs, train.inputs)
    if both:
        where = f"test {nouns} of task '{name}'"
        found.append(f"{both} of {len(test)} {where} are among its training {nouns} too")
    there = set(np.unique(test.labels).tolist())
    absent = [one for place, one in enumerate(classes) if place not in there]
    if absent and len(test):
        found.append(f"task '{name}' has no test {test.form.noun} of class {listing(absent)}")
    return tuple(found)


def repeated(ours: np.ndarray, others: np.ndarray) -> int:
    """How many rows of `ours` are also rows of `others`."""
    if ours.dtype == object:
        known = set(map(tuple, others))
        return sum(tuple(row) in known for row in ours)
    if ours.shape[1:] != others.shape[1:]:
        return 0
    # Arrays on disk are not read whole for this: rows that begin alike are compared.
    begun = {_beginning(row) for row in others}
    suspects = [row for row in ours if _beginning(row) in begun]
    wanted = {_beginning(row) for row in suspects}
    known = {row.tobytes() for row in others if _beginning(row) in wanted} if wanted else set()
    return sum(row.tobytes() in known for row in suspects)


def _beginning(row: np.ndarray) -> bytes:
    """A few bytes of the beginning and of the middle of a row."""
    flat = row.reshape(-1)
    middle = flat.size // 2
    return flat[:512].tobytes() + flat[middle : middle + 512].tobytes()


def add(digest: Any, values: np.ndarray) -> None:
    """Add an array's contents to a digest: its bytes, or its texts with their lengths."""
    if values.dtype == object:
        for text in values.reshape(-1):
            data = str(text).encode("utf-8", "surrogatepass")
            digest.update(f"{len(data)}:".encode())
            digest.update(data)
        return
    step = max(1, CHUNK // max(1, values[:1].nbytes))
    for start in range(0, len(values), step):
        digest.update(values[start : start + step].tobytes())


def _images(task: str, half: str, images: Any, labels: Any, classes: int) -> Split:
    images, labels = np.asarray(images), np.asarray(labels)

    def refuse(array: str, expected: str, found: str) -> NoReturn:
        raise InputError(f"{array}_{half} of task '{task}'", expected=expected, found=found)

    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        wanted = "uint8 images (n, height, width[, channels])"
        refuse("x", wanted, f"{images.dtype} {images.shape}")
    if images.ndim == 3:
        images = images[..., None]
    if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
        refuse("y", f"{len(images)} integer labels", f"{labels.dtype} {labels.shape}")
    if len(labels) and not (labels.min() >= 0 and labels.max() < classes):
        refuse("y", f"labels from 0 to {classes - 1}", f"{labels.min()} to {labels.max()}")
    return Split(images, labels.astype(np.int64))
