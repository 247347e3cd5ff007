"""An example of the user's: the answers of base, experts and merges to it, side by side."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from .. import models, tasks
from ..errors import InputError, member
from ..evaluation import evaluate
from ..recipes import Inputs
from ..system import Event
from ..tasks import Split, Task

BASE = "base"
MOST_LETTERS = 20_000  # of all texts together


@dataclass(frozen=True)
class OwnAnswers:
    """What models say to one example, each with the head of the same task.

    task           whose head was asked
    classes        names of the head's classes
    models         the base, the experts and the merges, by their names
    probabilities  (models, classes)
    example        the example, as the one row of a split
    """

    task: str
    classes: tuple[str, ...]
    models: tuple[str, ...]
    probabilities: np.ndarray
    example: Split


def fields(task: Task) -> tuple[str, ...]:
    """The texts that an example of a task consists of, by their names; none of an image."""
    kind, columns = task.test.form.kind, task.test.inputs.shape[1]
    if kind == "image":
        return ()
    if kind == "choices":
        return ("Prompt", *(f"Answer {number}" for number in range(1, columns)))
    return ("Text",) if columns == 1 else tuple(f"Text {n}" for n in range(1, columns + 1))


def answering(
    inputs: Inputs,
    folder: Path,
    task: str,
    given: Sequence[str] | bytes,
    merges: Mapping[str, Mapping[str, Tensor]],
) -> Generator[Event, None, OwnAnswers]:
    """Events of asking base, experts and merges; returns their answers to one example.

    folder   where the references of tasks start
    task     the expert whose task and head are asked
    given    the texts of the example, in the order of `fields`, or the content of an image file
    merges   tensors by the base's names, of each merge by its name

    Raises `InputError` for an example that cannot be asked: empty, too long, or no image.
    """
    family = inputs.family
    experts = {expert.name: expert for expert in family.experts}
    expert = experts[member("expert", task, experts)]
    loaded = evaluate.check_task(expert, tasks.load(expert.task, root=folder)).task
    if not loaded.test.form.classified:
        raise InputError(f"task '{task}'", expected="classes to choose from", found="none")
    example = Split(_row(loaded, given), np.zeros(1, dtype=np.int64), loaded.test.form)
    weights = {BASE: family.base, **{name: one.checkpoint for name, one in experts.items()}}
    said: list[np.ndarray] = []
    names = (*weights, *merges)
    for index, name in enumerate(names):
        yield Event(fraction=index / len(names), text=f"Asking {name}")
        tensors = merges[name] if name in merges else models.tensors_of(weights[name])
        said.append(evaluate.probabilities(tensors, family, expert, example)[0])
    return OwnAnswers(task, loaded.classes, names, np.stack(said), example)


def _row(task: Task, given: Sequence[str] | bytes) -> np.ndarray:
    """The example as the one row of a split's inputs."""
    if task.test.form.kind == "image":
        if not isinstance(given, bytes):
            raise InputError("example", expected="an image", found="text")
        if not given:
            remedy = "Choose a file or drop one in, then ask."
            raise InputError("example", expected="an image file", found="none", remedy=remedy)
        return tasks.one_picture(given)[None]
    texts = () if isinstance(given, bytes) else tuple(given)
    wanted = fields(task)
    for name, text in zip(wanted, (*texts, *[""] * len(wanted)), strict=False):
        if not text.strip():
            raise InputError(
                f"'{name.lower()}' of the example", expected="some words", found="nothing",
                remedy="Type it, then ask.",
            )  # fmt: skip
    if len(texts) != len(wanted):
        raise InputError("example", expected=f"{len(wanted)} texts", found=f"{len(texts)}")
    letters = sum(map(len, texts))
    if letters > MOST_LETTERS:
        raise InputError(
            "example", expected=f"at most {MOST_LETTERS:,} letters", found=f"{letters:,}",
            remedy="Shorten it.",
        )  # fmt: skip
    return np.array([texts], dtype=object)


__all__ = ["BASE", "OwnAnswers", "answering", "fields"]
