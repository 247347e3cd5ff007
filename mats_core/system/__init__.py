"""This machine: devices, memory and disk, folders, threads, speeds, and what is remembered.

Names are imported when they are first used, because `threads.py` must act before PyTorch is loaded.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import memory, speeds
    from .devices import choose_device
    from .folders import cache_folder, results_folder
    from .memory import available_memory, parse_bytes
    from .remember import ByContent, Memo, forgetful
    from .speeds import UNMEASURED, Rates, Work
    from .threads import set_waiting

__all__ = [
    "UNMEASURED",
    "ByContent",
    "Memo",
    "Rates",
    "Work",
    "available_memory",
    "cache_folder",
    "choose_device",
    "forgetful",
    "memory",
    "parse_bytes",
    "results_folder",
    "set_waiting",
    "speeds",
]

_HOMES = {
    "ByContent": "remember",
    "Memo": "remember",
    "Rates": "speeds",
    "UNMEASURED": "speeds",
    "Work": "speeds",
    "available_memory": "memory",
    "cache_folder": "folders",
    "choose_device": "devices",
    "forgetful": "remember",
    "parse_bytes": "memory",
    "results_folder": "folders",
    "set_waiting": "threads",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
