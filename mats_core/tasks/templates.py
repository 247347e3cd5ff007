"""Templates of texts: columns for their names in braces, entries of what a cell holds in brackets.

`{question}` is a column, `{choices[1]}` the second entry of a list in one, and `{choices[text][1]}`
that of a list below a name.  Nothing else is reached: no attribute, no call, no format.
"""

from __future__ import annotations

import ast
import json
import re
import string
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, member, undisturbed
from . import classes, tables

if TYPE_CHECKING:
    import pandas as pd

ENTRY = re.compile(r"(?P<column>[^\[\]]+)(?P<keys>(?:\[[^\[\]]+\])+)")
KEY = re.compile(r"\[([^\[\]]+)\]")
LONGEST = 100_000  # characters of a cell that is read as a list


def filled(thing: str, frame: pd.DataFrame, template: str, *, empty: bool = False) -> np.ndarray:
    """A template filled in for every row of a table: (n,) of str.

    Raises `InputError` for a template that cannot be read, a column that is not there, and, unless
    `empty`, the first row whose text is blank.
    """
    pieces = _pieces(thing, template)
    texts = {name: _texts(thing, frame, template, name) for _, name in pieces if name is not None}
    found = [
        "".join(
            literal + (texts[name][row] if name is not None else "") for literal, name in pieces
        )
        for row in range(len(frame))
    ]
    bare = [row for row, text in enumerate(found) if not text.strip()]
    if bare and not empty:
        raise InputError(
            f"template '{template}' of {thing}",
            expected="a text in every row",
            found=f"none in row {bare[0] + 1}",
            remedy=classes.DROP,
        )
    return np.array(found, dtype=object)


def enters(template: str) -> bool:
    """Whether a template names an entry of a list or mapping, which a cell may lack."""
    return any(name and ENTRY.fullmatch(name) for _, name in _pieces("task", template))


def _pieces(thing: str, template: str) -> list[tuple[str, str | None]]:
    """The literal texts of a template, each with what stands in braces after it."""
    try:
        return [(literal, name) for literal, name, *_ in string.Formatter().parse(template)]
    except ValueError as error:
        raise InputError(
            f"template '{template}' of {thing}",
            expected="columns in braces",
            found=str(error),
            remedy="Write {{ and }} for literal braces.",
        ) from None


def _texts(thing: str, frame: pd.DataFrame, template: str, name: str) -> np.ndarray:
    """What one pair of braces stands for, a text a row; empty where a cell has no such entry."""
    columns = [str(column) for column in frame.columns]
    entry = None if name in columns else ENTRY.fullmatch(name)
    member(f"column in the template '{template}'", entry["column"] if entry else name, columns)
    if entry is None:
        return tables.texts(thing, frame, name, empty=True)
    keys = KEY.findall(entry["keys"])
    cells = tables.column(thing, frame, entry["column"])
    return np.array([classes.text_of(_entry(cell, keys)) for cell in cells], dtype=object)


def _entry(cell: Any, keys: list[str]) -> Any:
    """What lies below the keys; None where nothing does, or where it is no single value."""
    for key in keys:
        cell = holding(cell)
        if isinstance(cell, Mapping):
            cell = cell.get(key)
        elif cell is not None and key.isdigit() and int(key) < len(cell):
            cell = cell[int(key)]
        else:
            return None
    return None if holding(cell) is not None and not isinstance(cell, str) else cell


def holding(cell: Any) -> Any:
    """The list or mapping that a cell holds, also one that is written as text; else None."""
    if isinstance(cell, str):
        cell = _parsed(cell.strip())
    if isinstance(cell, np.ndarray):
        cell = cell.tolist()
    return cell if isinstance(cell, list | tuple | Mapping) else None


def _parsed(text: str) -> Any:
    """A list or mapping of JSON or of Python, whose values are plain ones."""
    if text[:1] + text[-1:] not in ("[]", "{}") or len(text) > LONGEST:
        return None
    for read in (json.loads, ast.literal_eval):
        try:
            return undisturbed(lambda read=read: read(text))
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            continue
    return None
