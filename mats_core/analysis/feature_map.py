"""A map: the same examples under the base, the experts and a merge, in one plane.

An example is where its features lie, which the head reads.  The plane is that of the two leading
principal components of all of them together: under the base, under each example's own expert, and
under the merge.  These come first (`mapping`).  Between base and merge the stations of a method
with a scaling are its merges with other scalings; of another one the weights move in a straight
line, W₀ + s (W − W₀) (`travelling`).  Under the experts of the other tasks an example is asked last
(`under_experts`).  What base and experts say holds for every merge of the family: it is remembered.
"""

from __future__ import annotations

from collections.abc import Generator, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import models, tasks
from ..checkpoints import Tensors, Weights
from ..errors import InputError
from ..evaluation import evaluate
from ..families import Expert, Family
from ..linear import svd
from ..merging import run
from ..recipes import Inputs, Recipe, parse_options
from ..system import Event, part, recall
from ..tasks import Split

SCALING = "scaling"  # the option of methods whose update has a factor
STATIONS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
MOST = 240  # examples of all tasks together
NEAREST = 8


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
    mean, axes  (d,) and (d, 2): a place is (features − mean) @ axes
    scaling     the method's own at s = 1, whose multiples the stations are; None where it has none
    experts     name → (n, d) features of all examples under that expert, where they were asked
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
    mean: np.ndarray = field(default_factory=lambda: np.zeros(0))
    axes: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    scaling: float | None = None
    experts: Mapping[str, np.ndarray] = field(default_factory=dict)

    def named(self, station: float) -> str:
        """A station by its scaling, or by s."""
        return f"{station * (1 if self.scaling is None else self.scaling):g}"

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

    def ranks(self, place: int, under: str) -> np.ndarray:
        """(n,) the rank of each example by its distance from one, itself 0, under "base", "merge"
        or an expert that was asked."""
        known = {**self.experts, "base": self.base, "merge": self.merge}
        return _ranks(known[under], place)

    def nearest(self, place: int, under: str, most: int = NEAREST) -> tuple[int, ...]:
        """The nearest other examples by the distance of their features (not of their places on the
        map), the nearest first; `under` as in `ranks`."""
        order = self.ranks(place, under).argsort()
        return tuple(int(one) for one in order[1 : most + 1])

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
    recipe: Recipe, merged: Mapping[str, Tensor], *, inputs: Inputs, most: int = MOST
) -> Generator[Event, None, FeatureMap]:
    """Events of a map of validation examples under base, experts and merge; an event before each
    task.  `travelling` adds the way between.

    merged     tensors by the base's names
    most       examples of all tasks together, evenly spread over them

    Raises `InputError` for a family without tasks that are asked with a head.
    """
    asked = list(_asked(recipe, inputs.family, most))
    if not asked:
        raise InputError("map", expected="tasks whose experts have a head", found="none")
    base = inputs.family.base
    found: list[tuple[np.ndarray, ...]] = []
    for index, one in enumerate(asked):
        text = f"Asking for the features of {one.expert.name}, {index + 1} of {len(asked)}"
        yield Event(fraction=index / len(asked), text=text)
        before, own = (one.known(inputs.family, who) for who in (base, one.expert.checkpoint))
        found.append((before, own, one.features(inputs.family, merged)))
    start, own, end = (np.concatenate(parts) for parts in zip(*found, strict=True))
    mean, axes, explained = _plane(np.concatenate([start, own, end]))
    sizes = [len(one.split) for one in asked]
    return FeatureMap(
        tasks=tuple(one.expert.name for one in asked),
        classes=tuple(one.classes for one in asked),
        task=np.repeat(np.arange(len(sizes)), sizes),
        label=np.concatenate([one.split.labels for one in asked]),
        splits=tuple(one.split for one in asked),
        stations=(0.0, 1.0),
        way=np.stack([(features - mean) @ axes for features in (start, end)]),
        expert=(own - mean) @ axes,
        explained=explained,
        base=start,
        merge=end,
        mean=mean,
        axes=axes,
        scaling=_scaling(recipe),
    )


def _scaling(recipe: Recipe) -> float | None:
    """The method's own; None where it has none, and where other work would come with each."""
    if recipe.refine is not None or recipe.routed is not None or recipe.rounds > 1:
        return None
    return recipe.parsed_options().model_dump().get(SCALING)


