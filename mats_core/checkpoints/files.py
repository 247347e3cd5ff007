"""Checkpoints on disk: lazy reading and fingerprints (`writer.py` has the other direction).

Only `.safetensors` is read, single or sharded, from a directory or a file.  Headers are checked by
the safetensors library; tensors are then read with plain positioned reads and never memory-mapped,
because truncating a mapped file kills the process that reads it.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, final

import safetensors
import torch
from torch import Tensor

from ..errors import BEGIN, InputError, beginning, existing, foreseen, listing, parsing, regular
from ..system import Device, Stamp, stamp_of
from .configuration import read_config
from .contents import (
    DTYPE_NAMES,
    DTYPES,
    Held,
    TensorEntry,
    checksum,
    contents,
    contents_of_all,
    digests,
    look_through,
)
from .folder import STEMS, weight_files
from .quantised import named_format, way_out
from .source import Weights, all_finite
from .wrappers import unwrapped

__all__ = ["DTYPES", "DTYPE_NAMES", "Checkpoint", "TensorEntry", "all_finite", "checksum"]

HEADER_LIMIT = 50_000_000  # bytes; a 7B model's header has 50 kB
CHUNK = 1 << 15  # elements converted at once: they fit a cache, and PyTorch starts no threads


@final
@dataclass(frozen=True)
class Checkpoint(Weights):
    """Weights in `.safetensors` files, read-only; only headers are read until `read` is called.

    path       the directory or file that was opened
    tensors    name, without the wrappers of training → file, byte offset, dtype and shape, sorted
    metadata   `__metadata__` of the headers, all shards together
    stem       the files' name without number and suffix, such as `model`
    states     the files as they were when they were opened: what is read later must be of these
    """

    path: Path
    tensors: Mapping[str, TensorEntry]
    metadata: Mapping[str, str] = field(default_factory=dict)
    stem: str = STEMS[0]
    states: Mapping[Path, Stamp] = field(default_factory=dict, repr=False, compare=False)
    _known: Held = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def open(cls, path: str | Path) -> Checkpoint:
        """The weights of a directory or of a `.safetensors` file (or its `.index.json`).

        Raises `InputError` for a missing path, a pickle (with the command that converts it), a
        malformed header, an unknown dtype, or a tensor that two shards both hold.
        """
        path = existing("checkpoint", path)
        tensors: dict[str, TensorEntry] = {}
        metadata: dict[str, str] = {}
        weights = weight_files(path)
        promised, states = weights.promised, dict[Path, Stamp]()
        for file in weights.files:
            states[file] = stamp_of(os.stat(file))
            entries, file_metadata = read_header(file)
            twice = sorted(tensors.keys() & entries.keys())
            if twice:
                raise InputError(
                    f"checkpoint '{path}'",
                    expected="each tensor in one shard",
                    found=f"{listing(twice)} in two",
                    remedy="Remove the stale shard.",
                )
            tensors.update(entries)
            metadata.update(file_metadata)
        if promised - tensors.keys():
            raise InputError(
                f"checkpoint '{path}'",
                expected="every tensor of its index",
                found=f"no {listing(sorted(promised - tensors.keys()))}",
                remedy="A shard is not the one that the index was written for; copy it again.",
            )
        names = unwrapped(tensors)
        plain = {names[name]: entry for name, entry in tensors.items()}
        return cls(path, dict(sorted(plain.items())), metadata, weights.stem, states)

    @property
    def directory(self) -> Path | None:
        """The directory with `config.json`, or None for a bare file."""
        folder = self.path if self.path.is_dir() else self.path.parent
        return folder if (folder / "config.json").is_file() else None

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        """The parsed `config.json`, empty where there is none (see `configuration.py`)."""
        return read_config(self.directory / "config.json") if self.directory else {}

    def read(
        self, name: str, *, dtype: torch.dtype | None = None, device: Device | None = None
    ) -> Tensor:
        """One tensor, freshly allocated; `dtype` and `device` as stored and CPU by default."""
        entry = self.tensors[name]
        value = torch.empty(entry.elements, dtype=dtype or entry.dtype)
        self._fill(name, 0, value)
        return value.reshape(entry.shape).to(device=device)

    def reads_parts(self, name: str) -> bool:
        return True

    def fill(self, name: str, start: int, value: Tensor) -> None:
        """Read the elements from `start` on into all of `value`, flat and on the CPU."""
        self._fill(name, start, value)

    def _fill(self, name: str, start: int, value: Tensor) -> None:
        entry = self.tensors[name]
        with foreseen(f"tensor '{name}' of '{entry.file}'"):
            _fill(name, entry, start, value, self.states.get(entry.file))

    def digest(self, name: str) -> str:
        """SHA-256 of one tensor's dtype, shape and bytes."""
        return contents(self.tensors[name], self._known).digest

    def digests(self) -> dict[str, str]:
        found = contents_of_all(self.tensors, self._known)
        return {name: one.digest for name, one in found.items()}

    def finite(self, name: str) -> bool:
        """Whether all numbers of a tensor are finite."""
        entry = self.tensors[name]
        return not entry.dtype.is_floating_point or contents(entry, self._known).finite

    def require_unchanged(self) -> None:
        """Raise `InputError` where a file is not the one any more that was opened.

        Its inode, size and time of modification tell; where the system has noted another change (of
        the rights, or one whose time was set back), the contents are held against their digests.
        """
        for file, opened in self.states.items():
            with foreseen(f"'{file}'"):
                now = stamp_of(os.stat(file))
            if now == opened:
                continue
            known = digests(file, self._known) if now[:3] == opened[:3] else {}
            entries = [one for one in self.tensors.values() if one.file == file]
            same = all(
                one.key in known and contents(one, {}).digest == known[one.key] for one in entries
            )
            if not same:
                raise InputError(
                    f"'{file}'",
                    expected="the file that was opened",
                    found="one that has changed since",
                    remedy="Start again with files that are left alone meanwhile.",
                )

    def look_through(self) -> None:
        """Compute digests and look for NaN and infinity in one reading (`contents.py`)."""
        look_through(self.tensors.values(), self._known)


