"""The same inputs in two models, block by block: the merge's stream and an expert's.

x_s, x_e     the input of a stage's layers in the merge and in the expert, x̃ = [x; 1]
r_s, r_e     the streams that a layer's output is added to
‖x_s − x_e‖² / ‖x_e‖²   the feature error: how far the merge's features are from the expert's
S, X, R      E[x̃_s x̃_sᵀ], E[x̃_e x̃_sᵀ] and E[(r_e − r_s) x̃_sᵀ], means over the tokens
Y            E[(y_e + r_e − r_s) x̃_sᵀ] with the expert's output y_e: W̃_t X + R at once

What lies in front of a block is kept, in memory up to a budget and beyond it on disk; a stage is
reached by running its block again up to there.  What is left of the budget holds the outputs of
those parts of a block that need not run again (`models.Outputs`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..models import MASK, Ahead, Outputs, by_example
from ..system import temporary_folder
from .gram import gram_sum
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

    def take(self, nbytes: int) -> bool:
        """Whether there is memory for so many bytes, which are taken then."""
        if self.left < nbytes:
            return False
        self.left -= nbytes
        return True

    def give(self, nbytes: int) -> None:
        """Have memory back that was taken."""
        self.left += nbytes


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
        self._outputs = [Outputs(place) for _ in batches]

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

    def caught(
        self,
        block: str,
        index: int,
        wanted: Sequence[Seen],
        ahead: Ahead | None = None,
        *,
        whole: bool = False,
    ) -> dict[Seen, Tensor]:
        """Tensors of one batch inside of a block, which is run up to the last of them.

        ahead   what comes after: given it, what is final of the block need not run again until
                `go_on`; nothing else about the model may change meanwhile
        whole   to run the block to its end, which `go_on` then need not do
        """
        found: dict[Seen, Tensor] = {}

        def note(seen: Seen, value: Any) -> None:
            found[seen] = first(value)  # type: ignore[assignment]
            if len(found) == len(wanted) and not whole:
                raise _Stop

        with contextlib.ExitStack() as undo:
            if ahead is not None:
                watched = [seen.module for seen in wanted]
                undo.enter_context(self._outputs[index].used(self.model, block, watched, ahead))
            handles = [
                _register(self.model.get_submodule(seen.module), seen, note) for seen in wanted
            ]
            with _hooks(handles), contextlib.suppress(_Stop):
                self._run(block, index)
        return found

    def go_on(self, block: str) -> None:
        """Pass every batch through a block: its output is what the next one is called with."""
        for index, (args, _) in enumerate(self.calls):
            known = self._outputs[index]
            if args:
                with torch.no_grad(), known.used(self.model, block, (), None):
                    output = first(self._run(block, index))
                assert output is not None
                args[0].copy_(output)
            known.forget()

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
    cross   X (d + 1, d + 1); None where every layer of the stage was asked for Y
    lost    R (d_out, d + 1) of the layers whose output is added to a stream, by their modules
    tokens  N
    error   the feature error of the inputs
    wanted  Y (d_out, d + 1) in the place of R, of the layers that were asked for it
    """

    gram: Tensor
    cross: Tensor | None
    lost: Mapping[str, Tensor]
    tokens: int
    error: float
    wanted: Mapping[str, Tensor] = field(default_factory=dict)


