"""A rank correlation in words, with all that is known against it."""

from __future__ import annotations

from ..analysis import Correlation


def correlation_words(found: Correlation, of: str = "tasks") -> str:
    """Words such as `rank correlation +0.62 (95 % interval −0.16 to +0.92, p = 0.11, 8 tasks)`."""
    value, low, high = (f"{v:+.2f}".replace("-", "−") for v in (found.value, found.low, found.high))
    p = "p < 0.001" if found.chance < 0.001 else f"p = {found.chance:.2g}"
    return (
        f"rank correlation {value} (95 % interval {low} to {high}, {p} by permutation, "
        f"{found.count} {of})"
    )
