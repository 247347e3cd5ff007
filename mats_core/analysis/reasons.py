"""Reasons why some tasks keep more of their expert than others: what goes with it, if anything.

Each trait of a task is one number, from a survey of the family and from its scores:

    move       ‖Δ_t‖ / ‖W₀‖ over all layers: how far fine-tuning went
    curvature  Σ_ℓ tr A_ℓ · tr B_ℓ: the trace of the K-FAC blocks at the expert
    overlap    the mean over layers of what its essential directions share with the other tasks'
    cosine     the mean over layers of the cosine of its task vector with the others'
    base       what the base with the expert's head reaches, as a share of the expert's score

A trait is a reason where its rank correlation over tasks is more than chance, all traits counted
(`clear_among`); with few tasks nothing may be, and that is said.  A correlation is no cause.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from ..evaluation import TaskResult
from .correlation import Correlation, correlate
from .overlap import others_mean
from .survey import Survey

Trait = Literal["move", "curvature", "overlap", "cosine", "base"]
TRAITS: dict[Trait, str] = {
    "move": "how far fine-tuning went",
    "curvature": "how steep the expert's loss is",
    "overlap": "how much its directions overlap with other tasks'",
    "cosine": "how much its change points as the others' do",
    "base": "how good the base already was",
}


def traits(survey: Survey, results: Sequence[TaskResult]) -> dict[Trait, dict[str, float]]:
    """Every trait of every task of a survey by name; NaN where statistics or scores are missing."""
    norms = torch.stack([layer.norms for layer in survey.layers])
    base = sum(layer.base_norm**2 for layer in survey.layers) ** 0.5
    steep = torch.stack([_curvature(layer.spectra, len(survey.tasks)) for layer in survey.layers])
    found: dict[Trait, Tensor] = {
        "move": norms.square().sum(0).sqrt() / max(base, 1e-300),
        "curvature": steep.sum(0),
        "overlap": others_mean(torch.stack([la.overlaps for la in survey.layers])).mean(0),
        "cosine": others_mean(torch.stack([la.cosines for la in survey.layers])).mean(0),
        "base": _base(survey.tasks, results),
    }
    return {
        trait: dict(zip(survey.tasks, values.tolist(), strict=True))
        for trait, values in found.items()
    }


def _curvature(spectra: Mapping, tasks: int) -> Tensor:
    """tr A · tr B of one layer (T,): the sums of both spectra."""
    sums = [
        [float(own.values.sum()) if own is not None else torch.nan for own in spectra[kind]]
        for kind in ("input", "output gradient")
    ]
    first, second = torch.tensor(sums, dtype=torch.float64).reshape(2, tasks)
    return first * second


def _base(tasks: Sequence[str], results: Sequence[TaskResult]) -> Tensor:
    shares = {r.name: r.pretrained.value / max(r.finetuned.value, 1e-12) for r in results}
    return torch.tensor([shares.get(task, torch.nan) for task in tasks], dtype=torch.float64)


def reasons(
    known: Mapping[Trait, Mapping[str, float]], outcome: Mapping[str, float]
) -> dict[Trait, Correlation]:
    """The rank correlation over tasks of each trait with an outcome (task → number); traits that
    do not vary, or are known of fewer than three of the tasks, are left out."""
    found: dict[Trait, Correlation | None] = {
        trait: correlate([values.get(t, torch.nan) for t in outcome], list(outcome.values()))
        for trait, values in known.items()
    }
    return {trait: one for trait, one in found.items() if one is not None}
