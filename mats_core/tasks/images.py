"""Folders, tables and hub data sets of images, decoded once a machine and then read where they lie.

Images of one size stay as they are; others, or all where `size` says so, are scaled until their
shorter side has that many pixels and cut to the square in the middle, as most image processors do.
The decoded arrays lie in the machine's cache under a name made of the files' contents; they are
mapped into memory, so that a large folder does not have to fit into it.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..checkpoints import staged_file
from ..errors import InputError, MachineError, existing, listing, needed
from ..system import cache_folder
from . import tables
from .description import Description
from .rows import finished, hub_frame, labelled
from .task import SPLITS, Split, SplitName, Task

if TYPE_CHECKING:
    import pandas as pd

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
GREY = {"1", "L", "I", "I;16", "F"}
SIZE = 224  # pixels of a side, where images differ and nobody says
HUB_COLUMNS = ("image", "img")  # what data sets of the hub call their pictures

Source = Path | bytes  # an image as it was packed: a file, or its content


def image_task(told: Description) -> Task:
    """A task of kind image: folders with one subfolder a class, tables with a column of paths, or
    a data set of the hub.

    Raises `InputError` for a folder without images, a file that is none, or unknown classes.
    """
    listed: dict[SplitName, tuple[list[Source], list[Any]]] = {}
    known = told.class_names()
    for name in SPLITS:
        where, thing = getattr(told, name), f"{name} images of task '{told.name}'"
        if told.dataset is not None:
            frame = hub_frame(told, name)
            if frame is not None:
                listed[name] = _of_hub(told, thing, frame)
                known = known or frame.attrs.get(told.label)
        elif isinstance(where, str):
            listed[name] = _listed(told, thing, told.path(where))
    columns: dict[SplitName, list[Any]] = {name: labels for name, (_, labels) in listed.items()}
    classes, labels = labelled(told, columns, known, "images")
    size, channels = _surveyed([file for files, _ in listed.values() for file in files])
    splits = {}
    for name, (files, _) in listed.items():
        # Folders are sorted by class; a share or the first examples should hold all of them.
        order = np.random.default_rng(told.seed).permutation(len(files))
        pictures = decoded([files[i] for i in order], told.size or size, channels)
        splits[name] = Split(pictures, labels[name][order], told.form)
    return finished(told, classes, splits)


def _of_hub(told: Description, thing: str, frame: pd.DataFrame) -> tuple[list[Source], list[Any]]:
    """Pictures and labels of one split, as the library `datasets` hands them over."""
    present = [name for name in HUB_COLUMNS if name in frame.columns]
    name = told.inputs[0] if told.inputs else (present or HUB_COLUMNS)[0]
    cells = tables.column(thing, frame, name)
    for row, cell in enumerate(cells):
        if not isinstance(cell, dict) or not (cell.get("bytes") or cell.get("path")):
            raise InputError(
                f"column '{name}' of {thing}",
                expected="an image in every row",
                found=f"{type(cell).__name__} in row {row + 1}",
                remedy="Name the column of images: 'inputs: [image]'.",
            )
    pictures: list[Source] = [cell.get("bytes") or Path(cell["path"]) for cell in cells]
    return pictures, list(tables.column(thing, frame, told.label))


def _listed(told: Description, thing: str, path: Path) -> tuple[list[Source], list[Any]]:
    """Files of images and the label of each, from a folder or a table."""
    existing(thing, path)
    if path.is_dir():
        files = sorted(f for f in path.glob("*/*") if f.suffix.lower() in ENDINGS)
        if not files:
            raise InputError(
                f"{thing} '{path}'",
                expected=f"a subfolder of images ({listing(ENDINGS, 3)}) for each class",
                found="none",
            )
        return [*files], [file.parent.name for file in files]
    frame = tables.read_table(thing, path)
    column = told.inputs[0] if told.inputs else "image"
    paths = [path.parent / str(file) for file in tables.texts(thing, frame, column)]
    missing = [str(file) for file in paths if not file.is_file()]
    if missing:
        raise InputError(
            thing,
            expected=f"every file in the column '{column}'",
            found=f"no {listing(missing, 2)}",
            remedy="Paths in a table are relative to its folder.",
        )
    return [*paths], list(tables.column(thing, frame, told.label))


def _pillow() -> Any:
    return needed("a task of image files", "PIL.Image", "pillow", "data")


def _surveyed(files: Sequence[Source]) -> tuple[int | None, int]:
    """The side to bring all images to (None where they have one size), and their channels."""
    Image = _pillow()
    sizes, modes = set(), set()
    for file in files:
        try:
            with Image.open(_opened(file)) as image:
                sizes.add(image.size)
                modes.add(image.mode)
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise _unreadable(file, error) from None
    return SIZE if len(sizes) > 1 else None, 1 if modes <= GREY else 3


def _opened(file: Source) -> Path | io.BytesIO:
    return io.BytesIO(file) if isinstance(file, bytes) else file


def decoded(files: Sequence[Source], size: int | None, channels: int) -> np.ndarray:
    """uint8 images (n, height, width, channels), read-only and mapped from the machine's cache."""
    digest = hashlib.sha256(f"{size} {channels}".encode())
    for file in files:
        content = file if isinstance(file, bytes) else file.read_bytes()
        digest.update(f"{len(content)}:".encode())
        digest.update(content)
    place = cache_folder() / "tasks" / f"images-{digest.hexdigest()[:32]}.npy"
    if not place.is_file():
        try:
            _decode(files, size, channels, place)
        except MachineError:  # a cache that cannot be written costs memory, not the task
            return np.stack([_picture(file, size, channels) for file in files])
    return np.load(place, mmap_mode="r", allow_pickle=False)


def _decode(files: Sequence[Source], size: int | None, channels: int, place: Path) -> None:
    shape = (len(files), *_picture(files[0], size, channels).shape)
    with staged_file(place) as draft:  # a reader never sees half of it
        array = np.lib.format.open_memmap(draft, mode="w+", dtype=np.uint8, shape=shape)
        for row, file in enumerate(files):
            array[row] = _picture(file, size, channels)
        array.flush()
        del array


def _picture(file: Source, size: int | None, channels: int) -> np.ndarray:
    """(height, width, channels) uint8."""
    Image = _pillow()
    try:
        with Image.open(_opened(file)) as image:
            picture = image.convert("L" if channels == 1 else "RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise _unreadable(file, error) from None
    if size is not None:
        factor = size / min(picture.size)
        width, height = (max(size, round(side * factor)) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
        left, top = (width - size) // 2, (height - size) // 2
        picture = picture.crop((left, top, left + size, top + size))
    return np.asarray(picture).reshape(picture.height, picture.width, channels)


def _unreadable(file: Source, error: Exception) -> InputError:
    shown = f"of {len(file)} bytes" if isinstance(file, bytes) else f"'{file}'"
    return InputError(
        f"image {shown}",
        expected="a picture that Pillow can read",
        found=str(error).splitlines()[0][:200],
        remedy="Remove or replace it.",
    )
