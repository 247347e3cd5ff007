"""Folders of pictures: one subfolder a class, and whatever order a class keeps below it.

As in torchvision's `ImageFolder`, the class of a picture is the first folder on its way, however
deep it lies below.  Links are followed; what is hidden, or left behind by a system, is not looked
into.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError, listing

ENDINGS = (
    ".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm",
    ".pbm", ".pnm", ".jfif", ".jpe", ".jp2", ".apng", ".dib", ".tga", ".avif",
)  # fmt: skip
LEFT_BY_SYSTEMS = ("__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin")
OTHERS = 100_000  # entries that are no pictures; data sets of twenty thousand classes have fewer
HALVES = {"train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval"}


@dataclass(frozen=True)
class Listing:
    """The pictures of a folder.

    files    sorted by their paths
    labels   the class of each
    notes    what is not read, a sentence each
    """

    files: tuple[Path, ...]
    labels: tuple[str, ...]
    notes: tuple[str, ...] = ()


def listed(thing: str, path: Path, *, named: bool) -> Listing:
    """The pictures below the subfolders of `path`.

    `named`: the task says what its classes are called.  Raises `InputError` where there are none,
    for links that lead nowhere, and where the subfolders are no classes but called train and test.
    """
    files = sorted(pictures(path))
    _require_there(thing, files)
    loose = [file for file in files if file.parent == path]
    files = [file for file in files if file.parent != path]
    labels = [file.relative_to(path).parts[0] for file in files]
    if not files:
        raise InputError(
            f"{thing} '{path}'",
            expected=f"a subfolder of images ({listing(ENDINGS, 3)}) for each class",
            found=f"{len(loose)} images in no subfolder" if loose else _instead(path),
        )
    if not named:
        _require_classes(thing, path, sorted(set(labels)))
    note = f"{len(loose)} {thing} lie in no subfolder, have no class and are left out"
    return Listing(tuple(files), tuple(labels), (note,) if loose else ())


def pictures(path: Path) -> Iterator[Path]:
    """The pictures in a folder and below.

    Raises `InputError` where so much else lies there that it is no folder of pictures but, say, a
    whole disk.
    """
    return _pictures(path, (os.path.realpath(path),), path, itertools.count(1))


def _pictures(
    folder: Path, above: tuple[str, ...], whole: Path, others: Iterator[int]
) -> Iterator[Path]:
    """A link to a folder on the way to it is no way on; `others` counts what is no picture."""
    with os.scandir(folder) as entries:
        for entry in entries:
            picture = os.path.splitext(entry.name)[1].lower() in ENDINGS
            if not picture and next(others) > OTHERS:
                raise InputError(
                    f"folder of images '{whole}'",
                    expected="images",
                    found=f"more than {OTHERS:,} other files and folders below it",
                    remedy="Name the folder that holds the classes.",
                )
            if entry.name.startswith(".") or entry.name.lower() in LEFT_BY_SYSTEMS:
                continue
            file = folder / entry.name
            if entry.is_dir():
                real = os.path.realpath(file)
                if real not in above:
                    yield from _pictures(file, (*above, real), whole, others)
            elif picture:
                yield file


def _instead(path: Path) -> str:
    """What lies in a folder that holds no subfolders of images, in words."""
    below = {file.suffix.lower() or "no ending" for file in path.glob("*/*") if file.is_file()}
    if below:
        return f"subfolders with files of {listing(sorted(below))}"
    names = sorted(one.name for one in path.iterdir())
    return f"a folder with {listing(names)}" if names else "an empty folder"


def _require_classes(thing: str, path: Path, found: list[str]) -> None:
    """Raise `InputError` where the subfolders are plainly the halves of a data set."""
    if all(name.lower() in HALVES for name in found):
        shown = listing(f"'{name}'" for name in found)
        raise InputError(
            f"{thing} '{path}'",
            expected="a subfolder for each class",
            found=f"{shown}, which are halves of a data set",
            remedy=f"Write '{path.name}/{found[0]}' in place of '{path.name}'; if these are the "
            "classes, name them in 'classes'.",
        )


def _require_there(thing: str, files: list[Path]) -> None:
    broken = [file for file in files if not file.exists()]
    if broken:
        more = f" and {len(broken) - 1} more" if broken[1:] else ""
        raise InputError(
            thing,
            expected="files, or links to files",
            found=f"'{broken[0]}'{more}, a link to '{broken[0].readlink()}', which is missing",
            remedy="Fetch the files that the links lead to, or remove the links.",
        )
