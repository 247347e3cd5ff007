"""Experts in the order of another model's units, so that their weights can be merged with it."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import models
from ..checkpoints import (
    Checkpoint,
    CheckpointWriter,
    InMemory,
    Ordering,
    Permuted,
    Renamed,
    Tensors,
    Weights,
    config_files,
    hub,
    inside,
    original,
    staged_directory,
)
from ..errors import InputError, listing
from ..families import Expert, examine
from ..statistics import OF_PARAMETERS, Statistics
from ..system import recall
from .matching import match
from .structure import Structure, structure_of
from .symmetry import Symmetry

Source = nn.Module | Weights | str | Path
STRUCTURE = 1 << 20  # bytes that a remembered structure counts as
ORDER = 1 << 22  # bytes that a remembered order counts as


def align(
    model: Source,
    to: Source,
    *,
    stream: bool = True,
    inputs: Mapping[str, Tensor] | None = None,
) -> Permuted:
    """The weights of a model with its units in the order in which they are most like another's.

    model    a module, or a checkpoint (its path, hub id or weights); its function stays as it is
    to       the same of the model whose order is wanted, such as the base
    stream   whether the residual stream's dimensions are put in order, too, head and embeddings
             with them
    inputs   what a module that is none of transformers' is called with: keyword arguments, a batch

    Units of MLPs, heads of attention and their dimensions, and the residual stream, matched by
    their weights (Git Re-Basin, arXiv 2209.04836).  What is returned can be merged as the model
    would be; nothing is computed before the first tensor is read.  Raises `InputError` for
    adapters, for models whose class is not known, and then, when first read, for what cannot be
    put in order.
    """
    ours, theirs = _opened(model, "model"), _opened(to, "the model that it is aligned to")
    if ours.form:
        raise InputError(
            f"'{ours.path}', which is to be aligned",
            expected="a whole model",
            found=f"{ours.form}: the order of its units is its base's",
            remedy="Align the base that it was trained on, or leave 'align' out.",
        )
    mark = f"aligned to {theirs.fingerprint}, {'with' if stream else 'without'} the stream"
    return Permuted.of(ours, mark, partial(_ordering, ours, theirs, stream, inputs))


def _opened(source: Source, label: str) -> Weights:
    if isinstance(source, nn.Module):
        return InMemory.of(source, label)
    return Checkpoint.open(hub.locate(source)) if isinstance(source, str | Path) else source


def state_dict(aligned: Permuted) -> dict[str, Tensor]:
    """The tensors of aligned weights, by the names of their model."""
    return {name: aligned.read(name) for name in aligned.tensors}


def save(aligned: Permuted, folder: Path) -> None:
    """Write aligned weights into a folder that does not exist, with what lies beside the model's;
    whole or not at all."""
    specs = {name: (entry.dtype, entry.shape) for name, entry in aligned.tensors.items()}
    _ = aligned.ordering  # what cannot be aligned is told before anything is written
    with staged_directory(Path(folder)) as place:
        with CheckpointWriter(place, specs, metadata={"format": "pt"}) as writer:
            for name in specs:
                writer.add(name, aligned.read(name))
        if aligned.directory is not None:
            for file in config_files(aligned.directory):
                shutil.copyfile(file, place / file.name)


def aligned_statistics(statistics: Statistics, on: Weights) -> Statistics:
    """Statistics of a model before it was aligned, in the order that it has now; those of another
    model, or measured after it was aligned, as they are."""
    view = on
    while isinstance(view, Renamed):
        view = view.source
    said = statistics.metadata.get("fingerprint", "")
    if not isinstance(view, Permuted) or said not in ("", view.source.fingerprint):
        return statistics
    kept = {n: s for n, s in statistics.shapes.items() if not n.endswith(".block")}
    metadata = {**statistics.metadata, **({"fingerprint": view.fingerprint} if said else {})}
    return statistics.reordered(kept, metadata, partial(_in_order, view))


def _in_order(view: Permuted, name: str, value: Tensor) -> Tensor:
    """A statistic with its entries in the order of the aligned model's units."""
    stem, _, kind = name.rpartition(".")
    ordering = view.ordering
    if kind in OF_PARAMETERS:
        return ordering.put(stem, value)
    weight = f"{stem}.weight"
    turned = weight in ordering.transposed
    side = kind.startswith("input") == turned  # of the weight: outputs first, as a rule
    axis = 0 if side else 1
    entries = ordering.moves.get(weight, {}).get(axis)
    if entries is None or kind.endswith("_rest"):
        return value
    if kind.endswith("_gram"):
        return value[entries][:, entries]
    return value[..., entries]


# Finding ------------------------------------------------------------------------------------------


def _ordering(
    ours: Weights, theirs: Weights, stream: bool, inputs: Mapping[str, Tensor] | None
) -> Ordering:
    key = ("aligned", ours.fingerprint, theirs.fingerprint, stream)
    return recall(key, lambda: _found(ours, theirs, stream, inputs), lambda found: ORDER)


