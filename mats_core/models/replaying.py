"""What the modules of a block gave, so that a block that runs again runs only what is left of it.

A walk reaches every stage of a block by running the block up to there.  What ended before a stage
began takes the weights that are final already, so that it would give the same again: its output is
kept, and given in its place.  Only modules with a matrix of weights are worth that.  Of a module
that lies in another one whose output is kept nothing is.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Budget(Protocol):
    """Memory that outputs may take."""

    def take(self, nbytes: int) -> bool:
        """Whether there is room for so many bytes, which are taken then."""
        ...

    def give(self, nbytes: int) -> None:
        """Have back what was taken."""
        ...


@dataclass(frozen=True)
class Ahead:
    """What comes after a run of a block.

    later      modules that are looked at in later runs: what holds one of them has to run
    changing   layers whose weights change before the next run
    """

    later: Collection[str] = ()
    changing: Collection[str] = ()


@dataclass(frozen=True)
class _Output:
    """What a module gave, and how often each of its tensors had been written into by then."""

    value: Any
    versions: tuple[int, ...]
    nbytes: int

    @property
    def untouched(self) -> bool:
        found = tensors_in(self.value) or ()
        return not self.versions or tuple(t._version for t in found) == self.versions

    def given(self) -> Any:
        """The value, or a copy of it where nobody would notice that it is written into."""
        return self.value if self.versions else _copied(self.value)


class Outputs:
    """The outputs of a block's modules for one batch, within a budget."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._known: dict[str, _Output] = {}

    def forget(self) -> None:
        """Keep nothing any more: the block's input has changed."""
        for name in list(self._known):
            self._drop(name)

    def _drop(self, name: str) -> None:
        self._budget.give(self._known.pop(name).nbytes)

    @contextlib.contextmanager
    def used(
        self, model: nn.Module, block: str, watched: Collection[str], ahead: Ahead | None
    ) -> Iterator[None]:
        """While active, known outputs are given in place of a run of their module, and others are
        kept for the next time; with `ahead` None they are given alone.

        watched   modules that are looked at meanwhile: what holds one of them runs
        """
        modules = {name: m for name, m in _within(model, block) if _may_be_kept(m)}
        for name, output in list(self._known.items()):
            if name not in modules or not output.untouched:
                self._drop(name)
        with contextlib.ExitStack() as undo:
            for name in [one for one in self._known if not _holds_any(one, watched)]:
                undo.enter_context(_giving(modules[name], self._known[name].given()))
            if ahead is not None:
                self._note(model, modules, ahead, undo)
            yield

    def _note(
        self,
        model: nn.Module,
        modules: Mapping[str, nn.Module],
        ahead: Ahead,
        undo: contextlib.ExitStack,
    ) -> None:
        changed = [model.get_submodule(name) for name in ahead.changing]
        weights = {id(value) for module in changed for value in module.parameters()}
        begun: list[str] = []  # from the first of the layers that change nothing is final
        ended: set[str] = set()

        def ends(name: str) -> Callable[..., None]:
            def hook(module: nn.Module, args: Any, output: Any) -> None:
                if name in ended and name in self._known:
                    self._drop(name)  # called more than once: which output is which?
                elif not begun and name not in ended and name not in self._known:
                    self._keep(name, output)
                ended.add(name)

            return hook

        for module in changed:
            handle = module.register_forward_pre_hook(lambda own, args: begun.append(""))
            undo.callback(handle.remove)
        for name, module in modules.items():
            final = not any(id(value) in weights for value in module.parameters())
            if final and not _holds_any(name, ahead.later):
                undo.callback(module.register_forward_hook(ends(name)).remove)

    def _keep(self, name: str, value: Any) -> None:
        found = tensors_in(value)
        if found is None:
            return
        size = sum(tensor.untyped_storage().nbytes() for tensor in found)
        for inner in [one for one in self._known if _holds(name, one)]:
            self._drop(inner)
        counted = not any(tensor.is_inference() for tensor in found)
        if (counted or _may_be_copied(value)) and self._budget.take(size):
            versions = tuple(tensor._version for tensor in found) if counted else ()
            self._known[name] = _Output(value if counted else _copied(value), versions, size)


class Again:
    """Models that are asked the same one after the other, each with more of its final weights than
    the one before: what has them already runs once.

    changing   names of the tensors that the next model has differently; all others stay
    """

    def __init__(self, budget: Budget) -> None:
        self.changing: frozenset[str] = frozenset()
        self._budget = budget
        self._known: dict[tuple[int, bytes], Outputs] = {}

    def used(
        self, module: nn.Module, names: Mapping[str, str], inputs: Mapping[str, Tensor]
    ) -> contextlib.AbstractContextManager[None]:
        """A context in which the module is called with these inputs.

        names   the tensor's name for each parameter of the module
        """
        total = hashlib.sha256()
        for name, value in sorted(inputs.items()):
            total.update(f"{name} {value.dtype} {list(value.shape)}".encode())
            total.update(value.detach().cpu().contiguous().view(torch.uint8).numpy())
        key = id(module), total.digest()
        outputs = self._known.setdefault(key, Outputs(self._budget))
        owners = {own.rpartition(".")[0] for own, name in names.items() if name in self.changing}
        return outputs.used(module, "", (), Ahead((), owners) if owners else None)


def _may_be_copied(value: Any) -> bool:
    plain = value is None or isinstance(value, Tensor | int | float | str)
    return plain or (type(value) in (tuple, list) and all(map(_may_be_copied, value)))


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    return type(value)(map(_copied, value)) if isinstance(value, tuple | list) else value


def tensors_in(value: Any) -> list[Tensor] | None:
    """All tensors of what a module gave; None where that is of a kind that is not looked into."""
    if value is None or isinstance(value, int | float | str):
        return []
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    if not isinstance(value, tuple | list):
        return None
    parts = [tensors_in(part) for part in value]
    if any(part is None for part in parts):
        return None
    return [tensor for part in parts for tensor in part or ()]


@contextlib.contextmanager
def _giving(module: nn.Module, value: Any) -> Iterator[None]:
    """While active a module gives this value where it is called first; its hooks are called."""
    own, runs, calls = module.__dict__.get("forward"), module.forward, iter((value,))

    def forward(*args: Any, **kwargs: Any) -> Any:
        for known in calls:
            return known
        return runs(*args, **kwargs)

    module.__dict__["forward"] = forward
    try:
        yield
    finally:
        if own is None:
            del module.__dict__["forward"]
        else:
            module.__dict__["forward"] = own


def _within(model: nn.Module, block: str) -> Iterator[tuple[str, nn.Module]]:
    """The block and the modules in it, by their names in the model."""
    yield from model.get_submodule(block).named_modules(prefix=block)


def _may_be_kept(module: nn.Module) -> bool:
    """Whether a module has a matrix, and no hooks, which may change what it gives."""
    hooked = module._forward_hooks or module._forward_pre_hooks
    return not hooked and any(value.ndim > 1 for value in module.parameters())


def _holds(module: str, other: str) -> bool:
    """Whether another module lies in a module."""
    return module != other and (not module or other.startswith(f"{module}."))


def _holds_any(module: str, others: Collection[str]) -> bool:
    return any(_holds(module, other) for other in others)
