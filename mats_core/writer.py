"""Writing checkpoints: tensor by tensor, and whole or not at all.

Everything is written beside its place and renamed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .checkpoints import DTYPE_NAMES, PICKLES, TensorEntry
from .checks import InputError, listing

SHARD_BYTES = 5_000_000_000  # the Hugging Face default

Spec = tuple[torch.dtype, tuple[int, ...]]


class TensorFileWriter:
    """Writes one `.safetensors` file tensor by tensor, in any order.

    Names, dtypes and shapes are given first, so the header is fixed and each tensor goes straight
    to its place: peak memory is one tensor.
    """

    def __init__(
        self, file: Path, specs: Mapping[str, Spec], metadata: Mapping[str, str] | None = None
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
        self._specs, self._missing = dict(specs), set(specs)
        self._handle = file.open("wb")
        self._handle.write(len(raw).to_bytes(8, "little") + raw)
        self._start = 8 + len(raw)
        self._handle.truncate(self._start + offset)

    def add(self, name: str, value: Tensor) -> None:
        dtype, shape = self._specs[name]
        if tuple(value.shape) != shape:
            raise ValueError(f"{name}: shape {tuple(value.shape)} where {shape} was announced")
        data = value.detach().to(device="cpu", dtype=dtype).contiguous()
        self._handle.seek(self._start + self._places[name])
        if data.numel():
            self._handle.write(data.reshape(-1).view(torch.uint8).numpy().data)
        self._missing.discard(name)

    def close(self) -> None:
        """Flush to disk.  Raises `ValueError` if an announced tensor never came."""
        self._handle.flush()
        os.fsync(self._handle.fileno())
        self._handle.close()
        if self._missing:
            raise ValueError(f"never written: {listing(sorted(self._missing))}")


class CheckpointWriter:
    """Writes `model.safetensors`, or shards with an index above `shard_bytes`, into a folder."""

    def __init__(
        self,
        folder: Path,
        specs: Mapping[str, Spec],
        *,
        metadata: Mapping[str, str] | None = None,
        shard_bytes: int = SHARD_BYTES,
    ) -> None:
        self.specs = specs
        shards = _shards(specs, shard_bytes)
        total = len(shards)
        self._of: dict[str, TensorFileWriter] = {}
        self._writers: list[TensorFileWriter] = []
        weight_map: dict[str, str] = {}
        for number, names in enumerate(shards, 1):
            file = (
                "model.safetensors"
                if total == 1
                else f"model-{number:05d}-of-{total:05d}.safetensors"
            )
            writer = TensorFileWriter(folder / file, {n: specs[n] for n in names}, metadata)
            self._writers.append(writer)
            self._of.update(dict.fromkeys(names, writer))
            weight_map.update(dict.fromkeys(names, file))
        if total > 1:
            size = sum(TensorEntry(folder, 0, *spec).nbytes for spec in specs.values())
            index = {"metadata": {"total_size": size}, "weight_map": weight_map}
            (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))

    def add(self, name: str, value: Tensor) -> None:
        self._of[name].add(name, value)

    def close(self) -> None:
        for writer in self._writers:
            writer.close()


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


@contextlib.contextmanager
def staged_directory(target: Path, *, force: bool = False) -> Iterator[Path]:
    """A folder beside `target` that takes its name only if the block succeeds.

    Raises `InputError` if `target` exists and `force` is not set; what stood there is replaced
    only after the new folder is complete.
    """
    target = Path(target)
    refuse_existing(target, force)
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(
        tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent)
    )
    try:
        yield staging
        os.chmod(staging, 0o777 & ~_umask())
        if target.exists():
            old = Path(
                tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=target.parent)
            )
            os.rename(target, old / "old")
            try:
                os.rename(staging, target)
            except BaseException:
                os.rename(old / "old", target)
                old.rmdir()
                raise
            shutil.rmtree(old)
        else:
            os.rename(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def refuse_existing(target: Path, force: bool) -> None:
    """Raise `InputError` if `target` exists and may not be replaced."""
    if Path(target).exists() and not force:
        raise InputError(
            f"output '{target}'",
            expected="a path where nothing is yet",
            found="an existing one",
            remedy="Choose another output, or pass --force to replace it.",
        )


def write_atomically(file: Path, data: bytes) -> None:
    """Write `file` beside its place and rename it there."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, file)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


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
