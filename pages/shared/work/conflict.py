"""Who conflicts with whom, forecast and measured in the worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mats_core.analysis import Conflicts, Forecast, Way, conflicting, forecasting
from mats_core.recipes import FamilyFile

from .following import told
from .jobs import Tell
from .prepare import Prepared

CONFLICT_EXAMPLES = 200  # validation examples a task


@dataclass(frozen=True)
class ConflictRequest:
    """Which family, by which method and options, and what is left out.

    run   the id of the run whose settings these are; empty: the method's defaults
    """

    collection: FamilyFile
    method: str
    way: Way
    options: Mapping[str, Any] = field(default_factory=dict)
    run: str = ""


def measure_conflicts(request: ConflictRequest, prepared: Prepared, tell: Tell) -> Conflicts:
    """All merges of a request, tested."""
    recipe = request.collection.recipe(request.method, request.options, statistics=prepared.files)
    return told(conflicting(recipe, request.way, examples=CONFLICT_EXAMPLES), tell)


def forecast_conflicts(request: ConflictRequest, prepared: Prepared, tell: Tell) -> Forecast:
    """The forecast for the experts of a request, which no method or option changes."""
    recipe = request.collection.recipe(request.method, request.options)
    return told(forecasting(recipe, request.way), tell)
