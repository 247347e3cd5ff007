"""The one style of error: the thing, what was expected, what was found and how to mend it."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from typing import Any

MOST = 1000  # characters of a sentence: files may hold names of any length
LEAST = 150  # of these that each part of a sentence keeps
SAID = 300  # characters of what a library said
NAMED = 120  # characters of one thing in a list


class InputError(ValueError):
    """Bad input, in one clear sentence; callers show `str(error)` and never a traceback."""

    def __init__(
        self, thing: str, *, expected: str = "", found: str = "", remedy: str = ""
    ) -> None:
        thing, expected, found, remedy = _fitted(thing, expected, found, remedy)
        self.thing, self.expected, self.found, self.remedy = thing, expected, found, remedy
        told = {"expected": expected, "found": found}
        detail = ", ".join(f"{word} {what}" for word, what in told.items() if what)
        sentence = f"{thing}: {detail}" if detail else thing
        super().__init__(f"{sentence}. {remedy}".strip() if remedy else sentence)


def _fitted(thing: str, expected: str, found: str, remedy: str) -> tuple[str, str, str, str]:
    """The parts of a sentence so that it has at most `MOST` characters.

    What was found gives way first, and a remedy last: it may be a command.
    """
    parts = {"found": found, "thing": thing, "expected": expected, "remedy": remedy}
    for name, text in parts.items():
        over = sum(map(len, parts.values())) + len(":  expected , found . ") - MOST
        if over > 0:
            parts[name] = cut(text, max(len(text) - over, LEAST))
    return parts["thing"], parts["expected"], parts["found"], parts["remedy"]


def shown(value: Any, most: int = 200) -> str:
    """A value as Python writes it, at most `most` characters; its type where that is no text."""
    try:
        return cut(repr(value), most)
    except Exception:  # nested too deep, or an integer of more digits than Python writes
        return f"a {type(value).__name__} that cannot be shown"


def cut(text: str, most: int) -> str:
    """A text of at most `most` characters: its beginning and its end."""
    if len(text) <= most:
        return text
    most -= len(" … ")
    return f"{text[: most - most // 3]} … {text[len(text) - most // 3 :]}"


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
    told = ", ".join(cut(name, NAMED) for name in names[:most])
    return f"{told} and {len(names) - most} more" if len(names) > most else told


def nearest(name: str, choices: Iterable[str]) -> str:
    """A remedy that names the nearest valid choice, or lists them all."""
    choices = list(choices)
    # The comparison takes time with the square of the length.
    close = difflib.get_close_matches(cut(name, NAMED), choices, n=1, cutoff=0.5)
    if close:
        return f"Did you mean '{close[0]}'?"
    return (
        f"Choose one of: {listing(choices, 40)}." if choices else "There is nothing to choose from."
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
