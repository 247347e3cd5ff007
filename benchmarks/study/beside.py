"""What a merge keeps beside its tasks: on corrupted inputs, and on the base's task.

Every method by default, on the test halves. A picture gets noise or is blurred, a text gets typing
errors; what the merge is right about is divided by what the expert is right about on the inputs as
they are, so that the experts themselves stand beside it. Forgetting is what the merged encoder
still knows of the task that the base was trained on, with the base's head, of what the base knows.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from statistics import mean
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter
from torch import Tensor

from mats_core import models, tasks
from mats_core.evaluation import Examiner, evaluate, examiner
from mats_core.families import Family
from mats_core.tasks import Split

from . import questions
from .trials import TEST_ASKED, Bench, Store, Trial

Encoder = Mapping[str, Tensor]
NOISE = 0.1  # standard deviation, of the range of a channel
BLUR = 1.0  # standard deviation in pixels
TYPOS = 0.3  # share of the longer words with one error
LEAST = 4  # letters of a word that may get one
BASE = "base"  # the column of forgetting
EXPERTS, PRETRAINED = "experts", "pre-trained"


def noise(rows: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Images (n, height, width, channels) with Gaussian noise."""
    found = rows.astype(np.float32) + random.normal(0.0, 255 * NOISE, rows.shape)
    return np.rint(found.clip(0, 255)).astype(np.uint8)


