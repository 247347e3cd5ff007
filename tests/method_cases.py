"""The literal list of methods: a new one is enrolled here and gets the whole matrix of tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mats_core.methods.table import METHODS

Identity = Literal[
    "order", "weights' scale", "translation", "rotation", "statistics' scale",
    "base at scaling 0", "linear in scaling",
]  # fmt: skip
GENERAL: frozenset[Identity] = frozenset({"order", "weights' scale", "translation"})
SCALED: frozenset[Identity] = frozenset({"base at scaling 0"})
LINEAR: frozenset[Identity] = frozenset({"base at scaling 0", "linear in scaling"})
ROTATED: frozenset[Identity] = frozenset({"rotation"})
LOUDNESS: frozenset[Identity] = frozenset({"statistics' scale"})


@dataclass(frozen=True)
class MethodCase:
    """What the tests know of a method.

    documented  options that it must at least have
    identities  what holds for any layer (`tests/methods/test_identities.py` has the checks)
    formula     options with which its formula is the published one
    exact       further options, for results exact enough to compare, and cheap
    identical   options with which identical experts come back; None where they need not
    bare        the method that it is on a layer without any statistics; "" where it needs none
    single      how near float32 comes to float64
    turns       two settings or more: the second finds what the first has left in memory
    grids       whether the study and the table of the sample family search over its options
    mergekit    whether mergekit has the same, by default options
    """

    documented: frozenset[str] = frozenset()
    identities: frozenset[Identity] = GENERAL
    formula: Mapping[str, Any] = field(default_factory=dict)
    exact: Mapping[str, Any] = field(default_factory=dict)
    identical: Mapping[str, Any] | None = None
    bare: str = ""
    single: float = 1e-5
    turns: tuple[Mapping[str, Any], ...] = ({}, {})
    grids: bool = True
    mergekit: bool = False


def scalings(*values: float) -> tuple[Mapping[str, Any], ...]:
    return tuple({"scaling": value} for value in values)


SOLVED = {"iterations": 500, "tolerance": 0}

CASES: dict[str, MethodCase] = {
    "average": MethodCase(identical={}, mergekit=True),
    "slerp": MethodCase(
        frozenset({"t", "parallel"}), frozenset({"weights' scale"}), identical={},
        turns=({"t": 0.5}, {"t": 0.2}), grids=False, mergekit=True,
    ),
    "task_arithmetic": MethodCase(
        frozenset({"scaling"}), GENERAL | LINEAR, identical={"scaling": 1 / 3},
        turns=scalings(0.3, 0.6), mergekit=True,
    ),
    "ties": MethodCase(
        frozenset({"density", "scaling", "scope"}), GENERAL | LINEAR, exact={"density": 0.4},
        identical={"density": 1.0}, single=5e-4, turns=({"density": 0.2}, {"density": 0.5}),
    ),
    "dare": MethodCase(
        frozenset({"drop", "scaling", "seed"}), GENERAL | LINEAR, exact={"drop": 0.5},
        identical={"drop": 0.0, "scaling": 1.0, "then": "average"}, turns=scalings(0.3, 0.6),
    ),
    "karcher": MethodCase(
        frozenset({"iterations", "tolerance"}), frozenset({"order", "weights' scale"}),
        identical={}, turns=({"iterations": 10}, {"iterations": 0}), grids=False, mergekit=True,
    ),
    "della": MethodCase(
        frozenset({"density", "epsilon", "scaling", "rescale", "elect", "normalise", "seed"}),
        GENERAL | LINEAR, identical={"density": 1.0}, turns=scalings(0.3, 0.6), grids=False,
    ),
    "breadcrumbs": MethodCase(
        frozenset({"density", "gamma", "scaling", "elect", "normalise"}), GENERAL | LINEAR,
        exact={"density": 0.6, "gamma": 0.1}, identical={"density": 1.0, "scaling": 1 / 3},
        turns=({"density": 0.9}, {"density": 0.5}), grids=False, mergekit=True,
    ),
    "consensus": MethodCase(
        frozenset({"threshold", "tasks", "scaling"}), GENERAL | LINEAR,
        identical={"scaling": 1 / 3}, turns=({"threshold": 0.4}, {"threshold": 0.8}), grids=False,
    ),
    "model_stock": MethodCase(
        frozenset({"by_row"}), identical={}, turns=({"by_row": False}, {"by_row": True}),
        grids=False, mergekit=True,
    ),
    "sce": MethodCase(
        frozenset({"select", "floor"}), exact={"select": 0.6}, identical={"select": 1.0},
        turns=({"select": 1.0}, {"select": 0.5}), grids=False,
    ),
    "fisher": MethodCase(
        frozenset({"floor", "normalise"}), GENERAL | LOUDNESS, identical={}, bare="average",
        turns=({"floor": 0.1}, {"floor": 0.0}),
    ),
    "regmean": MethodCase(
        frozenset({"off_diagonal", "damping", "fold_bias"}), GENERAL | ROTATED | LOUDNESS,
        identical={}, bare="average", turns=({"damping": 0.01}, {"damping": 0.3}),
    ),
    "kfac": MethodCase(
        frozenset({
            "iterations", "tolerance", "off_diagonal", "damping", "anchor", "start",
            "preconditioner", "normalise", "fold_bias", "rank",
        }),
        GENERAL | LOUDNESS, exact=SOLVED, identical={}, bare="average", single=5e-4,
        turns=({"damping": 0.1}, {"damping": 0.01}),
    ),
    "tsv_m": MethodCase(
        frozenset({"scaling"}), GENERAL | LINEAR | ROTATED, formula={"scaling": 1.0},
        turns=scalings(1.0, 2.0),
    ),
    "dc_merge": MethodCase(
        frozenset({"density", "scaling"}), GENERAL | LINEAR | ROTATED, formula={"scaling": 1.0},
        exact={"density": 0.3}, turns=({"density": 0.001}, {"density": 0.3}), grids=False,
    ),
    "iso_c": MethodCase(
        frozenset({"scaling"}), GENERAL | LINEAR | ROTATED, formula={"scaling": 1.0},
        turns=scalings(1.0, 2.0),
    ),
    "iso_cts": MethodCase(
        frozenset({"scaling", "common"}), GENERAL | LINEAR | ROTATED, formula={"scaling": 1.0},
        turns=({"common": 0.8}, {"common": 0.5}),
    ),
    "essential": MethodCase(
        frozenset({
            "scaling", "task_power", "dimension_power", "layer_power", "eigenvalue_power", "rank",
            "centre", "orthogonal",
        }),
        GENERAL | LINEAR | ROTATED | LOUDNESS, formula={"scaling": 1.0}, bare="tsv_m",
        turns=(
            {"task_power": 0.0}, {"layer_power": 0.0}, {"eigenvalue_power": 0.5}, {"rank": 3},
            {"centre": True}, {"orthogonal": False}, {"dimension_power": 1.0, "scaling": 0.7},
        ),
    ),
    "gradient_matching": MethodCase(
        frozenset({"scaling", "prior"}), GENERAL | SCALED, bare="average", turns=scalings(1.0, 0.5)
    ),
    "kfac_matching": MethodCase(
        frozenset({"scaling", "prior", "damping", "iterations", "tolerance", "normalise"}),
        GENERAL | SCALED, exact=SOLVED, bare="average", turns=scalings(1.0, 0.5),
    ),
    "sequential": MethodCase(
        frozenset({
            "curvature", "examples", "damping", "expert_inputs", "residual", "off_diagonal",
            "start", "iterations", "tolerance", "update_share", "inputs", "pile", "candidates",
            "augment_to",
        }),
        GENERAL, exact=SOLVED, identical={}, bare="average", single=5e-4, grids=False,
        turns=({"damping": 0.1}, {"curvature": "identity"}),
    ),
}  # fmt: skip


# What merges tensors without a task: all but those that walk through a model.
BARE = [name for name, row in METHODS.items() if not row.calibrates]


def having(identity: Identity) -> list[str]:
    """The methods of which an identity holds."""
    return [name for name, case in CASES.items() if identity in case.identities]
