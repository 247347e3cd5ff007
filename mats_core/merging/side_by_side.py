"""Models beside each other in memory, into which weights are put while inputs pass through them.

What a calibration and the making of branches have in common: a module of the merge and one that
becomes each expert in turn, and the streams of an expert's inputs in both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from .. import models
from ..checkpoints import Tensors
from ..errors import InputError, listing
from ..families import Expert, Family
from ..statistics import Stream
from ..system import available_memory

SHARE = 0.25  # of the available memory, for what lies in front of a block
FREE = 4e9  # bytes, where it is not known


def streams_budget() -> float:
    """Bytes of what lies in front of a block that stay in memory; the rest goes to disk."""
    return SHARE * (available_memory() or FREE)


@dataclass(frozen=True)
class Pair:
    """The two streams of one expert's inputs."""

    expert: int
    merge: Stream
    own: Stream


def base_names(expert: Expert, tensors: Tensors, model: nn.Module) -> dict[str, str]:
    """The base's name for each name in the expert's module that was built of these tensors.

    Raises `InputError` where a parameter is put together from several tensors.
    """
    directory = expert.checkpoint.directory
    own = models.parameter_names(directory, tensors, buffers=True)
    back = {expert.own(name): name for name in expert.checkpoint.tensors}
    _require_whole(model, own, str(directory))
    return {name: back[theirs] for name, theirs in own.items() if theirs in back}


def put_into(
    model: nn.Module, names: Mapping[str, str], family: Family, expert: Expert, block: str
) -> None:
    """Put an expert's weights, but for its head, into a block of a model ("" for all of it).

    names   the base's name for each name in the model
    """
    held, checkpoint = values_of(model), expert.checkpoint
    for name, base in names.items():
        mine = not block or name.startswith(f"{block}.")
        if mine and family.roles.get(base) != "head" and base in checkpoint.tensors:
            held[name].copy_(checkpoint.read(base))


def apart(expert: Expert, tensors: Mapping[str, Tensor], device: str) -> nn.Module:
    """A model whose weights are its alone: one that is built may hold the tensors that it is given,
    and both models change."""
    copies = {name: value.clone() for name, value in tensors.items()}
    model = models.build(expert.checkpoint.directory, copies, device=device)
    config: Any = model.config
    config.use_cache = False  # of keys and values: a block that runs again would add to it
    return model


def values_of(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, to be written into."""
    return {name: value.data for name, value in (*model.named_parameters(), *model.named_buffers())}


def few(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The first two sequences of a batch, for a look at the model."""
    return {name: value[:2] for name, value in batch.items()}


def _require_whole(model: nn.Module, names: Mapping[str, str], thing: str) -> None:
    lost = [name for name, _ in model.named_parameters() if name not in names]
    if lost:
        raise InputError(
            f"model '{thing}'",
            expected="a tensor of the checkpoint for every parameter",
            found=f"none for {listing(lost, 3)}, which are put together from several",
            remedy="Choose another method: this one puts layers into the model one by one.",
        )
