"""Validation at the door, and the one style of error.

Every error a user can cause is an `InputError`: it names the thing, what was expected, what was
found and how to mend it.  The inside of the library trusts its inputs.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import yaml

M = TypeVar("M", bound=pydantic.BaseModel)


class InputError(ValueError):
    """Bad input, in one clear sentence; callers show `str(error)` and never a traceback."""

    def __init__(
        self, thing: str, *, expected: str = "", found: str = "", remedy: str = ""
    ) -> None:
        self.thing, self.expected, self.found, self.remedy = thing, expected, found, remedy
        told = {"expected": expected, "found": found}
        detail = ", ".join(f"{word} {what}" for word, what in told.items() if what)
        sentence = f"{thing}: {detail}" if detail else thing
        super().__init__(f"{sentence}. {remedy}".strip() if remedy else sentence)


def listing(names: Iterable[str], most: int = 6) -> str:
    """`a, b, c and 4 more`: a list short enough for a sentence."""
    names = list(names)
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def nearest(name: str, choices: Iterable[str]) -> str:
    """A remedy that names the nearest valid choice, or lists them all."""
    choices = list(choices)
    close = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    if close:
        return f"Did you mean '{close[0]}'?"
    return (
        f"Choose one of: {', '.join(choices)}." if choices else "There is nothing to choose from."
    )


def member(thing: str, name: str, choices: Iterable[str]) -> str:
    """`name` if it is one of `choices`, else an `InputError` with the nearest valid name."""
    choices = list(choices)
    if name not in choices:
        raise InputError(
            thing,
            expected=f"one of {listing(choices, 20)}",
            found=f"'{name}'",
            remedy=nearest(name, choices),
        )
    return name


def existing(thing: str, path: str | Path) -> Path:
    """`path` if it exists, else an `InputError`."""
    path = Path(path)
    if not path.exists():
        raise InputError(
            f"{thing} '{path}'",
            expected="an existing file or directory",
            found="nothing there",
            remedy="Check the spelling; relative paths start at the recipe's folder.",
        )
    return path


def needed(thing: str, module: str, package: str, extra: str) -> Any:
    """The imported `module`; raises `InputError` with the package and the extra that bring it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if not f"{module}.".startswith(f"{error.name}."):
            raise  # it is there, and something that it imports is not
        raise InputError(
            thing,
            expected=f"the package {package}",
            found="none",
            remedy=f"Install it with: python -m pip install {package} (MaTS Explorer's extra "
            f"[{extra}] brings it).",
        ) from None


def read_yaml(thing: str, path: str | Path) -> dict[str, Any]:
    """The mapping that a YAML file holds, else an `InputError`."""
    path = existing(thing, path)
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise InputError(
            f"{thing} '{path}'", expected="YAML", found=str(error).replace("\n", " ")
        ) from None
    if not isinstance(content, Mapping):
        raise InputError(
            f"{thing} '{path}'", expected="a YAML mapping", found=type(content).__name__
        )
    return dict(content)


def validated(
    thing: str, model: type[M], content: Mapping[str, Any], *inside: type[pydantic.BaseModel]
) -> M:
    """The model of parsed values; `inside`: models in it.

    Raises `InputError` with all that pydantic refuses; unknown keys name the nearest valid one.
    """
    try:
        return model.model_validate(content)
    except pydantic.ValidationError as error:
        problems = error.errors()
    fields = [name for one in (model, *inside) for name in one.model_fields]
    sentences: list[str] = []
    for problem in problems:
        where = ".".join(str(part) for part in problem["loc"]) or thing
        if problem["type"] == "extra_forbidden":
            last = str(problem["loc"][-1])
            sentences.append(f"'{where}' is not an option here. {nearest(last, fields)}")
        else:
            ours = problem.get("ctx", {}).get("error")  # of a validator of this library
            said = problem["msg"].lower() if ours is None else str(ours)
            sentences.append(f"'{where}': {said}, found {problem['input']!r}.")
    raise InputError(f"{thing}: {' '.join(dict.fromkeys(sentences))}")


def size(nbytes: float) -> str:
    """`120 MB`, `1.5 GB`: two digits where there are two."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if nbytes >= scale:
            value = nbytes / scale
            return f"{value:.1f} {unit}" if value < 9.95 else f"{value:.0f} {unit}"
    return f"{nbytes / 1e3:.0f} kB" if nbytes >= 1e3 else f"{nbytes:.0f} bytes"


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min`, `2.5 h`."""
    if seconds < 0.1:
        return "0.1 s"
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
