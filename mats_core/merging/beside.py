"""The files that a merge copies beside its weights, held to what they were when it began."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..checkpoints import companions
from ..errors import InputError, foreseen
from ..families import Family


@dataclass(frozen=True)
class Beside:
    """Files by their paths, with the SHA-256 of each: the base's companions, and the configurations
    of the experts whose heads are written."""

    digests: Mapping[Path, str]

    @classmethod
    def of(cls, family: Family) -> Beside:
        """The files beside the weights of a family, as they are now."""
        files = [*companions(family.base).copied.values()]
        for expert in family.experts:
            folder = expert.checkpoint.directory
            if folder is not None and family.head_of(expert):
                files.append(folder / "config.json")
        return cls({file: _digest(file) for file in files})

    def require_unchanged(self, now: Family) -> None:
        """Raise `InputError` where a file is another one now, has gone, or has come since."""
        found = Beside.of(now).digests
        for file in dict.fromkeys((*self.digests, *found)):
            before, after = self.digests.get(file), found.get(file)
            if before != after:
                was, has = "the file that was there", "one that has changed since"
                if before is None or after is None:
                    was, has = ("no such file", "one") if before is None else (was, "nothing there")
                raise InputError(
                    f"'{file}'",
                    expected=f"{was} when the merge began",
                    found=has,
                    remedy="Start again with files that are left alone meanwhile.",
                )


def _digest(file: Path) -> str:
    with foreseen(f"'{file}'"), file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
