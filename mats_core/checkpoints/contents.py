"""What lies in a file: where a tensor is, its digest, and whether its numbers are finite.

Both are found in one reading, by several threads, and of large files remembered in the cache folder
until the file changes, for SHA-256 is most of what a merge from disk costs: 0.2 to 2 GB a second.
A file has changed if its inode, size, time of modification or time of change has.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import time
from collections.abc import Hashable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch
from zlib_ng.zlib_ng import crc32

from ..errors import InputError, MachineError, foreseen, read_json
from ..system import SETTLED, Stamp, cache_folder, recall, stamp_of
from .source import Entry, all_finite
from .staging import staged_file

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
BLOCK = 1 << 20  # bytes read at once: they are still in the cache when they are looked at
WORTH = 1 << 23  # bytes of a file whose contents are remembered for the next process
KNOWN = 1 << 15  # bytes that what is known of a file counts as: a hundred tensors, say
FILES = 1024  # files that are remembered; a few kB each
FORMAT = "mats-contents-1"


@dataclass(frozen=True)
class TensorEntry(Entry):
    """Position and kind of one tensor in a `.safetensors` file.

    file     the file that holds it
    offset   bytes before it in the file
    dtype    type of its numbers
    shape    length of every dimension
    """

    file: Path
    offset: int
    dtype: torch.dtype
    shape: tuple[int, ...]

    @functools.cached_property
    def key(self) -> str:
        """Text that tells the tensors of one file apart, as a key of a JSON file."""
        return f"{self.offset} {DTYPE_NAMES[self.dtype]} {list(self.shape)}"


@dataclass(frozen=True)
class Contents:
    """SHA-256 of a tensor's dtype, shape and bytes, and whether all its numbers are finite."""

    digest: str
    finite: bool


@dataclass
class _Facts:
    """What is known of one state of a file; `kept`: how much of it is in the cache folder."""

    tensors: dict[str, Contents] = field(default_factory=dict)
    kept: int = 0


Held = dict[Hashable, _Facts]


def contents(entry: TensorEntry, held: Held) -> Contents:
    """What a tensor's bytes are, from memory where the file has not changed since they were read.

    `held`: what one checkpoint has learnt of its files, however little the process may remember.
    Raises `InputError` where the file is shorter than its header says.
    """
    before = _stamp(entry.file)
    known = _facts(entry.file, before, held).tensors
    if entry.key not in known:
        found = _read(entry)
        if _stamp(entry.file) != before:  # what was read belongs to no state of the file
            return found
        known[entry.key] = found
    return known[entry.key]


def contents_of_all(entries: Mapping[str, TensorEntry], held: Held) -> dict[str, Contents]:
    """`contents` of each of these tensors by its name, for one look at the state of every file."""
    files = {entry.file for entry in entries.values()}
    known = {file: _facts(file, _stamp(file), held).tensors for file in files}
    return {
        name: known[entry.file].get(entry.key) or contents(entry, held)
        for name, entry in entries.items()
    }


def digests(file: Path, held: Held) -> dict[str, str]:
    """What a checkpoint has learnt of a file's tensors, by their keys: the digest of each."""
    found: dict[str, str] = {}
    for (_, of, _), facts in ((cast(tuple[str, Path, Stamp], k), f) for k, f in held.items()):
        if of == file:
            found |= {key: one.digest for key, one in facts.tensors.items() if key not in found}
    return found


def look_through(entries: Iterable[TensorEntry], held: Held) -> None:
    """Find out what is not known yet of these tensors, one a thread of arithmetic; remember it."""
    entries = list(entries)
    stamps = {file: _stamp(file) for file in {entry.file for entry in entries}}
    facts = {file: _facts(file, stamp, held) for file, stamp in stamps.items()}
    todo = [entry for entry in entries if entry.key not in facts[entry.file].tensors]
    todo.sort(key=lambda entry: -entry.nbytes)  # the last ones are small: nobody waits long
    if sum(entry.nbytes for entry in todo) < WORTH:
        for entry in todo:
            contents(entry, held)
    else:
        with ThreadPoolExecutor(torch.get_num_threads()) as threads:
            list(threads.map(lambda entry: contents(entry, held), todo))
    for file, stamp in stamps.items():
        _remember(file, stamp, facts[file])


