"""Folders, tables and hub data sets of images: which pictures there are, and the class of each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, existing, listing
from . import folders, pictures, tables
from .description import Description
from .rows import finished, hub_frame, labelled
from .task import SPLITS, Split, SplitName, Task

if TYPE_CHECKING:
    import pandas as pd

HUB_COLUMNS = ("image", "img")  # what data sets of the hub call their pictures


def image_task(told: Description) -> Task:
    """A task of kind image: folders with one subfolder a class, tables with a column of paths, or
    a data set of the hub.

    Raises `InputError` for a folder without images, a file that is none, or unknown classes.
    """
    listed: dict[SplitName, tuple[list[pictures.Source], list[Any]]] = {}
    known = told.class_names()
    notes: list[str] = []
    for name in SPLITS:
        where, thing = getattr(told, name), f"{name} images of task '{told.name}'"
        if told.dataset is not None:
            frame = hub_frame(told, name)
            if frame is not None:
                listed[name] = _of_hub(told, thing, frame)
                known = known or frame.attrs.get(told.label)
        elif isinstance(where, str):
            files, labels, said = _listed(told, thing, told.path(where))
            listed[name] = files, labels
            notes += said
    columns: dict[SplitName, list[Any]] = {name: labels for name, (_, labels) in listed.items()}
    found = labelled(told, columns, known, "images")
    kept: dict[SplitName, list[pictures.Source]] = {
        name: [file for file, keep in zip(files, found.kept[name], strict=True) if keep]
        for name, (files, _) in listed.items()
    }
    look = pictures.surveyed([file for files in kept.values() for file in files])
    splits = {}
    for name, files in kept.items():
        # Folders are sorted by class; a share or the first examples should hold all of them.
        order = np.random.default_rng(told.seed).permutation(len(files))
        rows = pictures.decoded([files[i] for i in order], told.size or look.size, look)
        splits[name] = Split(rows, found.labels[name][order], told.form)
    deep = [f"{look.depth.said} of task '{told.name}'"] if look.depth else []
    return finished(told, found.classes, splits, [*notes, *found.notes, *deep])


def _of_hub(
    told: Description, thing: str, frame: pd.DataFrame
) -> tuple[list[pictures.Source], list[Any]]:
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
    pictures: list[pictures.Source] = [cell.get("bytes") or Path(cell["path"]) for cell in cells]
    return pictures, tables.labels(thing, frame, told.label)


def _listed(
    told: Description, thing: str, path: Path
) -> tuple[list[pictures.Source], list[Any], tuple[str, ...]]:
    """Files of images, the label of each, and notes, from a folder or a table."""
    existing(thing, path)
    if path.is_dir():
        found = folders.listed(thing, path, named=told.classes is not None)
        return [*found.files], [*found.labels], found.notes
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
    return [*paths], tables.labels(thing, frame, told.label), ()
