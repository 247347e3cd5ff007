"""Weights under other names: a view, which holds and copies nothing."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from ..system import Device
from .files import Checkpoint
from .folder import STEMS
from .source import Entry, Weights
from .view import View, original


@final
@dataclass(frozen=True)
class Renamed(View):
    """The weights of `source` under the names of its base: a view, which holds and copies nothing.

    path        that of `source`
    tensors     name in the base → dtype and shape, sorted by name
    metadata    that of `source`
    source      the weights under the names of their file
    own_names   name in the base → name in `source`
    copies      names of `own_names` that the source does not have: each repeats another tensor

    Configuration and fingerprint stay the source's.
    """

    path: Path
    tensors: Mapping[str, Entry]
    metadata: Mapping[str, str]
    source: Weights
    own_names: Mapping[str, str]
    copies: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls, source: Weights, own_names: Mapping[str, str], copies: Mapping[str, str] | None = None
    ) -> Renamed:
        """The tensors that `own_names` names, under the names of the base; `copies`: a further
        name → the tensor of the source that it repeats."""
        copies = copies or {}
        names = {**own_names, **copies}
        tensors = {name: source.tensors[own] for name, own in sorted(names.items())}
        return cls(source.path, tensors, source.metadata, source, names, frozenset(copies))

    @functools.cached_property
    def aliases(self) -> Mapping[str, str]:
        """Names of one and the same memory → the first of them, as the base calls them."""
        ours = {own: name for name, own in self.own_names.items() if name not in self.copies}
        known = self.source.aliases.items()
        return {ours[a]: ours[b] for a, b in known if a in ours and b in ours}

    @property
    def fingerprint(self) -> str:
        return self.source.fingerprint

    def own(self, name: str) -> str:
        return name if name in self.copies else self.source.own(self.own_names.get(name, name))

    def read(
        self, name: str, *, dtype: torch.dtype | None = None, device: Device | None = None
    ) -> Tensor:
        return self.source.read(self.own_names[name], dtype=dtype, device=device)

    def reads_parts(self, name: str) -> bool:
        return self.source.reads_parts(self.own_names[name])

    def fill(self, name: str, start: int, value: Tensor) -> None:
        self.source.fill(self.own_names[name], start, value)

    def digest(self, name: str) -> str:
        return self.source.digest(self.own_names[name])

    def digests(self) -> dict[str, str]:
        each = self.source.digests()
        return {name: each[self.own_names[name]] for name in self.tensors}

    def finite(self, name: str) -> bool:
        return self.source.finite(self.own_names[name])


def stem_of(weights: Weights) -> str:
    """What the files of some weights are called, without number and suffix; `model` in memory."""
    source = original(weights)
    return source.stem if isinstance(source, Checkpoint) else STEMS[0]
