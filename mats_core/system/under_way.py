"""Files and folders under way: hidden beside what they are for, and locked as long as their process
lives.

However a process ends, its locks end with it.  So what dead processes left is told from what the
living have, not by age, and the next one that writes the same thing removes it.  Between making
something and locking it another process may take it for left behind.  Once the lock is there it is
seen whether the name still is that of what was made; else another one is made.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

try:
    import fcntl
except ImportError:
    fcntl = None

UNDER_WAY = ".mats-part"  # how names end of what is under way
Holder = Literal["ours", "theirs", "none", "gone"]


@contextlib.contextmanager
def file_under_way(place: Path) -> Iterator[Path]:
    """An empty file beside `place`, removed at the end where it still has its name."""
    sweep(place)
    while True:
        handle, name = tempfile.mkstemp(UNDER_WAY, f".{place.name}.", place.parent)
        if lock(handle, name, wait=True) != "gone":
            break
        os.close(handle)
    try:
        yield Path(name)
    finally:
        os.close(handle)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


@contextlib.contextmanager
def folder_under_way(place: Path) -> Iterator[Path]:
    """An empty folder beside `place`, removed at the end with all that is in it."""
    sweep(place)
    name, handle = _new_folder(place)
    try:
        yield Path(name)
    finally:
        shutil.rmtree(name, ignore_errors=True)
        if handle is not None:
            os.close(handle)


def temporary_file(called: str) -> contextlib.AbstractContextManager[Path]:
    """An empty file among the temporary ones of the system, as `file_under_way`."""
    return file_under_way(Path(tempfile.gettempdir()) / f"mats-{called}")


def temporary_folder(called: str) -> contextlib.AbstractContextManager[Path]:
    """An empty folder among the temporary ones of the system, as `folder_under_way`."""
    return folder_under_way(Path(tempfile.gettempdir()) / f"mats-{called}")


def folder_of_process(called: str) -> Path:
    """A temporary folder that is removed when this process ends, or by a later one."""
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(temporary_folder(called))


def _new_folder(place: Path) -> tuple[str, int | None]:
    while True:
        name = tempfile.mkdtemp(UNDER_WAY, f".{place.name}.", place.parent)
        if fcntl is None:  # on Windows a folder cannot be opened
            return name, None
        try:
            handle = os.open(name, os.O_RDONLY)
        except FileNotFoundError:
            continue
        except OSError:  # of descriptors there may be none left
            os.rmdir(name)
            raise
        if lock(handle, name, wait=True) != "gone":
            return name, handle
        os.close(handle)


def sweep(place: Path) -> None:
    """Remove what processes left beside `place` that have ended."""
    for left, holder in beside_under_way(place, UNDER_WAY):
        if holder != "ours":
            continue
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                os.unlink(left)


def beside_under_way(place: Path, ending: str) -> Iterator[tuple[Path, Holder]]:
    """The files and folders beside `place` that are named for it with such an ending, and whose the
    locks are: `ours` for what a process left that has ended, until the next one is asked for."""
    named = re.compile(rf"\.{re.escape(place.name)}\.[^.]+{re.escape(ending)}")
    with contextlib.suppress(FileNotFoundError):
        for entry in sorted(os.scandir(place.parent), key=lambda one: one.name):
            if fcntl is None or not named.fullmatch(entry.name):
                continue
            with contextlib.suppress(OSError):
                handle = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
                try:
                    form = os.fstat(handle).st_mode
                    plain = stat.S_ISREG(form) or stat.S_ISDIR(form)
                    if plain and (holder := lock(handle, entry.path)) != "gone":
                        yield Path(entry.path), holder
                finally:
                    os.close(handle)


def lock(handle: int, name: str | Path, *, wait: bool = False) -> Holder:
    """Whose the lock of an open file or folder is, once it was tried to take it here.

    `ours` until it is closed; `theirs`: another process; `none`: the system, or this file system,
    has no locks; `gone`: what is open does not have this name any more.
    """
    holder: Holder = "ours"
    if fcntl is None:  # no such locks on Windows
        return "none"
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        holder = "theirs"
    except OSError:
        holder = "none"
    try:
        same = os.path.samestat(os.fstat(handle), os.lstat(name))
    except FileNotFoundError:
        same = False
    return holder if same else "gone"
