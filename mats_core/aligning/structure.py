"""Which axes of a model's weights hold units that can change places, seen on the model at work.

A module of the same class with random weights is asked, not a list of architectures: one output of
a linear layer is disturbed at a time, and which inputs of the next layer answer says what it is.

    one input each, and each of another                     units of an MLP (gated: two layers)
    all inputs of one block, many outputs the same          queries of a head
    the inputs of several heads' blocks                     keys of a group of heads
    one input in each head of a group                       values
    all inputs                                              nothing that could change places

Every symmetry is then tried by a random permutation in float64: one that changes what the model
answers is left out (dimensions of heads with rotary positions, units with a position of their own).
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..names import group_of
from ..statistics import Stage, blocks_of
from .layout import layout
from .symmetry import Order, Part, Placement, Symmetry, covered, put

FIRST = 3  # outputs by which a layer that decides everything is told
AT_ONCE = 128  # disturbed examples in a batch
MOST = 0.75  # of the inputs that answer to a layer that decides everything, units being off
PUSH = 4.0  # times the largest output: a unit that is off must answer, too
ANSWERS = 1e-6  # of the largest input, below which it has not answered: norms work in float32
SAME = 1e-5  # of the outputs: as much as norms that work in float32 may round
LETTERS = "GHVQ"

Call = Callable[[nn.Module, Mapping[str, Tensor]], Tensor]


@dataclass(frozen=True)
class Structure:
    """What can change places in a model.

    symmetries   of its parameters and buffers, by their names in the module
    transposed   weights that are stored as (d_in, d_out)
    left         sentences on what cannot be put into another order
    """

    symmetries: tuple[Symmetry, ...]
    transposed: frozenset[str]
    left: tuple[str, ...] = ()


class _Enough(Exception):
    """The layer that is listened to has been reached."""


def structure_of(
    model: nn.Module, inputs: Mapping[str, Tensor], call: Call, *, stream: bool = False
) -> Structure:
    """The structure of a module in float64 with random weights, which it may lose.

    inputs   a batch
    call     (module, inputs) → what it answers
    stream   whether the residual stream's dimensions are looked for, too
    """
    with torch.no_grad():
        one = {name: value[:1] for name, value in inputs.items()}
        layers = [n for n, m in model.named_modules() if _weight_axes(m) is not None]
        stages = [s for block in blocks_of(model, inputs, layers) for s in block.stages]
        found = list(_hidden(model, one, stages, call))
        kept, left = _tried(model, inputs, call, found)
        if stream:
            kept, left = _with_stream(model, inputs, call, kept, left)
    modules = dict(model.named_modules())
    turned = {f"{n}.weight" for n in layers if _weight_axes(modules[n]) == (1, 0)}
    return Structure(tuple(kept), frozenset(turned), tuple(left))


def _weight_axes(module: nn.Module | None) -> tuple[int, int] | None:
    """(axis of outputs, axis of inputs) of a linear layer's weight; None for any other module."""
    if isinstance(module, nn.Linear):
        return 0, 1
    return (1, 0) if type(module).__name__ == "Conv1D" and hasattr(module, "nf") else None


# Hidden units -------------------------------------------------------------------------------------


def _hidden(
    model: nn.Module, one: Mapping[str, Tensor], stages: Sequence[Stage], call: Call
) -> Iterator[Symmetry]:
    """The symmetry of the input of each stage that has one; like stages are asked once."""
    known: dict[Any, tuple[list[tuple[int, int]], Symmetry] | None] = {}
    modules = dict(model.named_modules())
    for number, stage in enumerate(stages):
        key = _kind(stages, number)
        if key not in known:
            answers = _answers(model, one, stages, number, call)
            said = [(stages[at].layers[slot], heard) for at, slot, heard in answers]
            symmetry = _symmetry(said, stage, modules)
            places = [(number - at, slot) for at, slot, _ in answers]
            known[key] = None if symmetry is None else (places, symmetry)
        found = known[key]
        if found is None:
            continue
        places, symmetry = found
        first = next(n for n, _ in enumerate(stages) if _kind(stages, n) == key)
        names = dict(
            zip(_names(stages, first, places), _names(stages, number, places), strict=True)
        )
        parts = {part.tensor: part.tensor.rpartition(".") for part in symmetry.parts}
        yield symmetry.renamed({n: f"{names[stem]}.{end}" for n, (stem, _, end) in parts.items()})


