"""Settings under a name: where to begin, and what the papers did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Preset:
    """Settings under a name.

    title     the name
    method    the method
    options   its options; the others keep their defaults
    sentence  what they are, in a sentence
    rounds    how often statistics are measured
    """

    title: str
    method: str
    options: dict[str, Any]
    sentence: str
    rounds: int = 1


PROPOSED = "essential"  # the method that the page and the panel begin with
WITHOUT_DATA = "task_arithmetic"  # the same, where no statistics can be measured
PRESETS = (
    Preset(
        "Safe defaults",
        "essential",
        {},
        "Essential Subspace Merging with the defaults that were measured on the sample family: "
        "there is no solve that could go wrong.",
    ),
    Preset(
        "ESM as published",
        "essential",
        {
            "scaling": 1.0, "task_power": 2.0, "dimension_power": 2.0, "layer_power": 2.0,
            "eigenvalue_power": 0.15, "centre": True,
        },
        "The powers of the paper's ViT code, centred output shifts, and scaling 1.",
    ),
    Preset(
        "MaTS as published",
        "kfac",
        {
            "iterations": 100, "tolerance": 0.0, "damping": 0.0, "start": "task_arithmetic",
            "preconditioner": "none", "normalise": False,
        },
        "K-FAC blocks, plain conjugate gradients from task arithmetic, no damping and no "
        "normalisation: watch the accuracy along its iterations.",
    ),
    Preset(
        "K-FAC, measured twice",
        "kfac",
        {"fold_bias": True, "remaining": "fisher"},
        "K-FAC blocks with biases folded in and the rest by its Fisher; the statistics are "
        "measured once more where the first merge landed, and the experts are merged again.",
        rounds=2,
    ),
    Preset(
        "RegMean as published",
        "regmean",
        {"off_diagonal": 0.9, "damping": 0.0},
        "Input Grams with their off-diagonal entries scaled by 0.9, and no damping.",
    ),
)  # fmt: skip
