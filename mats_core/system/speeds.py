"""What this machine can do: three rates, and what a call costs.

The work of a merge is counted first, as a `Work`: operations of products and of decompositions,
bytes that pass through memory, and calls.  `Rates`, measured here in less than half a second and
once an hour, turn the count into seconds.  They are medians of several short runs: what else the
machine does just then slows both.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import platform
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError, lenient_json, typed
from .folders import cache_folder

AROUND = 2.0  # the Python around a call takes as long as the call; measured on the sample family
CACHE = 1 << 21  # bytes that stay in a processor's cache: passing over them is the call alone
COLUMN = 2.5  # calls that a column of a decomposition takes, beside its operations
LARGE = 1 << 26  # bytes of a tensor that no cache holds
SIDE = 576  # of the matrix that is decomposed: rates rise with the size, this is in between


@dataclass(frozen=True)
class Work:
    """So much of each kind of work; works add up, and a factor repeats one.

    products         operations of products and triangular solves; one in float64 counts as two
    decompositions   operations of eigen- and singular-value decompositions, in float64
    moved            bytes that pass through memory
    calls            operations on tensors, whatever their size
    """

    products: float = 0.0
    decompositions: float = 0.0
    moved: float = 0.0
    calls: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __mul__(self, factor: float) -> Work:
        return Work(*(amount * factor for amount in astuple(self)))

    @property
    def flops(self) -> float:
        """Floating-point operations of the matrix work."""
        return self.products + self.decompositions


@dataclass(frozen=True)
class Rates:
    """Speeds of one device.

    device           the device's name, such as `cpu`
    products         operations a second of products and triangular solves
    decompositions   operations a second of eigen- and singular-value decompositions
    moved            bytes a second that pass through memory
    call             seconds of one operation on a tensor, whatever its size
    """

    device: str
    products: float
    decompositions: float
    moved: float
    call: float

    def seconds(self, work: Work) -> float:
        """Seconds that the work takes."""
        return (
            work.products / self.products
            + work.decompositions / self.decompositions
            + work.moved / self.moved
            + work.calls * self.call
        )


def eigh_flops(n: int) -> float:
    """Reduction to tridiagonal form, its eigenvectors, and back (Golub and Van Loan)."""
    return 9.0 * n**3


def svd_flops(m: int, n: int) -> float:
    """Thin U, σ and V of m×n, by QR first: as measured, 1.9 eigendecompositions for m = n."""
    long, short = max(m, n), min(m, n)
    return 6.0 * long * short**2 + 11.0 * short**3


# For whoever asks what memory a merge needs and not how long it takes: nothing is measured.
UNMEASURED = Rates("none", 1.0, 1.0, 1.0, 1.0)

# Measuring ----------------------------------------------------------------------------------------

KEPT = 3600.0  # seconds for which other processes take what one has measured
_LOCK = threading.Lock()
_MEASURED: dict[str, Rates] = {}  # five numbers a device of this machine: no more than a few


def rates(device: str = "cpu") -> Rates:
    """The speeds of a device, measured when first asked for (about 0.4 s on a quiet CPU), or by
    another process within the last hour."""
    with _LOCK:  # two threads that measured at once would measure each other
        if device not in _MEASURED:
            file = _file(device)
            found = _read(file)
            if found is None:
                found = measured_rates(device)
                _write(file, found)
            _MEASURED[device] = found
        return _MEASURED[device]


def _file(device: str) -> Path:
    """Where the rates of this machine lie, as PyTorch uses it now."""
    named = torch.cuda.get_device_name() if device == "cuda" else platform.machine()
    parts = (device, named, platform.node(), os.cpu_count(), torch.__version__,
             torch.get_num_threads(), torch.backends.cpu.get_cpu_capability())  # fmt: skip
    name = hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
    return cache_folder() / "rates" / f"{name}.json"


def _read(file: Path) -> Rates | None:
    """Rates that were measured within the last hour; None where there are none, or none whole."""
    try:
        if not 0 <= time.time() - file.stat().st_mtime < KEPT:
            return None
        found = typed(Rates, lenient_json(file))
    except (OSError, ValueError, TypeError, AttributeError):
        return None  # it is only a cache
    usable = all(math.isfinite(rate) and rate > 0 for rate in astuple(found)[1:])
    return found if usable else None


def _write(file: Path, found: Rates) -> None:
    """Keep rates for the next process; failing to costs only time."""
    with contextlib.suppress(OSError, InputError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=file.parent, suffix=".draft", delete=False
        ) as draft:
            json.dump(asdict(found), draft)
        os.replace(draft.name, file)


def measured_rates(device: str, clock: Callable[[], float] = time.perf_counter) -> Rates:
    """The speeds of a device as they are now; others' work on a shared machine changes them.

    clock   seconds; `time.process_time` for those of one thread on a core of its own
    """
    generator = torch.Generator().manual_seed(0)

    def draw(rows: int, columns: int) -> torch.Tensor:
        return torch.randn(rows, columns, generator=generator)

    def timed(work: Callable[[], Any], repeats: int) -> float:
        return _median(work, repeats, device, clock)

    scale = 1 if device == "cpu" else 8
    m, n, k = 1024 * scale, 512 * scale, 256 * scale  # tall, as of a layer with many tokens
    left, right = draw(m, k).to(device), draw(k, n).to(device)
    # MPS has no float64: there `linear.exact` takes the decompositions to the CPU, as here.
    square = draw(SIDE, SIDE).double().to("cpu" if device == "mps" else device)
    gram = square @ square.mT
    large, sums = (torch.ones(LARGE // 4, device=device) for _ in range(2))
    few = left[0, :8].contiguous()
    return Rates(
        device=device,
        products=2 * m * n * k / timed(lambda: left @ right, 8),
        decompositions=eigh_flops(SIDE) / timed(lambda: torch.linalg.eigh(gram), 3),
        # Two are read and one is written, to fresh memory and to some that was used before.
        moved=6 * LARGE / timed(lambda: (large + large, torch.add(large, large, out=sums)), 4),
        call=AROUND * timed(lambda: [few + few for _ in range(100)], 5) / 100,
    )


def _median(
    work: Callable[[], Any], repeats: int, device: str, clock: Callable[[], float]
) -> float:
    work()  # the first call also loads kernels
    found = []
    for _ in range(repeats):
        _wait(device)
        started = clock()
        work()
        _wait(device)
        found.append(clock() - started)
    return max(statistics.median(found), 1e-9)


def _wait(device: str) -> None:
    """A GPU answers before it is done."""
    if device == "cuda":
        torch.cuda.synchronize()
    elif device == "mps":
        torch.mps.synchronize()
