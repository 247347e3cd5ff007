"""Ladders: one method built up step by step, each step a merge, to see what every part adds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .layer import LayerStatistics
from .sequential import SequentialOptions, share_of_update


@dataclass(frozen=True)
class Rung:
    """One step of a ladder.

    title     what is there from this step on
    method    the method
    options   its options; the others keep their defaults
    change    what changed in the formula since the step before, in a sentence
    rounds    how often statistics are measured
    against   title of the step that it is compared with; the one before it where empty
    """

    title: str
    method: str
    options: dict[str, Any] = field(default_factory=dict)
    change: str = ""
    rounds: int = 1
    against: str = ""


@dataclass(frozen=True)
class Ladder:
    """A method step by step.

    title     of the ladder
    sentence  what it is about
    rungs     the steps, from the simplest to the whole method
    counts    whether the steps are numbers of examples a task, drawn along an axis of them
    """

    title: str
    sentence: str
    rungs: tuple[Rung, ...]
    counts: bool = False


_BARE = {
    "scaling": 1.0, "orthogonal": False, "eigenvalue_power": 0.0, "task_power": 0.0,
    "dimension_power": 0.0, "layer_power": 0.0,
}  # fmt: skip
_STEPS = (
    ("Essential directions", {},
     "Of each Δₜ only Eₜ Eₜᵀ Δₜ is added, with Eₜ the ⌊d/T⌋ directions in which its outputs move "
     "most. Biases and norms are averaged from here on, and not added up."),
    ("At right angles", {"orthogonal": True},
     "The directions [E₁ … E_T] and the coordinates [C₁; …; C_T] are replaced by their polar "
     "factors, times their mean singular values and 2: W = W₀ + 2 E⊥ C⊥."),
    ("Weighted directions", {"eigenvalue_power": 0.15},
     "A direction counts (λ / mean λ)^0.15: a little more where outputs move more."),
    ("Level 1: tasks", {"task_power": 2.0},
     "A task counts (‖Δₜ‖ / mean ‖Δ‖)² in each layer."),
    ("Level 2: dimensions", {"dimension_power": 2.0},
     "An input dimension counts (its coordinates' norm / their mean)²."),
    ("Level 3: layers", {"layer_power": 2.0},
     "A layer's update is multiplied by (its norm / the mean over like layers)²."),
    ("Scaling 1.5", {"scaling": 1.5},
     "The whole update is multiplied by α = 1.5: the method with its defaults."),
)  # fmt: skip


def _esm() -> tuple[Rung, ...]:
    """The sum of task vectors, then one option of ESM after the other."""
    rungs = [
        Rung(
            "Sum", "task_arithmetic", {"scaling": 1.0},
            "W = W₀ + Σ Δₜ: everything that every expert learned, added up.",
        )
    ]  # fmt: skip
    options: dict[str, Any] = _BARE
    for title, changed, change in _STEPS:
        options = {**options, **changed}
        rungs.append(Rung(title, "essential", options, change))
    return tuple(rungs)


FEW, MANY = (1, 2, 8, 32), 256  # examples a task


def _by_examples() -> tuple[Rung, ...]:
    """No example, then few of them by themselves and steadied, then many."""
    rungs = [
        Rung(
            "None", "kfac", {"gram": "update"},
            "Σ Bₜ W Aₜ = Σ Bₜ Wₜ Aₜ with Aₜ = ΔₜᵀΔₜ and Bₜ = ΔₜΔₜᵀ: K-FAC from the weights alone.",
        )
    ]  # fmt: skip
    for before, count in zip(("None", *FEW), FEW, strict=False):
        rungs.append(
            Rung(
                str(count), "sequential",
                {"examples": count, "augment_to": 0, "update_share": 0.0},
                f"Sequential calibration on {count} of each task: A is of their tokens alone.",
                against=str(before),
            )
        )  # fmt: skip
        w = share_of_update(LayerStatistics(examples=count), SequentialOptions(examples=count))
        rungs.append(
            Rung(
                f"{count}, steadied", "sequential", {"examples": count},
                "Pictures get moved and lit copies, and A becomes (1 − w) A + w ΔₜᵀΔₜ, each of "
                f"trace one, with w = {w:.2g}: the method at its defaults.",
                against=str(count),
            )
        )  # fmt: skip
    last = f"{MANY} of each task need neither, and have none at the defaults."
    many = Rung(str(MANY), "sequential", {"examples": MANY}, last, against=f"{FEW[-1]}, steadied")
    return (*rungs, many)


LADDERS = (
    Ladder(
        "ESM, step by step",
        "From the sum of task vectors to Essential Subspace Merging.",
        _esm(),
    ),
    Ladder(
        "K-FAC, step by step",
        "From the average to matching by K-FAC blocks, measured twice, or where each layer stands.",
        (
            Rung("Average", "average", {}, "W = (1/T) Σ Wₜ: every direction counts the same."),
            Rung(
                "A (RegMean)", "regmean", {"off_diagonal": 1.0, "damping": 0.0},
                "W Σ Aₜ = Σ Wₜ Aₜ: input directions count as each task's inputs use them.",
            ),
            Rung(
                "A and B (K-FAC)", "kfac", {"damping": 0.0},
                "Σ Bₜ W Aₜ = Σ Bₜ Wₜ Aₜ: output directions count as the loss feels them; solved by "
                "50 conjugate-gradient iterations from the average.",
            ),
            Rung(
                "Damping", "kfac", {"damping": 0.1},
                "0.1 of its mean eigenvalue is added to the diagonal of each A and each B.",
            ),
            Rung(
                "Second round", "kfac", {"damping": 0.1},
                "A and B are measured again at the merge before, and the experts merged once more.",
                rounds=2,
            ),
            Rung(
                "One layer after the other (Sequential)", "sequential", {"curvature": "measured"},
                "A is measured layer by layer, at the merge as it is by then; the target is what "
                "the expert puts out, and what the residual stream has lost before it.",
            ),
        ),
    ),
    Ladder(
        "Examples a task",
        "How many unlabelled examples of each task sequential calibration needs, by themselves and "
        "steadied by copies and the Gram of each update.",
        _by_examples(),
        counts=True,
    ),
)  # fmt: skip