def travelling(
    found: FeatureMap,
    recipe: Recipe,
    merged: Mapping[str, Tensor],
    *,
    inputs: Inputs,
    stations: Sequence[float] = STATIONS,
) -> Generator[Event, None, FeatureMap]:
    """Events of the same map with more stations; an event before each that is new.

    recipe   of the merge, with the options that were applied
    """
    places = dict(zip(found.stations, found.way, strict=True))
    todo = [one for one in stations if one not in places and _can_be(found, recipe, one)]
    asked = list(_again(found, recipe, inputs.family))
    for index, station in enumerate(todo):
        start, stop = index / len(todo), (index + 1) / len(todo)
        text = f"Moving the weights, {index + 1} of {len(todo)}"
        yield Event(fraction=start, text=text)
        events = _moved(found, recipe, merged, inputs, station)
        tensors = yield from part(events, start, stop, said=f"{text}: {{}}")
        features = [one.features(inputs.family, tensors) for one in asked]
        places[station] = (np.concatenate(features) - found.mean) @ found.axes
    order = tuple(sorted(places))
    return replace(found, stations=order, way=np.stack([places[one] for one in order]))


def _scaled(found: FeatureMap, recipe: Recipe, station: float) -> dict[str, Any]:
    """The options of a merge with another scaling."""
    return {**recipe.options, SCALING: station * (found.scaling or 0.0)}


def _can_be(found: FeatureMap, recipe: Recipe, station: float) -> bool:
    """Whether the method takes the scaling of a station."""
    if not found.scaling:
        return True
    try:
        parse_options(recipe.method, _scaled(found, recipe, station), recipe.folder)
    except InputError:
        return False
    return True


def _moved(
    found: FeatureMap, recipe: Recipe, merged: Mapping[str, Tensor], inputs: Inputs, station: float
) -> Generator[Event, None, Mapping[str, Tensor]]:
    """The tensors at a station: of the merge with another scaling, or on a straight line."""
    if found.scaling:
        still = {"output": None, "search": None, "evaluate": False}
        options = {"options": _scaled(found, recipe, station)}
        other = recipe.model_copy(update={**still, **options})
        return (yield from run(other, inputs=inputs)).tensors
    base = models.tensors_of(inputs.family.base)
    shared = [name for name in inputs.family.shared if name in merged]
    return {name: base[name].lerp(merged[name].to(base[name]), station) for name in shared}


def under_experts(
    found: FeatureMap, recipe: Recipe, *, inputs: Inputs
) -> Generator[Event, None, FeatureMap]:
    """Events of the same map with all examples under every expert; an event before each."""
    experts: dict[str, np.ndarray] = {}
    asked = list(_again(found, recipe, inputs.family))
    for index, expert in enumerate(inputs.family.experts):
        text = f"Asking {expert.name} for the features of all examples"
        yield Event(fraction=index / len(inputs.family.experts), text=text)
        each = [one.known(inputs.family, expert.checkpoint) for one in asked]
        experts[expert.name] = np.concatenate(each)
    return replace(found, experts=experts)


@dataclass(frozen=True)
class _Asked:
    """An expert, the classes of its task, some of its examples, and what decides on them."""

    expert: Expert
    classes: tuple[str, ...]
    split: Split
    key: tuple[Hashable, ...]

    def features(self, family: Family, encoder: Tensors) -> np.ndarray:
        """Of an encoder by the base's names."""
        return evaluate.features(encoder, family, self.expert, self.split)

    def known(self, family: Family, weights: Weights) -> np.ndarray:
        """Of the base or of an expert: asked once, as long as it is remembered."""
        key = ("map features", weights.fingerprint, *self.key)
        return recall(key, lambda: self.features(family, models.tensors_of(weights)))


def _again(found: FeatureMap, recipe: Recipe, family: Family) -> Iterator[_Asked]:
    """What was asked for a map."""
    experts = {expert.name: expert for expert in family.experts}
    for name, split in zip(found.tasks, found.splits, strict=True):
        yield _of_task(family, experts[name], recipe, len(split))


def _asked(recipe: Recipe, family: Family, most: int) -> Iterator[_Asked]:
    """Every task that is asked with a head."""
    named = [expert for expert in family.experts if expert.task]
    for expert in named:
        if tasks.load(expert.task, root=recipe.folder).validation.form.kind in ("image", "text"):
            yield _of_task(family, expert, recipe, max(1, most // len(named)))


def _of_task(family: Family, expert: Expert, recipe: Recipe, most: int) -> _Asked:
    """At most so many examples of an expert's task, evenly spread."""
    task = evaluate.check_task(expert, tasks.load(expert.task, root=recipe.folder)).task
    split = task.validation
    rows = np.linspace(0, len(split) - 1, min(len(split), most)).round().astype(int)
    key = evaluate.baselines_key(family, expert, task, "validation", len(rows))
    return _Asked(expert, task.classes, split.take(rows), key)


def _plane(features: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
    """The mean (d,), the two leading principal axes (d, 2), and their shares of the variance."""
    mean = features.mean(0)
    values, directions = svd(torch.from_numpy(features - mean))[1:]
    squares = values.double().square()
    shares = (squares[:2] / squares.sum().clamp_min(1e-30)).tolist()
    return mean, directions[:2].T.numpy(), (shares[0], shares[1] if len(shares) > 1 else 0.0)


__all__ = ["NEAREST", "FeatureMap", "mapping", "travelling", "under_experts"]
