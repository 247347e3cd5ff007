"""What stages beside the layers have made, piece by piece, in an unfinished output.

The factors of a LoRA, the branches of a routed merge, the statistics of a round: each piece is a
file of its own, on the disk before the journal has a line of it, with the checksum of every tensor.
A merge that goes on takes the pieces whose bytes are those of their lines, and makes the others.
What a piece was made from stands in its key, as far as the journal's first line does not say it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from zlib_ng.zlib_ng import crc32

from ..checkpoints import Checkpoint, checksum, write_tensors
from ..errors import InputError
from .journal import PIECES, Journal, KeptPiece


@dataclass(frozen=True)
class Piece:
    """Tensors by name, and plain values that are told with them."""

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    told: Mapping[str, Any] = field(default_factory=dict)


class Later:
    """The pieces of a merge; without a folder, or a journal that is written, none is kept.

    folder   the unfinished output, and
    name     of the folder in it that holds the pieces
    """

    def __init__(
        self, journal: Journal | None = None, folder: Path | None = None, name: str = PIECES
    ) -> None:
        self._journal = journal or Journal()
        self._folder = folder / name if folder is not None and self._journal.writes else None
        self._whole: dict[str, KeptPiece] = {}
        if self._folder is None:
            return
        past = self._journal.past
        if not past.length:  # of another merge, if of any
            shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(exist_ok=True)
        whole = past.pieces.items()
        self._whole = {key: one for key, one in whole if _is_whole(self._folder, one)}

    @property
    def keeps(self) -> bool:
        """Whether pieces are kept."""
        return self._folder is not None

    def has(self, key: str) -> bool:
        """Whether a piece was made by an earlier merge, and is whole."""
        return key in self._whole

    def piece(self, key: str, make: Callable[[], Piece]) -> Piece:
        """A piece: from its file where it was made already, else made and kept."""
        if self._folder is None:
            return make()
        if (known := self._whole.get(key)) is not None:
            return Piece(_read(self._folder / known.file, known), known.told)
        made = make()
        file = f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.safetensors"
        sums = {name: checksum_of(value) for name, value in made.tensors.items()}
        if sums:
            write_tensors(self._folder / file, made.tensors)
        self._journal.piece(KeptPiece(key, file, sums, made.told))
        return made

    def flush(self) -> None:
        """Have on the disk what the journal says of the pieces so far."""
        self._journal.flush()


def remove_pieces(folder: Path) -> None:
    """Remove the pieces of a merge that has come to its end."""
    shutil.rmtree(folder / PIECES, ignore_errors=True)


def checksum_of(value: Tensor) -> int:
    """CRC-32 of a tensor's bytes, the one that `checkpoints.checksum` takes of a file's."""
    plain = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return crc32(plain.numpy().data) if plain.numel() else 0


def digest_of(told: Any, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of plain values and of the checksums of tensors."""
    sums = [(name, checksum_of(value)) for name, value in sorted(tensors.items())]
    return hashlib.sha256(json.dumps([told, sums]).encode()).hexdigest()


def _is_whole(folder: Path, piece: KeptPiece) -> bool:
    with contextlib.suppress(InputError, OSError):
        held = Checkpoint.open(folder / piece.file).tensors if piece.checksums else {}
        sums = piece.checksums
        return held.keys() == sums.keys() and all(checksum(held[n]) == sums[n] for n in sums)
    return False


def _read(file: Path, piece: KeptPiece) -> dict[str, Tensor]:
    """Its tensors, in the order in which they were made."""
    held = Checkpoint.open(file) if piece.checksums else None
    return {} if held is None else {name: held.read(name) for name in piece.checksums}
