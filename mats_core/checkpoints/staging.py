"""Outputs that appear whole or not at all: written beside their place, then renamed."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ..errors import InputError

try:
    import fcntl
except ImportError:
    fcntl = None


def partial_of(target: Path) -> Path:
    """The folder in which an output is written until it is complete."""
    return Path(target).with_name(f".{Path(target).name}.partial")


@contextlib.contextmanager
def staged_directory(target: Path, *, force: bool = False, resume: bool = False) -> Iterator[Path]:
    """A folder beside `target` that takes its name only if the block succeeds.

    `resume`: what an earlier block left in it is kept, and so is what this one leaves if it fails.
    Raises `InputError` if `target` exists and `force` is not set (with `force` it is replaced only
    after the new folder is complete), or if another process is writing it.
    """
    target = Path(target)
    refuse_existing(target, force)
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = partial_of(target)
    with _alone_in(staging, target):
        refuse_existing(target, force)  # whoever was waited for may have made it
        if not resume:
            _empty(staging)
        try:
            yield staging
            _take_name(staging, target)
        finally:
            if not resume:
                shutil.rmtree(staging, ignore_errors=True)


@contextlib.contextmanager
def _alone_in(folder: Path, target: Path) -> Iterator[None]:
    """Hold a lock on a folder, which goes with the process however it ends."""
    folder.mkdir(exist_ok=True)
    if fcntl is None:  # no such locks on Windows
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"output '{target}'",
                expected="an output that no other merge is writing",
                found="one that another merge is writing",
                remedy="Wait for it, or choose another output.",
            ) from None
        yield
    finally:
        os.close(handle)


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _take_name(staging: Path, target: Path) -> None:
    if not target.exists():
        os.rename(staging, target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=target.parent))
    os.rename(target, old / "old")
    try:
        os.rename(staging, target)
    except BaseException:
        os.rename(old / "old", target)
        old.rmdir()
        raise
    shutil.rmtree(old)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def refuse_existing(target: Path, force: bool) -> None:
    """Raise `InputError` if `target` exists and may not be replaced."""
    if Path(target).exists() and not force:
        raise InputError(
            f"output '{target}'",
            expected="a path that does not exist",
            found="an existing one",
            remedy="Choose another output, or pass --force to replace it.",
        )


@contextlib.contextmanager
def staged_file(file: Path) -> Iterator[Path]:
    """A path beside `file` that takes its name only if the block succeeds."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    os.close(handle)
    try:
        yield Path(name)
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, file)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def write_atomically(file: Path, data: bytes) -> None:
    """Write a file whole or not at all: under another name first, then renamed."""
    with staged_file(file) as place, place.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
