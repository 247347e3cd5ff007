"""The settings of a merge as the address of the page Merge holds them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol


class Asked(Protocol):
    """What is asked of a merge, by a knob of a notebook or of a page."""

    @property
    def method(self) -> str: ...
    @property
    def options(self) -> Any: ...  # a mapping, or pairs of one
    @property
    def experts(self) -> Iterable[str]: ...
    @property
    def weights(self) -> Any: ...  # likewise
    @property
    def rounds(self) -> int: ...
    @property
    def seed(self) -> int: ...
    @property
    def dtype(self) -> str: ...
    @property
    def after(self) -> Iterable[Any]: ...
    @property
    def by(self) -> Iterable[Any]: ...


def settings_of(asked: Asked) -> dict[str, Any]:
    """The settings as plain values, under the names that the page reads out of its address."""
    return {
        "method": asked.method,
        "options": dict(asked.options),
        "experts": list(asked.experts),
        "weights": dict(asked.weights),
        "rounds": asked.rounds,
        "seed": asked.seed,
        "dtype": asked.dtype,
        "after": list(asked.after),
        "by": list(asked.by),
    }
