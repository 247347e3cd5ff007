"""Validation at the door, and the one style of error.

Every error a user can cause is an `InputError`: it names the thing, what was expected, what was
found and how to mend it.  The inside of the library trusts its inputs.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Container, Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

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


def read_yaml(thing: str, path: str | Path, *models: type[pydantic.BaseModel]) -> dict[str, Any]:
    """The mapping that a YAML file holds, else an `InputError`.

    What the fields of `models` take as a text stays the text that it is in the file: `no`, `1`,
    `1e3`, a date.  A key that stands twice in a mapping is an error.
    """
    path = existing(thing, path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        content = None
        if node is not None:
            _as_written(f"{thing} '{path}'", node, _text_fields(models), _number_fields(models))
            loader = yaml.SafeLoader("")
            content = loader.construct_document(node)
    except InputError:
        raise
    except (yaml.YAMLError, ValueError, OSError, OverflowError, RecursionError) as error:
        raise InputError(
            f"{thing} '{path}'",
            expected="YAML",
            found=(str(error) or type(error).__name__).replace("\n", " ")[:300],
        ) from None
    if not isinstance(content, Mapping):
        raise InputError(
            f"{thing} '{path}'", expected="a YAML mapping", found=type(content).__name__
        )
    return dict(content)


def _text_fields(models: Iterable[type[pydantic.BaseModel]]) -> dict[str, bool]:
    """Fields that take texts and no other scalar → whether an empty value is none."""
    found = {}
    for model in models:
        for name, field in model.model_fields.items():
            parts = _parts(field.annotation)
            if str in parts and not parts & {int, float, bool, Any}:
                found[name] = type(None) in parts
    return found


def _parts(annotation: Any) -> set[Any]:
    """The types in an annotation: `str` and `NoneType` of `tuple[str, ...] | None`."""
    inside = get_args(annotation)
    if get_origin(annotation) is Annotated:
        return _parts(inside[0])
    if get_origin(annotation) is Literal:
        return {type(value) for value in inside}
    return {part for one in inside for part in _parts(one)} if inside else {annotation}


def _number_fields(models: Iterable[type[pydantic.BaseModel]]) -> set[str]:
    """Fields that take numbers and neither texts nor true and false."""
    parts = {n: _parts(f.annotation) for one in models for n, f in one.model_fields.items()}
    return {name for name, one in parts.items() if one & {int, float} and not one & {str, bool}}


def _as_written(
    thing: str, node: yaml.Node, texts: Mapping[str, bool], numbers: Container[str]
) -> None:
    """Make the scalars of the fields of texts what is written, wherever their mapping lies, but for
    free ones."""
    waiting = [node]
    seen = set()  # an anchor may lie in itself
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            _require_once(thing, node)
            for key, value in node.value:
                if key.value in texts:
                    _kept(value, null=texts[key.value])
                elif key.value in numbers and value.tag == "tag:yaml.org,2002:bool":
                    value.tag = "tag:yaml.org,2002:str"  # yes and no are no numbers
                elif key.value not in FREE:
                    waiting.append(value)


def _kept(node: yaml.Node, *, null: bool) -> None:
    """A scalar, or the scalars of a list, as the texts that were written."""
    if isinstance(node, yaml.ScalarNode):
        if not (null and node.tag == "tag:yaml.org,2002:null"):
            node.tag = "tag:yaml.org,2002:str"
    elif isinstance(node, yaml.SequenceNode):
        for one in node.value:
            if isinstance(one, yaml.ScalarNode):
                one.tag = "tag:yaml.org,2002:str"


def _require_once(thing: str, node: yaml.MappingNode) -> None:
    lines: dict[str, int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            continue
        line = key.start_mark.line + 1
        if key.value in lines:
            raise InputError(
                f"{thing}: '{key.value}'",
                expected="each key once",
                found=f"it in line {lines[key.value]} and in line {line}",
                remedy="Remove one of the two.",
            )
        lines[key.value] = line


def validated(
    thing: str, model: type[M], content: Mapping[str, Any], *inside: type[pydantic.BaseModel]
) -> M:
    """The model of parsed values; `inside`: models in it.

    Raises `InputError` with all that is wrong, in words; unknown keys name the nearest valid one.
    """
    try:
        return model.model_validate(content)
    except pydantic.ValidationError as error:
        problems = error.errors()
    fields = [name for one in (model, *inside) for name in one.model_fields]
    wanted: dict[tuple[str, Any], list[str]] = {}
    sentences: list[str] = []
    for problem in problems:
        where = _where(problem["loc"], fields) or thing
        if problem["type"] == "extra_forbidden":
            last = str(problem["loc"][-1])
            where = ".".join(map(str, problem["loc"]))
            sentences.append(f"'{where}' is not an option here. {nearest(last, fields)}")
        elif problem["type"] == "missing":
            sentences.append(f"'{where}' is missing.")
        elif problem["type"] == "value_error":  # of a validator of this library
            said = str(problem.get("ctx", {}).get("error"))
            sentences.append(f"'{where}': {said}, found {problem['input']!r}.")
        else:
            wanted.setdefault((where, repr(problem["input"])[:200]), []).append(_wanted(problem))
    inner = {_where(problem["loc"], fields) for problem in problems}
    for (where, found), expected in wanted.items():
        if any(other.startswith(f"{where}.") for other in inner):
            continue  # what is wrong inside says more
        alternatives = " or ".join(dict.fromkeys(expected))
        sentences.append(f"'{where}': expected {alternatives}, found {found}.")
    raise InputError(f"{thing}: {' '.join(dict.fromkeys(sentences))}")


def _where(loc: Iterable[int | str], fields: Iterable[str]) -> str:
    """`experts.0.name`: keys and places, without pydantic's names for the parts of a union."""
    known, kept, free = set(fields), [], False
    for part in loc:
        if isinstance(part, int) or part in known or free:
            kept.append(str(part))
        free = part in FREE
    return ".".join(kept)


FREE = ("options", "search")  # fields whose keys and values are another's
WANTED = {
    "string": "a text", "int": "an integer", "float": "a number", "bool": "true or false",
    "tuple": "a list", "list": "a list", "dict": "keys with values", "model": "keys with values",
    "mapping": "keys with values", "none": "nothing", "finite": "a finite number",
    "decimal": "a number", "path": "a path", "is": "another kind of value",
}  # fmt: skip
BOUNDS = {
    "greater_than_equal": ("a number greater than or equal to {}", "ge"),
    "greater_than": ("a number greater than {}", "gt"),
    "less_than_equal": ("a number less than or equal to {}", "le"),
    "less_than": ("a number less than {}", "lt"),
    "too_short": ("a list of at least {} items", "min_length"),
    "too_long": ("a list of at most {} items", "max_length"),
    "string_too_short": ("a text of at least {} letters", "min_length"),
    "string_too_long": ("a text of at most {} letters", "max_length"),
    "literal_error": ("{}", "expected"),
    "string_pattern_mismatch": ("a text of the form {}", "pattern"),
}


def _wanted(problem: Mapping[str, Any]) -> str:
    """What one of pydantic's complaints asks for, in words."""
    kind = problem["type"]
    if kind in BOUNDS:
        words, key = BOUNDS[kind]
        bound = problem["ctx"][key]
        text = words.format(f"{bound:g}" if isinstance(bound, float) else bound)
        return text.replace(" 1 items", " 1 item").replace(" 1 letters", " 1 letter")
    if kind == "string_type" and isinstance(problem["input"], bool | int | float | date):
        return "a text (put it in quotes)"
    return WANTED.get(kind.partition("_")[0], "another value")


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
