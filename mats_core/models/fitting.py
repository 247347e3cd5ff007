"""Whether a model can be asked a task, and the task in the terms of the model's own head.

The rows of the head decide how many classes there are, and its names, where it has any, which is
which: names of the task are matched without case, blanks and punctuation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

from ..checkpoints import Weights, require_numbers
from ..errors import InputError, listing
from ..names import group_of
from ..tasks import Task, class_number, matched, says_nothing
from .anatomy import anatomy
from .architecture import depths
from .kinds import facts
from .sizes import Shapes, fitted, shapes_of
from .unplaced import Unplaced

ASKED: dict[str, tuple[str, ...]] = {  # kinds of task → kinds of model
    "image": ("image", ""),
    "text": ("text",),
    "choices": ("causal", "seq2seq"),
    "language": ("causal", "seq2seq"),
}
OTHER_PROBLEMS = ("regression", "multi_label_classification")  # than one class an example
FINE_TUNED_FOR = "Give the expert the task that it was fine-tuned for."
ORDER = "Name the task's 'classes' in the order of the model's head."
WANTED = {
    "image": "a classifier of images",
    "text": "a classifier of texts (…ForSequenceClassification)",
    "choices": "a causal or an encoder-decoder language model",
    "language": "a causal or an encoder-decoder language model",
}


@dataclass(frozen=True)
class Asking:
    """A task as a model is asked it.

    task   with its classes in the order of the model's head
    notes  what was decided for that, and what is odd about the data, a sentence each
    """

    task: Task
    notes: tuple[str, ...]


def check(checkpoint: Weights, task: Task, whose: str = "") -> Asking:
    """The task as this model is asked it; raises `InputError` if it cannot be asked, or has other
    classes.
    """
    require_numbers(checkpoint)
    kind, where = task.form.kind, f"'{checkpoint.path}'"
    shapes = shapes_of({checkpoint.own(n): entry for n, entry in checkpoint.tensors.items()})
    known = fitted(checkpoint.directory, shapes)
    asked = facts(known)
    given = "image" if kind == "image" else "text"
    if asked.reads not in ASKED[kind] or asked.takes != given:
        takes = "" if asked.takes == given else f", which takes {asked.takes}"
        raise InputError(
            f"task '{task.name}'{whose}",
            expected=f"{WANTED[kind]}, for it is of kind '{kind}'",
            found=f"{asked.name} in {where}{takes}",
            remedy=FINE_TUNED_FOR,
        )
    notes = (*task.notes, *known.notes, *_unused(checkpoint, shapes))
    if not task.classes or asked.reads not in ("image", "text"):
        return Asking(task, notes)
    notes = (*notes, *_trained_otherwise(checkpoint, where))
    names, size = checkpoint.class_names, known.size("num_labels")
    head = Head(where, names if len(names) == size else (), size or len(names), len(names))
    task, said = head.ordered(task, whose)
    return Asking(task, (*notes, *said))


def _unused(checkpoint: Weights, shapes: Shapes) -> tuple[str, ...]:
    """A sentence on tensors beside the blocks of a model that it does not read (`build` refuses
    those inside)."""
    known = anatomy(checkpoint)
    if known is None:
        return ()
    left = {
        name: shape
        for name, shape in shapes.items()
        if not (known.holds(name) or known.ignores(name) or known.buffer(name))
    }
    names = Unplaced.among(left, known.whole, known.prefix).beside
    said = f"the model of '{checkpoint.path}' has no place for {listing(names, 4)}: not used"
    return (said,) if names else ()


def depth_notes(checkpoint: Weights) -> tuple[str, ...]:
    """A sentence where a configuration names other layers than the weights hold, from headers.

    The class is asked only where a count of layers is none of the weights': building it takes long.
    """
    counts = [(name, count) for name, count in depths(checkpoint.config) if count]
    if {count for _, count in counts} <= _blocks(checkpoint):
        return ()
    known = anatomy(checkpoint)
    if known is None:
        return ()
    shapes = {checkpoint.own(name): one.shape for name, one in checkpoint.tensors.items()}
    left = {name: shape for name, shape in shapes.items() if not known.holds(name)}
    held = {form for name in shapes for form in known.forms(known.loaded(name))}
    asked = {
        name: ()
        for name in known.whole - held
        if not (known.ignores(name) or known.buffer(name) or known.ties.get(name))
    }
    further = Unplaced.among(left, known.whole, known.prefix).inside
    missing = Unplaced.among(asked, held, known.prefix).inside
    told = [f"has no place for {listing(further, 3)}"] if further else []
    told += [f"asks for {listing(missing, 3)}, which they lack"] if missing else []
    said = listing(dict.fromkeys(f"{name} {count}" for name, count in counts))
    return tuple(
        f"config.json of '{checkpoint.path}' ({said}) names other layers than its weights hold: it "
        f"{one}; use the config.json that was saved with them"
        for one in told
    )


def _blocks(checkpoint: Weights) -> set[int]:
    """How many blocks of each kind the names of the weights have, of blocks in blocks the outer."""
    numbers: dict[str, set[str]] = {}
    for name in checkpoint.tensors:
        before, star, _ = group_of(name).partition("*")
        if star:
            numbers.setdefault(before, set()).add(name[len(before) :].partition(".")[0])
    return {len(found) for found in numbers.values()}


def _trained_otherwise(checkpoint: Weights, where: str) -> tuple[str, ...]:
    """A note where a configuration says that the head was trained for another question."""
    problem = checkpoint.config.get("problem_type")
    if problem not in OTHER_PROBLEMS:
        return ()
    return (
        f"config.json of {where} says problem_type '{problem}': its answer is taken to be the one "
        "class of its largest output, and its statistics are those of a softmax",
    )


@dataclass(frozen=True)
class Head:
    """The head of a classifier.

    where  the model in a sentence
    names  of its classes, in the order of its rows; empty where they are not known
    size   its rows
    told   names in its configuration, which may be another number
    """

    where: str
    names: tuple[str, ...]
    size: int
    told: int

    def ordered(self, task: Task, whose: str) -> tuple[Task, tuple[str, ...]]:
        """A task with its classes in this head's order, and a note on what was assumed."""
        ours, thing = task.classes, f"task '{task.name}'{whose}"
        numbers = [class_number(name) for name in ours]
        if not self.names or says_nothing(self.names):
            self._require_size(thing, task)
            told = task.ordered or says_nothing(ours)
            return task, () if told else (self._assumed(task),)
        if self.names == ours:
            return task, ()
        spelt = matched(ours, self.names)
        if len(spelt) == len(ours) and (len(ours) == self.size or not task.ordered):
            return self._matched(task, spelt)
        self._require_size(thing, task)
        if numbers == [*range(self.size)]:
            return task.reordered(self.names, [*range(self.size)]), ()
        if task.ordered and all(self.names.index(to) == ours.index(n) for n, to in spelt.items()):
            return task, (self._assumed(task),)
        if None not in numbers:
            return task, (self._assumed(task),)
        self._refuse(thing, listing(ours, 12))

    def _matched(self, task: Task, spelt: dict[str, str]) -> tuple[Task, tuple[str, ...]]:
        """Every class of the task is one of the head's, by name."""
        places = [self.names.index(spelt[name]) for name in task.classes]
        other = [f"'{name}' as '{to}'" for name, to in spelt.items() if name != to]
        said = [f"classes of task '{task.name}' are read {listing(other)} of {self.where}"]
        return task.reordered(self.names, places), tuple(said if other else ())

    def _assumed(self, task: Task) -> str:
        pairs = listing([f"{place} '{name}'" for place, name in enumerate(task.classes)], 12)
        names = f"named otherwise ({listing(self.names, 12)})" if self.names else "not named"
        return (
            f"the classes of the head of {self.where} are {names}: those of task '{task.name}' are "
            f"taken in the order {pairs}"
        )

    def _require_size(self, thing: str, task: Task) -> None:
        if len(task.classes) != self.size:
            self._refuse(thing, f"{len(task.classes)}: {listing(task.classes, 12)}")

    def _refuse(self, thing: str, found: str) -> NoReturn:
        names = f": {listing(self.names, 12)}" if self.names else ""
        other = f" (its config.json names {self.told})" if self.told not in (0, self.size) else ""
        raise InputError(
            thing,
            expected=f"{self.size} classes, the size of the head of {self.where}{other}{names}",
            found=found,
            remedy=f"{FINE_TUNED_FOR} {ORDER}",
        )
