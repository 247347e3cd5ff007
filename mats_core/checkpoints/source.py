"""What the library asks of named tensors, wherever they lie: the protocol `Weights`.

A class that follows it says where its tensors are (`tensors`, `read`, `fill`, `reads_parts`,
`digest`) and what is known about the model (`path`, `metadata`, `directory`, `config`); all else
follows from these.  The classes are final: files (`files.py`), modules and state dicts
(`in_memory.py`), other names (`renamed.py`), adapters over a base (`mats_core.adapters`).
"""

from __future__ import annotations

import hashlib
import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from ..system import Device
from .wrappers import unwrapped

Tensors = Mapping[str, Tensor]
PIECE = 1 << 20  # elements of a large tensor that are held at once where its parts are independent


class Entry(Protocol):
    """Kind and size of one tensor, wherever it lies.

    dtype   type of the tensor's numbers
    shape   length of every dimension
    """

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self.elements * self.dtype.itemsize


@dataclass(frozen=True)
class Shaped(Entry):
    """Kind and size of a tensor that lies in no file.

    dtype   type of the tensor's numbers
    shape   length of every dimension
    """

    dtype: torch.dtype
    shape: tuple[int, ...]


@runtime_checkable
class Weights(Protocol):
    """Named tensors of one model, read one at a time.

    path       the file or directory, or the name that sentences and errors use
    tensors    name → dtype and shape, sorted by name
    metadata   what the files say about themselves; empty where there are none
    """

    path: Path
    tensors: Mapping[str, Entry]
    metadata: Mapping[str, str]

    @abstractmethod
    def read(
        self, name: str, *, dtype: torch.dtype | None = None, device: Device | None = None
    ) -> Tensor:
        """One tensor, freshly allocated; `dtype` as stored and the CPU by default."""
        ...

    @abstractmethod
    def fill(self, name: str, start: int, value: Tensor) -> None:
        """Read the elements from `start` on into all of `value`, flat and on the CPU."""
        ...

    @abstractmethod
    def reads_parts(self, name: str) -> bool:
        """Whether `part` can read this tensor; False for one that must be computed whole."""
        ...

    @abstractmethod
    def digest(self, name: str) -> str:
        """SHA-256 of one tensor's dtype, shape and bytes."""
        ...

    @property
    def directory(self) -> Path | None:
        """The directory with `config.json`, or None where there is none."""
        return None

    @property
    def config(self) -> dict[str, Any]:
        """The model's configuration as in `config.json`, empty where there is none."""
        return {}

    # What follows from these --------------------------------------------------------------------

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names in `id2label`, in the order of the ids; empty where there are none."""
        labels = self.config.get("id2label") or {}
        return tuple(str(labels[key]) for key in sorted(labels, key=int))

    @property
    def form(self) -> str:
        """What the tensors are, where they are not simply a model: an adapter of some kind."""
        return ""

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks on how the tensors were opened, for the report."""
        return ()

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(entry.nbytes for entry in self.tensors.values())

    @property
    def aliases(self) -> Mapping[str, str]:
        """Names of one and the same memory → the first of them; files have none."""
        return {}

    def part(
        self,
        name: str,
        start: int,
        stop: int,
        *,
        dtype: torch.dtype | None = None,
        device: Device | None = None,
    ) -> Tensor:
        """Elements `start` to `stop` of a tensor, flat, in row-major order."""
        value = torch.empty(stop - start, dtype=dtype or self.tensors[name].dtype)
        self.fill(name, start, value)
        return value.to(device=device)

    def parts(self, name: str, size: int = PIECE) -> Iterator[Tensor]:
        """A tensor piece by piece, flat and as stored; in one piece where it cannot be read so."""
        if not self.reads_parts(name):
            yield self.read(name)
            return
        elements = self.tensors[name].elements
        for start in range(0, elements, size):
            yield self.part(name, start, min(start + size, elements))

    def digests(self) -> dict[str, str]:
        """The digest of every tensor by its name."""
        return {name: self.digest(name) for name in self.tensors}

    def own(self, name: str) -> str:
        """The name of a tensor in its source; only a renamed view's differs."""
        return name

    def finite(self, name: str) -> bool:
        """Whether all numbers of a tensor are finite."""
        floating = self.tensors[name].dtype.is_floating_point
        return not floating or all_finite(self.read(name))

    def look_through(self) -> None:
        """Compute digests and look for NaN and infinity at once, where one reading gives both."""

    def require_unchanged(self) -> None:
        """Raise `InputError` where a file is not the one any more that was opened."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 over names and contents: the same for any sharding, file order, metadata, and in
        the wrappers of training."""
        self.look_through()
        total, each = hashlib.sha256(), self.digests()
        for plain, name in sorted((p, n) for n, p in unwrapped(self.tensors).items()):
            total.update(f"{plain}\0{each[name]}\n".encode())
        return total.hexdigest()


def all_finite(value: Tensor) -> bool:
    """Whether no number of a tensor is NaN or infinite.

    By the extremes, which carry both: a thirtieth of the time of `isfinite` on every element.
    """
    if not value.numel():
        return True
    return all(math.isfinite(float(extreme)) for extreme in value.aminmax())