def _found(
    ours: Weights, theirs: Weights, stream: bool, inputs: Mapping[str, Tensor] | None
) -> Ordering:
    thing = f"'{ours.path}', which is to be aligned to '{theirs.path}'"
    structure = _structure(thing, ours, stream, inputs)
    if not structure.symmetries:
        raise InputError(
            thing,
            expected="units that can change their places",
            found="; ".join(structure.left) or "none: no linear layer feeds another one by itself",
            remedy="Leave 'align' out.",
        )
    # By the names of the other model, where they differ by a prefix or a version.
    (expert,) = examine(
        theirs, [Expert("model", ours)], contents=False, anatomy=models.anatomy
    ).experts
    names = {expert.own(name): name for name in expert.checkpoint.tensors}
    touched = {part.tensor for one in structure.symmetries for part in one.parts}
    model = {n: ours.read(n, dtype=torch.float32) for n in touched}
    to = {
        n: theirs.read(names[n], dtype=torch.float32)
        for n in touched
        if names.get(n, n) in theirs.tensors
    }
    placement = match(structure.symmetries, model, to)
    moved = _with_copies(placement.changed, ours, touched)
    units = sum(int((e != torch.arange(len(e))).sum()) for a in moved.values() for e in a.values())
    said = f"{len(moved)} of its {len(ours.tensors)} tensors" if units else "none of its tensors"
    note = f"'{ours.path}' was aligned to '{theirs.path}': units changed their places in {said}"
    return Ordering(moved, structure.transposed, (note, *structure.left))


def _with_copies(moved: dict[str, Any], ours: Weights, touched: set[str]) -> dict[str, Any]:
    """The moves, also of tensors that repeat another one, as an output tied to its embedding.

    touched   tensors that the model's class has a place for
    """
    found = dict(moved)
    for name, leader in ours.aliases.items():
        group = {leader, *(n for n, first in ours.aliases.items() if first == leader)}
        known = next((moved[n] for n in sorted(group) if n in moved), None)
        if known is not None:
            found[name] = found[leader] = known
    shapes = {ours.tensors[name].shape for name in moved}
    spare = [n for n, e in ours.tensors.items() if n not in touched and e.shape in shapes]
    by_digest = {ours.digest(name): name for name in moved} if spare else {}
    for name in spare:
        if (twin := by_digest.get(ours.digest(name))) is not None:
            found[name] = moved[twin]
    return found


def _structure(
    thing: str, weights: Weights, stream: bool, inputs: Mapping[str, Tensor] | None
) -> Structure:
    """What can change places in a model, by the names of its tensors."""
    source = original(weights)
    held = source.module if isinstance(source, InMemory) else None
    if held is not None:
        module, names = copy.deepcopy(inside(held)), {name: name for name in source.tensors}
    elif weights.directory is not None:
        shapes = models.shapes_of(weights.tensors)
        module, names = models.with_names(weights.directory, shapes, buffers=True)
    else:
        raise InputError(
            thing,
            expected="a module, or a folder with its config.json",
            found="tensors alone, which do not say how the model uses them",
            remedy="Name the folder that the model was saved in.",
        )
    if inputs is None:
        if weights.directory is None:
            raise InputError(
                thing,
                expected="inputs=, what the module is called with",
                found="none, and no folder that says what it reads",
                remedy='Pass a batch by the names of its arguments, as in inputs={"x": x}.',
            )
        inputs = models.probe(weights.directory, models.shapes_of(weights.tensors))
    module = _random(module)
    given = {n: v.double() if v.is_floating_point() else v for n, v in inputs.items()}
    found = structure_of(module, given, _answer, stream=stream)
    lost = [p.tensor for s in found.symmetries for p in s.parts if p.tensor not in names]
    if lost:
        raise InputError(
            thing,
            expected="a tensor for each parameter of its class",
            found=f"none for {listing(lost)}, which is put together from several",
            remedy="Save it again with save_pretrained of this version of transformers.",
        )
    own: tuple[Symmetry, ...] = tuple(one.renamed(names) for one in found.symmetries)
    turned = frozenset(names[name] for name in found.transposed if name in names)
    return Structure(own, turned, found.left)


def _random(module: nn.Module) -> nn.Module:
    """The module in float64 with random weights: in general position, no unit is off or twice."""
    generator = torch.Generator().manual_seed(0)
    module = module.double().eval()
    with torch.no_grad():
        for value in module.parameters():
            noise = torch.randn(value.shape, generator=generator, dtype=value.dtype)
            fan = max(1, value[0].numel()) if value.ndim > 1 else 0
            value.copy_(noise / fan**0.5 if fan else 1 + 0.2 * noise)
    return module


def _answer(module: nn.Module, inputs: Tensors) -> Tensor:
    """What a model answers, as one tensor."""
    found: Any = module(**inputs)
    if isinstance(found, Tensor):
        return found
    logits = getattr(found, "logits", None)
    return logits if isinstance(logits, Tensor) else found[0]
