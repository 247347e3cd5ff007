"""Weights whose units stand in another order: a view, which puts each tensor in order as it is
read."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from ..system import Device
from .in_memory import contents_of
from .source import Entry, Weights
from .view import View

Moves = Mapping[str, Mapping[int, Tensor]]  # tensor → axis → which of its entries stands where


@dataclass(frozen=True)
class Ordering:
    """Where the units of a model are put, and what is to be said of it.

    moves        tensor → axis → for each place the entry that comes there; others stay
    transposed   weights of linear layers that are stored as (d_in, d_out)
    notes        sentences for the report
    """

    moves: Moves
    transposed: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()

    def put(self, name: str, value: Tensor) -> Tensor:
        """A tensor with its entries where they belong."""
        for axis, order in self.moves.get(name, {}).items():
            value = value.index_select(axis, order.to(value.device))
        return value


@final
@dataclass(frozen=True)
class Permuted(View):
    """The weights of `source` in the order that makes its units those of another model.

    path      that of `source`
    tensors   names, dtypes and shapes of `source`
    metadata  that of `source`
    source    the weights as they are stored
    mark      what tells this order from others, for the fingerprint
    """

    path: Path
    tensors: Mapping[str, Entry]
    metadata: Mapping[str, str]
    source: Weights
    mark: str
    _find: Callable[[], Ordering] = field(repr=False, compare=False)

    @classmethod
    def of(cls, source: Weights, mark: str, find: Callable[[], Ordering]) -> Permuted:
        """The weights in an order that `find` gives when the first tensor is read."""
        return cls(source.path, source.tensors, source.metadata, source, mark, find)

    @functools.cached_property
    def ordering(self) -> Ordering:
        """Where the units are put; found on first use."""
        return self._find()

    @property
    def notes(self) -> tuple[str, ...]:
        """The source's, and once the order was found what there is to say of it."""
        known = "ordering" in self.__dict__
        return (*self.source.notes, *(self.ordering.notes if known else ()))

    @property
    def aliases(self) -> Mapping[str, str]:
        """Names of one and the same memory → the first of them."""
        return self.source.aliases

    @functools.cached_property
    def fingerprint(self) -> str:
        """That of the source and the order's mark."""
        return hashlib.sha256(f"{self.source.fingerprint}\0{self.mark}".encode()).hexdigest()

    def own(self, name: str) -> str:
        return self.source.own(name)

    def read(
        self, name: str, *, dtype: torch.dtype | None = None, device: Device | None = None
    ) -> Tensor:
        return self.ordering.put(name, self.source.read(name, dtype=dtype, device=device))

    def reads_parts(self, name: str) -> bool:
        return not self.ordering.moves.get(name) and self.source.reads_parts(name)

    def fill(self, name: str, start: int, value: Tensor) -> None:
        self.source.fill(name, start, value)

    def digest(self, name: str) -> str:
        """SHA-256 of the tensor in its order."""
        if not self.ordering.moves.get(name):
            return self.source.digest(name)
        return contents_of(self.read(name)).digest

    def finite(self, name: str) -> bool:
        return self.source.finite(name)