def _kind(stages: Sequence[Stage], number: int) -> tuple[Any, ...]:
    """What like stages have in common: their names but for numbers, and those just before."""
    before = stages[max(0, number - 2) : number + 1]
    return tuple(tuple(map(group_of, stage.layers)) for stage in before)


def _names(stages: Sequence[Stage], number: int, places: Sequence[tuple[int, int]]) -> list[str]:
    layers = [stages[number - back].layers[slot] for back, slot in places]
    return [*layers, *stages[number].layers]


def _answers(
    model: nn.Module, one: Mapping[str, Tensor], stages: Sequence[Stage], number: int, call: Call
) -> list[tuple[int, int, Tensor]]:
    """(stage, layer in it, (units, inputs) which inputs answer) of the layers before a stage that
    decide single inputs of it."""
    found: list[tuple[int, int, Tensor]] = []
    for at in reversed(range(max(0, number - 3), number)):
        own = []
        for slot, layer in enumerate(stages[at].layers):
            heard = _heard(model, one, layer, stages[number].layers[0], call)
            if heard is not None and bool(heard.any()):
                own.append((at, slot, heard))
        if own and all(bool(heard.all()) for _, _, heard in own):
            break  # it decides everything: what lies before does so, too
        found = own + found
    return found


def _heard(
    model: nn.Module, one: Mapping[str, Tensor], layer: str, listener: str, call: Call
) -> Tensor | None:
    """(units, inputs): which inputs of one layer answer to each output of another; None where
    outputs do not belong to examples."""
    modules = dict(model.named_modules())
    axes = _weight_axes(modules[layer])
    assert axes is not None
    weight = modules[layer].weight
    assert isinstance(weight, Tensor)
    size = weight.shape[axes[0]]
    rows: list[Tensor] = []
    # A first few tell a layer that decides everything, which need not be asked unit by unit.
    starts = [
        (0, min(FIRST, size)),
        *((n, min(AT_ONCE, size - n)) for n in range(0, size, AT_ONCE)),
    ]
    for attempt, (start, count) in enumerate(starts):
        taken = _taken(model, one, layer, listener, start, count, call)
        if taken is None:
            return None
        away = (taken[1:] - taken[:1]).abs().flatten(1, -2).amax(1) if taken.ndim > 2 else (
            taken[1:] - taken[:1]
        ).abs()  # fmt: skip
        rows.append(away > ANSWERS * float(taken.abs().max()))
        if attempt == 0 and float(rows.pop().double().mean()) > MOST:
            return torch.ones(size, taken.shape[-1], dtype=torch.bool)
    return torch.cat(rows)


