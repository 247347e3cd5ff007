"""A map: the same examples under the base, the experts and a merge, in one plane.

An example is where its features lie, which the head reads.  The plane is that of the two leading
principal components of all of them together: under the base, under each example's own expert, and
under the merge.  Between base and merge the weights move in a straight line, W₀ + s (W − W₀); of a
method whose update is linear in its scaling, these are its other scalings.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .. import models, tasks
from ..errors import InputError
from ..evaluation import evaluate
from ..families import Expert
from ..linear import svd
from ..merging import Inputs, Recipe
from ..system import Event
from ..tasks import Split

STATIONS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
MOST = 240  # examples of all tasks together
NEAREST = 8


@dataclass(frozen=True)
class Neighbour:
    """An example near another one.

    place           its number on the map
    before, after   its rank among the neighbours under the base and under the merge, from 1 on
    """

    place: int
    before: int
    after: int


@dataclass(frozen=True)
class FeatureMap:
    """n examples of several tasks under base, experts and merge.

    tasks       names of the experts whose tasks were asked
    classes     of each task, by their numbers
    task        (n,) the task of each example, a place in `tasks`
    label       (n,) its right class
    splits      the examples of each task, in the order of the map
    stations    s of each stop on the way from the base (0) to the merge (1), and beyond
    way         (stations, n, 2) the places on the map
    expert      (n, 2) the places under each example's own expert
    explained   the share of the variance that either axis has
    base        (n, d) features under the base
    merge       (n, d) features under the merge
    """

    tasks: tuple[str, ...]
    classes: tuple[tuple[str, ...], ...]
    task: np.ndarray
    label: np.ndarray
    splits: tuple[Split, ...]
    stations: tuple[float, ...]
    way: np.ndarray
    expert: np.ndarray
    explained: tuple[float, float]
    base: np.ndarray
    merge: np.ndarray

    def class_of(self, place: int) -> str:
        """The right class of an example, in words."""
        return self.classes[self.task[place]][self.label[place]]

    def text(self, place: int) -> str:
        """An example in words: its text, or its class where it is an image."""
        split, row = self.example(place)
        return self.class_of(place) if split.form.kind == "image" else split.text(row)

    def example(self, place: int) -> tuple[Split, int]:
        """The split that holds an example, and its row there."""
        task = int(self.task[place])
        return self.splits[task], place - int(np.argmax(self.task == task))

    def search(self, words: str) -> np.ndarray:
        """(n,) bool: examples whose task, class or text holds all of the words."""
        asked = words.casefold().split()
        said = (
            f"{self.tasks[self.task[i]]} {self.class_of(i)} {self.text(i)}".casefold()
            for i in range(len(self.task))
        )
        return np.array([all(word in one for word in asked) for one in said], dtype=bool)

    def neighbours(self, place: int, most: int = NEAREST) -> tuple[Neighbour, ...]:
        """The nearest examples under base or merge, by the distance of their features (not of
        their places on the map), nearest under the merge first."""
        before, after = (_ranks(features, place) for features in (self.base, self.merge))
        near = [i for i in range(len(before)) if i != place and min(before[i], after[i]) <= most]
        found = [Neighbour(i, int(before[i]), int(after[i])) for i in near]
        return tuple(sorted(found, key=lambda one: (one.after, one.before)))

    def purity(self, features: np.ndarray, most: int = NEAREST) -> float:
        """The mean share of the nearest neighbours within a task that have the right class."""
        shares = []
        for place in range(len(self.task)):
            inside = np.flatnonzero(self.task == self.task[place])
            away = np.linalg.norm(features[inside] - features[place], axis=1)
            near = [i for i in inside[np.argsort(away, kind="stable")] if i != place][:most]
            shares += [float((self.label[near] == self.label[place]).mean())] if near else []
        return float(np.mean(shares)) if shares else float("nan")


def _ranks(features: np.ndarray, place: int) -> np.ndarray:
    """(n,) the rank of each example by its distance from one, which itself has rank 0."""
    away = np.linalg.norm(features - features[place], axis=1)
    away[place] = -1
    ranks = np.empty(len(away), dtype=int)
    ranks[np.argsort(away, kind="stable")] = np.arange(len(away))
    return ranks


def mapping(
    recipe: Recipe,
    merged: Mapping[str, Tensor],
    *,
    inputs: Inputs,
    stations: Sequence[float] = STATIONS,
    most: int = MOST,
) -> Generator[Event, None, FeatureMap]:
    """Events of a map of validation examples; an event before each task.

    merged     tensors by the base's names
    stations   hold 0 and 1
    most       examples of all tasks together, evenly spread over them

    Raises `InputError` for a family without tasks that are asked with a head.
    """
    family = inputs.family
    asked = list(_asked(recipe, inputs, most))
    if not asked:
        raise InputError("map", expected="tasks whose experts have a head", found="none")
    base = models.tensors_of(family.base)
    shared = [name for name in family.shared if name in merged]
    found: list[list[np.ndarray]] = []
    for index, (expert, _, split) in enumerate(asked):
        text = f"Asking for the features of {expert.name}, {index + 1} of {len(asked)}"
        yield Event(fraction=index / len(asked), text=text)
        encoders = [
            {name: base[name].lerp(merged[name].to(base[name]), s) for name in shared}
            for s in stations
        ]
        encoders.append(models.tensors_of(expert.checkpoint))
        found.append([evaluate.features(one, family, expert, split) for one in encoders])
    *way, own = (np.concatenate(parts) for parts in zip(*found, strict=True))
    start, end = way[list(stations).index(0)], way[list(stations).index(1)]
    mean, axes, explained = _plane(np.concatenate([start, own, end]))
    sizes = [len(split) for _, _, split in asked]
    return FeatureMap(
        tasks=tuple(expert.name for expert, _, _ in asked),
        classes=tuple(names for _, names, _ in asked),
        task=np.repeat(np.arange(len(sizes)), sizes),
        label=np.concatenate([split.labels for _, _, split in asked]),
        splits=tuple(split for _, _, split in asked),
        stations=tuple(stations),
        way=np.stack([(features - mean) @ axes for features in way]),
        expert=(own - mean) @ axes,
        explained=explained,
        base=start,
        merge=end,
    )


def _asked(
    recipe: Recipe, inputs: Inputs, most: int
) -> Generator[tuple[Expert, tuple[str, ...], Split], None, None]:
    """(expert, its classes, its examples) of every task that is asked with a head."""
    named = [expert for expert in inputs.family.experts if expert.task]
    for expert in named:
        task = tasks.load(expert.task, root=recipe.folder)
        if task.validation.form.kind in ("image", "text"):
            task = evaluate.check_task(expert, task).task
            split = task.validation
            count = min(len(split), max(1, most // len(named)))
            rows = np.linspace(0, len(split) - 1, count).round().astype(int)
            yield expert, task.classes, split.take(rows)


def _plane(features: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
    """The mean (d,), the two leading principal axes (d, 2), and their shares of the variance."""
    mean = features.mean(0)
    values, directions = svd(torch.from_numpy(features - mean))[1:]
    squares = values.double().square()
    shares = (squares[:2] / squares.sum().clamp_min(1e-30)).tolist()
    return mean, directions[:2].T.numpy(), (shares[0], shares[1] if len(shares) > 1 else 0.0)


__all__ = ["NEAREST", "FeatureMap", "Neighbour", "mapping"]
