"""Who conflicts with whom, measured in the worker."""

from __future__ import annotations

from dataclasses import dataclass

from mats_core.analysis import Conflicts, Way, conflicting
from mats_core.merging import FamilyFile

from .following import told
from .jobs import Tell
from .prepare import Prepared

CONFLICT_EXAMPLES = 200  # validation examples a task


@dataclass(frozen=True)
class ConflictRequest:
    """Which family, by which method with its defaults, and what is left out."""

    collection: FamilyFile
    method: str
    way: Way


def measure_conflicts(request: ConflictRequest, prepared: Prepared, tell: Tell) -> Conflicts:
    """All merges of a request, tested."""
    recipe = request.collection.recipe(request.method, statistics=prepared.files)
    return told(conflicting(recipe, request.way, examples=CONFLICT_EXAMPLES), tell)
