"""What the machine refuses, and what a parser cannot read, in the same one sentence."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from .sentences import InputError, reason

ROOM = "Make room there, or choose a folder on another disk."
ADDRESS = re.compile(r"(^|[/\\])(https?|s3|gs|hf|ftp):/")  # a path has one slash left of two
DOWNLOAD = "Download it first, and name the file; a model of the hub is named as owner/name."
SPELLING = "Check the spelling; relative paths start at the recipe's folder."
DISTURBED = "recursion depth mismatch"  # of Python's own parser, by another thread's
TRIES = 20
MOST_JSON = 100_000_000  # bytes; a tokenizer of 250,000 pieces has 30 MB
T = TypeVar("T")
LEAVE = "Ask for the permission, or choose another folder."
FEWER = "Close other programs, use fewer threads (OMP_NUM_THREADS), or merge on a larger machine."
# What the system refuses → what was wanted, what there is, and the way out.
SYSTEM: dict[int, tuple[str, str, str]] = {
    errno.ENOSPC: ("room to write", "a full disk", ROOM),
    errno.EDQUOT: ("room to write", "a quota that is used up", ROOM),
    errno.EFBIG: (
        "room to write",
        "a file larger than its disk or a limit allows",
        "Choose another disk (FAT32 takes 4 GB a file), or raise the limit (ulimit -f).",
    ),
    errno.EROFS: ("a disk that can be written", "a read-only one", "Choose another folder."),
    errno.EACCES: ("the permission", "none", LEAVE),
    errno.EPERM: ("the permission", "none", LEAVE),
    errno.ENAMETOOLONG: ("a name that the system takes", "one too long", "Shorten it."),
    errno.EIO: (
        "a disk that answers",
        "an input/output error",
        "The disk may be failing: copy what is on it, and look at the system's log.",
    ),
    errno.EMFILE: (
        "few open files", "as many as this process may have", "Raise the limit: ulimit -n 4096.",
    ),
    errno.ENFILE: ("few open files", "as many as the system may have", "Close other programs."),
    errno.ENOENT: ("an existing file or directory", "nothing there", "Was it moved or removed?"),
    errno.EISDIR: ("a file", "a directory", "Name a file in it, or another path."),
    errno.ENOTDIR: ("a directory", "a file on the way there", "Check the path."),
    errno.ELOOP: ("a path that ends", "links that lead in a circle", "Remove one of the links."),
    errno.ENOMEM: ("memory", "too little of it", FEWER),
    errno.ESTALE: (
        "a file of the network disk", "one that has gone there", "Mount the disk again.",
    ),
}  # fmt: skip
# What libraries say where memory is short; the types of these errors are not theirs alone.
NO_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "bad_alloc",
             "can't start new thread", "not enough memory", "failed to map", "os error 12",
             "resource temporarily unavailable")  # fmt: skip


class MachineError(InputError):
    """What the machine refused, in one clear sentence: disk, memory, permission."""


def machine_error(thing: str, error: BaseException) -> MachineError | None:
    """The sentence for what the machine refused; None for an exception of another kind."""
    if isinstance(error, OSError) and error.errno is not None:
        expected, found, remedy = SYSTEM.get(
            error.errno, ("a system that can do it", f"'{error.strerror}'", "")
        )
        file = error.filename
        named = os.fsdecode(file) if isinstance(file, str | bytes | os.PathLike) else ""
        above, last = os.path.split(named)
        told = named in thing or (last.startswith(".") and above in thing)  # a file under way
        where = thing if told else f"{thing}: '{named}'"
        return MachineError(where, expected=expected, found=found, remedy=remedy)
    said = str(error).lower()
    if isinstance(error, RuntimeError) and said.startswith("symlink loop"):  # before Python 3.13
        return machine_error(thing, OSError(errno.ELOOP, os.strerror(errno.ELOOP)))
    memory = isinstance(error, MemoryError) or any(words in said for words in NO_MEMORY)
    if memory and isinstance(error, MemoryError | RuntimeError | OSError):
        on = "memory of the GPU" if "cuda" in said or "mps" in said else "memory"
        return MachineError(thing, expected=f"enough {on}", found="too little", remedy=FEWER)
    if isinstance(error, OSError):
        return MachineError(thing, expected="a system that can do it", found=reason(error))
    return None


@contextlib.contextmanager
def foreseen(thing: str) -> Iterator[None]:
    """A context in which what the machine refuses becomes a `MachineError` about `thing`.

    A pipe that its reader has closed is none of that, and goes on as it is.
    """
    try:
        yield
    except (OSError, MemoryError, RuntimeError) as error:
        if isinstance(error, BrokenPipeError):
            raise
        found = machine_error(thing, error)
        if found is None:
            raise
        raise found from error


@contextlib.contextmanager
def parsing(thing: str, expected: str, remedy: str = "") -> Iterator[None]:
    """A context in which whatever a parser raises becomes an `InputError` about `thing`."""
    try:
        yield
    except InputError:
        raise
    except BaseException as error:
        # A panic of a library in Rust is no `Exception`, and no library may end this process.
        panic = type(error).__name__ == "PanicException" or isinstance(error, SystemExit)
        if not (panic or isinstance(error, Exception)):
            raise
        raise refusal(thing, error, expected, remedy) from error


def undisturbed(read: Callable[[], T]) -> T:
    """What `read` returns, asked again where another thread disturbed Python's parser.

    numpy reads the header of an array by that parser, and CPython before 3.11.8 counts the depth
    of all threads' parsing in one number (python/cpython#106905): the file is right then.
    """
    for _ in range(TRIES - 1):
        try:
            return read()
        except SystemError as error:
            if DISTURBED not in str(error):
                raise
    return read()


def refusal(thing: str, error: BaseException, expected: str, remedy: str = "") -> InputError:
    """The sentence for what a parser raised: what the machine refused it, or what it could not
    read."""
    # Parsers raise errors of the system for files that are wrong; those have no number.
    wrong = isinstance(error, OSError) and error.errno is None
    refused = None if wrong else machine_error(thing, error)
    return refused or InputError(thing, expected=expected, found=reason(error), remedy=remedy)


def regular(thing: str, file: Path, expected: str = "a file") -> Path:
    """`file` if it can be read like a file, else an `InputError`: a pipe would block for ever."""
    with foreseen(thing):
        mode = os.stat(file).st_mode
    if stat.S_ISREG(mode):
        return file
    found = "a directory" if stat.S_ISDIR(mode) else "a pipe, a socket or a device"
    raise InputError(thing, expected=expected, found=found, remedy="Name another path.")


def read_json(file: Path, most: int = MOST_JSON) -> Any:
    """What a JSON file of at most `most` bytes holds, in UTF-8, UTF-16 or UTF-32; `InputError`
    where it is none."""
    thing = f"'{file}'"
    regular(thing, file)
    with foreseen(thing), open(file, "rb") as handle:
        raw = handle.read(most + 1)
    if len(raw) > most:
        raise InputError(thing, expected=f"at most {most} bytes of JSON", found="more")
    with parsing(thing, "JSON", "Copy or download it again."):
        return json.loads(raw)


def lenient_json(file: Path) -> Any:
    """What a JSON file holds; None where it is missing, or damaged in whichever way."""
    with contextlib.suppress(InputError):
        return read_json(file)
    return None


def plain_json(raw: bytes) -> bytes:
    """The bytes of JSON in UTF-8 without a mark, as other programs read it; as they are where they
    are so already, or are no text."""
    encoding = json.detect_encoding(raw)
    try:
        return raw if encoding == "utf-8" else raw.decode(encoding).encode()
    except ValueError:
        return raw


def existing(thing: str, path: str | Path) -> Path:
    """`path` if it exists, else an `InputError`."""
    path = Path(path)
    with foreseen(f"{thing} '{path}'"):
        there = path.exists()
    if not there:
        address = ADDRESS.search(str(path))
        raise InputError(
            f"{thing} '{path}'",
            expected="an existing file or directory",
            found="an address of the web" if address else "nothing there",
            remedy=DOWNLOAD if address else SPELLING,
        )
    return path
