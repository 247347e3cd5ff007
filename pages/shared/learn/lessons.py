"""Six lessons, as a literal table.

A lesson sets up another page and asks a question, which the reader answers first.  Its words say
what the formulas say; what happened, and what goes with it, is computed from the runs and the
statistics of the family that is open (`evidence.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["reasons", "difference", "part", "examples"]


@dataclass(frozen=True)
class Setup:
    """One thing to look at: a merge with its options, or a page with its controls."""

    label: str
    method: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    page: str = "merge"
    controls: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Asked:
    """What the question of a lesson is answered with.

    kind      `reasons`: what goes with what a task keeps of the first merge or, of two, gains from
              the second to the first; the guesses are the traits and then none of them
              `difference`: whether the first merge is better than the second, worse, or neither
              `part`: which part of the first's gain over the third it has over the second; the
              guesses are less than a quarter, up to three, more
              `examples`: what has most of the first's gain over the fourth: the second by itself,
              only the third, which is steadied, or neither of them
    of        the numbers of the merges among the setups
    guesses   to choose from, in this order
    """

    kind: Kind
    of: tuple[int, ...]
    guesses: tuple[str, ...]


@dataclass(frozen=True)
class Lesson:
    """Two sentences before, what to do, a question, what the formulas say, and what answers it."""

    title: str
    before: str
    look: str
    question: str
    formulas: str
    asked: Asked
    setups: tuple[Setup, ...]


BETTER = ("It rises", "It falls", "No clear difference")
PARTS = ("Less than a quarter", "A quarter to three quarters", "More than three quarters")
WITH = (
    "How far fine-tuning went",
    "How steep the expert's loss is",
    "How much its directions overlap with others'",
    "How much its change points as the others' do",
    "How good the base already was",
    "None of these",
)

LESSONS = (
    Lesson(
        "Why does averaging fail here?",
        "Several experts were fine-tuned from one base, each good at its own task. Their average "
        "is the first thing to try.",
        "Compare every task's bar with its expert and with the pre-trained encoder; then look at "
        "what ESM keeps.",
        "What have the tasks in common that the average serves worst?",
        "An average of T models keeps 1/T of each expert's move from the base, "
        "W − W₀ = (1/T) Σ Δₜ, and adds 1/T of every other's. Which of its tasks pay for that is a "
        "question to the data: long moves, steep losses and shared directions are all candidates.",
        Asked("reasons", (0,), WITH),
        (Setup("Average", "average"), Setup("ESM", "essential")),
    ),
    Lesson(
        "What does RegMean see?",
        "RegMean asks of every layer that the merged weights give each expert's outputs on that "
        "expert's own inputs. All it knows of the inputs is their Gram matrix A: which inputs are "
        "large, and which occur together.",
        "Compare RegMean with itself without off-diagonal entries, where it knows how large each "
        "input is and no longer which occur together; and both with the average.",
        "How much of RegMean's gain over the average comes from which inputs occur together?",
        "RegMean solves W Σ Aₜ = Σ Wₜ Aₜ. With the diagonal of A alone each input is weighed by "
        "its mean square, and a task is told apart by single inputs only; the off-diagonal entries "
        "hold the *combinations* of inputs. In the picture of the Learn page: ellipses turned by "
        "45°, of which the diagonal sees nothing.",
        Asked("part", (0, 1, 2), PARTS),
        (
            Setup("RegMean", "regmean"),
            Setup("Diagonal of A only", "regmean", {"off_diagonal": 0.0}),
            Setup("Average", "average"),
            Setup("Look at A", page="subspaces", controls={"subspaces kind": "input"}),
        ),
    ),
    Lesson(
        "Why can more CG iterations hurt?",
        "K-FAC also asks which outputs of a layer matter to the loss, and conjugate gradients (CG) "
        "solve its equations. Every iteration solves them better; here nothing damps them.",
        "Compare the accuracy after 50 iterations with that after 200. Under Convergence, see the "
        "residuals and follow the accuracy along the iterations.",
        "What happens to the accuracy from 50 iterations to 200?",
        "CG settles the steep directions of its system first and the flat ones later. The small "
        "curvature of a flat direction is measured least well on a few hundred examples, and the "
        "step along it is divided by that curvature. Stopping early and damping (δ added to every "
        "eigenvalue) both shorten these steps. Whether they help or harm a merge depends "
        "on what was measured, and on how far the experts are from their base.",
        Asked("difference", (1, 0), BETTER),
        (
            Setup("50 iterations", "kfac", {"damping": 0.0, "iterations": 50}),
            Setup("200 iterations", "kfac", {"damping": 0.0, "iterations": 200}),
            Setup("200, damped", "kfac", {"damping": 0.1, "iterations": 200}),
        ),
    ),
    Lesson(
        "What does the essential subspace keep?",
        "Of all that fine-tuning changed in a layer, ESM keeps the few directions along which the "
        "layer's outputs move most. A layer with d outputs has room for d / T directions of each "
        "of T tasks.",
        "See on the Subspaces page what energy the directions keep. Then compare ESM with d / T "
        "directions a task, as its paper takes them, with 12 directions a task, and with 48.",
        "48 directions keep more of every expert than 12 do. What happens to the accuracy of the "
        "merge from 12 to 48?",
        "r directions of each of T tasks are T·r columns in a space of d dimensions. Up to d of "
        "them can be set at right angles; beyond, the polar step bends all of them. More "
        "directions keep more of each expert, and leave less room between the tasks.",
        Asked("difference", (2, 1), BETTER),
        (
            Setup("d / T directions", "essential"),
            Setup("12 directions", "essential", {"rank": 12}),
            Setup("48 directions", "essential", {"rank": 48}),
            Setup("Look at the energy", page="subspaces",
                  controls={"subspaces kind": "essential"}),
        ),
    ),
    Lesson(
        "Which task counts most?",
        "Polarized scaling makes the loud louder: tasks, input dimensions and layers that moved "
        "far get more weight. Each of the three levels has a power; 0 switches it off.",
        "Open Polarized scaling: which task is loud, and which quiet? Then compare all levels off "
        "with the tasks at power 4. Mind the ±.",
        "Which tasks gain when the loud become louder, from all levels off to the tasks at 4?",
        "A task gets the weight (‖Δₜ‖ / mean ‖Δ‖)^power in each layer: a task that moved far "
        "gets more, and one that moved less gets less. Where all experts moved about equally far, "
        "every weight is near 1 and the power changes little; look at the weights first.",
        Asked("reasons", (2, 1), WITH),
        (
            Setup("All levels at 2", "essential"),
            Setup("All off", "essential",
                  {"task_power": 0.0, "dimension_power": 0.0, "layer_power": 0.0}),
            Setup("Tasks at 4", "essential", {"task_power": 4.0}),
        ),
    ),
    Lesson(
        "Why are eight examples enough, and when not?",
        "Sequential calibration matches every layer on examples of each task, unlabelled, and "
        "keeps 256 of them. Eight are a layer's least squares on fewer tokens, which may lack "
        "directions of its inputs.",
        "Compare 256 examples a task with eight, with eight steadied by copies and by the Gram of "
        "each update, and with none at all. The figure under the answer shows what the examples "
        "decide, layer by layer.",
        "What keeps three quarters of the gain that 256 examples bring over none?",
        "A layer of d inputs is matched on n tokens, whose Gram A = E[x xᵀ] has a rank of at most "
        "n. Along an eigenvector of A the examples decide λ / (λ + δ λ̄) of the answer, and the "
        "damping δ the rest, which draws to each expert: the sum of these shares, over d, is what "
        "the figure shows. The update's Gram ΔᵀΔ has weight where the expert answers differently "
        "from the base, seen in the examples or not; with A + ΔᵀΔ these directions are decided "
        "too. Many tokens an example, narrow layers and examples that differ make few enough; one "
        "short text each, wide layers or examples all alike do not.",
        Asked("examples", (0, 1, 2, 3), (
            "Eight by themselves", "Eight, only when they are steadied", "Neither"
        )),
        (
            Setup("256 examples", "sequential"),
            Setup("Eight alone", "sequential",
                  {"examples": 8, "augment_to": 0, "update_share": 0.0}),
            Setup("Eight, steadied", "sequential", {"examples": 8}),
            Setup("No example", "kfac", {"gram": "update"}),
        ),
    ),
)  # fmt: skip
