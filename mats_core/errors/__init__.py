"""Validation at the door, and the one style of error.

Every error a user can cause is an `InputError`: it names the thing, what was expected, what was
found and how to mend it.  The inside of the library trusts its inputs.
"""

from .beginnings import BEGIN, beginning
from .machine import (
    MachineError,
    existing,
    foreseen,
    machine_error,
    parsing,
    plain_json,
    read_json,
    regular,
)
from .sentences import (
    InputError,
    cut,
    listing,
    member,
    nearest,
    needed,
    reason,
)
from .texts import read_yaml, validated
from .wording import duration, size

__all__ = [
    "BEGIN", "InputError", "MachineError", "beginning", "cut", "duration", "existing", "foreseen",
    "listing", "machine_error", "member", "nearest", "needed", "parsing", "plain_json", "read_json",
    "read_yaml", "reason", "regular", "size", "validated",
]  # fmt: skip
