"""Stages of the methods: every symbol of a formula is explained, and nothing is told unasked."""

from __future__ import annotations

import re

import pytest

from mats_core.methods.stages import PLAIN, Stage
from mats_core.methods.table import METHODS

STAGES = [(name, stage) for name, method in METHODS.items() for stage in method.stages]


@pytest.mark.parametrize(("method", "stage"), STAGES, ids=[f"{m}-{s.key}" for m, s in STAGES])
def test_every_symbol_of_a_formula_is_explained(method: str, stage: Stage):
    assert "".join(piece for piece, _ in stage.parts) == stage.formula
    left = " ".join(piece for piece, meaning in stage.parts if not meaning)
    unexplained = re.findall(r"[^\W\d_]", re.sub(r"[ₜₖ]", "", left))
    assert not unexplained, f"{stage.formula} of {method}: what are {unexplained}?"


@pytest.mark.parametrize("method", METHODS)
def test_stages_begin_with_task_matrices_and_end_with_the_merge(method: str):
    keys = [stage.key for stage in METHODS[method].stages]
    assert keys[0] == PLAIN[0].key
    assert keys[-1] == PLAIN[-1].key
    assert len(set(keys)) == len(keys)


def test_a_key_means_the_same_kind_of_matrix_everywhere():
    axes: dict[str, tuple[str, str]] = {}
    for _, stage in STAGES:
        assert axes.setdefault(stage.key, stage.axes) == stage.axes, stage.key
