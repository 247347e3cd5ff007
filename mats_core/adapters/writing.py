"""One LoRA from a merge: which tensor goes where in an adapter that PEFT opens on the base.

    a matrix or a table       a pair of factors, `B A` of its update, of a rank of its own
    a bias                    whole (`bias: all`)
    a norm, a convolution, a bare parameter     with its module, whole (`modules_to_save`)

What stands beside a stack of blocks in one module could only be saved with all of these: it is left
out, and said to be lost.  α is the rank of every module, so that B A is the update as it is.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import models
from ..checkpoints import Shaped, Weights, unwrapped, write_tensors
from ..families import Family
from ..linear import Factors, rounding_of, two_factors
from ..names import is_table, module_of
from .parts import PREFIX
from .settings import CONFIG, WEIGHTS

KEPT = torch.float32  # dtype of the factors, as peft keeps them


@dataclass(frozen=True)
class Places:
    """Where an adapter has room for what a merge has changed, by the base's names of the tensors.

    modules   a tensor that gets factors → its module, as the model calls it
    biases    a bias that is replaced → its key in the adapter's file
    whole     a tensor that is saved with its module → its key in the adapter's file
    saved     the modules of these
    nowhere   tensors that changed and have no room
    """

    modules: Mapping[str, str]
    biases: Mapping[str, str]
    whole: Mapping[str, str]
    saved: tuple[str, ...]
    nowhere: tuple[str, ...]

    @classmethod
    def of(
        cls, family: Family, called: Mapping[str, str], changed: Callable[[str], bool]
    ) -> Places:
        """called: the base's name of every tensor → the model's; changed: whether it was moved."""
        moved = [n for n in called if family.roles[n] not in ("head", "copied") and changed(n)]
        matrices = [name for name in moved if takes_factors(family, name)]
        others = [name for name in moved if name not in matrices]
        biases = [name for name in others if is_bias(name)]
        parents = {name: module_of(called[name]) for name in others if name not in biases}
        held = {name: _too_much(module, called.values()) for name, module in parents.items()}
        nowhere = tuple(name for name, too_much in held.items() if too_much)
        saved = {module for name, module in parents.items() if not held[name]}
        modules = {module_of(name) for name in called.values()}
        saved |= {one for one in modules if any(map(one.endswith, saved))}  # peft's rule
        saved |= {one for one in modules if any(f".{one}.".find(f".{m}.") >= 0 for m in saved)}
        whole = {n: PREFIX + own for n, own in called.items() if _within(own, saved)}
        adapted = {n: module_of(called[n]) for n in matrices if n not in whole}
        inner = set(adapted.values())
        keys = {n: _bias_key(called[n], inner) for n in biases if n not in whole}
        top = sorted(one for one in saved if not _within(one, saved - {one}))
        return cls(adapted, keys, whole, tuple(top), nowhere)


def takes_factors(family: Family, name: str) -> bool:
    """Whether a tensor is the weight of a linear layer or of an embedding."""
    own = family.base.tensors[name]
    return len(own.shape) == 2 and name.endswith(".weight") and own.dtype.is_floating_point


def is_bias(name: str) -> bool:
    """Whether peft takes a tensor for a bias."""
    return "bias" in name.rpartition(".")[2]


def _too_much(module: str, names: Iterable[str]) -> bool:
    """Whether a module is the whole model, has numbered parts, or has one that ends in its name,
    which peft would wrap as well."""
    inside = [name.removeprefix(f"{module}.") for name in names if name.startswith(f"{module}.")]
    parts = [part for name in inside for part in name.split(".")[:-1]]
    return not module or any(part.isdigit() or part.endswith(module) for part in parts)


def _within(name: str, modules: Iterable[str]) -> bool:
    return any(name.startswith(f"{module}.") for module in modules)


def _bias_key(name: str, adapted: set[str]) -> str:
    module, _, last = name.rpartition(".")
    return f"{PREFIX}{module}.base_layer.{last}" if module in adapted else PREFIX + name


def names_in_model(base: Weights) -> dict[str, str]:
    """The base's name of every tensor → that of the model's own parameter, which PEFT goes by.

    A file's names may be older than the class, or lack what stands before the encoder's.
    """
    plain = unwrapped(map(base.own, base.tensors))
    anatomy = models.anatomy(base)
    found = {name: plain[base.own(name)] for name in base.tensors}
    if anatomy is None:
        return found
    held: dict[str, str] = {}
    for name, own in found.items():
        own = anatomy.renamed(own)
        held[name] = next((form for form in anatomy.forms(own) if form in anatomy.whole), own)
    return held


@dataclass(frozen=True)
class Lora:
    """An adapter that holds a merge, or what a LoRA can hold of it.

    family    of the merge
    factors   the base's name of a tensor → its update in factors, B first
    kept      biases and the tensors of modules that are saved whole, in the base's dtypes
    places    where all of these go
    lost      a tensor that changed and has no room → ‖Δ‖_F²
    moved     ‖Δ‖_F² of what is kept whole
    """

    family: Family
    factors: Mapping[str, Factors]
    kept: Mapping[str, Tensor]
    places: Places
    lost: Mapping[str, float] = field(default_factory=dict)
    moved: float = 0.0

    @property
    def lost_share(self) -> float:
        """What is not in the adapter, as a share of ‖Δ‖_F² over all tensors."""
        of_factors = self.factors.values()
        lost = sum(one.lost for one in of_factors) + sum(self.lost.values())
        total = sum(one.energy for one in of_factors) + sum(self.lost.values()) + self.moved
        return lost / total if total else 0.0

    @property
    def ranks(self) -> dict[str, int]:
        """The rank of every module that is adapted, by the model's name of it."""
        return {self.places.modules[name]: one.rank for name, one in self.factors.items()}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The adapter's file."""
        found: dict[str, Tensor] = {}
        for name, one in self.factors.items():
            before = PREFIX + self.places.modules[name]
            keys = ("lora_embedding_A", "lora_embedding_B")
            if not is_table(name):
                keys = ("lora_A.weight", "lora_B.weight")
            found |= {f"{before}.{keys[0]}": one.right, f"{before}.{keys[1]}": one.left}
        places = {**self.places.biases, **self.places.whole}
        return found | {places[name]: value for name, value in self.kept.items()}

    def merged(self, name: str) -> Tensor:
        """What the base's tensor becomes with the adapter on it."""
        if name in self.kept:
            return self.kept[name]
        value = self.family.base.read(name)
        if name not in self.factors:
            return value
        one, wide = self.factors[name], value.to(KEPT)
        b, a = one.left, one.right
        turned = _turned(self.family, name)
        return wide.addmm_(*((a.mT, b.mT) if turned else (b, a))).to(value.dtype)

    def config(self, base: str) -> dict[str, Any]:
        """`adapter_config.json`; `base`: what the base is called in it."""
        ranks = self.ranks
        usual = Counter(ranks.values()).most_common(1)[0][0]
        own = {f"^{re.escape(name)}": rank for name, rank in ranks.items() if rank != usual}
        architecture = (self.family.base.config.get("architectures") or [None])[0]
        parent = {"base_model_class": architecture, "parent_library": "transformers"}
        transposed = any(name in self.family.transposed for name in self.factors)
        return {
            "peft_type": "LORA",
            "auto_mapping": parent if architecture else None,
            "base_model_name_or_path": base,
            "bias": "all" if self.places.biases else "none",
            "fan_in_fan_out": transposed,
            "inference_mode": True,
            "lora_alpha": usual,
            "lora_dropout": 0.0,
            "modules_to_save": list(self.places.saved) or None,
            "r": usual,
            "rank_pattern": own,
            "alpha_pattern": own,
            "target_modules": self._targets(ranks),
            "task_type": None,
        }

    def _targets(self, adapted: Mapping[str, int]) -> list[str] | str:
        """The adapted modules; as a pattern where a name of one is the end of another's."""
        others = set(map(module_of, names_in_model(self.family.base).values())) - adapted.keys()
        if any(other.endswith(f".{name}") for other in others for name in adapted):
            return "|".join(map(re.escape, sorted(adapted)))
        return sorted(adapted)

    def write(self, folder: Path, base: str) -> None:
        """Write the two files of the adapter into a folder."""
        write_tensors(folder / WEIGHTS, self.tensors, {"format": "pt"})
        text = json.dumps(self.config(base), indent=2) + "\n"
        (folder / CONFIG).write_text(text, "utf-8")


