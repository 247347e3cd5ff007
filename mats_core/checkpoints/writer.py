"""Writing checkpoints: tensor by tensor, and whole or not at all.

Everything is written beside its place and renamed.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from zlib_ng.zlib_ng import crc32

from ..errors import foreseen, listing
from .contents import DTYPE_NAMES, TensorEntry
from .folder import INDEX, PICKLES, SAFE, STEMS

SHARD_BYTES = 5_000_000_000  # the Hugging Face default

Spec = tuple[torch.dtype, tuple[int, ...]]


class _Closed(ABC):
    """What is closed where its `with` ends: complete, or after an error as it is."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is None:
            self.close()
        else:
            self.discard()

    @abstractmethod
    def close(self) -> None: ...
    @abstractmethod
    def discard(self) -> None: ...


class TensorFileWriter(_Closed):
    """Writer of one `.safetensors` file, tensor by tensor, in any order.

    Names, dtypes and shapes are given first, so the header is fixed and each tensor goes straight
    to its offset: peak memory is one tensor, or one piece of it.  `done`: tensors that a writer of
    the same file, which did not come to its end, has written already.
    """

    def __init__(
        self,
        file: Path,
        specs: Mapping[str, Spec],
        metadata: Mapping[str, str] | None = None,
        *,
        done: Collection[str] = (),
    ) -> None:
        header: dict[str, Any] = {"__metadata__": {"format": "pt", **(metadata or {})}}
        offset = 0
        self._places: dict[str, int] = {}
        # Wide dtypes first keeps every tensor aligned, as the format's own writer does.
        for name in sorted(specs, key=lambda name: (-specs[name][0].itemsize, name)):
            dtype, shape = specs[name]
            size = TensorEntry(file, 0, dtype, shape).nbytes
            header[name] = {
                "dtype": DTYPE_NAMES[dtype],
                "shape": list(shape),
                "data_offsets": [offset, offset + size],
            }
            self._places[name] = offset
            offset += size
        raw = json.dumps(header, separators=(",", ":")).encode()
        raw += b" " * (-len(raw) % 8)
        self._file = file
        self._specs, self._missing = dict(specs), set(specs).difference(done)
        self._sums: dict[str, int] = {}
        head = len(raw).to_bytes(8, "little") + raw
        self._start = len(head)
        self._handle = file.open("r+b" if done else "wb")
        if not done:
            self._handle.write(head)
            self._handle.truncate(self._start + offset)
            self._handle.flush()  # others may read the header before anything else is written
        elif self._handle.read(len(head)) != head:
            self._handle.close()
            raise ValueError(f"{file}: not the file that was begun")
        self._dirty = True

    def add(self, name: str, value: Tensor, start: int | None = None) -> None:
        """Write a tensor, or its elements from `start` on, flat; pieces come in their order."""
        dtype, shape = self._specs[name]
        if start is None and tuple(value.shape) != shape:
            raise ValueError(f"{name}: shape {tuple(value.shape)} where {shape} was announced")
        end = (start or 0) + value.numel()
        elements = math.prod(shape)
        if end > elements:
            raise ValueError(f"{name}: {end} elements where {elements} were announced")
        data = value.detach().to(device="cpu", dtype=dtype).contiguous()
        self._handle.seek(self._start + self._places[name] + (start or 0) * dtype.itemsize)
        raw = data.reshape(-1).view(torch.uint8).numpy().data if data.numel() else b""
        begun = self._sums.get(name, 0) if start else 0
        with foreseen(f"'{self._file}'"):
            self._handle.write(raw)
        self._sums[name] = crc32(raw, begun)
        self._dirty = True
        if end == elements:
            self._missing.discard(name)

    def checksum(self, name: str) -> int:
        """CRC-32 of what was written of a tensor (`checkpoints.checksum` reads it back)."""
        return self._sums[name]

    def taken(self, name: str, checksum: int) -> None:
        """Take note of a tensor that another process has written into this file."""
        self._sums[name] = checksum
        self._missing.discard(name)

    def sync(self) -> None:
        """Return when all that was written is on the disk."""
        if self._dirty:
            with foreseen(f"'{self._file}'"):
                self._handle.flush()
                os.fsync(self._handle.fileno())
            self._dirty = False

    def discard(self) -> None:
        """Close a file that is not wanted any more, as it is, also where its disk is full."""
        with contextlib.suppress(OSError):
            self._handle.close()

    def close(self) -> None:
        """Flush to disk and close.  Raises `ValueError` if an announced tensor never came."""
        try:
            self.sync()
        finally:
            self.discard()
        if self._missing:
            raise ValueError(f"never written: {listing(sorted(self._missing))}")


