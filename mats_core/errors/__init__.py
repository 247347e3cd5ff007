"""Validation at the door, and the one style of error.

Every error a user can cause is an `InputError`: it names the thing, what was expected, what was
found and how to mend it.  The inside of the library trusts its inputs.

What reads YAML and models is imported when it is first used, for pydantic and PyYAML take most of
the time in which a command line answers `--help`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .beginnings import BEGIN, beginning
from .machine import (
    MachineError,
    existing,
    foreseen,
    lenient_json,
    machine_error,
    parsing,
    plain_json,
    read_json,
    refusal,
    regular,
    undisturbed,
)
from .quoting import code_span, markdown, one_line, shell
from .sentences import (
    InputError,
    cut,
    listing,
    member,
    nearest,
    needed,
    reason,
    shown,
)
from .wording import duration, size

if TYPE_CHECKING:
    from .texts import plain_yaml, read_yaml, typed, validated

__all__ = [
    "BEGIN", "InputError", "MachineError", "beginning", "code_span", "cut", "duration", "existing",
    "foreseen", "lenient_json", "listing", "machine_error", "markdown", "member", "nearest",
    "needed", "one_line", "parsing", "plain_json", "plain_yaml", "read_json", "read_yaml", "reason",
    "refusal", "regular", "shell", "shown", "size", "typed", "undisturbed",
    "validated",
]  # fmt: skip

_OF_TEXTS = ("plain_yaml", "read_yaml", "typed", "validated")


def __getattr__(name: str) -> Any:
    if name not in _OF_TEXTS:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from . import texts

    return getattr(texts, name)
