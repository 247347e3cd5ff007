"""What was computed for one setting and holds for the next: bounded, and off unless asked for.

Somebody who turns one knob of a merge should not wait for what the knob does not touch: the
decomposition of an update does not depend on its scaling.  A memo belongs to opened `Inputs`, whose
fingerprints say what it was computed from; keys name the layer and every option that matters.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from torch import Tensor

T = TypeVar("T")


def nbytes(value: Any) -> int:
    """Bytes of all tensors in a value made of tuples, lists, mappings and dataclasses."""
    if isinstance(value, Tensor):
        return value.nbytes
    if isinstance(value, Mapping):
        return sum(nbytes(one) for one in value.values())
    if isinstance(value, tuple | list):
        return sum(nbytes(one) for one in value)
    if is_dataclass(value):
        return sum(nbytes(getattr(value, f.name)) for f in fields(value))
    return 8


class Memo:
    """Values by key, at most `limit` bytes of them; those not used for longest go first.

    Values are handed out as they are: nobody may change a tensor that came from here in place.
    """

    def __init__(self, limit: int = 0) -> None:
        self.limit, self.used = limit, 0
        self._values: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, compute: Callable[[], T]) -> T:
        """The value of `key`, computed where it is not there."""
        if not self.limit:
            return compute()
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key][0]
        value = compute()
        size = nbytes(value)
        with self._lock:
            if size <= self.limit and key not in self._values:
                self._values[key] = (value, size)
                self.used += size
            while self.used > self.limit:
                _, (_, gone) = self._values.popitem(last=False)
                self.used -= gone
        return value


class ByContent:
    """Arguments of a cached function that are equal if the fingerprints in `key` are."""

    def __init__(self, key: tuple[object, ...], value: Any) -> None:
        self.key, self.value = key, value

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ByContent) and self.key == other.key


def forgetful(key: Hashable, compute: Callable[[], T]) -> T:
    """No memo at all."""
    return compute()
