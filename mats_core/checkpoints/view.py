"""Weights seen in another way: what a view does not say anew is its source's."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from .source import Weights


class View(Weights):
    """The weights of `source`, under other names or in another order: it holds and copies nothing.

    source   the weights as they are stored
    """

    source: Weights

    @property
    def directory(self) -> Path | None:
        return self.source.directory

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        """The source's configuration, empty where it has none."""
        return self.source.config

    @property
    def form(self) -> str:
        return self.source.form

    @property
    def notes(self) -> tuple[str, ...]:
        return self.source.notes

    def look_through(self) -> None:
        self.source.look_through()

    def require_unchanged(self) -> None:
        self.source.require_unchanged()


def original(weights: Weights) -> Weights:
    """The weights under a view, or under several; others as they are."""
    while isinstance(weights, View):
        weights = weights.source
    return weights
