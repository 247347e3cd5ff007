"""The one style of error: the thing, what was expected, what was found and how to mend it."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from typing import Any

MOST = 2000  # characters of what was found: files may hold names of any length
SAID = 300  # characters of what a library said


class InputError(ValueError):
    """Bad input, in one clear sentence; callers show `str(error)` and never a traceback."""

    def __init__(
        self, thing: str, *, expected: str = "", found: str = "", remedy: str = ""
    ) -> None:
        thing, found = cut(thing, MOST // 2), cut(found, MOST)
        self.thing, self.expected, self.found, self.remedy = thing, expected, found, remedy
        told = {"expected": expected, "found": found}
        detail = ", ".join(f"{word} {what}" for word, what in told.items() if what)
        sentence = f"{thing}: {detail}" if detail else thing
        super().__init__(f"{sentence}. {remedy}".strip() if remedy else sentence)


def cut(text: str, most: int) -> str:
    """A text of at most `most` characters: its beginning and its end."""
    if len(text) <= most:
        return text
    return f"{text[: most * 2 // 3]} … {text[len(text) - most // 3 :]}"


def reason(error: BaseException) -> str:
    """What an exception says, on one line and short; its type where it says nothing."""
    if isinstance(error, RecursionError):
        return "brackets nested too deep"
    if isinstance(error, UnicodeDecodeError):
        return f"a byte at place {error.start} that is not {error.encoding.upper()}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # A line that ends with a colon announces the one that says it.
    first = " ".join(lines[:2]) if lines and lines[0].endswith(":") else "".join(lines[:1])
    said = cut(first, SAID).rstrip(".")
    return f"no key {said}" if isinstance(error, KeyError) else said or type(error).__name__


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
