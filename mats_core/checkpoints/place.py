"""Where an output may go: never over, around or inside of what it is made from.

Links are followed before places are compared.  What exists already is replaced only where it was
asked for and where it was written by the same job before; that is for the caller to tell.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from ..errors import InputError, listing
from ..system import LONGEST_NAME

REPLACE = "pass --force (force=True in Python) to replace it"

Reads = Iterable[tuple[str, Path]]
Foreign = Callable[[Path], str]


def refuse_existing(target: Path) -> None:
    """Raise `InputError` if something lies at `target`, be it a link to nothing."""
    if os.path.lexists(target):
        raise InputError(
            f"output '{target}'",
            expected="a path that does not exist",
            found=what_lies(target),
            remedy=f"Choose another output, or {REPLACE}.",
        )


def require_folder(target: Path, reads: Reads, *, force: bool, foreign: Foreign) -> None:
    """Raise `InputError` where a folder cannot be written without a loss.

    Refused, with `force` too: a folder that is, contains or lies inside one of `reads` (what is
    read, with its path), and an existing one of which `foreign` says what another hand put there
    ("" for nothing).  An empty folder may be replaced with `force`.
    """
    thing = f"output '{target}'"
    _require_name(thing, target)
    place = target.resolve()
    for whose, lies in reads:
        lies = lies.resolve()
        if place == lies or place in lies.parents or (lies.is_dir() and lies in place.parents):
            where = "in it" if place in lies.parents else f"at '{lies}'"
            raise InputError(
                thing,
                expected="a folder apart from all that is read",
                found=f"{whose} {where}",
                remedy="Choose another folder.",
            )
    if not os.path.lexists(target):
        return
    if not target.is_dir():
        found = what_lies(target)
    else:
        found = foreign(target) if any(target.iterdir()) else ""
    if found:
        raise InputError(
            thing,
            expected="nothing there, or a folder that holds what a merge wrote and nothing else",
            found=found,
            remedy="Choose another folder, or move that one away.",
        )
    if not force:
        refuse_existing(target)


def require_file(target: Path, reads: Reads, *, force: bool, kind: str, ours: bool) -> None:
    """Raise `InputError` where a file cannot be written without a loss.

    Refused, with `force` too: one of the files that are read, and one that exists and is not
    `ours`: of the `kind` that is written.
    """
    thing = f"output '{target}'"
    _require_name(thing, target)
    for whose, lies in reads:
        if target.resolve() == lies.resolve():
            raise InputError(
                thing,
                expected="a file apart from all that is read",
                found=whose,
                remedy="Choose another output.",
            )
    if not os.path.lexists(target):
        return
    if target.is_dir() or not ours:
        raise InputError(
            thing,
            expected=f"a {kind} to replace",
            found=what_lies(target) if target.is_dir() else "a file of another kind",
            remedy="Choose another output, or move that one away.",
        )
    if not force:
        refuse_existing(target)


def _require_name(thing: str, target: Path) -> None:
    """Raise `InputError` where nothing of this name can be made."""
    found = ""
    if "\0" in str(target):
        found = "a name with a zero byte"
    elif _in_a_circle(target):  # which cannot be resolved
        found = "links that lead in a circle"
    elif target.name in ("", "..") or target.resolve() in (Path.cwd(), *Path.cwd().parents):
        found = "the working directory, or one above it"
    elif not target.name.strip():
        found = "a name of blanks alone"
    elif len(os.fsencode(target.name)) > LONGEST_NAME:
        found = f"a name of {len(os.fsencode(target.name))} bytes, of at most {LONGEST_NAME}"
    else:
        try:
            os.lstat(target)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                found = f"'{error.strerror}'"
        above = next((p for p in target.parents if not found and os.path.lexists(p)), None)
        if above is not None and not above.is_dir():
            found = f"'{above}', which is no folder"
    if found:
        raise InputError(
            thing,
            expected="the path of a folder that can be made",
            found=found,
            remedy="Choose another folder, such as 'merged'.",
        )


def _in_a_circle(target: Path) -> bool:
    try:
        os.stat(target)
    except OSError as error:
        return error.errno == errno.ELOOP
    return False


def what_lies(target: Path) -> str:
    """What lies at a path, in words: `a file`, `an empty folder`, `a folder with a, b and c`."""
    if target.is_symlink() and not target.exists():
        return "a link to nothing"
    if not target.is_dir():
        return "a file"
    names = sorted(entry.name for entry in target.iterdir())
    return f"a folder with {listing(names)}" if names else "an empty folder"
