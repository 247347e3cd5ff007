"""Files that were handed over, such as by a browser: put below a folder, nothing is overwritten.

An archive is unpacked by name and size alone: a path that leads out, a link, a device, too many
files or too many bytes are refused before anything is written.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from ..errors import InputError, foreseen, parsing, size
from ..system import LONGEST_NAME
from .folder import SAFE
from .staging import staged_directory

FOLDER = "dropped"
MOST_BYTES = 4_000_000_000  # of all files together, unpacked
MOST_FILES = 2000
JUNK = ("__MACOSX/", ".DS_Store")
OF_A_MODEL = (SAFE, ".json", ".txt", ".model", ".jinja", ".md")


@dataclass(frozen=True)
class Dropped:
    """One file as it was handed over.

    name    as its sender calls it; never trusted as a path
    stream  its bytes, which can be read from any place
    """

    name: str
    stream: BinaryIO


def receive(files: Sequence[Dropped], home: Path, most: int = MOST_BYTES) -> list[Path]:
    """The folders and files that were made below `home`, of at most `most` bytes together.

    A zip becomes a folder, loose files of a model (weights with what belongs to them) another one;
    any other file stays one.  Raises `InputError` for what is refused; nothing is left then.
    """
    _require_room(sum(_length(one.stream) for one in files), most)
    archives = [one for one in files if one.name.lower().endswith(".zip")]
    loose = [one for one in files if one not in archives]
    weights = [one for one in loose if one.name.lower().endswith(SAFE)]
    parts = [one for one in loose if weights and one.name.lower().endswith(OF_A_MODEL)]
    made = [_unpacked(one, home / FOLDER, most) for one in archives]
    if parts:
        stem = _plain(weights[0].name.removesuffix(SAFE))
        made.append(_folder(parts, _free(home / FOLDER, stem)))
    for one in (one for one in loose if one not in parts):
        made.append(_file(one, _free(home / FOLDER, _plain(one.name))))
    return made


def _length(stream: BinaryIO) -> int:
    length = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    return length


def _require_room(total: int, most: int) -> None:
    if total > most:
        raise InputError(
            "dropped files",
            expected=f"at most {size(most)} together",
            found=size(total),
            remedy="Copy them into one of the folders that the app was started with, and search "
            "again.",
        )


def _plain(name: str) -> str:
    """A name of others as that of one file here."""
    last = re.split(r"[/\\]", name)[-1]
    kept = re.sub(r"[^\w .+-]+", "-", last).strip(" .-")
    return kept.encode()[: LONGEST_NAME // 2].decode("utf-8", "ignore") or "file"


def _free(folder: Path, name: str) -> Path:
    place, number = folder / name, 2
    while os.path.lexists(place):
        place, number = folder / f"{Path(name).stem}-{number}{Path(name).suffix}", number + 1
    return place


def _file(one: Dropped, place: Path) -> Path:
    with foreseen(f"'{place}'"):
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("xb") as target:
            shutil.copyfileobj(one.stream, target)
    return place


def _folder(parts: Sequence[Dropped], place: Path) -> Path:
    with staged_directory(place) as folder:
        for one in parts:
            _file(one, _free(folder, _plain(one.name)))
    return place


def _unpacked(one: Dropped, home: Path, most: int) -> Path:
    thing = f"archive '{_plain(one.name)}'"
    place = _free(home, _plain(one.name)[: -len(".zip")] or "archive")
    wanted = "a .zip that can be unpacked"
    with parsing(thing, wanted, "Pack it again."), zipfile.ZipFile(one.stream) as archive:
        entries = _checked(thing, archive, most)
        with staged_directory(place) as folder:
            for entry in entries:
                _extract(thing, archive, entry, folder)
    return place


def _checked(thing: str, archive: zipfile.ZipFile, most: int) -> list[zipfile.ZipInfo]:
    """The files of an archive, once all of them are known to stay inside and to be small enough."""
    entries = [e for e in archive.infolist() if not e.is_dir() and not _is_junk(e.filename)]
    if len(entries) > MOST_FILES:
        raise InputError(thing, expected=f"at most {MOST_FILES} files", found=f"{len(entries)}")
    _require_room(sum(entry.file_size for entry in entries), most)
    for entry in entries:
        path, kind = PurePosixPath(entry.filename), stat.S_IFMT(entry.external_attr >> 16)
        leads_out = path.is_absolute() or ".." in path.parts or "\\" in entry.filename
        if leads_out or ":" in entry.filename or (kind and not stat.S_ISREG(kind)):
            raise InputError(
                thing,
                expected="files inside of it",
                found=f"'{entry.filename[:80]}', a link or a path that leads out",
                remedy="Nothing was unpacked. Is the archive from a source that you trust?",
            )
    return entries


def _is_junk(name: str) -> bool:
    return name.startswith(JUNK[0]) or name.endswith(JUNK[1])


def _extract(thing: str, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path) -> None:
    """One file, of no more bytes than the archive says: it could say less than it holds."""
    place = folder / entry.filename
    place.parent.mkdir(parents=True, exist_ok=True)
    left = entry.file_size
    with archive.open(entry) as source, place.open("xb") as target:
        while part := source.read(1 << 20):
            left -= len(part)
            if left < 0:
                raise InputError(thing, expected=f"{entry.file_size} bytes", found="more")
            target.write(part)
