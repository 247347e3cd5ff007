"""What this machine can do: three rates, and what a call costs.

The work of a merge is counted first, as a `Work`: operations of products and of decompositions,
bytes that pass through memory, and calls.  `Rates`, measured here in less than half a second and
once a process, turn the count into seconds.  They are medians of several short runs: what else the
machine does just then slows both.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass
from typing import Any

import torch

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

_LOCK = threading.Lock()
_MEASURED: dict[str, Rates] = {}  # five numbers a device of this machine: no more than a few


def rates(device: str = "cpu") -> Rates:
    """The speeds of a device, measured when first asked for (about 0.4 s on a quiet CPU)."""
    with _LOCK:  # two threads that measured at once would measure each other
        if device not in _MEASURED:
            _MEASURED[device] = measured_rates(device)
        return _MEASURED[device]


def measured_rates(device: str) -> Rates:
    """The speeds of a device as they are now; others' work on a shared machine changes them."""
    generator = torch.Generator().manual_seed(0)

    def draw(rows: int, columns: int) -> torch.Tensor:
        return torch.randn(rows, columns, generator=generator)

    def timed(work: Callable[[], Any], repeats: int) -> float:
        return _median(work, repeats, device)

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


def _median(work: Callable[[], Any], repeats: int, device: str) -> float:
    work()  # the first call also loads kernels
    found = []
    for _ in range(repeats):
        _wait(device)
        started = time.perf_counter()
        work()
        _wait(device)
        found.append(time.perf_counter() - started)
    return max(statistics.median(found), 1e-9)


def _wait(device: str) -> None:
    """A GPU answers before it is done."""
    if device == "cuda":
        torch.cuda.synchronize()
    elif device == "mps":
        torch.mps.synchronize()
