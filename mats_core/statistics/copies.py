"""A parameter (1, ...) that all examples share, as one copy an example: its gradients are apart.

Class tokens and tables of places are added to the batch or put beside its tokens.  Only such uses
are followed; a parameter that is used in any other way (a kernel, a factor of a product) is left as
it is, and has no statistics.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

BESIDE = {"cat", "concat", "concatenate"}
BROADCAST = {"expand", "expand_as", "repeat"}
CHANGING = {"add_", "sub_", "mul_", "div_", "__iadd__", "__isub__", "__imul__", "__itruediv__"}
ELEMENTWISE = CHANGING | {
    "add", "sub", "mul", "div", "subtract", "multiply", "divide", "true_divide",
    "__add__", "__radd__", "__sub__", "__rsub__", "__mul__", "__rmul__", "__truediv__",
    "__rtruediv__", "rsub",
}  # fmt: skip
TELLING = {"__get__", "size", "dim", "ndimension", "numel", "nelement", "__len__", "stride"}


class Copies(TorchFunctionMode):
    """While active, functions that get a followed parameter and the batch get its copies.

    left   the parameters with a use that was not followed
    """

    def __init__(self, examples: int) -> None:
        super().__init__()
        self.examples = examples
        self._leaves: dict[int, tuple[str, Tensor]] = {}
        self.left: set[str] = set()

    def follow(self, name: str, parameter: nn.Parameter) -> None:
        """Give a parameter of three or more dimensions, the first of them 1, its copies."""
        if parameter.ndim < 3 or parameter.shape[0] != 1 or not parameter.is_floating_point():
            return
        copies = parameter.detach().expand(self.examples, *parameter.shape[1:])
        self._leaves[id(parameter)] = name, copies.clone().requires_grad_()

    def gradients(self) -> dict[str, Tensor]:
        """Gradients (examples, ...) of each parameter, all of whose uses were followed."""
        return {
            name: leaf.grad
            for name, leaf in self._leaves.values()
            if leaf.grad is not None and name not in self.left
        }

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        met = [value for value in _flat((args, kwargs)) if id(value) in self._leaves]
        if not met:
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if self._follows(name, args, kwargs, met):
            args = self._replaced(args)
            if name == "repeat":
                args = (args[0], 1, *_sizes(args)[1:])
            return func(*args, **self._replaced(kwargs))
        found = func(*args, **kwargs)
        tells = name in TELLING and not isinstance(found, Tensor)
        if not tells and not any(found is value for value in met):
            self.left |= {self._leaves[id(value)][0] for value in met}
        return found

    def _follows(self, name: str, args: tuple[Any, ...], kwargs: Any, met: list[Tensor]) -> bool:
        """Whether the result with the copies is the same, and has the examples first."""
        first = met[0]
        if any(value.ndim != first.ndim for value in met):
            return False
        others = [v for v in _flat((args, kwargs)) if isinstance(v, Tensor) and all(
            v is not value for value in met
        )]  # fmt: skip
        batch = all(v.ndim == first.ndim and len(v) == self.examples for v in others)
        if name in BROADCAST:
            if kwargs or args[0] is not first:
                return False
            if others:
                return name == "expand_as" and batch
            sizes = _sizes(args)
            return len(sizes) == first.ndim and sizes[0] == self.examples
        if name in CHANGING and any(args[0] is value for value in met):
            return False
        if name in BESIDE:
            dim = kwargs.get("dim", kwargs.get("axis", args[1] if len(args) > 1 else 0))
            return bool(others) and batch and isinstance(dim, int) and dim % first.ndim != 0
        return name in ELEMENTWISE and bool(others) and batch

    def _replaced(self, value: Any) -> Any:
        if isinstance(value, tuple | list):
            return type(value)([self._replaced(part) for part in value])
        if isinstance(value, dict):
            return {key: self._replaced(part) for key, part in value.items()}
        return self._leaves[id(value)][1] if id(value) in self._leaves else value


def _flat(value: Any) -> Iterable[Any]:
    if isinstance(value, tuple | list):
        for part in value:
            yield from _flat(part)
    elif isinstance(value, dict):
        yield from _flat(tuple(value.values()))
    else:
        yield value


def _sizes(args: tuple[Any, ...]) -> tuple[int, ...]:
    """The sizes that `expand` and `repeat` are called with, one by one or as one sequence."""
    return tuple(args[1]) if len(args) == 2 and not isinstance(args[1], int) else tuple(args[1:])
