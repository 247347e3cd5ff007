"""A base for experts whose own base is missing: their mean, written beside their `family.yaml`.

Updates are then what sets each expert apart from the others, not what its training changed: methods
on task vectors still merge, and what all experts have learned alike counts as the base's.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

from ..errors import InputError
from ..recipes import MEAN, FamilyFile, parse_recipe
from ..system import Event
from . import pipeline


def averaging(collection: FamilyFile) -> Generator[Event, None, Path]:
    """The folder of the mean of a family's experts, which is written as its base.

    Events as of any merge.  Raises `InputError` where the family names another base, or where
    something lies in its place.
    """
    if collection.base != MEAN:
        raise InputError(
            f"base of the family '{collection.name}'", expected=f"'{MEAN}'", found=collection.base
        )
    experts = [{"name": one.name, "model": one.model} for one in collection.experts]
    folder = collection.folder / MEAN
    content = {
        "base": collection.experts[0].model,  # whose names and settings the mean takes over
        "experts": experts,
        "method": "average",
        "strangers": collection.strangers,
        "output": str(folder.resolve()),
        "evaluate": False,
    }
    yield from pipeline.run(parse_recipe(content, collection.folder))
    return folder
