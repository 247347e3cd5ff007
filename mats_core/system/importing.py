"""Imports of large packages, which take a fifth less time without the garbage collector."""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Iterator

_alone = threading.Lock()
_open = 0  # imports that are going on, of all threads
_collected = True  # whether there was collection before the first of them


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """While it is open, no garbage is collected.

    PyTorch and transformers make some 400,000 objects that live for ever; the collector walks
    through them again and again while they come, and finds none to free.
    """
    global _open, _collected
    with _alone:
        if not _open:
            _collected = gc.isenabled()
            gc.disable()
        _open += 1
    try:
        yield
    finally:
        with _alone:
            _open -= 1
            if not _open and _collected:
                gc.enable()
