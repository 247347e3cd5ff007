"""Memory that is read into again and again, by a thread that keeps one piece ahead."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Wanted:
    """A request for `count` vectors of `elements` numbers, with the function that writes them.

    key        names the contents: requests with equal keys want equal contents
    count      number of vectors
    elements   length of each vector
    dtype      type of their numbers
    fill       writes them, in another thread: it touches nothing but files and the vectors it gets
    pinned     whether they are to lie where a CUDA device fetches them while both go on
    """

    key: Hashable
    count: int
    elements: int
    dtype: torch.dtype
    fill: Callable[[list[Tensor]], object]
    pinned: bool = False

    @property
    def contents(self) -> Hashable:
        """What two requests have in common if one's vectors serve the other."""
        return self.key, self.count, self.elements, self.dtype, self.pinned


class Buffers:
    """Two sets of vectors: while one is worked on, the next piece is read into the other.

    The same memory serves all pieces: fresh memory for each costs as much as reading it.
    """

    def __init__(self) -> None:
        self._sets = [_Set(), _Set()]
        self._latest = 0  # the set that was handed out last: nothing is read into it
        self._reading: Future[object] | None = None
        self._thread: ThreadPoolExecutor | None = None

    def filled(self, wanted: Wanted) -> list[Tensor]:
        """The vectors of a request, filled; they hold until the next call.

        What either set holds already is not read again.
        """
        self._wait()
        found = [i for i, one in enumerate(self._sets) if one.contents == wanted.contents]
        self._latest = found[0] if found else 1 - self._latest
        if not found:
            self._sets[self._latest].read(wanted)
        return self._sets[self._latest].rows(wanted)

    def sent(self, wanted: Wanted, device: str) -> list[Tensor]:
        """The vectors of a request on a CUDA device, in memory of their own.

        The device fetches them when its queue gets there.  Until then nothing is read over them:
        whatever is read into them next waits for it, in its thread.
        """
        rows = self.filled(wanted)
        found = [row.to(device, non_blocking=True, copy=True) for row in rows]
        self._sets[self._latest].fetched = queued()
        return found

    def ahead(self, wanted: Wanted) -> None:
        """Begin to read the next request; if that fails, `filled` reads again and raises."""
        self._wait()
        if any(one.contents == wanted.contents for one in self._sets):
            return
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "read ahead")
        self._reading = self._thread.submit(self._sets[1 - self._latest].read, wanted)

    def _wait(self) -> None:
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.exception()  # a set that could not be filled holds nothing: it is read again


class _Set:
    def __init__(self) -> None:
        self.held = torch.empty(0, 0)
        self.contents: Hashable = None
        self.pinned = False
        self.fetched: Callable[[], object] | None = None  # waits until a device has them

    def rows(self, wanted: Wanted) -> list[Tensor]:
        return [row[: wanted.elements] for row in self.held[: wanted.count]]

    def read(self, wanted: Wanted) -> None:
        held, self.contents = self.held, None  # in case that reading fails
        if self.fetched is not None:
            self.fetched()
            self.fetched = None
        enough = len(held) >= wanted.count and held.shape[1] >= wanted.elements
        if held.dtype != wanted.dtype or not enough or self.pinned != wanted.pinned:
            make = pinned if wanted.pinned else torch.empty
            self.held = make(wanted.count, wanted.elements, dtype=wanted.dtype)
            self.pinned = wanted.pinned
        wanted.fill(self.rows(wanted))
        self.contents = wanted.contents


def pinned(count: int, elements: int, *, dtype: torch.dtype) -> Tensor:
    """Memory (count, elements) that the system leaves where it is, for a CUDA device to fetch."""
    return torch.empty(count, elements, dtype=dtype, pin_memory=True)


def queued() -> Callable[[], object]:
    """A function that waits until the current CUDA device has done what is queued by now."""
    event = torch.cuda.Event()
    event.record()
    return event.synchronize
