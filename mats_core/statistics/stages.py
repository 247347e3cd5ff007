"""The order in which a model's linear layers work, seen on one batch and not by architecture.

    block      a part whose output is the next one's input: what lies between two blocks is all that
               a walk through the model has to keep
    stage      linear layers of a block with one input, such as query, key and value
    stream     the tensor that a layer's output is added to: its residual stream

Blocks are the children of one container that are called in a row, each on what the one before gave,
with everything else the same; where there is no such row, the whole model is one block.  A stream
is found by value: some later tensor less the layer's output equals an earlier tensor.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .capture import is_conv1d, is_plain

CLOSE = 1e-4  # of the norms of what was added: a sum's rounding in float32
AHEAD = 40  # tensors of a layer's size after it among which the sum is looked for


@dataclass(frozen=True)
class Seen:
    """A tensor by the module that takes or gives it.

    module   name of the module
    side     its first input, or its output
    """

    module: str
    side: Literal["input", "output"]


@dataclass(frozen=True)
class Stage:
    """Linear layers with one input.

    layers    names of their modules
    streams   a layer → the stream that its output is added to, of those that have one
    """

    layers: tuple[str, ...]
    streams: Mapping[str, Seen] = field(default_factory=dict)

    @property
    def source(self) -> Seen:
        """The input of all its layers."""
        return Seen(self.layers[0], "input")


@dataclass(frozen=True)
class Block:
    """A part of a model with its stages in their order; the module "" is the whole model."""

    module: str
    stages: tuple[Stage, ...]


def first(values: Any) -> Tensor | None:
    """The first floating-point tensor of a call's arguments, or of what it returned."""
    if isinstance(values, Tensor):
        return values if values.is_floating_point() else None
    if isinstance(values, Mapping):
        values = list(values.values())
    if isinstance(values, tuple | list):
        return next((v for v in values if isinstance(v, Tensor) and v.is_floating_point()), None)
    return None


@dataclass(frozen=True)
class _Call:
    """A module's call: when it began and ended, what it took and gave."""

    begun: int
    ended: int
    taken: Tensor | None
    given: Tensor | None
    beside: Any


