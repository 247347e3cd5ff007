"""How many threads PyTorch takes, and how they wait for one another.

Imports no PyTorch: how they wait is to be said before it is loaded.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import threading
from collections.abc import Iterator, MutableMapping
from typing import Any

# Measured with two threads on two cores: where threads spin for long (the default of GNU's OpenMP)
# an SVD takes four times as long as soon as anything else runs; where they sleep at once, an
# eigendecomposition of 192 × 192 takes twice as long on a quiet machine.
SPINS = "1000"  # some ten microseconds, then sleep


def set_waiting(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let threads spin shortly and then sleep, unless the environment says otherwise.

    OpenMP reads it when PyTorch is loaded.  GNU's takes the number, others the policy.
    """
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", SPINS)
        environment["OMP_WAIT_POLICY"] = "PASSIVE"


@contextlib.contextmanager
def taking_threads(count: int) -> Iterator[None]:
    """While it is open, PyTorch takes `count` threads for what this thread asks of it.

    What other threads take, those included that begin meanwhile, stays as it is.
    """
    torch: Any = importlib.import_module("torch")
    before = torch.get_num_threads()
    if count == before:
        yield
        return
    torch.set_num_threads(count)
    # The number is a thread's own, but new threads begin with the last one that any of them set.
    other = threading.Thread(target=torch.set_num_threads, args=(before,), name="mats-threads")
    other.start()
    other.join()
    try:
        yield
    finally:
        torch.set_num_threads(before)
