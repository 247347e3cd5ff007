"""This machine: devices, memory and disk, folders, threads, speeds, and what is remembered.

Also how long work tells how far it is (`stream.py`).  Names are imported when they are first used,
because `threads.py` must act before PyTorch is loaded.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import cluster, memory, speeds
    from .bars import bar, in_notebook, watched
    from .devices import Device, available_devices, choose_device, existing_device
    from .folders import LONGEST_NAME, FolderName, cache_folder, folder_name, results_folder
    from .importing import uncollected
    from .memory import available_memory, parse_bytes, require_memory
    from .remember import Memo, forgetful, nbytes, recall, remembered
    from .showing import Shown
    from .speeds import UNMEASURED, Rates, Work
    from .state import SETTLED, Stamp, stamp_of, state_of
    from .stream import Event, ahead, beside, changed, drain, drained, part, shares
    from .threads import set_waiting, taking_threads
    from .under_way import (
        beside_under_way,
        file_under_way,
        folder_of_process,
        folder_under_way,
        lock,
        temporary_file,
        temporary_folder,
    )

__all__ = [
    "LONGEST_NAME", "SETTLED", "UNMEASURED", "Device", "Event", "FolderName", "Memo", "Rates",
    "Shown", "Stamp", "Work",
    "ahead", "available_devices", "available_memory", "bar", "beside", "beside_under_way",
    "cache_folder", "changed",
    "choose_device", "cluster", "drain", "drained", "existing_device", "file_under_way",
    "folder_name",
    "folder_of_process", "folder_under_way", "forgetful", "in_notebook", "lock",
    "memory", "nbytes", "parse_bytes", "part", "recall", "remembered", "require_memory",
    "results_folder", "set_waiting", "shares", "speeds", "stamp_of", "state_of",
    "taking_threads",
    "temporary_file", "temporary_folder", "uncollected", "watched",
]  # fmt: skip

_HOMES = {
    "bars": ("bar", "in_notebook", "watched"),
    "devices": ("Device", "available_devices", "choose_device", "existing_device"),
    "folders": ("LONGEST_NAME", "FolderName", "cache_folder", "folder_name", "results_folder"),
    "importing": ("uncollected",),
    "memory": ("available_memory", "parse_bytes", "require_memory"),
    "remember": ("Memo", "forgetful", "nbytes", "recall", "remembered"),
    "showing": ("Shown",),
    "speeds": ("UNMEASURED", "Rates", "Work", "eigh_flops", "svd_flops"),
    "state": ("SETTLED", "Stamp", "stamp_of", "state_of"),
    "stream": ("Event", "ahead", "beside", "changed", "drain", "drained", "part", "shares"),
    "threads": ("set_waiting", "taking_threads"),
    "under_way": ("beside_under_way", "file_under_way", "folder_of_process", "folder_under_way",
                  "lock", "temporary_file", "temporary_folder"),
}  # fmt: skip


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f".{home}", __name__), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
