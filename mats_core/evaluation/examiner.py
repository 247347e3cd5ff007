"""Asking many encoders the same questions: a task's images, labels and head are held ready.

A merge is tested again and again while its knobs are turned.  An `Examiner` keeps what does not
change from one encoder to the next, asks examples in a fixed order (see `order`), and can stop when
the interval is narrow enough, or go on later with the examples that were not asked.
"""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .. import models, tasks
from ..checkpoints import Tensors
from ..families import Expert, Family
from ..system import Event, ahead, drained, nbytes, part, recall
from ..tasks import Split, SplitName
from . import evaluate, scores
from .carried import Before, carry
from .order import representative
from .scores import Score, TaskResult

ROUND = 64  # examples of a task between two looks at the interval, at most
QUIET = 1.0  # seconds that a round may take without a look, where none could end it
LEAST = 8  # at least
FEW = 16  # examples of a task in the first round, where an earlier merge's answers are known
MARGIN = 1.03  # of the width that is expected: another round costs more than a few examples
QUICK = 0.03  # half the interval of a first answer, of the page and of a panel alike
TESTING = "Testing on every task"
KEPT = 32 * 2**20  # bytes of prepared images that are worth keeping, a task


class Examiner:
    """An examiner of encoders on one expert's task, with that expert's head.

    known   scores of other models on the whole split, by which examples are asked in an order whose
            every beginning stands for the whole
    """

    def __init__(
        self,
        family: Family,
        expert: Expert,
        split: Split,
        device: str = "cpu",
        known: Sequence[Score] = (),
    ) -> None:
        self.family, self.expert, self.split, self.device = family, expert, split, device
        self.directory = expert.checkpoint.directory
        own = evaluate.with_head({}, family, expert)
        self.head = {name: value.to(device) for name, value in own.items()}
        self.order = representative(split, known)
        there = {expert.own(name): value for name, value in expert.checkpoint.tensors.items()}
        self.rows = models.encode(
            split, self.directory, device=device, kept=KEPT, shapes=models.shapes_of(there)
        )

    @property
    def nbytes(self) -> int:
        """Of what is held ready."""
        return nbytes(self.head) + self.rows.nbytes + nbytes(self.split)

    def logits(
        self, encoder: Tensors, places: np.ndarray, again: models.Again | None = None
    ) -> Tensor:
        """The answers of an encoder to the examples at `places`, in this order."""
        tensors = {**evaluate.for_expert(encoder, self.family, self.expert), **self.head}
        forward = models.forward(self.directory, tensors, device=self.device, again=again)
        return evaluate.logits(forward, tensors, self.rows, self.split, places)

    def ask(
        self,
        encoder: Tensors,
        known: Score | None = None,
        most: int | None = None,
        again: models.Again | None = None,
    ) -> Score:
        """The score `known`, with at most `most` more examples asked (all others by default)."""
        marks = scores.marks(self.split, known)
        left = self.order[~scores.asked(marks)[self.order]][:most]
        nothing = known.nothing if known else 0
        if len(left):
            said = self.logits(encoder, left, again)
            marks[left] = evaluate.marks(said, self.split)
            nothing += scores.nothing(said, self.split)
        return replace(scores.score(self.split, marks), nothing=nothing)


@dataclass(frozen=True)
class Asked(Event):
    """Event: the state of an examination.

    results      of every task, so far
    half_width   half the 95 % interval of their normalised accuracy
    done         whether it is the last state
    """

    results: tuple[TaskResult, ...]
    half_width: float
    done: bool = False