def _stamp(file: Path) -> Stamp:
    with foreseen(f"'{file}'"):
        return stamp_of(os.stat(file))


def _read(entry: TensorEntry) -> Contents:
    digest = hashlib.sha256(f"{DTYPE_NAMES[entry.dtype]}{list(entry.shape)}".encode())
    finite, left = True, entry.nbytes
    for part in _blocks(entry):
        digest.update(part)
        if finite and entry.dtype.is_floating_point:
            finite = all_finite(torch.frombuffer(part, dtype=entry.dtype))
        left -= len(part)
    if left:
        raise InputError(f"'{entry.file}'", expected="a whole file", found="a truncated one")
    return Contents(digest.hexdigest(), finite)


def checksum(entry: TensorEntry) -> int:
    """CRC-32 of a tensor's bytes, as `writer.TensorFileWriter.checksum` took it.

    zlib-ng's is the number of zlib, in a fifth to a fifteenth of the time.
    """
    found = 0
    for part in _blocks(entry):
        found = crc32(part, found)
    return found


def _blocks(entry: TensorEntry) -> Iterator[memoryview]:
    """The bytes of a tensor, as many as the file has; each block holds until the next one."""
    block, left = bytearray(min(BLOCK, entry.nbytes)), entry.nbytes
    view = memoryview(block)
    with foreseen(f"'{entry.file}'"), open(entry.file, "rb") as handle:
        handle.seek(entry.offset)
        while left and (count := handle.readinto(view[: min(BLOCK, left)])):
            yield view[:count]
            left -= count


# Remembering --------------------------------------------------------------------------------------


def _facts(file: Path, stamp: Stamp, held: Held) -> _Facts:
    """What is known of a file as it is now; what is found out later is added to it."""
    key = ("contents", file, stamp)
    if key not in held:
        held.setdefault(key, recall(key, lambda: _kept(file, stamp), lambda _: KNOWN))
    return held[key]


def _kept(file: Path, stamp: Stamp) -> _Facts:
    """What the cache folder says of a large file."""
    if stamp[1] < WORTH:
        return _Facts()
    try:
        found = read_json(_place(file))
        if (found["format"], found["stamp"]) != (FORMAT, list(stamp)):
            return _Facts()
        tensors = {key: Contents(str(d), bool(f)) for key, (d, f) in found["tensors"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return _Facts()  # not there, or damaged: it is only a cache
    return _Facts(tensors, len(tensors))


def _remember(file: Path, stamp: Stamp, facts: _Facts) -> None:
    """Keep what is known of a large file for the next process; failing to costs only time."""
    if stamp[1] < WORTH or len(facts.tensors) <= facts.kept:
        return
    # A file that changes twice within one tick of its clock looks as if it had changed once.
    if time.time_ns() - max(stamp[2:]) < SETTLED * 1e9 or _stamp(file) != stamp:
        return
    tensors = {key: (one.digest, one.finite) for key, one in facts.tensors.items()}
    place = _place(file)
    with contextlib.suppress(OSError, MachineError):
        with staged_file(place) as draft:
            draft.write_text(json.dumps({"format": FORMAT, "stamp": stamp, "tensors": tensors}))
        facts.kept = len(tensors)
        oldest = sorted(place.parent.iterdir(), key=lambda one: -one.stat().st_mtime_ns)
        for old in oldest[FILES:]:
            old.unlink()


def _place(file: Path) -> Path:
    name = hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:32]
    return cache_folder() / "contents" / f"{name}.json"
