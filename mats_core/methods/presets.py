"""Settings under a name: where to begin, and what the papers did."""

from __future__ import annotations

from collections.abc import Mapping
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
    after     steps after the merge, as in a recipe
    """

    title: str
    method: str
    options: dict[str, Any]
    sentence: str
    rounds: int = 1
    after: tuple[Mapping[str, Mapping[str, Any]], ...] = ()


PROPOSED = "essential"  # the method that the page and the panel begin with otherwise
WITHOUT_DATA = "task_arithmetic"  # the same, where no statistics can be measured
FIRST = Preset(
    "Quick calibration",
    "sequential",
    {"examples": 32, "augment_to": 0},
    "Sequential calibration on 32 inputs of each task, unlabelled and without copies, steadied by "
    "the Gram of each update: of what we tried on the sample family, that merges without training "
    "in ten seconds, it kept most.",
)  # what the page begins with where the best merge that came with the family is by its method
PRESETS = (
    FIRST,
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
    Preset(
        "Sequential, with the answers' curvature",
        "sequential",
        {"curvature": "answers", "damping": 0.1},
        "Layer by layer, with the updates' curvature and that of how each expert's answers turn, "
        "by gradients on its calibration inputs; no labels.",
    ),
    Preset(
        "Sequential, with measured curvature",
        "sequential",
        {"curvature": "measured"},
        "Layer by layer on the inputs that each gets in the merge, with the curvature that was "
        "measured at the experts.",
    ),
    Preset(
        "RegMean++ as published",
        "sequential",
        {
            "curvature": "identity", "expert_inputs": 0.0, "residual": False,
            "off_diagonal": 0.9, "damping": 0.0, "update_share": 0.0, "augment_to": 0,
        },
        "RegMean on the inputs that each layer gets in the merge (arXiv 2508.03121).",
    ),
    Preset(
        "FeatCal, with our anchor",
        "sequential",
        {
            "curvature": "identity", "expert_inputs": 0.25, "residual": False, "damping": 0.05,
            "update_share": 0.0, "augment_to": 0,
        },
        "The objective of arXiv 2605.13030 with its mix of both streams, 0.25; a layer is drawn to "
        "the experts' mean, where the paper's anchor lies further out, at 2.2 times its update.",
    ),
    Preset(
        "K-FAC without data",
        "kfac",
        {"gram": "update", "gram_power": 0.5, "damping": 0.1, "svc": 0.3},
        "K-FAC blocks from the roots of each update's Grams, Δᵀ Δ and Δ Δᵀ, singular values "
        "calibrated: curvature from the weights alone, where nothing can be measured.",
    ),
    Preset(
        "ACTMat",
        "regmean",
        {"gram": "update", "damping": 0.0},
        "RegMean with each update's own Gram Δᵀ Δ in place of its inputs' (arXiv 2604.01329): "
        "nothing is measured.",
    ),
    Preset(
        "WUDI-Merging, by CG",
        "regmean",
        {"gram": "update", "normalise": True, "damping": 0.0, "iterations": 10},
        "The objective of arXiv 2503.08099, which its code follows by 300 steps of Adam: ten "
        "iterations of conjugate gradients from the sum of the updates.",
    ),
    Preset(
        "DELLA as published",
        "della",
        {"rescale": "probability"},
        "Every entry that is kept is divided by its own probability, where mergekit, as the "
        "defaults here, restores the L1 norm of the tensor.",
    ),
    Preset(
        "TIES as in mergekit",
        "ties",
        {"scope": "tensor"},
        "The smallest changes are trimmed within each tensor instead of over the whole model.",
    ),
    Preset(
        "TACT",
        "regmean",
        {"gram": "update", "gram_share": 0.5, "damping": 0.0},
        "ACTMat whose Grams are made of the larger half of each update's entries.",
    ),
)  # fmt: skip
