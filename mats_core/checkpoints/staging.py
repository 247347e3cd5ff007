"""Outputs that appear whole or not at all: written beside their place, then renamed.

What they replace is moved aside first and removed last, and nothing is removed that was not made
here: a folder under way carries `MARK`, and whether a finished one may go is asked of the caller.
A complete one loses its mark under a third name, that ends in `READY`: so no output ever has one.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import glob
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import InputError, foreseen, listing
from ..system import beside_under_way, file_under_way, lock
from .place import refuse_existing

MARK = ".mats-unfinished"
READY = ".mats-ready"  # how the name of a folder ends that is complete, and takes its name now
EXCHANGE, HERE = 2, -100  # RENAME_EXCHANGE and AT_FDCWD of Linux' renameat2


def partial_of(target: Path) -> Path:
    """The folder in which an output is written until it is complete; links are followed."""
    target = Path(target).resolve()
    return target.with_name(f".{target.name}.partial")


@contextlib.contextmanager
def staged_directory(
    target: Path, *, allow: Callable[[Path], None] = refuse_existing, resume: bool = False
) -> Iterator[Path]:
    """A folder beside `target` that takes its name only if the block succeeds.

    `allow`: raises `InputError` where what lies at a path may not be replaced; by default nothing
    may that exists.  `resume`: what an earlier block left in the folder is kept, and so is what
    this one leaves if it fails.  Raises `InputError` if another process is writing `target`, or if
    something lies where the folder would be made.
    """
    allow(target)
    target = Path(target).resolve()
    staging = partial_of(target)
    with contextlib.ExitStack() as stack:
        stack.enter_context(foreseen(f"output '{target}'"))
        target.parent.mkdir(parents=True, exist_ok=True)
        stack.enter_context(_alone_in(staging, target))
        _recover(target, staging, allow, resume)
        allow(target)  # another process, that was waited for, may have made it
        if not resume or not _unfinished(staging):
            _require_unfinished(staging, allow)
            _empty(staging)
        (staging / MARK).touch()
        try:
            yield staging
            _take_name(staging, target)
        finally:
            if not resume:
                shutil.rmtree(staging, ignore_errors=True)


@contextlib.contextmanager
def _alone_in(folder: Path, target: Path) -> Iterator[None]:
    """Hold a lock on a folder, which goes with the process however it ends."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise InputError(
            f"output '{target}'",
            expected=f"nothing at '{folder}', where it is written until it is complete",
            found="a link" if folder.is_symlink() else "a file",
            remedy="Move it away, or choose another output.",
        )
    while True:
        made = not folder.exists()
        folder.mkdir(exist_ok=True)
        if os.name == "nt":  # where no folder can be opened
            yield
            return
        try:
            handle = os.open(folder, os.O_RDONLY)
        except OSError:  # of descriptors there may be none left
            if made:
                folder.rmdir()
            raise
        holder = lock(handle, folder)
        if holder != "gone":
            break
        os.close(handle)  # it took its name in that moment, or was removed
    try:
        if holder == "theirs":
            raise _busy(target)
        yield
    finally:
        os.close(handle)


def _busy(target: Path) -> InputError:
    return InputError(
        f"output '{target}'",
        expected="an output that no other merge is writing",
        found="one that another merge is writing",
        remedy="Wait for it, or choose another output.",
    )


def _unfinished(folder: Path) -> bool:
    return (folder / MARK).is_file()


def _require_unfinished(staging: Path, allow: Callable[[Path], None]) -> None:
    """Raise `InputError` where a folder that is to be emptied holds what was not made here."""
    if _unfinished(staging) or not any(staging.iterdir()):
        return
    try:
        allow(staging)  # an output that was replaced, and not removed any more
    except InputError:
        raise InputError(
            f"folder '{staging}'",
            expected="nothing but an unfinished output, which is written there",
            found=listing(sorted(entry.name for entry in staging.iterdir())),
            remedy="Move it away, or choose another output.",
        ) from None


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _take_name(staging: Path, target: Path) -> None:
    """Put a complete folder in the place of what stands there, which is removed last."""
    for place in (*staging.rglob("*"), staging):
        if not place.is_symlink() and (place.is_file() or place.is_dir()):
            on_disk(place)
    # By its number it is told from what stood there, which may have this name in a moment.
    ready = target.with_name(f".{target.name}.{staging.stat().st_ino}{READY}")
    try:
        os.rename(staging, ready)
        (ready / MARK).unlink()
        on_disk(ready)
        old = _exchange(ready, target)
    except BaseException:
        if ready.exists():
            (ready / MARK).touch()
            os.rename(ready, staging)
        raise
    on_disk(target.parent)
    if old is not None:
        with contextlib.suppress(FileNotFoundError):  # another process may be at it as well
            shutil.rmtree(old)


def _exchange(ready: Path, target: Path) -> Path | None:
    """Name a complete folder `target`; where what stood there lies now, None where nothing did."""
    if not target.exists():
        os.rename(ready, target)
        return None
    if _exchanged(ready, target):
        return ready
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=target.parent))
    os.rename(target, old / "old")
    try:
        os.rename(ready, target)
    except BaseException:
        os.rename(old / "old", target)
        old.rmdir()
        raise
    return old


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange two names in one step, so that neither is missing for a moment, where that works."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        exchange = ctypes.CDLL(None).renameat2
    except AttributeError:
        return False
    return exchange(HERE, os.fsencode(one), HERE, os.fsencode(other), EXCHANGE) == 0


def _recover(target: Path, staging: Path, allow: Callable[[Path], None], resume: bool) -> None:
    """Finish what a process left that was killed while it replaced `target`."""
    for aside in target.parent.glob(f".{glob.escape(target.name)}.*.old"):
        old = aside / "old"
        if aside.is_symlink() or not aside.is_dir():
            continue
        if {entry.name for entry in aside.iterdir()} - {"old"}:
            continue
        if not old.exists():
            aside.rmdir()
        elif not target.exists():
            os.rename(old, target)
            aside.rmdir()
        else:
            with contextlib.suppress(InputError):
                allow(old)
                shutil.rmtree(aside)
    for left, holder in beside_under_way(target, READY):
        if holder == "theirs":  # it takes its name this moment
            raise _busy(target)
        if left.name != f".{target.name}.{left.stat().st_ino}{READY}":  # what stood there
            with contextlib.suppress(InputError):
                allow(left)
                shutil.rmtree(left)
        elif resume:
            (staging / MARK).touch()
            for entry in left.iterdir():
                os.rename(entry, staging / entry.name)
            left.rmdir()
        else:
            shutil.rmtree(left)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextlib.contextmanager
def staged_file(file: Path) -> Iterator[Path]:
    """A path beside `file` that takes its name only if the block succeeds, and is on the disk then.

    What processes left that were killed under way is removed: a lock, which ends with its process,
    tells their files from those of the living.
    """
    with foreseen(f"'{file}'"):
        file.parent.mkdir(parents=True, exist_ok=True)
        with file_under_way(file) as draft:
            yield draft
            os.chmod(draft, 0o666 & ~_umask())
            on_disk(draft)
            os.replace(draft, file)
            on_disk(file.parent)


def on_disk(place: Path) -> None:
    """Wait until what was written to a file, or the names in a folder, would outlast a power cut.

    Where a system cannot do that for folders, nothing is awaited.
    """
    if place.is_dir() and os.name == "nt":
        return
    handle = os.open(place, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(handle)


def write_atomically(file: Path, data: bytes) -> None:
    """Write a file whole or not at all: under another name first, then renamed."""
    with staged_file(file) as place:
        place.write_bytes(data)
