"""This machine and work on it: devices, memory, disk, speeds, what is remembered, events.

Names are imported when they are first used, because `threads.py` must act before PyTorch is loaded.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import memory, speeds
    from .bars import bar, in_notebook
    from .devices import choose_device
    from .folders import cache_folder, results_folder
    from .memory import available_memory, parse_bytes
    from .remember import Memo, forgetful, nbytes, recall, remembered
    from .showing import Shown
    from .speeds import (
        ACTIVATION,
        CALL,
        EIGH,
        GEMM,
        HISTOGRAM,
        OPENING,
        RANDOM,
        STREAM,
        SVD,
        UNMEASURED,
        Rates,
        Work,
    )
    from .stream import Event, changed, drain, drained, part, ticking
    from .threads import set_waiting

__all__ = [
    "ACTIVATION",
    "CALL",
    "EIGH",
    "GEMM",
    "HISTOGRAM",
    "OPENING",
    "RANDOM",
    "STREAM",
    "SVD",
    "UNMEASURED",
    "Event",
    "Memo",
    "Rates",
    "Shown",
    "Work",
    "available_memory",
    "bar",
    "cache_folder",
    "changed",
    "choose_device",
    "drain",
    "drained",
    "forgetful",
    "in_notebook",
    "memory",
    "nbytes",
    "parse_bytes",
    "part",
    "recall",
    "remembered",
    "results_folder",
    "set_waiting",
    "speeds",
    "ticking",
]

_HOMES = {
    "ACTIVATION": "speeds",
    "CALL": "speeds",
    "EIGH": "speeds",
    "Event": "stream",
    "GEMM": "speeds",
    "HISTOGRAM": "speeds",
    "Memo": "remember",
    "OPENING": "speeds",
    "RANDOM": "speeds",
    "Rates": "speeds",
    "STREAM": "speeds",
    "SVD": "speeds",
    "Shown": "showing",
    "UNMEASURED": "speeds",
    "Work": "speeds",
    "available_memory": "memory",
    "bar": "bars",
    "in_notebook": "bars",
    "cache_folder": "folders",
    "changed": "stream",
    "choose_device": "devices",
    "drain": "stream",
    "drained": "stream",
    "forgetful": "remember",
    "nbytes": "remember",
    "parse_bytes": "memory",
    "part": "stream",
    "recall": "remember",
    "remembered": "remember",
    "results_folder": "folders",
    "set_waiting": "threads",
    "ticking": "stream",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
