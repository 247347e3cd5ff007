"""Where the library keeps what it can make again, and which names can be those of folders."""

from __future__ import annotations

import functools
import os
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from .under_way import folder_of_process

RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # on Windows
LONGEST_NAME = 200  # bytes; beside it lies a longer one while it is written


def folder_name(name: str) -> str:
    """`name`, if every system takes it as that of one folder.

    Raises `ValueError` that says what is wrong with it: separators, only dots, a blank or a dot at
    an end, a name that Windows reserves, more than 200 bytes.
    """
    said = f"'{name[:40]}' cannot be the name of a folder: "
    if not name:
        raise ValueError(said + "it is empty")
    if not re.fullmatch(r"[\w .+-]+", name):
        raise ValueError(said + "use letters, digits, blanks and any of _ . + -")
    if not name.strip(". "):
        raise ValueError(said + "it consists of dots and blanks")
    if name != name.strip() or name.endswith("."):
        raise ValueError(said + "it starts or ends with a blank, or ends with a dot")
    if RESERVED.fullmatch(name):
        raise ValueError(said + "Windows reserves it")
    if len(name.encode()) > LONGEST_NAME:
        raise ValueError(said + f"it has {len(name.encode())} bytes, of at most {LONGEST_NAME}")
    return name


FolderName = Annotated[str, AfterValidator(folder_name)]


def results_folder() -> Path:
    """`MATS_RESULTS`, else `~/.local/share/mats-explorer`: the finished runs of the app."""
    configured = os.environ.get("MATS_RESULTS")
    return Path(configured) if configured else _home() / ".local" / "share" / "mats-explorer"


def cache_folder() -> Path:
    """`MATS_CACHE`, else `~/.cache/mats-explorer`.  Deleting it loses time, never results.

    Where that cannot be made or written, a folder that goes with this process.
    """
    configured = os.environ.get("MATS_CACHE")
    return _writable(Path(configured) if configured else _home() / ".cache" / "mats-explorer")


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:  # a user without one, as in some containers
        return Path(os.devnull)


@functools.cache
def _writable(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
    except (OSError, ValueError):
        pass
    return folder_of_process("cache")
