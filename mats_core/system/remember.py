"""What was computed once and holds for the next time: one memory, bounded in bytes.

Tasks, tokens, prepared images, modules, scores and what merges leave for the next setting are kept
by content until the memory is full; what was not used for longest goes first.  `MATS_REMEMBER`
(such as 500MB) says how much that may be, a tenth of the machine's memory and at most 2 GiB by
default; with 0 nothing is remembered.  Values are the same with and without.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from .memory import parse_bytes

T = TypeVar("T")
Size = Callable[[T], int | None]  # bytes of a value
VARIABLE = "MATS_REMEMBER"
SHARE, MOST = 10, 2 << 30  # a tenth of the machine's memory, and at most so many bytes
INTEGER = 36  # bytes of a Python int in a list


def nbytes(value: Any) -> int:
    """Bytes of the tensors, arrays and texts in a value of tuples, lists, mappings, dataclasses."""
    if isinstance(value, Tensor):
        return 0 if value.is_meta else value.nbytes
    if isinstance(value, np.ndarray):
        own = sum(map(nbytes, value.flat)) if value.dtype == object else 0
        return value.nbytes + own
    if isinstance(value, str | bytes):
        return sys.getsizeof(value)
    if isinstance(value, Mapping):
        return sum(nbytes(one) for one in value.values())
    if isinstance(value, tuple | list):
        if value and isinstance(value[0], int):
            return INTEGER * len(value)
        return sum(nbytes(one) for one in value)
    if is_dataclass(value):
        return sum(nbytes(getattr(value, f.name)) for f in fields(value))
    return 8


class Memory:
    """Values by key, at most `limit` bytes of them; those not used for longest go first.

    Values are handed out as they are: a tensor that came from here must not be changed in place.
    """

    def __init__(self, limit: int = 0) -> None:
        self.limit, self._held = limit, 0
        self._values: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()
        self._left: deque[object] = deque()  # parts whose owners are gone

    @property
    def held(self) -> int:
        """Bytes of all values."""
        with self._lock:
            self._forget_what_was_left()
            return self._held

    def get(self, key: Hashable, compute: Callable[[], T], size: Size[T] = nbytes) -> T:
        """The value of `key`, computed where it is not there; `size` says how many bytes it has
        (None: it is not kept)."""
        if not self.limit:
            return compute()
        with self._lock:
            self._forget_what_was_left()
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key][0]
        value = compute()  # unlocked: it may take long, and ask for other values
        room = size(value)
        with self._lock:
            if key in self._values:  # another thread was quicker: there is one value of a key
                return self._values[key][0]
            if room is not None and room <= self.limit:
                self._values[key] = (value, room)
                self._held += room
            while self._held > self.limit:
                _, (_, gone) = self._values.popitem(last=False)
                self._held -= gone
        return value

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._values.clear()
            self._held = 0

    def leave(self, part: object) -> None:
        """Forget the values of `part` soon; may be called at any moment, by a garbage collector."""
        self._left.append(part)

    def _forget_what_was_left(self) -> None:
        while self._left:
            part = self._left.popleft()
            for key in [k for k in self._values if isinstance(k, tuple) and k[0] is part]:
                self._held -= self._values.pop(key)[1]


@functools.cache
def memory() -> Memory:
    """The memory of this process."""
    return Memory(_limit())


def _limit() -> int:
    said = os.environ.get(VARIABLE)
    if said is not None:
        return int(parse_bytes(said))
    try:
        return min(MOST, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // SHARE)
    except (ValueError, OSError, AttributeError):
        return MOST


def recall(key: Hashable, compute: Callable[[], T], size: Size[T] = nbytes) -> T:
    """The value of `key` in the process's memory, computed where it is not held.

    `key` begins with the kind of value and names by content everything that it depends on.
    """
    return memory().get(key, compute, size)


def remembered() -> int:
    """Bytes that the process's memory holds."""
    return memory().held


class Memo:
    """What merges over some opened inputs remember: off by default, or a part of a memory.

    The fingerprints of the inputs say what it was computed from; keys name the layer and every
    option that matters.  What is left here goes when the memo does, unless it is found by its
    content the next time (`of_content`).
    """

    def __init__(
        self, limit: int = 0, *, within: Memory | None = None, part: Hashable = None
    ) -> None:
        self._memory = Memory(limit) if within is None else within
        self._part: Hashable = object() if part is None else part
        if part is None:
            weakref.finalize(self, self._memory.leave, self._part)

    @classmethod
    def of_process(cls) -> Memo:
        """A part of the process's memory."""
        return cls(within=memory())

    @classmethod
    def of_content(cls, content: Hashable) -> Memo:
        """The part of the process's memory for merges of this content, opened once or again.

        `content` begins with the kind of value and names everything that the values depend on, as
        the key of `recall` does.
        """
        return cls(within=memory(), part=content)

    @property
    def limit(self) -> int:
        """Bytes that the whole memory may hold; 0: nothing is remembered."""
        return self._memory.limit

    @property
    def used(self) -> int:
        """Bytes that the whole memory holds of which this is a part."""
        return self._memory.held

    def get(self, key: Hashable, compute: Callable[[], T]) -> T:
        """The value of `key`, computed where it is not held."""
        return self._memory.get((self._part, key), compute)

    def fresh(self) -> Memo:
        """An empty part of the same memory."""
        return Memo(within=self._memory)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles are empty: what is remembered belongs to this process."""
        return Memo, ()


def forgetful(key: Hashable, compute: Callable[[], T]) -> T:
    """The value, computed now: a memo that remembers nothing."""
    return compute()
