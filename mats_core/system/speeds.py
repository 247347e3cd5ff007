"""What this machine can do: its speed at the few things that merging is made of.

The work of a merge is counted first (`methods`) as a `Work`: so many operations of each kind.
`Rates`, measured here in less than a second and once a process, turn the count into seconds.
They are medians of several short runs: what else the machine does just then slows both.
"""

from __future__ import annotations

import functools
import itertools
import math
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

# Kinds of work, the keys of a `Work`: (kind, size) → how much of it.
GEMM = "gemm"  # (GEMM, dtype) → floating-point operations
EIGH = "eigh"  # (EIGH, n) → symmetric eigendecompositions n×n, in float64
SVD = "svd"  # (SVD, m, n) → thin singular-value decompositions, in float64
STREAM = "stream"  # (STREAM, bytes) → tensors of that size read or written
RANDOM = "random"  # (RANDOM,) → random numbers
HISTOGRAM = "histogram"  # (HISTOGRAM,) → numbers sorted into a histogram
ACTIVATION = "activation"  # (ACTIVATION,) → values of a transcendental function
CALL = "call"  # (CALL,) → operations on tensors, whatever their size
OPENING = "opening"  # (OPENING,) → small pieces read from a file

Point = tuple[float, float]  # (size, seconds)
AROUND = 2.0  # the Python around a call takes as long as the call; measured on the sample family
SMALL, LARGE = 1 << 19, 1 << 26  # bytes: fits a cache, and is fresh memory every time


class Work(Counter[tuple[Any, ...]]):
    """So much of each kind; works add up, and a factor repeats one."""

    def __add__(self, other: Mapping[tuple[Any, ...], float]) -> Work:  # type: ignore[override]
        total = Work(self)
        total.update(other)  # type: ignore[arg-type]
        return total

    def __mul__(self, factor: float) -> Work:
        return Work({key: amount * factor for key, amount in self.items()})


@dataclass(frozen=True)
class Rates:
    """Speeds of one device; for kinds whose speed depends on the size, measured points by size."""

    device: str
    gemm: Mapping[str, float]
    eigh: tuple[Point, ...]
    svd: tuple[Point, ...]
    stream: tuple[Point, ...]
    random: float
    histogram: float
    activation: float
    call: float
    opening: float

    def seconds(self, work: Work) -> float:
        """How long the work takes."""
        return sum(amount * self._each(*key) for key, amount in work.items())

    def _each(self, kind: str, *size: Any) -> float:
        if kind == GEMM:
            return 1 / self.gemm[size[0]]
        if kind == EIGH:
            return _between(self.eigh, size[0], 3)
        if kind == SVD:
            long, short = max(size), min(size)
            return _between(self.svd, short, 3) * svd_flops(long, short) / svd_flops(short, short)
        if kind == STREAM:
            return _between(self.stream, size[0], 1)
        speed = float(getattr(self, kind))
        return speed if kind in (CALL, OPENING) else 1 / speed


def _between(points: tuple[Point, ...], size: float, power: float) -> float:
    """Seconds at a size: a power law between two neighbours, `power` beyond the outer ones."""
    (first, t_first), (last, t_last) = points[0], points[-1]
    # Outside the exponent of the theory: two noisy points are no guide there.
    if size <= first:
        return t_first * (size / first) ** power
    if size >= last:
        return t_last * (size / last) ** power
    (n0, t0), (n1, t1) = next(
        pair for pair in itertools.pairwise(points) if pair[0][0] <= size <= pair[1][0]
    )
    measured = min(max(math.log(t1 / t0) / math.log(n1 / n0), 0.5), 4)
    return t1 * (size / n1) ** measured


def eigh_flops(n: int) -> float:
    """Reduction to tridiagonal form, its eigenvectors, and back (Golub and Van Loan)."""
    return 9.0 * n**3


def svd_flops(m: int, n: int) -> float:
    """Thin U, σ and V of m×n with m ≥ n (Golub and Van Loan, by way of QR)."""
    return 6.0 * m * n**2 + 20.0 * n**3


def flops(work: Work) -> float:
    """Floating-point operations of the matrix work: products and decompositions."""
    total = 0.0
    for (kind, *size), amount in work.items():
        if kind == GEMM:
            total += amount
        elif kind == EIGH:
            total += amount * eigh_flops(size[0])
        elif kind == SVD:
            total += amount * svd_flops(max(size), min(size))
    return total


