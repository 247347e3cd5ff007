"""The same inputs in two models, block by block: the merge's stream and an expert's.

x_s, x_e     the input of a stage's layers in the merge and in the expert, x̃ = [x; 1]
r_s, r_e     the streams that a layer's output is added to
‖x_s − x_e‖² / ‖x_e‖²   the feature error: how far the merge's features are from the expert's
S, X, R      E[x̃_s x̃_sᵀ], E[x̃_e x̃_sᵀ] and E[(r_e − r_s) x̃_sᵀ], means over the tokens

What lies in front of a block is all that is kept, in memory up to a budget and beyond it on disk;
a stage is reached by running its block again up to there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..models import MASK, by_example
from ..system import temporary_folder
from .stages import Block, Seen, Stage, first

Call = tuple[tuple[Any, ...], Mapping[str, Any]]  # a module's arguments


class _Stop(Exception):
    """All that was wanted is caught."""


class Room:
    """Where tensors are kept: in memory, and in files of `folder` beyond `budget` bytes."""

    def __init__(self, budget: float, folder: Path) -> None:
        self.left, self.folder, self.files = budget, folder, 0

    def hold(self, value: Tensor) -> Tensor:
        """A copy of the tensor, in a file where memory is used up."""
        self.left -= value.nbytes
        if self.left >= 0 or value.device.type != "cpu":
            return value.clone()
        file, self.files = self.folder / f"{self.files}.bin", self.files + 1
        kept = torch.from_file(str(file), shared=True, size=value.numel(), dtype=value.dtype)
        return kept.view(value.shape).copy_(value)


@contextlib.contextmanager
def room(budget: float) -> Iterator[Room]:
    """A place for tensors, whose files are removed at the end."""
    with temporary_folder("streams") as folder:
        yield Room(budget, folder)


class Stream:
    """One task's inputs on their way through one model.

    masks   of each batch: (sequences, tokens), which tokens are no padding; None: all of them
    sizes   of each batch: its sequences
    calls   of each batch: what the next block is called with

    notes   of each batch: what `entering` keeps about it

    `entering` is told size, mask and notes of a batch before a block is asked.
    """

    def __init__(
        self,
        model: nn.Module,
        block: str,
        batches: Sequence[Mapping[str, Tensor]],
        place: Room,
        entering: Callable[[int, Tensor | None, dict[Any, Any]], None] | None = None,
    ) -> None:
        self.model, self.module = model, model.get_submodule(block)
        self.entering = entering
        self.sizes = [len(next(iter(batch.values()))) for batch in batches]
        self.masks = [batch.get(MASK) for batch in batches]
        self.notes: list[dict[Any, Any]] = [{} for _ in batches]
        self.calls = [self._entering(dict(batch), place) for batch in batches]

    def _entering(self, batch: Mapping[str, Tensor], place: Room) -> Call:
        """What the first block is called with on one batch."""
        if self.module is self.model:
            return (), {name: place.hold(value) for name, value in batch.items()}
        found: list[Call] = []

        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
            found.append((args, kwargs))
            raise _Stop

        handle = self.module.register_forward_pre_hook(hook, with_kwargs=True)
        with _hooks([handle]), contextlib.suppress(_Stop):
            self.model(**batch)
        (args, kwargs) = found[0]
        return (place.hold(args[0]), *args[1:]), kwargs

    def caught(self, block: str, index: int, wanted: Sequence[Seen]) -> dict[Seen, Tensor]:
        """Tensors of one batch inside of a block, which is run up to the last of them."""
        found: dict[Seen, Tensor] = {}

        def note(seen: Seen, value: Any) -> None:
            found[seen] = first(value)  # type: ignore[assignment]
            if len(found) == len(wanted):
                raise _Stop

        handles = [_register(self.model.get_submodule(seen.module), seen, note) for seen in wanted]
        with _hooks(handles), contextlib.suppress(_Stop):
            self._run(block, index)
        return found

    def go_on(self, block: str) -> None:
        """Pass every batch through a block: its output is what the next one is called with."""
        for index, (args, _) in enumerate(self.calls):
            if args:
                with torch.no_grad():
                    output = first(self._run(block, index))
                assert output is not None
                args[0].copy_(output)

    def _run(self, block: str, index: int) -> Any:
        args, kwargs = self.calls[index]
        if self.entering is not None:
            self.entering(self.sizes[index], self.masks[index], self.notes[index])
        return self.model.get_submodule(block)(*args, **kwargs)


def _register(module: nn.Module, seen: Seen, note: Callable[[Seen, Any], None]) -> Any:
    if seen.side == "output":
        return module.register_forward_hook(lambda own, args, output: note(seen, output))

    def hook(own: nn.Module, args: Any, kwargs: Any) -> None:
        note(seen, args if first(args) is not None else kwargs)

    return module.register_forward_pre_hook(hook, with_kwargs=True)


@contextlib.contextmanager
def _hooks(handles: Sequence[Any]) -> Iterator[None]:
    try:
        with torch.no_grad():
            yield
    finally:
        for handle in handles:
            handle.remove()


# Moments ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Moments:
    """Second moments of the inputs of a stage in both streams (see the module's text).

    gram    S (d + 1, d + 1)
    cross   X (d + 1, d + 1)
    lost    R (d_out, d + 1) of the layers whose output is added to a stream, by their modules
    tokens  N
    error   the feature error of the inputs
    """

    gram: Tensor
    cross: Tensor
    lost: Mapping[str, Tensor]
    tokens: int
    error: float


def moments(
    merge: Stream,
    expert: Stream,
    block: Block,
    stage: Stage,
    note: Callable[[Tensor, Tensor | None], None] = lambda x, there: None,
) -> Moments:
    """The moments of one stage over all batches of a task.

    note   is told the merge's inputs of each batch, as `stage_inputs` gives them
    """
    wanted = [*dict.fromkeys([stage.source, *stage.streams.values()])]
    gram: Any = 0
    cross: Any = 0
    lost: dict[str, Any] = dict.fromkeys(stage.streams, 0)
    tokens, apart = 0, _Apart()
    for index, mask in enumerate(merge.masks):
        ours = merge.caught(block.module, index, wanted)
        theirs = expert.caught(block.module, index, wanted)
        note(*by_example(ours[stage.source], merge.sizes[index], mask))
        rows = [_rows(own[stage.source], mask) for own in (ours, theirs)]
        apart.add(*rows)
        x_s, x_e = map(_with_one, rows)
        gram, cross = gram + x_s.mT @ x_s, cross + x_e.mT @ x_s
        for layer, seen in stage.streams.items():
            lost[layer] = lost[layer] + _rows(theirs[seen] - ours[seen], mask).mT @ x_s
        tokens += len(x_s)
    each = {layer: value / tokens for layer, value in lost.items()}
    return Moments(gram / tokens, cross / tokens, each, tokens, apart.error)


def feature_error(merge: Stream, expert: Stream) -> float | None:
    """The feature error of what lies in front of the next block, over all tokens of a task; None
    where the whole model is one block."""
    apart, whole = _Apart(), True
    for mask, (ours, _), (theirs, _) in zip(merge.masks, merge.calls, expert.calls, strict=True):
        whole = whole and not ours
        if ours:
            apart.add(_rows(ours[0], mask), _rows(theirs[0], mask))
    return None if whole else apart.error


class _Apart:
    """Sums of ‖x_s − x_e‖² and of ‖x_e‖²."""

    def __init__(self) -> None:
        self.apart, self.length = 0.0, 0.0

    def add(self, ours: Tensor, theirs: Tensor) -> None:
        self.apart += float((ours - theirs).double().square().sum())
        self.length += float(theirs.double().square().sum())

    @property
    def error(self) -> float:
        return self.apart / self.length if self.length else 0.0


def _rows(values: Tensor, mask: Tensor | None) -> Tensor:
    """(tokens, d) of values (sequences, tokens, d) or (sequences · tokens, d), without padding."""
    rows = values.reshape(-1, values.shape[-1])
    if mask is not None and mask.numel() == len(rows):
        rows = rows[mask.reshape(-1).bool()]
    return rows


def _with_one(rows: Tensor) -> Tensor:
    return torch.nn.functional.pad(rows, (0, 1), value=1.0)


def stage_inputs(
    stream: Stream, block: Block, stage: Stage
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """The inputs (sequences, tokens, d) of a stage, batch by batch, and (sequences, tokens) of
    which tokens are no padding; None where all count."""
    for index, (size, mask) in enumerate(zip(stream.sizes, stream.masks, strict=True)):
        values = stream.caught(block.module, index, [stage.source])[stage.source]
        yield by_example(values, size, mask)