def _turned(family: Family, name: str) -> bool:
    """Whether a tensor's file holds the transpose of what peft calls B A."""
    return is_table(name) or name in family.transposed


def factored(
    family: Family,
    name: str,
    merged: Tensor,
    *,
    rank: int | None,
    energy: float,
    dtype: torch.dtype,
    device: str,
) -> Factors:
    """The update of one matrix in factors (see `two_factors`).

    merged   its merged weight, in the base's layout
    dtype    of the arithmetic
    """
    base = family.base.read(name, dtype=dtype, device=device)
    held = merged.to(device=device, dtype=dtype)
    rounding = rounding_of(base, torch.promote_types(merged.dtype, KEPT))
    update = held.sub_(base) if held is not merged else held - base
    found = two_factors(update.mT if _turned(family, name) else update, rank, energy, rounding)
    small = {"left": found.left.to("cpu", KEPT), "right": found.right.to("cpu", KEPT)}
    return found._replace(**small)


def most_bytes(family: Family, names: Iterable[str], rank: int | None) -> int:
    """Bytes of an adapter of these tensors at most, from shapes alone: factors of this rank, or of
    the whole one, and everything that is no matrix whole."""
    total = 0
    for name in names:
        own = family.base.tensors[name]
        if family.roles[name] in ("head", "copied"):
            continue
        if takes_factors(family, name):
            own_rank = min(own.shape) if rank is None else min(rank, *own.shape)
            total += own_rank * sum(own.shape) * KEPT.itemsize
        else:
            total += Shaped(own.dtype, own.shape).nbytes
    return total
