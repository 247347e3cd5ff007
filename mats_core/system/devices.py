"""The device that a merge runs on, and why."""

from __future__ import annotations

import torch

from ..errors import InputError

Device = torch.device | str


def available_devices() -> tuple[str, ...]:
    """The kinds of device of this machine, fastest first."""
    return tuple(name for name, there in _devices().items() if there)


def _devices() -> dict[str, bool]:
    return {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }


def choose_device(wanted: str) -> tuple[str, str]:
    """(device, reason): for `auto` the fastest of this machine.

    Raises `InputError` for a device that this machine lacks.
    """
    there = available_devices()
    if wanted == "auto":
        absent = ", ".join(name for name in _devices() if name not in there)
        return there[0], f"chosen automatically; not here: {absent or 'none'}"
    if wanted not in there:
        raise InputError(
            f"device '{wanted}'",
            expected=f"one of {', '.join(there)}",
            found="no such device on this machine",
            remedy="Use 'auto'.",
        )
    return wanted, "as the recipe says"


def existing_device(device: Device) -> torch.device:
    """The device that is meant, with its number where one is given; `auto`: this machine's fastest.

    Raises `InputError` for a device that this machine lacks, and for what is none to compute on.
    """
    try:
        wanted = torch.device(choose_device("auto")[0] if device == "auto" else device)
    except (RuntimeError, TypeError):
        wanted = torch.device("meta")  # refused below under the name that was given
    if wanted.type not in ("cpu", "cuda", "mps"):
        raise InputError(
            f"device '{device}'",
            expected="auto, cpu, cuda, mps, or one with its number (cuda:0)",
            found="none to compute on",
            remedy="Use 'auto'.",
        )
    choose_device(wanted.type)
    count = torch.cuda.device_count() if wanted.type == "cuda" else 1
    if (wanted.index or 0) >= count:
        raise InputError(
            f"device '{device}'",
            expected=f"a number below {count}",
            found=str(wanted.index),
            remedy="Use 'auto'.",
        )
    return wanted
