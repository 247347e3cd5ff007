"""TODO."""

from .inputs import BATCH, Rows, ask, check, encode
from .kinds import facts_of
from .modules import (
    Forward,
    build,
    class_for,
    forward,
    load,
    parameter_names,
    pixel_values,
    tensors_of,
    ties_word_embeddings,
)
from .tokens import IGNORED

__all__ = [
    "BATCH",
    "IGNORED",
    "Forward",
    "Rows",
    "ask",
    "build",
    "check",
    "class_for",
    "encode",
    "facts_of",
    "forward",
    "load",
    "parameter_names",
    "pixel_values",
    "tensors_of",
    "ties_word_embeddings",
]
