"""What a method computes on its way through one layer: named stages, each with its formula.

A method hands the matrices of its stages to `Layer.show`, which does nothing unless something
watches: what is seen is what the merge computes, and not computed a second time elsewhere.  Every
symbol of a formula is explained, here where several methods share it, else beside the formula.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Axis = Literal["output", "input", "direction", ""]

SYMBOLS: Mapping[str, str] = {
    "W₀": "the weights of the base",
    "Wₜ": "the weights of expert t",
    "W": "the merged weights",
    "Δₜ": "the task matrix of expert t, Wₜ − W₀",
    "Σₜ": "the sum over all experts t",
    "αₜ": "what expert t counts, by the weights of the recipe",
    "Aₜ": "the input Gram of expert t: the mean of x xᵀ over the inputs x of this layer on its "
    "task, as the options regularise it",
    "Bₜ": "the same of the gradients of the loss by the outputs of this layer",
    "Fₜ": "the diagonal Fisher of expert t: the mean square of the gradient by each weight",
    "ᵀ": "transposed",
    "∘": "the product entry by entry",
    "‖": "the Frobenius norm: the root of the sum of all squares",
}


@dataclass(frozen=True)
class Stage:
    """One stage of a method on one layer.

    key       by which the method hands over its values
    title     in words
    formula   in Unicode, what is computed
    symbols   symbols of the formula that `SYMBOLS` has not, or has with another meaning
    axes      what the rows and the columns are; "" where they are neither
    each      whether there is one value an expert
    """

    key: str
    title: str
    formula: str
    symbols: Mapping[str, str] = field(default_factory=dict)
    axes: tuple[Axis, Axis] = ("output", "input")
    each: bool = False

    @property
    def parts(self) -> tuple[tuple[str, str], ...]:
        """The formula in pieces, each with the meaning of its symbol, "" where it has none."""
        known = {**SYMBOLS, **self.symbols}
        longest = sorted(known, key=len, reverse=True)
        pieces = re.split(f"({'|'.join(map(re.escape, longest))})", self.formula)
        return tuple((piece, known.get(piece, "")) for piece in pieces if piece)


TASK_MATRIX = Stage("task matrix", "Task matrix", "Δₜ = Wₜ − W₀", each=True)
UPDATE = Stage("update", "What the merge changes", "W − W₀")
INPUT_GRAM = Stage("input gram", "Input Gram", "Aₜ", axes=("input", "input"), each=True)
OUTPUT_GRAM = Stage(
    "output gram", "Output-gradient Gram", "Bₜ", axes=("output", "output"), each=True
)
PRODUCT = Stage("product", "What curvature makes of the task matrix", "Bₜ Δₜ Aₜ", each=True)
ITERATE = Stage(
    "iterate", "After so many steps of conjugate gradients", "Xₖ",
    {"Xₖ": "the weights after k steps of conjugate gradients"},
)  # fmt: skip
FISHER_DIAGONAL = Stage("fisher", "Diagonal Fisher", "Fₜ", each=True)


def start_of(formula: str = "X₀", **symbols: str) -> Stage:
    """The stage from which a solve starts."""
    said = {"X₀": "the weights from which conjugate gradients start", **symbols}
    return Stage("start", "Start of the solve", formula, said)


def outcome(formula: str, **symbols: str) -> Stage:
    """The last stage: the merged matrix, by the formula of its method."""
    return Stage("merged", "Merged matrix", formula, symbols)


PLAIN = (TASK_MATRIX, UPDATE, outcome("W"))
