"""Asking a model about a task's examples, and what expert and base reach on it."""

from __future__ import annotations

import math
from collections.abc import Generator, Hashable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .. import models
from ..checkpoints import StatedScore, Tensors, Weights, stated_scores
from ..errors import InputError
from ..families import Expert, Family
from ..models import Asking, Forward, Rows
from ..names import part_name, weight_and_part
from ..system import Device, Event, drained, recall
from ..tasks import Split, Task
from . import comparison, kept, scores
from .metrics import wilson
from .scores import Score, TaskResult, gap_recovered, half_width, normalised_accuracy, share

CONFIRMED = 32  # examples by which scores that came with a family are confirmed


def logits(
    forward: Forward, tensors: Tensors, rows: Rows, split: Split, places: np.ndarray
) -> Tensor:
    """The model's answers to the examples at `places`, in this order: (examples, classes), of a
    language task (examples, 2); see `models.ask`."""
    with torch.inference_mode():
        return models.ask(lambda inputs: forward(tensors, inputs), rows, split, places)


def marks(said: Tensor, split: Split) -> np.ndarray:
    """The answers of `logits` as marks: predicted classes, or losses with their tokens.

    An answer that is no number is wrong, for the largest of NaNs is any class: a warning says so.
    """
    if not split.form.classified:
        said = said.double()
        nothing = said[:, 0].isnan()
        said = torch.where(nothing[:, None], said.new_tensor([math.inf, 1.0]), said)
        scores.warn_of_nothing(int(nothing.sum()))
        return said.cpu().numpy()
    return scores.chosen(said).cpu().numpy()


def scored(said: Tensor, split: Split) -> Score:
    """The score of the answers of `logits` to a whole split."""
    return replace(scores.score(split, marks(said, split)), nothing=scores.nothing(said, split))


def asked(
    directory: Path | None, tensors: Tensors, split: Split, *, device: Device = "cpu"
) -> Tensor:
    """The answers of `logits` to a whole split."""
    forward = models.forward(directory, tensors, device=device)
    held = {name: value.to(device) for name, value in tensors.items()}
    rows = models.encode(split, directory, device=device, shapes=models.shapes_of(tensors))
    return logits(forward, held, rows, split, np.arange(len(split)))


def scoring(
    directory: Path | None, tensors: Tensors, split: Split, *, device: Device = "cpu"
) -> Generator[Event, None, Score]:
    """The score of the model with these tensors on a split; an event before it is asked."""
    yield Event(text=f"Testing on {len(split)} examples")
    return scored(asked(directory, tensors, split, device=device), split)


score = drained(scoring)


@dataclass(frozen=True)
class Reference:
    """What a merge is compared with on one task.

    task         as the expert is asked it
    finetuned    score of the expert
    pretrained   score of the pre-trained encoder with the expert's head
    notes        what users should know about task and expert, a sentence each
    """

    task: Task
    finetuned: Score
    pretrained: Score
    notes: tuple[str, ...]


def reference(
    family: Family, expert: Expert, task: Task, split: str, examples: int | None, device: str
) -> Reference:
    """The reference of an expert on its task, with doubts about an expert that does worse on it
    than its base.  Raises `InputError` for a task that does not fit the expert's head.
    """
    asking = check_task(expert, task)
    tuned, base = baselines(family, expert, asking.task, split, examples, device)
    stated = stated_accuracy(expert.checkpoint.directory, task.name)
    doubts = (
        *scores.told_nothing("the expert", expert.name, tuned),
        *scores.told_nothing("the pre-trained model", expert.name, base),
        *comparison.doubts(
            expert.name, tuned, base, classes=len(asking.task.classes), stated=stated
        ),
    )
    return Reference(asking.task, tuned, base, (*asking.notes, *doubts))


def stated_accuracy(directory: Path | None, task: str) -> float | None:
    """The accuracy that the card in a model's directory states for a task; None where it states
    none, or several and none of data that the task is called after.
    """
    stated = stated_scores(directory) if directory is not None else ()
    of_task = [one for one in stated if _called(one, task)]
    values = {one.value for one in of_task or stated}
    return min(values) if of_task or len(values) == 1 else None


def _called(stated: StatedScore, task: str) -> bool:
    """Whether a task is called after the data of a stated score, by its subset or its name."""
    name = (stated.subset or stated.data.rpartition("/")[2]).lower()
    return len(name) > 2 and name in task.lower()


def check_task(expert: Expert, task: Task) -> Asking:
    """The task as this expert is asked it; `InputError` if it cannot be, or has other classes."""
    return models.check(expert.checkpoint, task, f" of expert '{expert.name}'")