def _taken(
    model: nn.Module,
    one: Mapping[str, Tensor],
    layer: str,
    listener: str,
    start: int,
    count: int,
    call: Call,
) -> Tensor | None:
    """What a layer takes: of an example as it is, and of copies with one output of another layer
    disturbed in each."""
    modules = dict(model.named_modules())
    kept: list[Tensor] = []

    def disturb(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        if output.shape[0] != count + 1:
            return output
        # Another push at each token: a softmax takes no notice of one that all keys have.
        generator = torch.Generator().manual_seed(0)
        size = torch.rand(output.shape[1:-1], generator=generator, dtype=output.dtype) + 0.5
        push = torch.zeros_like(output)
        for row in range(count):
            push[row + 1, ..., start + row] = PUSH * float(output.abs().max()) * size
        return output + push

    def listen(module: nn.Module, args: tuple[Any, ...]) -> None:
        kept.append(args[0].detach().clone())
        raise _Enough

    copies = {n: v.expand(count + 1, *v.shape[1:]).contiguous() for n, v in one.items()}
    with contextlib.ExitStack() as undo:
        undo.callback(modules[layer].register_forward_hook(disturb).remove)
        undo.callback(modules[listener].register_forward_pre_hook(listen).remove)
        with contextlib.suppress(_Enough):
            call(model, copies)
    return kept[0] if kept and kept[0].shape[0] == count + 1 else None


# What the answers say -----------------------------------------------------------------------------


def _symmetry(
    answers: Sequence[tuple[str, Tensor]], stage: Stage, modules: Mapping[str, nn.Module]
) -> Symmetry | None:
    """The symmetry that the answers show; None where no unit can change its place."""
    if not answers:
        return None
    found = layout(answers)
    if found is None:
        return None
    label, placed, inputs = found
    parts: list[Part] = []
    for layer, dims, index in placed:
        axes = _weight_axes(modules[layer])
        assert axes is not None
        parts.append(Part(f"{layer}.weight", axes[0], dims, index))
        if modules[layer].bias is not None:
            parts.append(Part(f"{layer}.bias", 0, dims, index))
    for layer in stage.layers:
        axes = _weight_axes(modules[layer])
        assert axes is not None
        parts.append(Part(f"{layer}.weight", axes[1], *inputs))
    sizes = Symmetry(label, tuple(parts), "").sizes
    return Symmetry(label, tuple(parts), "".join(k for k in LETTERS if sizes.get(k, 1) > 1))


# Trying -------------------------------------------------------------------------------------------


def _tried(
    model: nn.Module, inputs: Mapping[str, Tensor], call: Call, found: Sequence[Symmetry]
) -> tuple[list[Symmetry], list[str]]:
    """The symmetries with the letters that leave the model's answer as it is, and what is left."""
    alike: dict[tuple[str, ...], list[Symmetry]] = {}
    for symmetry in found:
        key = tuple(group_of(part.tensor) for part in symmetry.parts)
        alike.setdefault(key, []).append(symmetry)
    kept: list[Symmetry] = []
    left: list[str] = []
    for names, own in alike.items():
        free = [k for k in own[0].free if _leaves(model, inputs, call, own, k)]
        if not free:
            left.append(f"{own[0].label} ('{names[-1]}') keep their order: in another one the "
                        "model would answer otherwise")  # fmt: skip
            continue
        kept += [symmetry.restricted("".join(free)) for symmetry in own]
    return kept, left


def _leaves(
    model: nn.Module,
    inputs: Mapping[str, Tensor],
    call: Call,
    symmetries: Sequence[Symmetry],
    letters: str,
) -> bool:
    """Whether the model answers the same after a random permutation of some letters."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    before = call(model, inputs)
    placement = Placement({name: tuple(value.shape) for name, value in tensors.items()})
    generator = torch.Generator().manual_seed(0)
    for symmetry in symmetries:
        order = Order.drawn({"H": 1, "V": 1, "Q": 1, **symmetry.sizes}, letters, generator)
        placement.follow(symmetry, order)
    held = {name: tensors[name].detach().clone() for name in placement.moves}
    try:
        for name, axes in placement.moves.items():
            tensors[name].copy_(put(held[name], axes))
        after = call(model, inputs)
    finally:
        for name, value in held.items():
            tensors[name].copy_(value)
    return float((after - before).norm()) <= SAME * float(before.norm())


def _with_stream(
    model: nn.Module,
    inputs: Mapping[str, Tensor],
    call: Call,
    kept: list[Symmetry],
    left: list[str],
) -> tuple[list[Symmetry], list[str]]:
    """The same with the residual stream: every axis of its length that no hidden unit has."""
    saved = model.state_dict().keys()
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    hidden = covered(kept)
    # The last part of each is what a layer takes; what that layer gives goes into the stream.
    last = [one.parts[-1] for one in kept]
    sizes = Counter(tensors[part.tensor].shape[1 - part.axis] for part in last)
    if not sizes:
        return kept, left
    size = sizes.most_common(1)[0][0]
    parts = tuple(
        Part(name, axis, "G", torch.arange(size))
        for name, value in tensors.items()
        if name in saved and value.is_floating_point()
        for axis, length in enumerate(value.shape)
        if length == size and (name, axis) not in hidden
    )
    if not parts:  # layers in a row, without a stream that they add to
        return kept, left
    stream = Symmetry("dimensions of the residual stream", parts, "G")
    if _leaves(model, inputs, call, [stream], "G"):
        return [stream, *kept], left
    sentence = f"{stream.label} keep their order: in another one the model would answer otherwise"
    return kept, [*left, sentence]
