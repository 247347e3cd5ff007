"""The sizes that the weights have, against those that a configuration says.

Which tensor a number of the configuration sizes is asked of the class itself: an empty model (on
torch's meta device, without memory) is built once as configured and, only where a tensor of the
files has another shape, once more with each number larger by one.  The numbers are then taken from
the weights.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError
from ..names import weight_and_part
from ..system import recall
from .architecture import architecture, depths, file_text, quiet, saved_names

Shapes = Mapping[str, tuple[int, ...]]
SIZES = ("num_labels", "vocab_size", "max_position_embeddings", "type_vocab_size")
SPARE = 64  # layers that a model may have beyond what the tensors of its files suggest
LARGER = 4  # times the numbers of the weights that a configuration may describe ...
TINY = 1 << 24  # ... beyond so many
# What transformers and torch raise for a configuration that no model can be built from.
IMPOSSIBLE = (
    ValueError, TypeError, KeyError, AttributeError, RuntimeError, AssertionError, IndexError,
    ZeroDivisionError, OverflowError, MemoryError, NotImplementedError, ImportError, OSError,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Fitted:
    """A configuration with the sizes of the weights.

    config       of transformers; the object is shared: copy it before it is changed
    model_class  that it names
    notes        where the file says something else than the weights, a sentence each
    """

    config: Any
    model_class: Any
    notes: tuple[str, ...] = ()

    def size(self, name: str) -> int | None:
        """A number of the configuration, or of its part about texts; None where it has none."""
        value = getattr(owner(self.config, name), name, None)
        return value if isinstance(value, int) and not isinstance(value, bool) else None


def shapes_of(tensors: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor, of tensors or of entries that only have a shape.

    Parts of a routed merge are left out: they belong to no place of the model.
    """
    plain = (name for name in tensors if not weight_and_part(name)[1])
    return {name: tuple(tensors[name].shape) for name in plain}


def owner(config: Any, name: str) -> Any:
    """The configuration that holds a number: itself, or its part about texts."""
    if hasattr(config, name) or not hasattr(config, "get_text_config"):
        return config
    return config.get_text_config()


def fitted(directory: Path | None, shapes: Shapes | None = None) -> Fitted:
    """The configuration in a directory with the sizes of tensors with these names and `shapes`;
    as it stands without any.  Raises `InputError` as `architecture` does, and for a model far
    larger than these tensors.
    """
    known = tuple(sorted((shapes or {}).items()))
    key = ("fitted", file_text(directory, "config.json"), directory is None, known)
    return recall(key, lambda: _fitted(directory, dict(known)), lambda found: 1 << 14)


def _fitted(directory: Path | None, shapes: Shapes) -> Fitted:
    config, model_class = architecture(directory)
    if not shapes:
        return Fitted(config, model_class)
    _require_layers(directory, config, shapes)
    plain = _empty(config, model_class)
    if all(shapes.get(name, shape) == shape for name, shape in plain.items()):
        known = Fitted(config, model_class)
    else:
        known = _by_weights(directory, Fitted(config, model_class), plain, shapes)
        plain = _empty(known.config, model_class)
    _require_numbers(directory, plain, shapes)
    return known


def _by_weights(directory: Path | None, said: Fitted, plain: Shapes, shapes: Shapes) -> Fitted:
    """The configuration with those sizes that the weights hold otherwise."""
    changed, notes = copy.deepcopy(said.config), []
    for name in SIZES:
        size = said.size(name)
        held = _held(said.config, said.model_class, name, size, plain, shapes) if size else None
        if size is not None and held is not None and held != size:
            setattr(owner(changed, name), name, held)
            notes.append(
                f"config.json of '{directory}' says {name} {size}, the weights have the size "
                f"{held}, which is used"
            )
    return Fitted(changed, said.model_class, tuple(notes))


def _held(
    config: Any, model_class: Any, name: str, said: int, plain: Shapes, shapes: Shapes
) -> int | None:
    """The number that the weights hold; None where no tensor says so, or not all the same."""
    larger = copy.deepcopy(config)
    try:
        setattr(owner(larger, name), name, said + 1)
    except IMPOSSIBLE:  # a number that this kind of model only shows
        return None
    grown = _empty(larger, model_class)
    found = set()
    for one, shape in grown.items():
        before, there = plain.get(one), shapes.get(one)
        if before is None or there is None or len(there) != len(shape) or before == shape:
            continue
        found |= {
            said + ours - old
            for old, new, ours in zip(before, shape, there, strict=True)
            if new == old + 1
        }
    return found.pop() if len(found) == 1 else None


def _empty(config: Any, model_class: Any) -> Shapes:
    """The file's name and the shape of every tensor of an empty model; {} if it cannot be built."""
    try:
        with torch.device("meta"), quiet():
            model = model_class(copy.deepcopy(config))
        names = saved_names(model)
        state = model.state_dict()
    except IMPOSSIBLE:
        return {}  # `build` tells what is wrong with it
    shapes = shapes_of(state)
    return {names.get(name, name): shape for name, shape in shapes.items()}


def _require_layers(directory: Path | None, config: Any, shapes: Shapes) -> None:
    """A model of a million layers would be built before the first tensor is found missing."""
    for name, count in depths(config.to_dict()):
        if count > 2 * len(shapes) + SPARE:
            expected = f"no more layers than the {len(shapes)} tensors of the weights"
            raise _too_large(directory, expected, f"{name} {count}")


def _require_numbers(directory: Path | None, described: Shapes, shapes: Shapes) -> None:
    """The same for widths, which would take all memory."""
    count, held = (sum(math.prod(one) for one in s.values()) for s in (described, shapes))
    if count > LARGER * held + TINY:
        expected = f"about as many numbers as the weights have, {held:,}"
        raise _too_large(directory, expected, f"{count:,} described by it")


def _too_large(directory: Path | None, expected: str, found: str) -> InputError:
    return InputError(
        f"'{directory}/config.json'",
        expected=expected,
        found=found,
        remedy="Use the config.json that was saved with these weights.",
    )