def with_head(encoder: Tensors, family: Family, expert: Expert) -> dict[str, Tensor]:
    """The tensors of an encoder with the head of one expert, by the expert's names.

    The encoder has the base's names; what the expert's model does not have (another head, the
    other tower of a CLIP) is left out.
    """
    tensors = for_expert(encoder, family, expert)
    for name in family.head_of(expert):
        tensors[expert.own(name)] = expert.checkpoint.read(name).float()
    return tensors


def for_expert(encoder: Tensors, family: Family, expert: Expert) -> dict[str, Tensor]:
    """The tensors of an encoder that an expert's model shares, by the expert's names."""
    there = expert.checkpoint.tensors
    shared = {}
    for name, value in encoder.items():
        weight, part = weight_and_part(name)  # branches go with their weight
        if weight in there and family.roles.get(weight) != "head":
            shared[part_name(expert.own(weight), part)] = value
    for name, source in family.tied_to.items():
        # Written once in the encoder; the expert's model may hold it a second time.
        if name in there and source in encoder:
            shared.setdefault(expert.own(name), encoder[source])
    return shared


def evaluate_expert(
    encoder: Tensors, family: Family, expert: Expert, split: Split, *, device: Device = "cpu"
) -> Score:
    """The score of an encoder with the head and the configuration of one expert."""
    tensors = with_head(encoder, family, expert)
    return score(expert.checkpoint.directory, tensors, split, device=device)


def probabilities(
    encoder: Tensors, family: Family, expert: Expert, split: Split, *, device: Device = "cpu"
) -> np.ndarray:
    """Class probabilities (n, classes) of an encoder with an expert's head; rows sum to 1."""
    tensors = with_head(encoder, family, expert)
    said = asked(expert.checkpoint.directory, tensors, split, device=device)
    return said.softmax(-1).cpu().numpy()


def features(
    encoder: Tensors, family: Family, expert: Expert, split: Split, *, device: Device = "cpu"
) -> np.ndarray:
    """The features (n, d) that an expert's head would read of an encoder, before the head.

    Raises `InputError` for choices and language tasks, which are asked without a head.
    """
    if split.form.kind not in ("image", "text"):
        raise InputError(
            f"features of '{expert.name}'", expected="a task with a head", found=split.form.kind
        )
    tensors, directory = with_head(encoder, family, expert), expert.checkpoint.directory
    head = [expert.own(name) for name in family.head_of(expert)]
    read = models.features(directory, tensors, head, device=device)
    rows = models.encode(split, directory, device=device, shapes=models.shapes_of(tensors))
    return logits(read, tensors, rows, split, np.arange(len(split))).float().cpu().numpy()


def baselines(
    family: Family, expert: Expert, task: Task, split: str, examples: int | None, device: str
) -> tuple[Score, Score]:
    """The scores of the expert and of the pre-trained encoder with its head; each is
    asked once, on this machine, as long as weights, settings and data are the same."""
    part = task.split(split).first(examples)

    def of(encoder: Weights, some: Split = part) -> Score:
        tensors = models.tensors_of(encoder)
        return evaluate_expert(tensors, family, expert, some, device=device)

    def confirm(brought: tuple[Score, ...]) -> bool:
        some = part.first(CONFIRMED)
        return all(
            score.answers[: len(some)] == of(encoder, some).answers
            and len(score.answers) == len(part)
            for score, encoder in zip(brought, (tuned, base), strict=True)
        )

    tuned, base = expert.checkpoint, family.base
    key = baselines_key(family, expert, task, split, examples)
    found, before = recall(
        (*key, device), lambda: kept.once(key, device, lambda: (of(tuned), of(base)), confirm)
    )
    return found, before


def baselines_key(
    family: Family, expert: Expert, task: Task, split: str, examples: int | None
) -> tuple[Hashable, ...]:
    """All that decides what `baselines` are, but for the machine and its device."""
    contents = family.base.fingerprint, expert.checkpoint.fingerprint, task.digest
    settings = models.settings_digest(expert.checkpoint.directory)
    return ("baselines", *contents, settings, split, examples)


__all__ = [
    "Reference", "Score", "TaskResult", "asked", "baselines", "baselines_key", "check_task",
    "evaluate_expert", "features", "gap_recovered", "half_width", "logits", "marks",
    "normalised_accuracy", "probabilities", "reference", "score", "scoring", "share", "wilson",
    "with_head",
]  # fmt: skip
