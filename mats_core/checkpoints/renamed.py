"""A checkpoint under other names: a view, which holds and copies nothing."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .files import Checkpoint


@dataclass(frozen=True)
class Renamed(Checkpoint):
    """A checkpoint under the names of its base: a view, which holds and copies nothing.

    `own_names`: the source's name of every tensor, by the name it has here.  Path, configuration
    and fingerprint stay the source's.
    """

    source: Checkpoint = field(kw_only=True)
    own_names: Mapping[str, str] = field(kw_only=True)

    @classmethod
    def of(cls, source: Checkpoint, own_names: Mapping[str, str]) -> Renamed:
        tensors = {name: source.tensors[own] for name, own in sorted(own_names.items())}
        return cls(source.path, tensors, source.metadata, source=source, own_names=own_names)

    @property
    def directory(self) -> Path | None:
        return self.source.directory

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        return self.source.config

    @property
    def notes(self) -> tuple[str, ...]:
        return self.source.notes

    @property
    def fingerprint(self) -> str:
        return self.source.fingerprint

    def own(self, name: str) -> str:
        return self.own_names.get(name, name)

    def read(
        self,
        name: str,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        return self.source.read(self.own_names[name], dtype=dtype, device=device)

    def reads_parts(self, name: str) -> bool:
        return self.source.reads_parts(self.own_names[name])

    def fill(self, name: str, start: int, value: Tensor) -> None:
        self.source.fill(self.own_names[name], start, value)

    def digest(self, name: str) -> str:
        return self.source.digest(self.own_names[name])