def _fill(
    name: str, entry: TensorEntry, start: int, value: Tensor, opened: Stamp | None = None
) -> None:
    """Read in place where the dtype stays; else converted block by block, never as a whole."""
    if not len(value):
        return
    with open(entry.file, "rb") as handle:
        now = os.fstat(handle.fileno())
        if now.st_size < entry.offset + entry.nbytes:
            raise _changed(
                name, entry, f"{entry.nbytes} bytes", "fewer: it changed while it was open"
            )
        if opened is not None and stamp_of(now)[:3] != opened[:3]:
            raise _changed(name, entry, "the file that was opened", "one that has changed since")
        handle.seek(entry.offset + start * entry.dtype.itemsize)
        if value.dtype == entry.dtype:
            _read(handle, _bytes(value), name, entry)
        else:
            block = torch.empty(min(len(value), CHUNK), dtype=entry.dtype)
            room = _bytes(block)
            for part in value.split(CHUNK):
                count = part.numel()
                _read(handle, room[: count * entry.dtype.itemsize], name, entry)
                part.copy_(block[:count])
        _soon(handle, entry, start, len(value))


def _soon(handle: BinaryIO, entry: TensorEntry, start: int, count: int) -> None:
    """Let the kernel fetch the next piece while this one is worked on; it does not wait for it."""
    begin, size = start + count, entry.dtype.itemsize
    left = min(count, entry.elements - begin)
    if left > 0 and hasattr(os, "posix_fadvise"):
        place = entry.offset + begin * size
        os.posix_fadvise(handle.fileno(), place, left * size, os.POSIX_FADV_WILLNEED)


def _bytes(value: Tensor) -> memoryview:
    return value.view(torch.uint8).numpy().data


def _read(handle: BinaryIO, room: memoryview, name: str, entry: TensorEntry) -> None:
    if handle.readinto(room) != len(room):  # type: ignore[attr-defined]
        found = "fewer: the file changed while it was open"
        raise _changed(name, entry, f"{entry.nbytes} bytes", found)


def _changed(name: str, entry: TensorEntry, expected: str, found: str) -> InputError:
    return InputError(
        f"tensor '{name}' of '{entry.file}'",
        expected=expected,
        found=found,
        remedy="Start again with files that are left alone meanwhile; copy the checkpoint again "
        "if it is not whole.",
    )


def read_header(file: Path) -> tuple[dict[str, TensorEntry], dict[str, str]]:
    """The entries and metadata of one `.safetensors` file.

    The safetensors library validates the layout first; duplicate names, which it lets pass, and
    headers beyond `HEADER_LIMIT` are refused here.
    """
    thing = f"'{file}'"
    regular(thing, file)
    with foreseen(thing), open(file, "rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        if length > HEADER_LIMIT:
            handle.seek(0)
            if told := beginning(handle.read(BEGIN)):
                wanted = "tensors in safetensors"
                raise InputError(thing, expected=wanted, found=told[0], remedy=told[1])
            raise InputError(
                thing,
                expected=f"a header under {HEADER_LIMIT} bytes, as of a file in safetensors",
                found=f"{length}",
                remedy="Copy or download it again.",
            )
        raw = handle.read(length)
    with parsing(thing, "a well-formed safetensors file", "Copy or download it again."):
        with safetensors.safe_open(file, framework="pt"):
            pass
        header = json.loads(raw, object_pairs_hook=_without_duplicates)
    metadata = header.pop("__metadata__", None) or {}
    entries: dict[str, TensorEntry] = {}
    for name, value in header.items():
        if value["dtype"] not in DTYPES:
            quantised = named_format({n: str(one["dtype"]) for n, one in header.items()})
            raise InputError(
                f"tensor '{name}' of '{file}'",
                expected=f"a dtype of {', '.join(DTYPES)}",
                found=f"{value['dtype']}{f' ({quantised})' if quantised else ''}",
                remedy=way_out(quantised) if quantised else "Convert it to one of these.",
            )
        start = 8 + length + value["data_offsets"][0]
        entries[name] = TensorEntry(file, start, DTYPES[value["dtype"]], tuple(value["shape"]))
    return entries, metadata


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("the same name stands twice in the header")
    return result