ONE: tuple[Point, Point] = ((1.0, 1.0), (2.0, 1.0))
# For whoever asks what memory a merge needs and not how long it takes: nothing is measured.
UNMEASURED = Rates(
    "none", {"float32": 1.0, "float64": 1.0}, ONE, ONE, ONE, 1.0, 1.0, 1.0, 1.0, 1.0
)  # fmt: skip

# Measuring ----------------------------------------------------------------------------------------

_LOCK = threading.Lock()


def rates(device: str = "cpu") -> Rates:
    """The speeds of a device, measured when first asked for (about 0.6 s on a quiet CPU)."""
    with _LOCK:  # two threads that measured at once would measure each other
        return _once(device)


@functools.lru_cache(maxsize=4)
def _once(device: str) -> Rates:
    return measured_rates(device)


def measured_rates(device: str) -> Rates:
    """The speeds of a device as they are now; others' work on a shared machine changes them."""
    generator = torch.Generator().manual_seed(0)

    def draw(shape: tuple[int, int], dtype: torch.dtype) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(device=device, dtype=dtype)

    def timed(work: Callable[[], Any], repeats: int) -> float:
        return _median(work, repeats, device)

    exact = torch.float32 if device == "mps" else torch.float64
    scale = 1 if device == "cpu" else 8
    gemm = {  # tall, as the products of a layer with many tokens are
        name: _product_rate(1024 * scale, 512 * scale, 256 * scale, dtype, draw, timed)
        for name, dtype in (("float32", torch.float32), ("float64", exact))
    }
    sides = {96: 4, 256: 4, 576: 2}  # how often each is repeated
    # MPS has no float64: there `linalg.exact` takes the decompositions to the CPU, as here.
    matrices = [draw((n, n), exact).cpu() for n in sides]
    matrices = [m.double().to("cpu" if device == "mps" else device) for m in matrices]
    eigh, svd = (
        tuple(
            (n, timed(functools.partial(work, form(m)), repeats))
            for (n, repeats), m in zip(sides.items(), matrices, strict=True)
        )
        for work, form in (
            (torch.linalg.eigh, lambda m: m @ m.mT),
            (functools.partial(torch.linalg.svd, full_matrices=False), lambda m: m),
        )
    )
    stream = [_stream(nbytes, device, timed) for nbytes in (SMALL, LARGE)]
    numbers = torch.randn(1 << 17, generator=generator).to(device)
    few = numbers[:8]
    here = Path(__file__)
    return Rates(
        device=device,
        gemm=gemm,
        eigh=eigh,
        svd=svd,
        stream=((SMALL, stream[0]), (LARGE, stream[1])),
        random=(1 << 17) / _median(lambda: torch.rand(1 << 17), 6, "cpu"),
        histogram=(1 << 17) / timed(lambda: _histogram(numbers), 6),
        activation=(1 << 17) / timed(lambda: torch.nn.functional.gelu(numbers), 6),
        call=AROUND * timed(lambda: [few + few for _ in range(100)], 5) / 100,
        opening=_median(lambda: _open(here), 20, "cpu"),
    )


def _product_rate(
    m: int, n: int, k: int, dtype: torch.dtype, draw: Callable[..., torch.Tensor], timed: Any
) -> float:
    """Operations a second of (m, k) @ (k, n)."""
    left, right = draw((m, k), dtype), draw((k, n), dtype)
    return 2 * m * n * k / timed(lambda: left @ right, 8)


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


def _stream(nbytes: int, device: str, timed: Callable[[Callable[[], Any], int], float]) -> float:
    """Seconds to read or write one tensor of `nbytes`: an addition reads two and writes one."""
    value = torch.ones(nbytes // 4, device=device)
    return timed(lambda: value + value, 6) / 3


def _histogram(numbers: torch.Tensor) -> torch.Tensor:
    pattern = numbers.abs().cpu().view(torch.int32).long()
    return torch.bincount((pattern >> 16) & 0xFFFF, minlength=1 << 16)


def _open(file: Path) -> torch.Tensor:
    """What reading a small tensor costs, whatever its size."""
    buffer = bytearray(64)
    with open(file, "rb") as handle:
        handle.seek(8)
        handle.readinto(buffer)
    return torch.frombuffer(buffer, dtype=torch.float32).reshape(4, 4).to(dtype=torch.float64)