@dataclass(frozen=True)
class Exam:
    """The examiners of a family's tasks.

    examiners   one for each task
    baselines   scores of its expert, and of the pre-trained encoder with its head
    notes       what users should know about tasks and experts, a sentence each
    """

    examiners: tuple[Examiner, ...]
    baselines: tuple[tuple[Score, Score], ...]
    notes: tuple[str, ...] = ()

    def take(
        self,
        encoder: Tensors,
        *,
        precision: float | None = None,
        known: Sequence[TaskResult] = (),
        before: Before | None = None,
        again: models.Again | None = None,
    ) -> Generator[Asked, None, tuple[TaskResult, ...]]:
        """States of an examination in rounds over all tasks; the last one is `done`.  Returns the
        results.

        precision   stop once half the 95 % interval of the normalised accuracy is at most this
        known       results of the same encoder on some of the same examples
        before      another merge with all its answers, from which scores are estimated where that
                    reaches `precision` with fewer examples (see `carried.py`)
        again       of encoders that are asked one after the other, what need not run again
        """
        had = {result.name: result.merged for result in known}
        found: list[Score | None] = [None] * len(self.examiners)
        device = self.examiners[0].device if self.examiners else "cpu"
        moved = {  # once, not at every batch
            name: value.to(device, torch.float32 if value.is_floating_point() else None)
            for name, value in encoder.items()
        }
        before = before if precision is not None else None
        far, most = 0.0, ROUND if before is None else FEW
        while True:
            begun = time.perf_counter()
            for index, examiner in enumerate(self.examiners):
                so_far = found[index] or had.get(examiner.expert.name)
                found[index] = examiner.ask(moved, so_far, most, again)
                if all(s is not None for s in found):
                    last = index == len(found) - 1
                    asked = self._asked(found, last, precision, far, before)
                    far = asked.fraction
                    yield asked
                    if asked.done:
                        return asked.results
            if precision is not None:
                most = _next_round(asked, precision)
            elif time.perf_counter() - begun < QUIET:
                most *= 2  # what each call costs beside its examples is saved

    def _asked(
        self,
        found: Sequence[Score | None],
        whole_round: bool,
        precision: float | None,
        far: float,
        before: Before | None,
    ) -> Asked:
        results = tuple(
            TaskResult(examiner.expert.name, score, *pair)
            for examiner, score, pair in zip(self.examiners, found, self.baselines, strict=True)
            if score is not None
        )
        results = carry(results, before)
        half = scores.half_width(results)
        asked = sum(r.merged.examples for r in results)
        total = sum(len(examiner.split) for examiner in self.examiners)
        share, done = asked / total, asked == total
        if precision is not None:
            done = done or (whole_round and half <= precision)
            if half > 0:  # the width falls with the root of the examples
                share = min(1.0, max(share, (precision / half) ** 2))
        share = 1.0 if done else max(share, far)  # the width may grow with the examples, too
        return Asked(results, half, done, fraction=share, text=TESTING)


def _next_round(asked: Asked, precision: float) -> int:
    """How many more examples of a task will probably do: the width falls with their root."""
    had = max(result.merged.examples for result in asked.results)
    wanted = math.ceil(had * (MARGIN * asked.half_width / precision) ** 2) - had
    return min(ROUND, max(LEAST, math.ceil(wanted / LEAST) * LEAST))


def examining(
    family: Family, root: Path, split: SplitName, examples: int | None = None, device: str = "cpu"
) -> Generator[Event, None, Exam]:
    """Examiners of every expert that names a task and can be loaded; kept for the next encoder.

    An event before each expert, which is tested itself where that is not remembered.  Raises
    `InputError` for a task that cannot be read or does not fit its expert's head.
    """
    examiners, baselines, notes = [], [], []
    asked = [expert for expert in family.experts if expert.can_be_asked]
    loading = (functools.partial(tasks.load, str(expert.task), root=root) for expert in asked)
    # Reading or drawing examples takes as long as asking them, and the first wait for nothing else.
    with contextlib.closing(ahead(loading, at_once=2)) as loaded:
        for index, expert in enumerate(asked):
            yield Event(fraction=index / len(asked), text=f"Testing the expert {expert.name}")
            task = next(loaded)
            known = evaluate.reference(family, expert, task, split, examples, device)
            task, pair = known.task, (known.finetuned, known.pretrained)
            key = (family.base.fingerprint, expert.name, expert.checkpoint.fingerprint, task.digest)
            settings = models.settings_digest(expert.checkpoint.directory)
            part = task.split(split).first(examples)
            examiner = recall(
                ("examiner", *key, settings, split, examples, device),
                functools.partial(Examiner, family, expert, part, device, pair),
                lambda kept: kept.nbytes,
            )
            examiners.append(examiner)
            baselines.append(pair)
            notes += known.notes
    yield Event(fraction=1.0, text=TESTING)  # the first answers take a while
    return Exam(tuple(examiners), tuple(baselines), tuple(dict.fromkeys(notes)))


exam = drained(examining)


def going_on(
    family: Family,
    root: Path,
    encoder: Tensors,
    known: Sequence[TaskResult],
    split: SplitName,
    examples: int | None = None,
    device: str = "cpu",
) -> Generator[Event, None, tuple[TaskResult, ...]]:
    """The results of an encoder on every example, of which some are `known`; events meanwhile."""
    found = yield from part(examining(family, root, split, examples, device), stop=0.1)
    return (yield from part(found.take(encoder, known=known), start=0.1))
