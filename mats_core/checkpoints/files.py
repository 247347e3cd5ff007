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

from ..errors import InputError, existing, listing
from ..system import Device
from .contents import DTYPE_NAMES, DTYPES, Held, TensorEntry, checksum, contents, look_through
from .source import Weights, all_finite
from .wrappers import unwrapped

__all__ = ["DTYPES", "DTYPE_NAMES", "Checkpoint", "TensorEntry", "all_finite", "checksum"]

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
HEADER_LIMIT = 50_000_000  # bytes; a 7B model's header has 50 kB
CHUNK = 1 << 15  # elements converted at once: they fit a cache, and PyTorch starts no threads


@final
@dataclass(frozen=True)
class Checkpoint(Weights):
    """Weights in `.safetensors` files, read-only; only headers are read until `read` is called.

    path       the directory or file that was opened
    tensors    name, without the wrappers of training → file, byte offset, dtype and shape, sorted
    metadata   `__metadata__` of the headers, all shards together
    """

    path: Path
    tensors: Mapping[str, TensorEntry]
    metadata: Mapping[str, str] = field(default_factory=dict)
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
        files, promised = _weight_files(path)
        for file in files:
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
        return cls(path, dict(sorted(plain.items())), metadata)

    @property
    def directory(self) -> Path | None:
        """The directory with `config.json`, or None for a bare file."""
        folder = self.path if self.path.is_dir() else self.path.parent
        return folder if (folder / "config.json").is_file() else None

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        """The parsed `config.json`, empty where there is none."""
        if self.directory is None:
            return {}
        file = self.directory / "config.json"
        try:
            config = json.loads(file.read_text("utf-8"))
        except ValueError as error:
            raise InputError(f"'{file}'", expected="JSON", found=str(error)) from None
        return config if isinstance(config, dict) else {}

    def read(
        self, name: str, *, dtype: torch.dtype | None = None, device: Device | None = None
    ) -> Tensor:
        """One tensor, freshly allocated; `dtype` and `device` as stored and CPU by default."""
        entry = self.tensors[name]
        value = torch.empty(entry.elements, dtype=dtype or entry.dtype)
        _fill(name, entry, 0, value)
        return value.reshape(entry.shape).to(device=device)

    def reads_parts(self, name: str) -> bool:
        return True

    def fill(self, name: str, start: int, value: Tensor) -> None:
        """Read the elements from `start` on into all of `value`, flat and on the CPU."""
        _fill(name, self.tensors[name], start, value)

    def digest(self, name: str) -> str:
        """SHA-256 of one tensor's dtype, shape and bytes."""
        return contents(self.tensors[name], self._known).digest

    def finite(self, name: str) -> bool:
        """Whether all numbers of a tensor are finite."""
        entry = self.tensors[name]
        return not entry.dtype.is_floating_point or contents(entry, self._known).finite

    def look_through(self) -> None:
        """Compute digests and look for NaN and infinity in one reading (`contents.py`)."""
        look_through(self.tensors.values(), self._known)


def _fill(name: str, entry: TensorEntry, start: int, value: Tensor) -> None:
    """Read in place where the dtype stays; else converted block by block, never as a whole."""
    if not len(value):
        return
    with open(entry.file, "rb") as handle:
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
        raise InputError(
            f"tensor '{name}' of '{entry.file}'",
            expected=f"{entry.nbytes} bytes",
            found="fewer: the file changed while it was open",
            remedy="Copy the checkpoint again.",
        )


def _weight_files(path: Path) -> tuple[list[Path], frozenset[str]]:
    """The files of a checkpoint, and the tensors that its index (if any) says they hold."""
    if path.is_file():
        if path.name.endswith(".safetensors.index.json"):
            return _indexed(path)
        if path.suffix == ".safetensors":
            return [path], frozenset()
        raise _refusal(path)
    index = path / "model.safetensors.index.json"
    if index.is_file():
        return _indexed(index)
    single = path / "model.safetensors"
    if single.is_file():
        return [single], frozenset()
    if (path / "adapter_config.json").is_file():
        raise InputError(
            f"'{path}' is a PEFT adapter",
            expected="a whole checkpoint",
            found="an update of one",
            remedy="Name it as an expert beside its base, in a recipe or a family.yaml (on the "
            "command line: --base).",
        )
    found = sorted(path.glob("*.safetensors"))
    if len(found) == 1:
        return found, frozenset()
    pickles = sorted(file for file in path.iterdir() if file.suffix in PICKLES)
    if pickles and not found:
        raise _refusal(pickles[0])
    raise InputError(
        f"checkpoint '{path}'",
        expected="model.safetensors, or shards with model.safetensors.index.json",
        found=f"{len(found)} other .safetensors files" if found else "no .safetensors file",
        remedy="Point at one file." if found else "Save the model with save_pretrained first.",
    )


def _indexed(index: Path) -> tuple[list[Path], frozenset[str]]:
    try:
        weight_map = json.loads(index.read_text("utf-8"))["weight_map"]
        names = sorted(set(weight_map.values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(
            f"'{index}'", expected="a JSON object with a 'weight_map'", found="something else"
        ) from None
    for name in names:
        if Path(name).name != name:
            raise InputError(f"'{index}'", expected="shards in its own folder", found=f"'{name}'")
    return [existing("shard", index.parent / name) for name in names], frozenset(weight_map)


def _refusal(path: Path) -> InputError:
    if path.suffix not in PICKLES:
        return InputError(
            f"'{path}'", expected="a .safetensors file or a directory", found=f"'{path.name}'"
        )
    command = (
        'python -c "import torch; from safetensors.torch import save_file; '
        f"d = torch.load('{path}', map_location='cpu', weights_only=True); "
        "save_file({k: v.clone().contiguous() for k, v in d.items()}, "
        f"'{path.with_suffix('.safetensors')}')\""
    )
    return InputError(
        f"'{path}' is a pickle",
        expected="safetensors",
        found=f"'{path.suffix}', which can run code when it is opened",
        remedy=f"Convert it once, on a machine you trust it on: {command}",
    )


def read_header(file: Path) -> tuple[dict[str, TensorEntry], dict[str, str]]:
    """The entries and metadata of one `.safetensors` file.

    The safetensors library validates the layout first; duplicate names, which it lets pass, and
    headers beyond `HEADER_LIMIT` are refused here.
    """
    with open(file, "rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        if length > HEADER_LIMIT:
            raise InputError(
                f"'{file}'", expected=f"a header under {HEADER_LIMIT} bytes", found=f"{length}"
            )
        raw = handle.read(length)
    try:
        with safetensors.safe_open(file, framework="pt"):
            pass
        header = json.loads(raw, object_pairs_hook=_without_duplicates)
    except (safetensors.SafetensorError, ValueError, OSError) as error:
        raise InputError(
            f"'{file}'",
            expected="a well-formed safetensors file",
            found=str(error),
            remedy="Copy or download it again.",
        ) from None
    metadata = header.pop("__metadata__", {})
    entries: dict[str, TensorEntry] = {}
    for name, value in header.items():
        if value["dtype"] not in DTYPES:
            raise InputError(
                f"tensor '{name}' of '{file}'",
                expected=f"a dtype of {', '.join(DTYPES)}",
                found=value["dtype"],
                remedy="Dequantise the checkpoint first.",
            )
        start = 8 + length + value["data_offsets"][0]
        entries[name] = TensorEntry(file, start, DTYPES[value["dtype"]], tuple(value["shape"]))
    return entries, metadata


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("the same name stands twice in the header")
    return result
