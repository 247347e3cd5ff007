"""Layers between the blocks and the heads that every expert has written anew: parts of the heads.

A pooler that each expert trained with its head serves that head alone, and a merge of such poolers
serves none.  Whether it was is seen from its distance from the base beside that of the blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median

from ..names import before_blocks, block_of, is_table, module_of
from .expert import Expert
from .family import Family
from .lineage import GLANCE, part, sample

FURTHER = 3.0  # times as far from the base as the blocks' matrices


def rewritten(family: Family) -> Mapping[str, float]:
    """How many times further than its blocks' matrices every expert has moved a layer that stands
    behind them: module → the least of all experts, where that is more than `FURTHER`.

    By a glance at each matrix: ‖W_t − W_0‖ / ‖W_0‖ of its first elements, beside the median over a
    sample of the blocks'.  Empty for one expert alone.
    """
    behind = [
        name
        for name, role in family.roles.items()
        if role == "matrix" and not (block_of(name) or before_blocks(name) or is_table(name))
    ]
    inside = [name for name in sample(family) if block_of(name)]
    if not behind or not inside or len(family.experts) < 2:
        return {}
    usual = {e.name: median(_moved(family, e, name) for name in inside) for e in family.experts}
    if not all(usual.values()):
        return {}
    found = {
        module_of(name): min(_moved(family, e, name) / usual[e.name] for e in family.experts)
        for name in behind
    }
    return {module: times for module, times in found.items() if times > FURTHER}


def _moved(family: Family, expert: Expert, name: str) -> float:
    """‖W_t − W_0‖ / ‖W_0‖ of the first elements of a matrix."""
    ours = part(family.base, name, GLANCE)
    return float((part(expert.checkpoint, name, GLANCE) - ours).norm() / (ours.norm() or 1.0))
