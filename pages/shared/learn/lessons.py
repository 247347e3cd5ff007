"""Five lessons on the sample family, as a literal table.

A lesson sets up another page and asks a question about what is seen there; its answer quotes the
runs that there are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Setup:
    """One thing to look at: a merge with its options, or a page with its controls."""

    label: str
    method: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    page: str = "merge"
    controls: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Lesson:
    """Two sentences before, what to do, and a question after."""

    title: str
    before: str
    look: str
    question: str
    answer: str
    setups: tuple[Setup, ...]


LESSONS = (
    Lesson(
        "Why does averaging fail here?",
        "Eight experts were fine-tuned from one base, each good at its own task. Their average is "
        "the first thing to try.",
        "Press Merge. Compare every task's bar with its expert and with the pre-trained encoder; "
        "then set up ESM, and merge again.",
        "Which tasks does the average serve hardly better than the base did, and what have they in "
        "common?",
        "An average of T models keeps 1/T of each expert's move. A task that needed a long move "
        "from the base stays near the base; one that the base could almost do already loses "
        "little. Walking further (task arithmetic) helps a bit, until the moves disturb each "
        "other. ESM keeps of each expert the directions in which its outputs move, sets those of "
        "different tasks at right angles, and can then go further along all of them.",
        (Setup("Average", "average"), Setup("ESM", "essential")),
    ),
    Lesson(
        "What does RegMean see?",
        "RegMean asks of every layer that the merged weights give each expert's outputs on that "
        "expert's own inputs. All it knows of the inputs is their Gram matrix A: which inputs are "
        "large, and which occur together.",
        "Press Merge. Then set up the same without off-diagonal entries, where it knows how large "
        "each input is and no longer which occur together.",
        "How much of RegMean's gain over the average comes from which inputs occur together?",
        "With the diagonal alone it falls back almost to the average: single inputs matter about "
        "equally to all tasks, and what tells the tasks apart are the *combinations*, a few steep "
        "directions of A in each layer. In the picture of the Learn page: ellipses turned by 45°, "
        "of which the diagonal sees nothing.",
        (
            Setup("RegMean", "regmean"),
            Setup("Diagonal of A only", "regmean", {"off_diagonal": 0.0}),
            Setup("Look at A", page="subspaces", controls={"subspaces kind": "input"}),
        ),
    ),
    Lesson(
        "Why can more CG iterations hurt?",
        "K-FAC also asks which outputs of a layer matter to the loss, and conjugate gradients (CG) "
        "solve its equations. Every iteration solves them better; here nothing damps them.",
        "Merge with 50 iterations, then with 200, and compare the accuracy. Under Convergence, see "
        "the residuals and follow the accuracy along the iterations.",
        "Most residuals still fall, slowly. What happens to the accuracy, and why?",
        "CG settles the steep directions first, which many examples have measured well. Later "
        "iterations follow flat ones, whose small curvature is mostly the noise of a few hundred "
        "examples, and walk far along them: the equations are solved better, the models are merged "
        "worse. Stopping early and damping (δ = 0.1) hold it back in the same way. It depends on "
        "the family: with a base that was pre-trained long, more iterations may go on helping.",
        (
            Setup("50 iterations", "kfac", {"damping": 0.0, "iterations": 50}),
            Setup("200 iterations", "kfac", {"damping": 0.0, "iterations": 200}),
            Setup("200, damped", "kfac", {"damping": 0.1, "iterations": 200}),
        ),
    ),
    Lesson(
        "What does the essential subspace keep?",
        "Of all that fine-tuning changed in a layer, ESM keeps the few directions along which the "
        "layer's outputs move most. A layer with 192 outputs has room for 24 directions of each of "
        "the eight tasks.",
        "See on the Subspaces page what energy 24 directions keep. Then merge as published (an "
        "eighth of a layer's outputs for each task), with 12 directions a task, and with 48.",
        "48 directions keep more of every expert than 12 do. Why is the merge worse?",
        "A few directions hold most of what moves the outputs, so 12 lose little. But eight times "
        "48 directions do not fit into 192 dimensions: they must overlap, and the polar step, "
        "which needs room to set them at right angles, bends all of them. Keeping less of each "
        "task keeps more of all tasks.",
        (
            Setup("As published", "essential"),
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
        "Merge, and open Polarized scaling: which task is loud, and which quiet? Then merge with "
        "all levels off, and with the tasks at power 4. Mind the ±: a point of difference is "
        "within it.",
        "Which task pays when the loud become louder? Is it worth it on this family?",
        "The quiet one pays: with every power its own move shrinks further. On this family the "
        "mean hardly notices any level, because all experts were fine-tuned alike and moved about "
        "equally far; where experts differ more, as with real data sets, it can decide. That is "
        "why every level has a switch: look at the weights first, then choose.",
        (
            Setup("All levels at 2", "essential"),
            Setup("All off", "essential",
                  {"task_power": 0.0, "dimension_power": 0.0, "layer_power": 0.0}),
            Setup("Tasks at 4", "essential", {"task_power": 4.0}),
        ),
    ),
)  # fmt: skip
