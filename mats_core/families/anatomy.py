"""What the classes of a model hold, where it is known: asked only where files leave something open.

`mats_core.models` builds it from a configuration; this room may not know transformers, so that a
function from weights to an `Anatomy` (or None) is handed in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ..checkpoints import Weights


def _same(name: str) -> str:
    """The name as it is."""
    return name


@dataclass(frozen=True)
class Anatomy:
    """Names of the parameters and buffers of a model's class and of its base model's class.

    whole     of the class that the configuration names
    encoder   of the base model's class, which AutoModel builds: what is shared between tasks
    prefix    what stands before the encoder's names in the whole model's, such as `bert`
    buffers   those of either that are no parameters
    ignored   patterns of names that the class passes over when it is loaded
    ties      name → the parameter that it is tied to
    renamed   the name that the class gives a tensor today, whatever it was called before
    loaded    the same, or the name of what the class puts together from this tensor and others
    """

    whole: frozenset[str]
    encoder: frozenset[str]
    prefix: str = ""
    buffers: frozenset[str] = frozenset()
    ignored: tuple[str, ...] = ()
    ties: Mapping[str, str] = field(default_factory=dict)
    renamed: Callable[[str], str] = _same
    loaded: Callable[[str], str] = _same

    def holds(self, name: str) -> bool:
        """Whether the class has this tensor."""
        return self._among(name, self.whole)

    def reaches(self, name: str) -> bool:
        """Whether the base model's class has this tensor: then it is no head."""
        return self._among(name, self.encoder)

    def buffer(self, name: str) -> bool:
        """Whether this tensor is a buffer and no parameter."""
        return self._among(name, self.buffers)

    def ignores(self, name: str) -> bool:
        """Whether the class passes over this name when it is loaded."""
        spoken = {name, self.loaded(name)}
        return any(re.search(pattern, one) for pattern in self.ignored for one in spoken)

    def forms(self, name: str) -> tuple[str, str, str]:
        """A name of the class as it is, without and with what stands before the encoder's names."""
        lead = f"{self.prefix}."
        return name, name.removeprefix(lead), lead + name

    def _among(self, name: str, names: frozenset[str]) -> bool:
        return not names.isdisjoint(self.forms(self.loaded(name)))


Ask = Callable[[Weights], Anatomy | None]


def unknown(weights: Weights) -> Anatomy | None:
    """None: no class is known."""
    return None