def traced(model: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, list[_Call]]:
    """Every module's calls on one batch, by its name; tensors are copies."""
    calls: dict[str, list[_Call]] = {}
    clock = iter(range(1 << 30))

    def before(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            taken = first(args) if first(args) is not None else first(kwargs)
            kept = None if taken is None else taken.detach().clone()
            beside = (args[1:] if first(args) is not None else args, kwargs)
            calls.setdefault(name, []).append(_Call(next(clock), -1, kept, None, beside))

        return hook

    def after(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            given = first(output)
            kept = None if given is None else given.detach().clone()
            index = max(i for i, call in enumerate(calls[name]) if call.ended < 0)
            call = calls[name][index]
            calls[name][index] = _Call(call.begun, next(clock), call.taken, kept, call.beside)

        return hook

    with contextlib.ExitStack() as undo, torch.no_grad():
        for name, module in model.named_modules():
            hook = module.register_forward_pre_hook(before(name), with_kwargs=True)
            undo.callback(hook.remove)
            undo.callback(module.register_forward_hook(after(name)).remove)
        model(**inputs)
    return calls


def blocks_of(
    model: nn.Module, inputs: Mapping[str, Tensor], wanted: Collection[str]
) -> tuple[Block, ...]:
    """The blocks of a model with the stages of its `wanted` linear layers, in their order.

    inputs   a batch, of which one or two examples are enough
    wanted   names of modules; those that are no linear layer, are called more than once, or lie
             outside of the blocks have no stage
    """
    calls = traced(model, inputs)
    modules = dict(model.named_modules())
    layers = [
        name for name in wanted if _is_linear(modules.get(name)) and len(calls.get(name, ())) == 1
    ]
    layers.sort(key=lambda name: calls[name][0].begun)
    rows = [row for row in _rows(model, calls) if _inside(row, layers)]
    row = max(rows, key=lambda one: len(_inside(one, layers)), default=("",))
    return tuple(Block(name, _stages(name, _inside([name], layers), calls)) for name in row)


def _is_linear(module: nn.Module | None) -> bool:
    if module is None:
        return False
    return (isinstance(module, nn.Linear) and is_plain(module)) or is_conv1d(module)


def _inside(row: Sequence[str], layers: Sequence[str]) -> list[str]:
    return [layer for layer in layers if any(_holds(name, layer) for name in row)]


def _holds(block: str, module: str) -> bool:
    return not block or module == block or module.startswith(f"{block}.")


def _rows(model: nn.Module, calls: Mapping[str, list[_Call]]) -> Iterator[tuple[str, ...]]:
    """Containers whose children are called in a row, each on what the one before gave."""
    for name, module in model.named_modules():
        if not isinstance(module, nn.ModuleList | nn.Sequential) or len(module) < 2:
            continue
        names = tuple(f"{name}.{child}" if name else child for child, _ in module.named_children())
        if any(len(calls.get(child, ())) != 1 for child in names):
            continue
        row = [calls[child][0] for child in names]
        if all(_follows(one, two) for one, two in itertools.pairwise(row)):
            yield names


def _follows(one: _Call, two: _Call) -> bool:
    handed_on = one.given is not None and two.taken is not None
    return handed_on and _same(one.given, two.taken) and _same(one.beside, two.beside)


def _same(one: Any, two: Any) -> bool:
    """Whether two arguments are equal, but for the first tensor, which goes through the blocks."""
    if isinstance(one, Tensor) and isinstance(two, Tensor):
        return one is two or (one.shape == two.shape and bool(torch.equal(one, two)))
    if isinstance(one, tuple | list) and isinstance(two, tuple | list):
        return len(one) == len(two) and all(map(_same, one, two))
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        return one.keys() == two.keys() and all(_same(one[key], two[key]) for key in one)
    return one is two or (type(one) is type(two) and one == two)


# Stages -------------------------------------------------------------------------------------------


def _stages(
    block: str, layers: Sequence[str], calls: Mapping[str, list[_Call]]
) -> tuple[Stage, ...]:
    """The layers of a block in groups with one input, each with its stream where it has one."""
    tensors = sorted(_tensors(block, calls), key=lambda one: one[0])
    groups: list[list[str]] = []
    for layer in layers:
        before = calls[groups[-1][0]][0].taken if groups else None
        taken = calls[layer][0].taken
        if before is not None and taken is not None and _same(before, taken):
            groups[-1].append(layer)
        else:
            groups.append([layer])
    found = []
    for group in groups:
        streams = {layer: _stream(calls[layer][0], tensors) for layer in group}
        found.append(Stage(tuple(group), {k: seen for k, seen in streams.items() if seen}))
    return tuple(found)


def _tensors(block: str, calls: Mapping[str, list[_Call]]) -> Iterator[tuple[int, Tensor, Seen]]:
    """(when, value, which) of all that the modules of a block take and give."""
    for name, made in calls.items():
        if not _holds(block, name) or len(made) != 1:
            continue
        if made[0].taken is not None:
            yield made[0].begun, made[0].taken, Seen(name, "input")
        if made[0].given is not None:
            yield made[0].ended, made[0].given, Seen(name, "output")


def _stream(layer: _Call, tensors: Sequence[tuple[int, Tensor, Seen]]) -> Seen | None:
    """The tensor that a layer's output is added to, by value."""
    out = layer.given
    if out is None:
        return None
    same = [one for one in tensors if one[1].shape == out.shape]
    earlier = [one for one in same if one[0] < layer.begun]
    for _, total, _ in [one for one in same if one[0] > layer.ended][:AHEAD]:
        rest = total - out
        limit = CLOSE * float(total.norm() + out.norm())
        if float(rest.norm()) <= limit:  # passed on as it is, as by dropout
            continue
        for _, stream, seen in earlier:
            if float((rest - stream).norm()) <= limit:
                return seen
    return None
