"""Where merged tensors go, and what lies beside them in an output directory."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from .. import models
from ..adapters import VectorFamily
from ..checkpoints import (
    Checkpoint,
    CheckpointWriter,
    Spec,
    TensorFileWriter,
    all_finite,
    stem_of,
)
from ..errors import InputError
from ..families import Family
from ..names import is_table
from ..recipes import LayerReport, Plan, Unit

SPOOL = ".spool.safetensors"
REWRITTEN = ".rewritten"


class Sink(Protocol):
    """Where merged tensors go; `specs` are the dtype and shape of each."""

    specs: Mapping[str, Spec]

    def add(self, name: str, value: Tensor, start: int | None = None) -> None:
        """A tensor, or its elements from `start` on, flat."""
        ...


class MemorySink:
    """Keeps the merged tensors, in the output's dtypes."""

    def __init__(self, specs: Mapping[str, Spec]) -> None:
        self.specs, self.tensors = specs, dict[str, Tensor]()

    def add(self, name: str, value: Tensor, start: int | None = None) -> None:
        dtype, shape = self.specs[name]
        if start is None:
            self.tensors[name] = value.to(device="cpu", dtype=dtype)
            return
        if not start:
            self.tensors[name] = torch.empty(shape, dtype=dtype)
        self.tensors[name].view(-1)[start : start + len(value)] = value.to("cpu")


def output_specs(plan: Plan) -> dict[str, Spec]:
    """Name, dtype and shape of every tensor of the merged checkpoint.

    A tensor that the configuration ties to another is written once, with that one.
    """
    family = plan.inputs.family
    written_once = _written_once(family)
    override = getattr(torch, plan.recipe.output_dtype) if plan.recipe.output_dtype else None
    # An update is taken of the merge before it is rounded: bfloat16 would hide a small one.
    override = plan.dtype if plan.recipe.lora else override
    return {
        name: ((override or own.dtype) if own.dtype.is_floating_point else own.dtype, own.shape)
        for name, own in family.base.tensors.items()
        if name not in written_once
    }


def _written_once(family: Family) -> set[str]:
    """Tensors that the loaded model ties to its embedding by itself."""
    follow = {name for name, source in family.tied_to.items() if is_table(source)}
    return follow if follow and models.ties_word_embeddings(family.base) else set()


class Spool:
    """Values between the two passes: on disk when the output is, else in memory.

    `folder`: the output's, unfinished; `done`: tensors that an earlier, killed merge left there.
    """

    def __init__(
        self, plan: Plan, names: Sequence[str], folder: Path | None, done: Collection[str] = ()
    ) -> None:
        self.plan, self.tensors = plan, dict[str, Tensor]()
        self.file = folder / SPOOL if folder is not None and names else None
        self.writer: TensorFileWriter | None = None
        self.checkpoint: Checkpoint | None = None
        if self.file is not None:
            family = plan.inputs.family
            specs = {name: (plan.dtype, family.shape(name)) for name in names}
            self.writer = TensorFileWriter(self.file, specs, done=done)

    def add(self, name: str, value: Tensor) -> dict[str, int]:
        """Keep a value; returns its checksum, by its name, where it lies on disk."""
        if self.writer is None:
            self.tensors[name] = value
            return {}
        self.writer.add(name, value)
        return {name: self.writer.checksum(name)}

    def read(self, name: str) -> Tensor:
        if self.file is None:
            return self.tensors.pop(name)
        if self.checkpoint is None:
            self.sync()
            self.checkpoint = Checkpoint.open(self.file)
        return self.checkpoint.read(name, device=self.plan.device)

    def sync(self) -> None:
        if self.writer is not None:
            self.writer.sync()

    def discard(self) -> None:
        """Let go of the file, which others still need."""
        if self.writer is not None:
            self.writer.discard()

    def remove(self) -> None:
        if self.writer is not None and self.file is not None:
            self.writer.discard()
            self.file.unlink()


def emit(plan: Plan, unit: Unit, value: Tensor, sink: Sink, start: int | None = None) -> list[str]:
    """Check what comes out and hand it on, folded biases unfolded and ties followed.

    `start`: the value is a flat piece, from this element on.  Returns the names written.
    """
    family = plan.inputs.family
    parts = {unit.name: value}
    if unit.bias is not None:
        parts = {unit.name: value[:, :-1], unit.bias: value[:, -1]}
    if start is None:
        parts[unit.name] = family.oriented(unit.name, parts[unit.name])
    found: list[str] = []
    for name, part in parts.items():
        names = [name, *(n for n, source in family.tied_to.items() if source == name)]
        for written in filter(sink.specs.__contains__, names):
            _store(plan, written, part, sink, start)
            found.append(written)
    return found


def _store(plan: Plan, name: str, value: Tensor, sink: Sink, start: int | None = None) -> None:
    stored = value.to(sink.specs[name][0])
    if not all_finite(stored):
        raise InputError(
            f"merged tensor '{name}'",
            expected="finite numbers",
            found=f"NaN or infinity in {stored.dtype} after '{plan.method.name}'",
            remedy="Raise the damping, use dtype float64, or a wider output_dtype.",
        )
    sink.add(name, stored, start)


def rewrite(plan: Plan, folder: Path, tensors: Mapping[str, Tensor], *, shard_bytes: int) -> None:
    """Write these tensors in the place of those that an unfinished output holds."""
    fresh, specs = folder / REWRITTEN, output_specs(plan)
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    stem = stem_of(plan.inputs.family.base)
    with CheckpointWriter(fresh, specs, shard_bytes=shard_bytes, stem=stem) as writer:
        for name in specs:
            _store(plan, name, tensors[name], writer)
    for file in list(fresh.iterdir()):
        os.replace(file, folder / file.name)
    fresh.rmdir()


def fold_vectors(
    plan: Plan, vectors: VectorFamily, merged: Mapping[str, Tensor], sink: Sink
) -> list[LayerReport]:
    """The base with merged (IA)³ vectors multiplied in, tensor by tensor."""
    family = plan.inputs.family
    reports: list[LayerReport] = []
    for name in sink.specs:
        role = family.roles[name]
        if role in ("head", "copied"):
            continue
        _store(plan, name, vectors.fold(name, merged, plan.dtype), sink)
        if role == "tied" or name in merged:  # reported with the others
            continue
        told = ("copied", "", "as in the base")
        if scaling := vectors.scaling(name):
            told = ("merged", "ia3", f"the base's, times {' and '.join(scaling)}")
        reports.append(LayerReport(name, *told))
    return reports


def take_over(plan: Plan, sink: Sink) -> list[LayerReport]:
    """What is not merged: heads stay the base's, other tensors are copied, ties are followed."""
    family = plan.inputs.family
    reports: list[LayerReport] = []
    for name, role in family.roles.items():
        if role in ("matrix", "vector"):
            continue
        if role in ("head", "copied") and name in family.base.tensors:
            sink.add(name, family.base.read(name, dtype=sink.specs[name][0]))
        status = {
            "head": "one a task, kept apart",
            "copied": "as in the base",
            "tied": f"follows {family.tied_to.get(name)}",
        }[role]
        reports.append(LayerReport(name, role, status=status))
    return reports