def moments(
    merge: Stream,
    expert: Stream,
    block: Block,
    stage: Stage,
    note: Callable[[Tensor, Tensor | None], None] = lambda x, there: None,
    at_once: Collection[str] = (),
) -> Moments:
    """The moments of one stage over all batches of a task.

    note      is told the merge's inputs of each batch, as `stage_inputs` gives them
    at_once   layers with a stream of which Y is wanted and neither X nor R
    """
    streams = stage.streams
    wanted = [*dict.fromkeys([stage.source, *streams.values()])]
    given = {layer: Seen(layer, "output") for layer in at_once}
    later = _after(block, stage)
    left = [layer for each in later for layer in each.layers]
    seen_later = [*left, *(one.module for each in later for one in each.streams.values())]
    ahead = Ahead(seen_later, [*stage.layers, *left])
    # What is noted of a routed model is noted as it runs.
    final = ahead if merge.entering is None else None
    gram, lost = _Product(), {layer: _Product() for layer in streams}
    cross = None if set(stage.layers) <= given.keys() else _Product()
    tokens, apart = 0, _Apart()
    for index, mask in enumerate(merge.masks):
        ours = merge.caught(block.module, index, wanted, final)
        theirs = expert.caught(
            block.module, index, [*wanted, *given.values()], Ahead(seen_later), whole=not later
        )
        note(*by_example(ours[stage.source], merge.sizes[index], mask))
        x_s, x_e = (_rows(own[stage.source], mask) for own in (ours, theirs))
        apart.add(x_s, x_e)
        total = x_s.sum(0)
        gram.add_gram(x_s, total)
        if cross is not None:
            cross.add(x_e, x_s, total)
        for layer, seen in streams.items():
            less = _rows(theirs[seen] - ours[seen], mask)
            if layer in given:
                less = less + _rows(theirs[given[layer]], mask)
            lost[layer].add(less, x_s, total)
        tokens += len(x_s)
    each = {layer: product.mean(tokens) for layer, product in lost.items()}
    return Moments(
        gram.mean(tokens, square=True),
        None if cross is None else cross.mean(tokens, square=True),
        {layer: value for layer, value in each.items() if layer not in given},
        tokens,
        apart.error,
        {layer: value for layer, value in each.items() if layer in given},
    )


def _after(block: Block, stage: Stage) -> Sequence[Stage]:
    """The later stages of a block; of a stage some layers may have been left out."""
    place = next(n for n, one in enumerate(block.stages) if stage.layers[0] in one.layers)
    return block.stages[place + 1 :]


class _Product:
    """The sum of `y x̃ᵀ` over tokens, x̃ = [x; 1], batch by batch.

    The column of ones is not multiplied with: it makes sums.
    """

    def __init__(self) -> None:
        self.product: Any = 0
        self.left: Any = 0
        self.right: Any = 0

    def add_gram(self, x: Tensor, total: Tensor) -> None:
        """Add the tokens x to the sum of `x̃ x̃ᵀ`; `total`: their sum."""
        self.product = self.product + gram_sum(x)
        self.left, self.right = self.left + total, self.right + total

    def add(self, y: Tensor, x: Tensor, total: Tensor) -> None:
        """Add the tokens y and x; `total`: the sum of x."""
        self.product = self.product + y.mT @ x
        self.left, self.right = self.left + y.sum(0), self.right + total

    def mean(self, tokens: int, *, square: bool = False) -> Tensor:
        """The mean over so many tokens, of `ỹ x̃ᵀ` with `square`."""
        found = torch.cat([self.product, self.left[:, None]], 1) / tokens
        if not square:
            return found
        last = torch.cat([self.right / tokens, found.new_ones(1)])
        return torch.cat([found, last[None, :]])


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
        self.apart += float((ours - theirs).norm()) ** 2
        self.length += float(theirs.norm()) ** 2

    @property
    def error(self) -> float:
        return self.apart / self.length if self.length else 0.0


def _rows(values: Tensor, mask: Tensor | None) -> Tensor:
    """(tokens, d) of values (sequences, tokens, d) or (sequences · tokens, d), without padding."""
    rows = values.reshape(-1, values.shape[-1])
    if mask is not None and mask.numel() == len(rows):
        rows = rows[mask.reshape(-1).bool()]
    return rows


def stage_inputs(
    stream: Stream, block: Block, stage: Stage
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """The inputs (sequences, tokens, d) of a stage, batch by batch, and (sequences, tokens) of
    which tokens are no padding; None where all count."""
    for index, (size, mask) in enumerate(zip(stream.sizes, stream.masks, strict=True)):
        values = stream.caught(block.module, index, [stage.source])[stage.source]
        yield by_example(values, size, mask)
