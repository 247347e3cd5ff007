"""Accuracy per task with its interval, and the two summaries of a merge."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import models
from .checks import InputError
from .families import Expert, Family
from .tasks import Split, Task

BATCH = 128  # of small images: the activations stay near the caches


@dataclass(frozen=True)
class Score:
    """Correct answers out of `examples`.

    `answers`: "1" for right and "0" for wrong, example by example, from the first of the split on;
    "-" where an example was not asked.  Empty where it is not known.
    """

    correct: int
    examples: int
    answers: str = field(default="", repr=False)

    @property
    def accuracy(self) -> float:
        return self.correct / self.examples

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(self.correct, self.examples)


@dataclass(frozen=True)
class TaskResult:
    """A merge on one task, beside the expert and the pre-trained encoder with the expert's head."""

    name: str
    merged: Score
    finetuned: Score
    pretrained: Score


def wilson(correct: int, examples: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's 95 % interval of a proportion."""
    if not examples:
        raise InputError("interval", expected="at least one example", found="none")
    p = correct / examples
    centre = (p + z * z / (2 * examples)) / (1 + z * z / examples)
    half = z / (1 + z * z / examples)
    half *= math.sqrt(p * (1 - p) / examples + z * z / (4 * examples**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def normalised_accuracy(results: Sequence[TaskResult]) -> float:
    """Mean over tasks of merged / fine-tuned accuracy."""
    return sum(r.merged.accuracy / max(r.finetuned.accuracy, 1e-12) for r in results) / len(results)


def gap_recovered(results: Sequence[TaskResult]) -> float | None:
    """(merged − pre-trained) / (fine-tuned − pre-trained) of the means; None without a gap."""
    merged = sum(r.merged.accuracy for r in results)
    pretrained = sum(r.pretrained.accuracy for r in results)
    gap = sum(r.finetuned.accuracy for r in results) - pretrained
    return (merged - pretrained) / gap if abs(gap) > 1e-12 else None


def half_width(results: Sequence[TaskResult], z: float = 1.959964) -> float:
    """Half the 95 % interval of the normalised accuracy, the experts' accuracies taken as given.

    Each proportion is taken as (k + 1) / (n + 2), so that a task without errors is not certain.
    """
    variance = 0.0
    for result in results:
        n = result.merged.examples
        p = (result.merged.correct + 1) / (n + 2)
        variance += p * (1 - p) / n / max(result.finetuned.accuracy, 1e-12) ** 2
    return z * math.sqrt(variance) / len(results)


def score(
    directory: Path | None,
    tensors: Mapping[str, Tensor],
    split: Split,
    *,
    device: torch.device | str = "cpu",
) -> Score:
    """How many of a split's labels the model with these tensors predicts."""
    forward = models.forward(directory, tensors, device=device)
    held = {name: value.to(device) for name, value in tensors.items()}
    right: list[Tensor] = []
    with torch.inference_mode():
        for start in range(0, len(split), BATCH):
            images = split.inputs[start : start + BATCH]
            logits = forward(held, models.pixel_values(images, directory, device=device))
            labels = torch.from_numpy(split.labels[start : start + BATCH]).to(logits.device)
            right.append(logits.argmax(-1) == labels)
    answers = torch.cat(right).int().tolist()
    return Score(sum(answers), len(split), "".join(map(str, answers)))


def check_task(expert: Expert, task: Task) -> None:
    """Raise `InputError` if the task's classes are not those of the expert's head."""
    names = expert.checkpoint.class_names
    if names and len(names) != len(task.classes):
        raise InputError(
            f"task '{task.name}' of expert '{expert.name}'",
            expected=f"{len(names)} classes, as in its config.json",
            found=f"{len(task.classes)}",
            remedy="Give the expert the task that it was fine-tuned for.",
        )


def with_head(encoder: Mapping[str, Tensor], family: Family, expert: Expert) -> dict[str, Tensor]:
    """An encoder's tensors with the head of one expert, by the names that the expert itself uses.

    The encoder has the base's names; what the expert's model does not have (another head, the
    other tower of a CLIP) is left out.
    """
    tensors = for_expert(encoder, family, expert)
    for name in family.head_of(expert):
        tensors[expert.own(name)] = expert.checkpoint.read(name).float()
    return tensors


def for_expert(encoder: Mapping[str, Tensor], family: Family, expert: Expert) -> dict[str, Tensor]:
    """The tensors of an encoder that an expert's model shares, by the expert's own names."""
    there = expert.checkpoint.tensors
    shared = {n: v for n, v in encoder.items() if n in there and family.roles.get(n) != "head"}
    for name, source in family.tied_to.items():
        # Written once in the encoder; the expert's model may hold it a second time.
        if name in there and name not in shared and source in encoder:
            shared[name] = encoder[source]
    return {expert.own(name): value for name, value in shared.items()}


def evaluate_expert(
    encoder: Mapping[str, Tensor],
    family: Family,
    expert: Expert,
    split: Split,
    *,
    device: torch.device | str = "cpu",
) -> Score:
    """Accuracy of an encoder with the head and the configuration of one expert."""
    tensors = with_head(encoder, family, expert)
    return score(expert.checkpoint.directory, tensors, split, device=device)


def probabilities(
    encoder: Mapping[str, Tensor],
    family: Family,
    expert: Expert,
    split: Split,
    *,
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """What an encoder with an expert's head says to each example: (n, classes), rows sum to 1."""
    directory = expert.checkpoint.directory
    tensors = {n: value.to(device) for n, value in with_head(encoder, family, expert).items()}
    forward = models.forward(directory, tensors, device=device)
    found: list[Tensor] = []
    with torch.inference_mode():
        for start in range(0, len(split), BATCH):
            images = split.inputs[start : start + BATCH]
            logits = forward(tensors, models.pixel_values(images, directory, device=device))
            found.append(logits.softmax(-1))
    return torch.cat(found).cpu().numpy()


def predictions(
    encoder: Mapping[str, Tensor],
    family: Family,
    expert: Expert,
    split: Split,
    *,
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """The class (n,) that an encoder with an expert's head takes each example for."""
    return probabilities(encoder, family, expert, split, device=device).argmax(1)


def baselines(
    family: Family, expert: Expert, task: Task, split: str, examples: int | None, device: str
) -> tuple[Score, Score]:
    """The expert itself, and the pre-trained encoder with its head; remembered by content."""
    key = (family.base.fingerprint, expert.checkpoint.fingerprint, task.digest, split, examples)
    part = task.split(split).first(examples)
    return _baselines(ByContent(key, (family, expert, part)), device)


class ByContent:
    """Arguments of a cached function that are equal if the fingerprints in `key` are."""

    def __init__(self, key: tuple[object, ...], value: Any) -> None:
        self.key, self.value = key, value

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ByContent) and self.key == other.key


@functools.lru_cache(maxsize=512)
def _baselines(what: ByContent, device: str) -> tuple[Score, Score]:
    family, expert, split = what.value
    own = models.tensors_of(expert.checkpoint)
    base = models.tensors_of(family.base)
    return (
        evaluate_expert(own, family, expert, split, device=device),
        evaluate_expert(base, family, expert, split, device=device),
    )
