"""Which models can be merged with a base, and which base a model comes from: of those that a search
has listed, by their headers, by a sample of their matrices, and by what they say of themselves.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import models
from ..adapters import open_expert
from ..checkpoints import Checkpoint, ListedModel
from ..errors import InputError, cut
from ..families import FAR, STRANGE, Expert, Family, examine, kinship, middle, related
from ..system import nbytes, recall

SAID = 400  # characters of why a model does not fit
MOST = 12  # models of one folder that are compared with each other to propose a base
NAMED = ("base", "pretrain", "pre-train", "foundation")  # what a base is often called


@dataclass(frozen=True)
class Candidate:
    """A model beside a base.

    model     as it was listed
    fits      whether it can be an expert of this base, by names and shapes
    cosine    of the matrices of both, from -1 to 1; None where it is not known
    sentence  how the two are related, or why they do not fit
    """

    model: ListedModel
    fits: bool
    cosine: float | None
    sentence: str

    @property
    def likely(self) -> bool:
        """Whether it is an expert of this base by all that is known: related, and no merge."""
        near = self.cosine is None or self.cosine >= FAR
        return self.fits and near and not self.model.merged

    @property
    def stranger(self) -> bool:
        """Whether it fits and has nothing in common with the base: a merge refuses it, unless its
        family allows strangers."""
        return self.fits and self.cosine is not None and self.cosine < STRANGE


@dataclass(frozen=True)
class Proposal:
    """A base and what may be merged with it.

    base      the proposed base
    experts   models that are likely to come from it
    sentence  why
    """

    base: ListedModel
    experts: tuple[ListedModel, ...]
    sentence: str


def candidates(base: ListedModel, listed: Iterable[ListedModel]) -> tuple[Candidate, ...]:
    """A `Candidate` for every other model, those that fit first and the nearest of them before.

    Reads headers, and of those that fit a sample of the matrices.  Raises `InputError` for a base
    that cannot be opened.
    """
    weights = Checkpoint.open(base.path)
    others = [one for one in listed if one.path != base.path]
    found = [_candidate(base, weights, one) for one in others]
    return tuple(sorted(found, key=lambda c: (not c.fits, not c.likely, c.model.of_hub)))


def _candidate(base: ListedModel, weights: Checkpoint, other: ListedModel) -> Candidate:
    key = ("candidate", base.state, other.state)
    return recall(key, lambda: _judged(weights, other), nbytes)


def _judged(base: Checkpoint, other: ListedModel) -> Candidate:
    if other.problem:
        return Candidate(other, False, None, cut(other.problem, 2 * SAID))
    try:
        family = _family(base, other)
        cosine = kinship(family)[0]
    except InputError as error:
        return Candidate(other, False, None, cut(error.found or str(error), SAID))
    if other.kind == "adapter":
        return Candidate(other, True, None, "an adapter that fits this base")
    return Candidate(other, True, cosine, related(cosine) or "fits this base by names and shapes")


def _family(base: Checkpoint, other: ListedModel) -> Family:
    """The two as a family, by their headers; what their classes hold is asked only at need."""
    expert = Expert(other.name, open_expert(other.path, base))
    try:
        return examine(base, [expert], contents=False)
    except InputError:
        if _kind(base.config) != _kind(expert.checkpoint.config):
            raise
        return examine(base, [expert], contents=False, anatomy=models.anatomy)


def _kind(config: dict) -> tuple[object, object]:
    return config.get("model_type"), config.get("hidden_size")


# Which base ---------------------------------------------------------------------------------------


def proposed_base(expert: ListedModel, listed: Sequence[ListedModel]) -> Proposal | None:
    """The base that an expert comes from, of the models that are listed; None where none is.

    The one that it names, if that is there; else the one that fits and whose matrices are nearest.
    """
    bases = [one for one in listed if one.kind == "model" and one.path != expert.path]
    for text in expert.made_from:
        for base in bases:
            if names(text, base, expert) and _fitting(base, [expert]):
                return Proposal(base, (expert,), f"It says that it was made from '{cut(text, 80)}'")
    if expert.kind == "adapter":
        fitting = [base for base in bases if not base.merged and _fitting(base, [expert])]
        return Proposal(fitting[0], (expert,), "The adapter fits it") if len(fitting) == 1 else None
    near = [(c.cosine, base) for base in bases for c in _fitting(base, [expert]) if c.cosine]
    if not near:
        return None
    cosine, base = max(near, key=lambda pair: (not pair[1].merged, pair[0]))
    said = f"Of what lies there it is the nearest (cosine {cosine:.3f} of their matrices)"
    return Proposal(base, (expert,), said) if cosine >= FAR else None


def names(text: str, model: ListedModel, beside: ListedModel) -> bool:
    """Whether what a model says that it was made from, `text`, is one of those that are listed:
    by its id of the hub, by its path, or by the last part of it in the same folder."""
    if model.of_hub:
        return model.reference.partition("@")[0] == text
    path = Path(text)
    if path.is_absolute() and path == model.path:
        return True
    return path.name == model.path.name and model.path.parent == beside.path.parent


def _fitting(base: ListedModel, others: Iterable[ListedModel]) -> list[Candidate]:
    try:
        return [one for one in candidates(base, others) if one.fits]
    except InputError:
        return []


def proposal(listed: Sequence[ListedModel]) -> Proposal | None:
    """The base and the experts that lie most plainly in one folder; None where none do.

    The base is the one that others name; else the one that lies between all the others; else the
    one that is called a base, or the first.
    """
    folders: dict[Path, list[ListedModel]] = {}
    for model in listed:
        if not model.of_hub and not model.problem and not model.merged:
            folders.setdefault(model.path.parent, []).append(model)
    offers = (one for group in folders.values() for one in _offers(group[:MOST]))
    return max(offers, key=lambda offer: len(offer.experts), default=None)


def _offers(group: Sequence[ListedModel]) -> Iterator[Proposal]:
    """One proposal for each kind of model in a folder."""
    left = [one for one in group if one.kind == "model"]
    adapters = [one for one in group if one.kind == "adapter"]
    while left:
        first, *left = left
        alike = [first, *(c.model for c in _fitting(first, left))]
        left = [one for one in left if one not in alike]
        base, why = _base_of(alike)
        others = [one for one in (*alike, *adapters) if one != base]
        experts = tuple(c.model for c in _fitting(base, others) if c.likely)
        if experts:
            yield Proposal(base, experts, why)


def _base_of(alike: Sequence[ListedModel]) -> tuple[ListedModel, str]:
    """Which of some models that fit each other is the base of the others, and why."""
    for base in alike:
        said = [o for o in alike if o != base and any(names(t, base, o) for t in o.made_from)]
        if said:
            one = len(said) == 1
            whose = "says that it was" if one else "say that they were"
            return base, f"{len(said)} of the others {whose} made from it"
    first, *others = alike
    with contextlib.suppress(InputError):
        weights = Checkpoint.open(first.path)
        experts = [Expert(str(k), Checkpoint.open(o.path)) for k, o in enumerate(others)]
        if (place := middle(examine(weights, experts, contents=False))) is not None:
            return alike[place], "Its weights lie between those of the others"
    called = [one for one in alike if any(word in one.name.lower() for word in NAMED)]
    return (called[0], "Proposed by its name") if called else (first, "")
