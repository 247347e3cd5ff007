"""Tensors of the weights that the model of their configuration has no place for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..errors import InputError, listing
from ..names import group_of, is_buffer
from .architecture import depths
from .sizes import Shapes


@dataclass(frozen=True)
class Unplaced:
    """Names of such tensors, but for buffers.

    inside   those that belong to a kind of block that the model has: further layers, or further
             parts of one, without which the model computes something else
    beside   all others, such as another head
    """

    inside: tuple[str, ...]
    beside: tuple[str, ...]

    @classmethod
    def among(cls, left: Shapes, names: Iterable[str], prefix: str) -> Unplaced:
        """Of tensors that are `left` over by a model with these `names`; `prefix` may stand before
        its encoder's."""
        blocks = {block for name in names if (block := _block(name))}
        blocks |= {block.removeprefix(f"{prefix}.") for block in blocks}
        found = sorted(name for name, shape in left.items() if not is_buffer(name, shape))
        ours = [name for name in found if _block(name).removeprefix(f"{prefix}.") in blocks]
        return cls(tuple(ours), tuple(name for name in found if name not in ours))

    def require(self, thing: str, config: Any) -> None:
        """Raise `InputError` where any is inside."""
        if not self.inside:
            return
        said = dict.fromkeys(f"{name} {count}" for name, count in depths(config.to_dict()))
        counts = f" It says {listing(said)}." if said else ""
        raise InputError(
            thing,
            expected="a place in the model of its config.json for every tensor of its layers",
            found=f"none for {listing(self.inside, 3)}",
            remedy=f"Use the config.json that was saved with these weights.{counts}",
        )


def _block(name: str) -> str:
    """The kind of block that a tensor is in: its name up to the first number; "" without one."""
    before, star, _ = group_of(name).partition("*")
    return before if star else ""
