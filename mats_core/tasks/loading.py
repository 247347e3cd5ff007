"""`load`: the one door to a task."""

from __future__ import annotations

import contextlib
import math
import zipfile
from collections.abc import Hashable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..errors import InputError, existing, parsing, read_yaml, regular, undisturbed
from ..system import recall, require_memory, state_of
from . import description, folders, harness, images, rows
from .sources import of_source
from .task import ARRAYS, SPLITS, Task

SAMPLE = "sample:"  # how references to the sample family's tasks begin
DESCRIBED = (".yaml", ".yml")
FILES = (".npz", *DESCRIBED)


def names_file(reference: str) -> bool:
    """Whether a reference is a path, relative to its recipe's folder."""
    return reference.lower().endswith(FILES)


def load(reference: str | Path, *, root: Path | None = None) -> Task:
    """The task that `reference` names: a `.yaml` or `.npz` (under `root`), or `SOURCE:NAME`.

    Raises `InputError` for anything that is missing, unknown or does not fit together.
    """
    reference = str(reference)
    source, colon, name = reference.partition(":")
    # A single letter is the drive of a path.
    if colon and len(source) > 1 and source.isidentifier() and not names_file(reference):
        return of_source(source, name)
    path = Path(reference) if root is None else root / reference
    existing("task", path)
    # Of readers of tables, archives and pictures each has errors of its own.
    with parsing(f"task '{reference}'", "a task that can be read"):
        return _of_file(reference, path)


def _of_file(reference: str, path: Path) -> Task:
    if path.suffix.lower() in DESCRIBED:
        return _described(path)
    if path.suffix != ".npz":
        raise InputError(
            f"task '{reference}'",
            expected="a .yaml or .npz file, or sample:NAME",
            found=f"'{path.name}'",
            remedy="A table of texts or a folder of images needs a short .yaml: docs/tasks.md.",
        )
    return arrays(path.stem, path)


def arrays(name: str, path: Path) -> Task:
    """The task in an `.npz` file."""
    thing = f"task '{path}'"
    regular(thing, path)
    with parsing(thing, "an .npz file of plain arrays"):
        return Task.from_arrays(name, undisturbed(lambda: _arrays(thing, path)))


def _arrays(thing: str, path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        require_memory(thing, sum(_unpacked(archive, name) for name in archive.namelist()))
    with np.load(path, allow_pickle=False) as found:
        return {key: found[key] for key in ARRAYS if key in found}


def _unpacked(archive: zipfile.ZipFile, name: str) -> int:
    """Bytes of an array in an archive; raises `ValueError` where its header claims others than
    there are, before any room is made for them."""
    size = archive.getinfo(name).file_size
    if not name.endswith(".npy"):
        return size
    with archive.open(name) as stream:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0
        if version != (1, 0):
            read = np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream)
    if math.prod(shape) * dtype.itemsize > size:
        raise ValueError(f"'{name}' of {size} bytes that claims the shape {shape}")
    return size


def files(reference: str, root: Path) -> tuple[Path, ...]:
    """The files (and folders) that a task is read from, whether or not they can be read; none of a
    task that a source makes."""
    if not names_file(reference):
        return ()
    path = root / reference
    if path.suffix.lower() not in DESCRIBED:
        return (path,)
    try:
        return (path, *_named(path))
    except InputError:
        return (path,)


def of_harness(path: Path) -> bool:
    """Whether a YAML describes its task in the form of lm-evaluation-harness."""
    with contextlib.suppress(InputError):
        return harness.tells(read_yaml("task", path))
    return harness.FUNCTION in path.read_bytes() if path.is_file() else False


def _named(path: Path) -> list[Path]:
    """The files that a description names."""
    if of_harness(path):
        return harness.files(path)
    told = description.read(path)
    named = [
        told.path(where)
        for where in (told.train, told.validation, told.test, told.classes)
        if isinstance(where, str) and (told.dataset is None or where is told.classes)
    ]
    # Of other kinds a folder is refused by its reader: none is gone through, which may be a disk.
    return [one for one in named if told.kind == "image" or not one.is_dir()]


def _described(path: Path) -> Task:
    # A merge asks for its tasks again and again, and tables take a while to read.
    key = ("task", path.resolve(), *map(_state, (path, *_named(path))))
    return recall(key, lambda: _read(path.resolve()))


def _state(path: Path) -> tuple[Hashable, ...]:
    """Changes when a file does, or one in a folder; the reader says what is missing."""
    return tuple(map(state_of, sorted(_inside(path)) or [str(path)]))


def _inside(path: Path) -> Iterator[str]:
    """The pictures below a folder, which are all that is read of it."""
    if path.is_dir():
        yield from map(str, folders.pictures(path))


def _read(path: Path) -> Task:
    if of_harness(path):
        return harness.described(path)
    told = description.read(path)
    if told.kind != "image":
        return rows.text_task(told)
    if told.train is not None and told.train.endswith(".npz"):
        task = arrays(told.name, existing("task", told.path(told.train)))
        splits = {name: replace(task.split(name), form=told.form) for name in SPLITS}
        return replace(task, **splits, description=told.description)
    return images.image_task(told)
