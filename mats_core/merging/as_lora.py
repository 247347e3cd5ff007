"""A finished merge as one LoRA on its base: factored layer by layer, and put in its place.

The merge itself runs as any other, into its unfinished folder or into memory, in the precision of
its arithmetic; what is tested, and what the output holds in the end, is the base with the adapter.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..adapters import CONFIG, WEIGHTS, Lora, Places, factored, names_in_model
from ..adapters import most_bytes as bytes_of
from ..checkpoints import Checkpoint, hub
from ..errors import InputError, listing
from ..families import Family
from ..linear import Factors
from ..recipes import IN_MEMORY, LoraOutput, Plan, Recipe
from ..system import Event, nbytes
from .asking import has_tasks
from .later import Later, Piece, checksum_of
from .workspace import Place

Read = Callable[[str], Tensor]
FRESH = ".adapter"  # the folder of an adapter that has not its names yet


def require(plan: Plan) -> None:
    """Raise `InputError` for a merge that cannot be written as one LoRA."""
    recipe = plan.recipe
    if recipe.lora is None:
        return
    others = {
        "'routed'": recipe.routed is not None,
        "'keep_sums'": recipe.keep_sums,
        "'output_dtype'": recipe.output_dtype is not None,
    }
    beside = [name for name, there in others.items() if there]
    if beside:
        raise InputError(
            "'lora'",
            expected="a merge that is written as one adapter, in float32",
            found=listing(beside),
            remedy=f"Leave out {listing(beside)}, or write the whole checkpoint.",
        )
    if plan.inputs.vectors is not None:
        raise InputError(
            "'lora'",
            expected="experts whose updates are sums",
            found="(IA)³ vectors, which multiply the base's weights",
            remedy="Leave it out: the merged vectors are written as an adapter anyway.",
        )


def most_bytes(plan: Plan) -> int:
    """Bytes of the adapter at most, from shapes alone; 0 of a whole checkpoint."""
    lora, family = plan.recipe.lora, plan.inputs.family
    return bytes_of(family, family.base.tensors, lora.rank) if lora else 0


def made(
    plan: Plan, place: Place, encoder: Mapping[str, Tensor]
) -> Generator[Event, None, tuple[Lora | None, Mapping[str, Tensor]]]:
    """The merge in a place as one adapter, and the tensors that it makes of the base where they are
    needed; of a merge that stays a checkpoint no adapter, and no event.

    encoder   the merged tensors where they are in memory; else they are read from the folder
    """
    if plan.recipe.lora is None:
        return None, encoder
    names = place.sink.specs
    read = encoder.__getitem__ if encoder else Checkpoint.open(place.folder or Path()).read
    adapter = yield from factoring(plan, names, read, place.later)
    needed = place.folder is None or has_tasks(plan)
    return adapter, {name: adapter.merged(name) for name in names} if needed else {}


def factoring(
    plan: Plan, names: Mapping[str, Any], read: Read, later: Later | None = None
) -> Generator[Event, None, Lora]:
    """The adapter of a merge, an event before each matrix.

    names   of the merged tensors
    read    one of them, by the base's name
    later   where the factors are kept that are made

    Raises `InputError` where the merge is the base, or has no matrix that differs from it.
    """
    assert plan.recipe.lora is not None
    on = {"dtype": plan.dtype, "device": plan.device, "later": later or Later()}
    return (yield from factoring_of(plan.inputs.family, plan.recipe.lora, names, read, **on))


def factoring_of(
    family: Family,
    wanted: LoraOutput,
    names: Mapping[str, Any],
    read: Read,
    *,
    dtype: torch.dtype,
    device: str,
    later: Later | None = None,
) -> Generator[Event, None, Lora]:
    """`factoring` without a plan."""
    base, later = family.base, later or Later()
    energies: dict[str, float] = {}

    def changed(name: str) -> bool:
        own, held = read(name), base.read(name)
        if not own.dtype.is_floating_point:
            return False
        change = own.to(dtype) - held.to(device=own.device, dtype=dtype)
        energies[name] = float(change.square().sum(dtype=torch.float64))
        return energies[name] > 0

    called = {n: own for n, own in names_in_model(base).items() if n in base.tensors}
    yield Event(text="Looking for what the merge has changed")
    places = Places.of(family, called, lambda name: name in names and changed(name))
    factors: dict[str, Any] = {}

    def factor(name: str, own: Tensor) -> Factors:
        bounds = {"rank": wanted.rank, "energy": wanted.energy, "dtype": dtype, "device": device}
        return factored(family, name, own, **bounds)

    for index, name in enumerate(places.modules):
        text = f"Factoring matrix {index + 1} of {len(places.modules)}"
        yield Event(fraction=index / len(places.modules), text=text)
        found = _kept(later, name, read(name), factor)
        if found.rank:
            factors[name] = found
    if not factors:
        raise InputError(
            "'lora'",
            expected="a merge in which a matrix differs from the base's",
            found="none beyond rounding" if any(energies.values()) else "the base itself",
        )
    kept = {
        name: (read(name) if name in names else base.read(name)).to("cpu", base.tensors[name].dtype)
        for name in (*places.biases, *places.whole)
    }
    lost = {name: energies[name] for name in places.nowhere}
    moved = sum(energies.get(name, 0.0) for name in kept)
    return Lora(family, factors, kept, places, lost, moved)


def _kept(
    later: Later, name: str, merged: Tensor, factor: Callable[[str, Tensor], Factors]
) -> Factors:
    """The factors of a merged matrix, made unless they are kept."""
    key = f"factors {name} {checksum_of(merged):08x}" if later.keeps else ""

    def made() -> Piece:
        found = factor(name, merged)
        factors = {"left": found.left, "right": found.right}
        return Piece(factors, {"lost": found.lost, "energy": found.energy})

    piece = later.piece(key, made)
    return Factors(**piece.tensors, **piece.told)


def told(wanted: LoraOutput, lora: Lora) -> dict[str, Any]:
    """What a report says of the adapter."""
    whole = sum(entry.nbytes for entry in lora.family.base.tensors.values())
    size = nbytes(lora.tensors)
    return {
        **wanted.model_dump(),
        "bytes": size,
        "size": size / whole,
        "lost": lora.lost_share,
        "layers": {
            name: {"rank": one.rank, "lost": one.lost / one.energy}
            for name, one in lora.factors.items()
        },
        "saved": sorted(lora.kept),
        "nowhere": sorted(lora.lost),
    }


def notes_on(lora: Lora) -> tuple[str, ...]:
    """What users should know about the adapter, a sentence each."""
    found: list[str] = []
    if lora.places.saved:
        found.append(
            f"{len(lora.places.saved)} modules that no low rank can hold are saved whole in the "
            f"adapter (modules_to_save): {listing(lora.places.saved, 6)}"
        )
    if lora.places.biases:
        found.append(
            f"{len(lora.places.biases)} biases are saved whole in the adapter (bias: all); peft "
            "does not take them back where an adapter is switched off"
        )
    if lora.lost:
        found.append(
            "an adapter has no room for parameters that stand beside a stack of blocks: as in the "
            f"base are {listing(sorted(lora.lost), 6)}"
        )
    tied = sorted({source for source in lora.family.tied_to.values() if source in lora.factors})
    if tied:
        found.append(
            f"the output layer is tied to {listing(tied)}: the adapter changes the input side "
            "alone until it is merged into the base"
        )
    return tuple(found)


def finish(plan: Plan, lora: Lora, folder: Path | None) -> dict[str, Any]:
    """What a report says of the adapter, which lies in an unfinished output now, where there is
    one."""
    if folder is not None:
        put(plan, lora, folder)
    assert plan.recipe.lora is not None
    return told(plan.recipe.lora, lora)


def called(recipe: Recipe) -> str:
    """What the base is called in the adapter: its hub id, or the name of its folder."""
    reference = recipe.base
    if reference.startswith(IN_MEMORY) or hub.is_id(reference, recipe.folder):
        return reference.removeprefix(IN_MEMORY)
    return Path(recipe.path(reference)).resolve().name


def clear(folder: Path) -> None:
    """Remove the adapter that a merge which was stopped at its end has left in its folder."""
    shutil.rmtree(folder / FRESH, ignore_errors=True)
    for name in (CONFIG, WEIGHTS):
        (folder / name).unlink(missing_ok=True)


def put(plan: Plan, lora: Lora, folder: Path) -> None:
    """Write the adapter in the place of the weights of an unfinished output.

    It takes its names last: a merge that is stopped before has its weights, and one that is stopped
    later merges its layers again, and has its factors.
    """
    fresh = folder / FRESH
    fresh.mkdir()
    lora.write(fresh, called(plan.recipe))
    for file in folder.glob("[!.]*.safetensors*"):
        file.unlink()
    shutil.rmtree(folder / "adapter", ignore_errors=True)
    for file in list(fresh.iterdir()):
        os.replace(file, folder / file.name)
    fresh.rmdir()
