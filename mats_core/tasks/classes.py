"""Labels and the classes that they name: spellings, numbers, and what is no class at all."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import InputError, listing, member

# A sign, a plus or a sharp tells names apart (C, C++, C#; 1, -1), these characters do not.
BETWEEN = re.compile(r"[\s_.,:;'\"()\[\]{}/!?&]|(?<!^)-|^-(?!\d)")
DECIMAL = re.compile(r"(?<=\d)[.,](?=\d)")
FRACTION = re.compile(r"-?\d*[.,]\d*[1-9]\d*(e-?\d+)?")
WHOLE = re.compile(r"-?\d+")
NUMBERED = re.compile(r"(?:label|class)[\s_-]*\d+", re.IGNORECASE)  # names that say nothing
HIDDEN = "Name the validation file as 'test', or hold out rows of the training file: 'test: 0.2'."
DROP = "Remove those rows, or write 'missing: drop' in the task to leave them out."


def plain(name: str) -> str:
    """A name without case, blanks and punctuation; "" where nothing else is left."""
    name = DECIMAL.sub("·", unicodedata.normalize("NFKC", name).strip())
    return BETWEEN.sub("", name.casefold())


def matched(names: Iterable[str], among: Sequence[str]) -> dict[str, str]:
    """name → the one of `among` that it is: the same, or else the only one that differs from it in
    nothing but case, blanks and punctuation.  Names without one, and names that share one, are
    left out.
    """
    names = list(dict.fromkeys(names))
    found = {name: name for name in names if name in among}
    spelt = Counter(map(plain, among))
    known = {plain(one): one for one in among if plain(one) and spelt[plain(one)] == 1}
    others = {n: known[plain(n)] for n in names if n not in found and plain(n) in known}
    wanted = Counter([*found.values(), *others.values()])
    return found | {name: one for name, one in others.items() if wanted[one] == 1}


def spelt(labels: Iterable[str], among: Sequence[str]) -> dict[str, str]:
    """label → the class of `among` that it is, as in `matched`; but a class may be spelt in several
    ways (`Positive` in some rows, `positive` in others)."""
    return {name: one for label in labels for name, one in matched([label], among).items()}


def alike(names: Iterable[str]) -> list[tuple[str, ...]]:
    """The names that differ from each other in nothing but case, blanks and punctuation."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(plain(name) or name, []).append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def says_nothing(names: Sequence[str]) -> bool:
    """Whether names are but numbers: `LABEL_0` and `LABEL_1`, or 0 and 1."""
    return all(NUMBERED.fullmatch(name) or class_number(name) is not None for name in names)


def class_name(value: Any) -> str:
    """A label as the name of a class: whole numbers without their decimals, "" for none."""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return text_of(value).strip()


def text_of(value: Any) -> str:
    """A cell as a text, "" for none (also NaN, and the `NA` of pandas)."""
    nothing = value is None or type(value).__name__ in ("NAType", "NaTType")
    if nothing or (isinstance(value, float | np.floating) and np.isnan(value)):
        return ""
    return str(value)


def class_number(name: str) -> int | None:
    """The whole number that a label is (`1`, `-1`, also `1.0`); None for any other text."""
    name = name.partition(".")[0] if name.rstrip("0").endswith(".") else name
    return int(name) if WHOLE.fullmatch(name) else None


def distinct(values: Iterable[str]) -> tuple[str, ...]:
    """The classes that occur: in the order of their numbers where all are, else by name."""
    names = sorted(set(values))
    numbers = {name: class_number(name) for name in names}
    if None in numbers.values():
        return tuple(names)
    return tuple(sorted(names, key=lambda name: numbers[name] or 0))


def require_few(thing: str, names: Sequence[str], rows: int) -> None:
    """Raise `InputError` for numbers with decimals that hardly repeat: no classes have such names.

    `rows`: how many labels there are.
    """
    broken = [name for name in names if FRACTION.fullmatch(name)]
    if broken and len(names) > max(2, rows // 4):
        raise InputError(
            thing,
            expected="the class of each row",
            found=f"{len(names)} different numbers, such as {broken[0]}: values to be predicted",
            remedy="A task is of classes: write them into the table, or name them in 'classes'.",
        )


def present(
    thing: str, values: Sequence[Any], known: Sequence[str], *, drop: bool
) -> tuple[np.ndarray, str]:
    """(n,) bool: which labels are there, and a remark on those that are to be dropped.

    No label is nothing, a blank text, NaN, and a negative number, with which hidden labels are
    marked, unless `known` classes have its name.  Without `drop` they are an error with their row.
    """
    names = [class_name(value) for value in values]
    absent = [not name for name in names]
    hidden = [(class_number(name) or 0) < 0 and name not in known for name in names]
    none = np.array(absent, dtype=bool) | np.array(hidden, dtype=bool)
    rows = np.flatnonzero(none)
    if not len(rows):
        return ~none, ""
    if len(rows) == len(names):
        marked = "none" if all(absent) else listing(sorted(set(filter(None, names))))
        raise InputError(
            f"labels of {thing}",
            expected="the class of each row",
            found=f"{marked} in every row: they are hidden, as in many test files",
            remedy=HIDDEN,
        )
    if not drop:
        first, more = int(rows[0]), f" and {len(rows) - 1} more" if len(rows) > 1 else ""
        told = "none" if absent[first] else f"{names[first]}, which marks hidden labels"
        quoted = "" if absent[first] else " If it is a class, name it in 'classes'."
        raise InputError(
            f"label in row {first + 1}{more} of {thing}",
            expected="a class",
            found=told,
            remedy=DROP + quoted,
        )
    return ~none, f"{len(rows)} of {len(names)} {thing} have no label and are left out"


def labels(
    thing: str, values: Sequence[Any], classes: Sequence[str], spelt: Mapping[str, str], named: bool
) -> np.ndarray:
    """Class names (`named`) or numbers as numbers (n,) int64 into `classes`.

    `spelt`: label → the class that it is, for all names that occur.
    """
    places = {known: place for place, known in enumerate(classes)}
    found = np.empty(len(values), dtype=np.int64)
    for row, value in enumerate(values):
        name = class_name(value)
        if name in spelt and (named or class_number(name) is None):
            found[row] = places[spelt[name]]
            continue
        where, place = f"label in row {row + 1} of {thing}", class_number(name)
        if named or place is None:
            member(where, name, classes)
        elif not 0 <= place < len(classes):
            raise InputError(where, expected=f"a number from 0 to {len(classes) - 1}", found=name)
        else:
            found[row] = place
    return found
