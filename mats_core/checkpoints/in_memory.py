"""Modules and state dicts as weights: nothing is copied until a tensor is read.

A tensor is read where it lies, on the CPU or a GPU.  Parameters that share their memory are aliases
of one another, so that a merge gives both the same values.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..errors import InputError, listing
from ..system import Device
from .contents import DTYPE_NAMES, Contents
from .source import Shaped, Weights, all_finite
from .wrappers import inside


@final
@dataclass(frozen=True)
class InMemory(Weights):
    """The tensors of a module or a state dict, as they are when they are read.

    path       the name that sentences use: `base`, or the expert's name
    tensors    name → dtype and shape, sorted by name
    held       name → the caller's tensor, sorted by name
    module     the module that they were taken from, where it was one
    metadata   empty, for no file says anything
    """

    path: Path
    tensors: Mapping[str, Shaped]
    held: Mapping[str, Tensor]
    module: nn.Module | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    _known: dict[str, Contents] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, source: nn.Module | Mapping[str, Any], label: str) -> InMemory:
        """The weights of a module's `state_dict()`, or of a state dict, where they lie.

        Raises `InputError`, naming the entry, for what is no tensor, has no data (the meta device)
        or is of a kind of number that no file could hold.
        """
        module = source if isinstance(source, nn.Module) else None
        state = module.state_dict() if module is not None else source
        assert isinstance(state, Mapping)
        held = {name: _accepted(state[name], f"'{name}' of '{label}'") for name in sorted(state)}
        if not held:
            raise InputError(f"'{label}'", expected="named tensors", found="none")
        shapes = {name: Shaped(value.dtype, tuple(value.shape)) for name, value in held.items()}
        return cls(Path(label), shapes, held, module)

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        """The configuration that modules of transformers carry; empty for any other."""
        module = None if self.module is None else inside(self.module)
        to_dict = getattr(getattr(module, "config", None), "to_dict", None)
        content = to_dict() if callable(to_dict) else {}
        return dict(content) if isinstance(content, Mapping) else {}

    @functools.cached_property
    def aliases(self) -> Mapping[str, str]:
        """Names of one and the same memory → the first of them."""
        first: dict[object, str] = {}
        found: dict[str, str] = {}
        for name, value in self.held.items():
            if value.numel():
                leader = first.setdefault(_place(value), name)
                if leader != name:
                    found[name] = leader
        return found

    def read(
        self, name: str, *, dtype: torch.dtype | None = None, device: Device | None = None
    ) -> Tensor:
        """A copy of one tensor; `dtype` as it is and the CPU by default."""
        value = self.held[name].detach()
        # Moved first: a GPU would convert what the CPU then takes as twice the bytes.
        found = value.to(device or "cpu").to(dtype or value.dtype)
        same = found.data_ptr() == value.data_ptr() and found.device == value.device
        return (found.clone() if same else found).contiguous()

    def reads_parts(self, name: str) -> bool:
        return self.held[name].is_contiguous()

    def fill(self, name: str, start: int, value: Tensor) -> None:
        value.copy_(self.held[name].detach().reshape(-1)[start : start + len(value)])

    def digest(self, name: str) -> str:
        return self._contents(name).digest

    def finite(self, name: str) -> bool:
        return self._contents(name).finite

    def look_through(self) -> None:
        with ThreadPoolExecutor(torch.get_num_threads()) as threads:
            list(threads.map(self._contents, self.tensors))

    def _contents(self, name: str) -> Contents:
        name = self.aliases.get(name, name)
        if name not in self._known:
            self._known[name] = contents_of(self.read(name))
        return self._known[name]


def _accepted(value: Any, thing: str) -> Tensor:
    if not isinstance(value, Tensor):
        wanted, found = "a tensor", type(value).__name__
        remedy = "Pass a state dict of tensors alone, without optimiser state or extra state."
    elif is_lazy(value):
        wanted, found = "a tensor with data", "one of a lazy module that has seen no batch"
        remedy = "Call the module once on a batch; its shapes follow from that."
    elif value.is_meta:
        wanted, found = "a tensor with data", "one on the meta device"
        remedy = "Load the weights first; a module made on the meta device has none."
    elif value.layout != torch.strided or value.dtype not in DTYPE_NAMES:
        wanted = f"a dense tensor of {listing(sorted(DTYPE_NAMES.values()), 20)}"
        found, remedy = f"{value.dtype}, {value.layout}", "Dequantise or densify the model first."
    else:
        return value
    raise InputError(thing, expected=wanted, found=found, remedy=remedy)


def _place(value: Tensor) -> object:
    """What two names of one tensor have in common; a part of another tensor is none of it."""
    return value.device, value.data_ptr(), value.dtype, tuple(value.shape), value.stride()


def contents_of(value: Tensor) -> Contents:
    """As of the same tensor in a file: SHA-256 of dtype, shape and bytes."""
    digest = hashlib.sha256(f"{DTYPE_NAMES[value.dtype]}{list(value.shape)}".encode())
    flat = value.reshape(-1)
    if flat.numel():
        digest.update(flat.view(torch.uint8).numpy().data)
    return Contents(digest.hexdigest(), not value.is_floating_point() or all_finite(value))