def blur(rows: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Images (n, height, width, channels), each blurred by a Gaussian."""
    smooth = gaussian_filter(rows.astype(np.float32), (0.0, BLUR, BLUR, 0.0), mode="nearest")
    return np.rint(smooth.clip(0, 255)).astype(np.uint8)


def typos(rows: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Texts (n, columns) with errors of typing."""
    return np.array([[_mistyped(str(text), random) for text in row] for row in rows], dtype=object)


def _mistyped(text: str, random: np.random.Generator) -> str:
    return " ".join(
        _slip(word, random) if len(word) >= LEAST and random.random() < TYPOS else word
        for word in text.split(" ")
    )


def _slip(word: str, random: np.random.Generator) -> str:
    """The word with two letters exchanged, one left out, doubled, or replaced by another."""
    at, kind = int(random.integers(len(word) - 1)), int(random.integers(4))
    first, second = word[at], word[at + 1]
    other = string.ascii_lowercase[int(random.integers(26))]
    middle = (second + first, second, first + first + second, other + second)[kind]
    return word[:at] + middle + word[at + 2 :]


Corruption = Callable[[np.ndarray, np.random.Generator], np.ndarray]
KINDS: Mapping[str, Mapping[str, Corruption]] = {
    "image": {"noise": noise, "blur": blur},
    "text": {"typos": typos},
}
SAID = (
    "The columns behind are of the default. On corrupted inputs, in percent of the experts' "
    f"accuracy on clean ones: Gaussian noise of {NOISE:.0%} of the range; a Gaussian blur of "
    f"{BLUR:g} pixel; one typing error in {TYPOS:.0%} of the words of {LEAST} letters or more. On "
    "the task that the base was trained on, with its head, in percent of the base's accuracy; of "
    "the experts the mean of all."
)
COLUMNS = {"noise": "noise", "blur": "blur", "typos": "typing errors", BASE: "base's task"}


def corrupted(split: Split, corruption: str, seed: int = 0) -> Split:
    """The split with other inputs; the same for the same seed."""
    change = KINDS[split.form.noun][corruption]
    return replace(split, inputs=change(split.inputs, np.random.default_rng(seed)))


# What is run --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asking:
    """A family's test halves, corrupted, with the accuracies of its experts on them as they are.

    examiners   corruption → an examiner for each task
    clean       task → accuracy of its expert
    base        the base's task, where the family has one
    """

    family: Family
    examiners: Mapping[str, list[Examiner]]
    clean: Mapping[str, float]
    base: Split | None

    @classmethod
    def of(cls, bench: Bench) -> Asking:
        """The corrupted test halves of a bench's family."""
        family, folder = bench.inputs(Trial("average")).family, bench.collection.folder
        exam = examiner.exam(family, folder, "test", TEST_ASKED, bench.device)
        kinds = KINDS[exam.examiners[0].split.form.noun]
        examiners = {
            kind: [
                Examiner(family, one.expert, corrupted(one.split, kind), bench.device)
                for one in exam.examiners
            ]
            for kind in kinds
        }
        clean = {
            one.expert.name: pair[0].accuracy
            for one, pair in zip(exam.examiners, exam.baselines, strict=True)
        }
        named = bench.collection.base_task
        task = models.check(family.base, tasks.load(named, root=folder)).task if named else None
        return cls(family, examiners, clean, task.test.first(TEST_ASKED) if task else None)

    def shares(self, encoder: Encoder, only: str | None = None) -> dict[str, dict[str, float]]:
        """Corruption → task → what an encoder keeps of the accuracy of the task's expert."""
        return {
            kind: {
                one.expert.name: one.ask(encoder).accuracy / self.clean[one.expert.name]
                for one in examiners
                if only in (None, one.expert.name)
            }
            for kind, examiners in self.examiners.items()
        }

    def remembered(self, encoder: Encoder) -> float | None:
        """What an encoder keeps of the accuracy of the base on the base's task."""
        if self.base is None:
            return None
        own = models.tensors_of(self.family.base)
        shared = {
            name: value.float()
            for name, value in encoder.items()
            if name in own and self.family.roles.get(name) != "head"
        }
        before, after = (
            evaluate.scored(
                evaluate.asked(self.family.base.directory, tensors, self.base), self.base
            ).accuracy
            for tensors in (own, {**own, **shared})
        )
        return after / before


def run(bench: Bench, report: Callable[[str], None] = print) -> None:
    """Keep the shares of every method under `beside` in the store, and those of the experts and of
    the base; what is kept is not computed again."""
    kept = bench.store.content.setdefault("beside", {})
    asking = Asking.of(bench)
    if PRETRAINED not in kept:
        _keep(bench, PRETRAINED, asking, models.tensors_of(asking.family.base))
    if EXPERTS not in kept:
        _keep_experts(bench, asking)
    for method in questions.SEARCH:
        if method not in kept:
            _keep(bench, method, asking, _merged(bench, questions.default(method)))
            report(f"beside: {method} {_means(kept[method])}")


def _merged(bench: Bench, trial: Trial) -> Encoder:
    return {name: value.float() for name, value in bench.merged(trial).items()}


def _keep(bench: Bench, name: str, asking: Asking, encoder: Encoder) -> None:
    found: dict[str, Any] = {**asking.shares(encoder)}
    if (share := asking.remembered(encoder)) is not None:
        found[BASE] = {BASE: share}
    bench.store.content["beside"][name] = found
    bench.store.save()


def _keep_experts(bench: Bench, asking: Asking) -> None:
    """Each expert on its own task; on the base's all of them, by their names."""
    found: dict[str, Any] = {kind: {} for kind in asking.examiners}
    for expert in asking.family.experts:
        encoder = {
            name: expert.checkpoint.read(name).float()
            for name in asking.family.base.tensors
            if name in expert.checkpoint.tensors
        }
        for kind, shares in asking.shares(encoder, only=expert.name).items():
            found[kind] |= shares
        if (share := asking.remembered(encoder)) is not None:
            found.setdefault(BASE, {})[expert.name] = share
    bench.store.content["beside"][EXPERTS] = found
    bench.store.save()


# The page -----------------------------------------------------------------------------------------


def _means(kept: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    return {kind: round(100 * mean(shares.values()), 1) for kind, shares in kept.items()}


def columns(store: Store) -> list[str]:
    """What is known of a family, in the order of the page."""
    known: Iterable[Mapping[str, Any]] = store.content.get("beside", {}).values()
    return [kind for kind in COLUMNS if any(kind in one for one in known)]


def cells(store: Store, name: str) -> list[str]:
    """The shares of a method in percent, of the experts or of the base; a dash where unknown."""
    kept = store.content.get("beside", {}).get(name, {})
    means = _means(kept)
    return [f"{means[kind]:.1f}" if kind in means else "–" for kind in columns(store)]
