"""Memory that is read into again and again."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import torch
from torch import Tensor


class Buffers:
    """Vectors to read pieces into: fresh memory for every piece costs as much as reading it."""

    def __init__(self) -> None:
        self._held, self._key = torch.empty(0, 0), None

    def filled(
        self,
        key: Hashable,
        count: int,
        elements: int,
        dtype: torch.dtype,
        fill: Callable[[list[Tensor]], object],
    ) -> list[Tensor]:
        """`count` vectors of `elements` after `fill`; they hold until the next call.

        `key` says what they are filled with: if it is what they hold already, nothing is read.
        """
        held, key = self._held, (key, count, elements, dtype)
        if held.dtype != dtype or len(held) < count or held.shape[1] < elements:
            held = self._held = torch.empty(count, elements, dtype=dtype)
            self._key = None
        rows = [row[:elements] for row in held[:count]]
        if key != self._key:
            self._key = None  # in case that reading fails
            fill(rows)
            self._key = key
        return rows
