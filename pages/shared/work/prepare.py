"""What the worker does: prepare a family, merge, follow an iteration.  No Streamlit here."""

from __future__ import annotations

import contextlib
import gc
import math
from collections.abc import Callable, Generator, Hashable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from mats_core import tasks
from mats_core.errors import InputError
from mats_core.evaluation import TaskResult, evaluate
from mats_core.merging import Event
from mats_core.recipes import (
    TRIED,
    FamilyFile,
    Inputs,
    measuring_all,
    missing_statistics,
    open_inputs,
    with_statistics,
)
from mats_core.statistics import MeasureSettings
from mats_core.system import Memo, choose_device, drain, nbytes, part, recall, speeds, uncollected

from .. import policy
from .following import told
from .jobs import Tell

PICTURES = 12
TEXTS = 3
SAID = 160  # characters of a text on a card
OPENED = 1 << 22  # bytes that a prepared family counts as, beside its cards


@dataclass(frozen=True)
class TaskCard:
    """What a page shows of a task: classes, an image (or text) of some of them, and sizes."""

    classes: tuple[str, ...]
    images: tuple[np.ndarray, ...]
    captions: tuple[str, ...]
    train: int
    validation: int
    test: int
    description: str = ""
    texts: tuple[str, ...] = ()

    @property
    def noun(self) -> str:
        return "text" if self.texts else "image"


@dataclass(frozen=True)
class Prepared:
    """A family, opened, measured and evaluated before any merge.

    `files` are those of the statistics; empty as long as they are not measured.  `problem` is a
    sentence where they could not be; methods without them still work.
    `notes` are what users should know about the files, about experts and about their tasks; `data`
    are the digests of these.
    """

    collection: FamilyFile
    inputs: Inputs
    files: dict[str, Path]
    baselines: tuple[TaskResult, ...] = ()
    cards: dict[str, TaskCard] = field(default_factory=dict)
    problem: str = ""
    base_card: TaskCard | None = None
    notes: tuple[str, ...] = ()
    data: tuple[str, ...] = ()


# Results, cards, notes, and the data's digests
_Tested = tuple[tuple[TaskResult, ...], dict[str, TaskCard], list[str], tuple[str, ...]]


def prepare(collection: FamilyFile, key: Hashable, tell: Tell) -> Prepared:
    """The prepared family: `opened`, and then `whole`."""

    def first(fraction: float, text: str, partial: object = None) -> None:
        tell(fraction / 2, text, partial)

    def then(fraction: float, text: str, partial: object = None) -> None:
        tell((1 + fraction) / 2, text, partial)

    found = opened(collection, key, first)
    return whole(lambda: found, key, then)


def opened(collection: FamilyFile, key: Hashable, tell: Tell) -> Prepared:
    """The family with what experts and base reach, from another window that has opened the same
    files (`key`) or new; with statistics where this machine has those of all members already."""
    policy.current().require_family(collection.folder)
    return recall(("opened", key), lambda: told(_opening(collection), tell), _room)


def whole(ready: Callable[[], Prepared], key: Hashable, tell: Tell) -> Prepared:
    """The family that `ready` has opened, with its statistics; what is missing is measured.

    One with a problem is not kept: its cause may lie outside of the files.
    """
    first = ready()
    return recall(("prepared", key), lambda: told(_completing(first), tell), _room)


def _room(prepared: Prepared) -> int | None:
    return None if prepared.problem else OPENED + nbytes(prepared.cards)


def libraries() -> None:
    """Import plotly and transformers, with the model that the sample family is."""
    with uncollected():
        import plotly.graph_objects  # noqa: F401  (warmed for the page)
        import transformers

        _ = transformers.AutoConfig, transformers.ViTForImageClassification
    gc.freeze()  # the libraries' 400,000 objects live for ever: no collection need look at them


