"""Tensors on a device that works apart from this processor, and numbers read from there.

A GPU works off a queue.  To read a number from it waits until the queue is empty, and nothing is
queued meanwhile: an iteration that reads seven numbers runs at the speed of the reads.  Scalars
therefore stay on the device, and `host` reads many of them at once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass
class Reads:
    """How often `host` and `copied` have read, and whether from tensors that are taken as apart."""

    apart: bool
    count: int = 0


_AS_APART: ContextVar[Reads | None] = ContextVar(
    "reads, and whether the CPU is taken for a GPU", default=None
)


def is_apart(value: Tensor) -> bool:
    """Whether reading a number of `value` waits for a queue: on every device but the CPU."""
    reads = _AS_APART.get()
    return value.device.type != "cpu" or (reads is not None and reads.apart)


@contextlib.contextmanager
def as_apart(apart: bool = True) -> Iterator[Reads]:
    """Inside of the block tensors of the CPU take the ways that those of a GPU take, and what
    `host` reads is counted: how these ways are tested, and their reads counted, without a GPU.
    With `apart` false they take their usual ways, and are counted all the same."""
    reads = Reads(apart)
    before = _AS_APART.set(reads)
    try:
        yield reads
    finally:
        _AS_APART.reset(before)


def host(rows: Sequence[Sequence[Tensor]]) -> list[list[float]]:
    """The numbers of 0-dimensional tensors of one dtype, in rows of equal lengths, in one read."""
    if (reads := _AS_APART.get()) is not None:
        reads.count += 1
    flat = torch.stack([value for row in rows for value in row])
    return flat.reshape(len(rows), -1).tolist()


def copied(value: Tensor) -> Tensor:
    """A tensor on this processor, in one read where it is not there yet."""
    if (reads := _AS_APART.get()) is not None:
        reads.count += 1
    return value.cpu()


def as_numbers(mask: Tensor, reference: Tensor) -> Tensor:
    """A mask of this processor as ones and zeros, with the dtype and on the device of `reference`.

    One bit an entry travels to the device, not one number.
    """
    if not is_apart(reference):
        return mask.to(reference.dtype)
    bits = torch.from_numpy(np.packbits(mask.reshape(-1).numpy(), bitorder="little"))
    places = torch.arange(8, dtype=torch.uint8, device=reference.device)
    each = (bits.to(reference.device)[:, None] >> places) & 1
    return each.reshape(-1)[: mask.numel()].reshape(mask.shape).to(reference.dtype)
