"""The device that a merge runs on, and why."""

from __future__ import annotations

import torch

from ..errors import InputError


def choose_device(wanted: str) -> tuple[str, str]:
    """(device, reason): for `auto` the fastest of this machine.

    Raises `InputError` for a device that this machine lacks.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if wanted == "auto":
        device = next(name for name, there in available.items() if there)
        absent = [name for name, there in available.items() if not there]
        return device, f"chosen automatically; not here: {', '.join(absent) or 'none'}"
    if not available[wanted]:
        raise InputError(
            f"device '{wanted}'",
            expected=f"one of {', '.join(name for name, there in available.items() if there)}",
            found="no such device on this machine",
            remedy="Use 'auto'.",
        )
    return wanted, "as the recipe says"