def _opening(collection: FamilyFile) -> Generator[Event, None, Prepared]:
    """Import what is slow, check the files, rate the experts."""
    yield Event(text="Loading PyTorch and transformers, once")
    libraries()
    yield Event(fraction=0.1, text="Checking that the experts fit their base")
    inputs = open_inputs(collection.recipe("average"), Memo.of_process())
    yield Event(fraction=0.2, text="Reading the tasks")
    baselines, cards, said, data = yield from part(_testing(collection, inputs), 0.2)
    own = _base_card(collection)
    notes = tuple(dict.fromkeys((*inputs.notes, *said)))
    found = Prepared(collection, inputs, {}, baselines, cards, "", own, notes, data)
    with contextlib.suppress(InputError):  # said when they are to be measured
        if not missing_statistics(collection):
            return _with_files(found, drain(_measuring(collection), lambda event: None)[0])
    return found


def _completing(first: Prepared) -> Generator[Event, None, Prepared]:
    """Measure the statistics that are missing, and time the machine."""
    files, problem = first.files, ""
    if not files:
        files, problem = yield from part(_measuring(first.collection), 0.0, 0.95)
    yield Event(fraction=0.95, text="Timing this machine, once")
    speeds.rates(choose_device("auto")[0])
    return replace(_with_files(first, files), problem=problem)


def _with_files(opened: Prepared, files: dict[str, Path]) -> Prepared:
    if not files or files == opened.files:
        return opened
    recipe = opened.collection.recipe("average", statistics=files)
    return replace(opened, inputs=with_statistics(opened.inputs, recipe), files=files)


def _testing(collection: FamilyFile, inputs: Inputs) -> Generator[Event, None, _Tested]:
    """What experts and base reach on their tasks, and what there is to say of these."""
    baselines, cards, notes, data = [], {}, [], []
    for index, expert in enumerate(inputs.family.experts):
        if not expert.task:
            continue
        fraction = index / len(inputs.family.experts)
        yield Event(fraction=fraction, text=f"Testing the expert {expert.name}")
        task = tasks.load(expert.task, root=collection.folder)
        cards[expert.name] = _card(task)
        data.append(f"{expert.name}:{task.digest}")
        if expert.checkpoint.directory is not None:
            known = evaluate.reference(inputs.family, expert, task, TRIED.split, None, "cpu")
            base = known.pretrained
            baselines.append(TaskResult(expert.name, base, known.finetuned, base))
            notes += known.notes
    return tuple(baselines), cards, notes, tuple(data)


def _base_card(collection: FamilyFile) -> TaskCard | None:
    """What the base was pre-trained on, where the family says and the task can be read."""
    if not collection.base_task:
        return None
    with contextlib.suppress(InputError):
        task = tasks.load(collection.base_task, root=collection.folder)
        return _card(task)
    return None


def _measuring(collection: FamilyFile) -> Generator[Event, None, tuple[dict[str, Path], str]]:
    """The statistics' files, or a sentence why there are none."""
    try:
        return (yield from measuring_all(collection, MeasureSettings())), ""
    except InputError as error:
        return {}, str(error)


def _card(task: tasks.Task) -> TaskCard:
    split, pictured = task.test, task.form.kind == "image"
    most = PICTURES if pictured else TEXTS
    first = [int(np.argmax(split.labels == k)) for k in range(len(task.classes))]
    first = first or list(range(min(most, len(split))))  # of a language task any will do
    # Of many classes every so-manieth, so that the examples are of different kinds.
    chosen = first[:: math.ceil(len(first) / most)]
    return TaskCard(
        classes=task.classes,
        images=tuple(picture(split.inputs[i]) for i in chosen) if pictured else (),
        captions=tuple(task.classes[int(split.labels[i])] for i in chosen if task.classes),
        train=len(task.train),
        validation=len(task.validation),
        test=len(split),
        description=task.description,
        texts=() if pictured else tuple(clipped(split.text(i)) for i in chosen),
    )


def clipped(text: str, most: int = SAID) -> str:
    """A text on one line, cut where it is long."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1].rstrip()}…"


def picture(image: np.ndarray) -> np.ndarray:
    """RGB, enlarged by whole pixels so that small images stay crisp."""
    rgb = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
    times = max(1, math.ceil(72 / max(rgb.shape[:2])))
    return rgb.repeat(times, 0).repeat(times, 1)