def write_tensors(
    file: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors that are at hand into a `.safetensors` file; on the disk when this returns."""
    specs = {name: (value.dtype, tuple(value.shape)) for name, value in tensors.items()}
    with TensorFileWriter(file, specs, metadata) as writer:
        for name, value in tensors.items():
            writer.add(name, value)


class CheckpointWriter(_Closed):
    """Writer of `model.safetensors`, or of shards with an index above `shard_bytes`, into a folder.

    `stem`: what the files are called instead of `model`.  `done`: tensors that an earlier writer of
    the same files has written already.
    """

    def __init__(
        self,
        folder: Path,
        specs: Mapping[str, Spec],
        *,
        metadata: Mapping[str, str] | None = None,
        shard_bytes: int = SHARD_BYTES,
        done: Collection[str] = (),
        stem: str = STEMS[0],
    ) -> None:
        self.specs = specs
        shards = _shards(specs, shard_bytes)
        total = len(shards)
        self._of: dict[str, TensorFileWriter] = {}
        self._writers: list[TensorFileWriter] = []
        weight_map: dict[str, str] = {}
        for number, names in enumerate(shards, 1):
            file = f"{stem}{SAFE}" if total == 1 else f"{stem}-{number:05d}-of-{total:05d}{SAFE}"
            try:
                writer = TensorFileWriter(
                    folder / file,
                    {n: specs[n] for n in names},
                    metadata,
                    done=[name for name in names if name in done],
                )
            except BaseException:
                self.discard()  # of the shards before
                raise
            self._writers.append(writer)
            self._of.update(dict.fromkeys(names, writer))
            weight_map.update(dict.fromkeys(names, file))
        if total > 1 and not done:
            size = sum(TensorEntry(folder, 0, *spec).nbytes for spec in specs.values())
            index = {"metadata": {"total_size": size}, "weight_map": weight_map}
            (folder / f"{stem}{INDEX}").write_text(json.dumps(index, indent=2))

    def add(self, name: str, value: Tensor, start: int | None = None) -> None:
        """Write a tensor, or its elements from `start` on, flat; pieces come in their order."""
        self._of[name].add(name, value, start)

    def checksum(self, name: str) -> int:
        """CRC-32 of what was written of a tensor."""
        return self._of[name].checksum(name)

    def taken(self, checksums: Mapping[str, int]) -> None:
        """Take note of tensors that another process has written, with their CRC-32."""
        for name, checksum in checksums.items():
            self._of[name].taken(name, checksum)

    def sync(self) -> None:
        """Return when all that was written is on the disk."""
        for writer in self._writers:
            writer.sync()

    def discard(self) -> None:
        """Close the files as they are, whatever is missing in them."""
        for writer in self._writers:
            writer.discard()

    def close(self) -> None:
        """Flush to disk and close.  Raises `ValueError` if an announced tensor never came."""
        try:
            for writer in self._writers:
                writer.close()
        finally:
            self.discard()


def _shards(specs: Mapping[str, Spec], limit: int) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    filled = 0
    for name, (dtype, shape) in specs.items():
        size = TensorEntry(Path(), 0, dtype, shape).nbytes
        if shards[-1] and filled + size > limit:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards


def config_files(folder: Path) -> Sequence[Path]:
    """The files beside the weights that a merged directory takes over from its base."""
    skipped = (".safetensors", ".md", *PICKLES, ".h5", ".msgpack", ".onnx", ".gguf")
    return sorted(
        file
        for file in folder.iterdir()
        if file.is_file()
        and not file.name.startswith(".")
        and not file.name.endswith(skipped)
        and not file.name.endswith(".index.json")
    )
