"""What a merge can still take: memory of the system, a container and a GPU, and disk."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from pathlib import Path

import torch

from ..errors import InputError, size

UNITS = {"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
MEMINFO = Path("/proc/meminfo")
GROUPS = Path("/sys/fs/cgroup")
OWN_GROUP = Path("/proc/self/cgroup")


def available_memory() -> int | None:
    """Bytes that this process can still take without swapping; None where that is unknown.

    The smaller of what the system has free and what its control group (a container's limit) leaves.
    """
    known = [free for free in (_system_memory(), _group_memory()) if free is not None]
    return min(known) if known else None


def require_memory(thing: str, nbytes: float) -> None:
    """Raise `InputError` where what is to be read would not fit into the memory that is free."""
    free = available_memory()
    if free is not None and nbytes > free:
        raise InputError(
            thing,
            expected=f"no more than the {size(free)} of memory that are free",
            found=f"{size(nbytes)} once it is unpacked",
            remedy="Use fewer rows, or a larger machine.",
        )


def device_memory(device: str) -> int | None:
    """Free bytes of a GPU with separate memory; None for devices that share the system's."""
    return int(torch.cuda.mem_get_info()[0]) if device == "cuda" else None


def parse_bytes(text: str) -> float:
    """The bytes that `4GB`, `500 MB` or `2e9` says; raises `InputError` for anything else."""
    found = re.fullmatch(r"\s*([\d.]+(?:e\d+)?)\s*([kKMGT]?)i?B?\s*", text)
    with contextlib.suppress(ValueError):
        if found:
            return float(found[1]) * UNITS[found[2].upper()]
    raise InputError("size", expected="a number of bytes such as 4GB or 500MB", found=f"'{text}'")


def free_disk(path: Path) -> int | None:
    """Free bytes of the disk on which `path` is to be made; None where that is unknown."""
    place = path.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        return shutil.disk_usage(place).free
    except OSError:
        return None


def allocated(folder: Path) -> int:
    """Bytes that the files in a folder take on their disk; holes take none."""
    files = [file for file in folder.rglob("*") if file.is_file()] if folder.is_dir() else []
    return sum(getattr(file.stat(), "st_blocks", 0) * 512 for file in files)


def _system_memory() -> int | None:
    try:
        for line in MEMINFO.read_text("ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:  # elsewhere: half of all there is
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (ValueError, OSError, AttributeError):
        return None


def _group_memory() -> int | None:
    """What the control groups above this process leave; version 2, then version 1."""
    try:
        lines = [line.split(":", 2) for line in OWN_GROUP.read_text().splitlines()]
    except OSError:
        return None
    found: list[int] = []
    for _, controllers, path in (line for line in lines if len(line) == 3):
        if not controllers:
            root, most, used = GROUPS, "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            root, most, used = GROUPS / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        folder = root / path.strip("/")
        # Inside a container the path is often that of the host; its own group is then the root.
        for place in {folder, *(p for p in folder.parents if p.is_relative_to(root)), root}:
            limit, now = _number(place / most), _number(place / used)
            if limit is not None and now is not None:
                found.append(max(0, limit - now + _file_pages(place)))
    return min(found, default=None)


def _file_pages(place: Path) -> int:
    """Cached files count as used, and are given up when memory is asked for."""
    try:
        rows = dict(line.split() for line in (place / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return 0
    return int(rows.get("inactive_file", rows.get("total_inactive_file", 0)))


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # "max": no limit
        return None
