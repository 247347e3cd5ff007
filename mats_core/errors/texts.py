"""What stands in files of YAML: texts as they were written, and values that fit their fields."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Container, Iterable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

import pydantic
import yaml

from .machine import existing, foreseen, regular
from .sentences import SAID, InputError, cut, nearest, reason, shown

M = TypeVar("M", bound=pydantic.BaseModel)
R = TypeVar("R")
# What a text of YAML may ask for: bytes to read, values in each other, and values in all.
BYTES, DEEPEST, VALUES = 500_000, 100, 100_000
BITS = 1023  # of a whole number: more is no number of floating point, and Python may not write it


def read_yaml(thing: str, path: str | Path, *models: type[pydantic.BaseModel]) -> dict[str, Any]:
    """The mapping that a YAML file holds, else an `InputError`.

    What the fields of `models` take as a text stays the text that it is in the file: `no`, `1`,
    `1e3`, a date.  A key that stands twice in a mapping is an error.
    """
    named = f"{thing} '{path}'"
    path = regular(named, existing(thing, path), "a file of YAML")
    with foreseen(named), path.open("rb") as handle:
        raw = handle.read(BYTES + 1)
    content = plain_yaml(named, raw, *models)
    if not isinstance(content, Mapping):
        said = cut(content, 60) if isinstance(content, str) else shown(content, 60)
        kinds = {type(None): "an empty file", list: "a list"}
        raise InputError(
            named,
            expected="a YAML mapping: keys with values",
            found=kinds.get(type(content), f"{type(content).__name__} '{said}'"),
        )
    return dict(content)


def plain_yaml(thing: str, raw: bytes | str, *models: type[pydantic.BaseModel]) -> Any:
    """The plain values that a text of YAML says, else an `InputError` about `thing`.

    Not read are more than `BYTES` bytes, `DEEPEST` values in each other, or `VALUES` values, those
    that aliases stand for counted as often as they stand there.  `models`: as in `read_yaml`.
    """
    if len(raw) > BYTES:
        found = f"{len(raw)}" if isinstance(raw, str) else "more"
        raise InputError(thing, expected=f"at most {BYTES} bytes of YAML", found=found)
    try:
        loader = _Bounded(raw)  # which reads UTF-8 and UTF-16
        node = loader.get_single_node()
        if node is None:
            return None
        if _count(node, {}) > VALUES:
            raise yaml.YAMLError(f"aliases (*name) that stand for more than {VALUES} values")
        if models:
            _as_written(thing, node, _text_fields(models), _number_fields(models))
        return loader.construct_document(node)
    except InputError:
        raise
    except Exception as error:  # whatever the constructor of a scalar meets
        found = str(error) or "a value that is none"
        if isinstance(error, RecursionError):
            found = "brackets nested too deep"
        unread = isinstance(error, yaml.reader.ReaderError | UnicodeDecodeError)
        raise InputError(
            thing,
            expected="YAML",
            found=cut(" ".join(found.split()), 2 * SAID),
            remedy="Save it as UTF-8, as plain text." if unread else "",
        ) from None


class _Bounded(yaml.SafeLoader):
    """YAML of at most so many values in each other, and in all."""

    def __init__(self, raw: bytes | str) -> None:
        super().__init__(raw)
        self._depth = self._made = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self._depth, self._made = self._depth + 1, self._made + 1
        if self._depth > DEEPEST:
            raise yaml.YAMLError("brackets nested too deep")
        if self._made > VALUES:
            raise yaml.YAMLError(f"more than {VALUES} values")
        made = super().compose_node(parent, index)
        self._depth -= 1
        return made

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        value: int = super().construct_yaml_int(node)
        if value.bit_length() > BITS:
            raise yaml.YAMLError(f"a whole number of {value.bit_length()} binary digits")
        return value


_Bounded.add_constructor("tag:yaml.org,2002:int", _Bounded.construct_yaml_int)


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a node stands for, those of aliases counted wherever they stand."""
    if id(node) in known:
        return known[id(node)]
    known[id(node)] = VALUES + 1  # an alias inside of what it stands for has no end
    below: Iterable[yaml.Node] = ()
    if isinstance(node, yaml.SequenceNode):
        below = node.value
    elif isinstance(node, yaml.MappingNode):
        below = (one for pair in node.value for one in pair)
    known[id(node)] = min(VALUES + 1, 1 + sum(_count(one, known) for one in below))
    return known[id(node)]


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
    if not isinstance(content, Mapping):  # whatever a file or an address holds in its place
        raise InputError(thing, expected="a mapping from names to values", found=repr(content)[:60])
    switches = [*_switches(model, content)]
    if switches:
        raise InputError(f"{thing}: {' '.join(switches)}")
    try:
        return model.model_validate(content)
    except pydantic.ValidationError as error:
        problems = error.errors()
    except (ValueError, RecursionError) as error:  # half characters, values nested too deep
        raise InputError(thing, expected="plain values", found=reason(error)) from None
    fields = [name for one in (model, *inside) for name in one.model_fields]
    wanted: dict[tuple[str, Any], list[str]] = {}
    sentences: list[str] = []
    for problem in problems:
        where = _where(problem["loc"], fields) or thing
        if problem["type"] == "extra_forbidden":
            last = str(problem["loc"][-1])
            where = ".".join(map(str, problem["loc"]))
            remedy = nearest(last, _choices(model, problem["loc"]))
            sentences.append(f"'{where}' is not an option here. {remedy}")
        elif problem["type"] == "missing":
            sentences.append(f"'{where}' is missing.")
        elif problem["type"] == "value_error":  # of a validator of this library
            said = str(problem.get("ctx", {}).get("error"))
            sentences.append(f"'{where}': {said}, found {shown(problem['input'])}.")
        else:
            wanted.setdefault((where, shown(problem["input"])), []).append(_wanted(problem))
    inner = {_where(problem["loc"], fields) for problem in problems}
    for (where, found), expected in wanted.items():
        if any(other.startswith(f"{where}.") for other in inner):
            continue  # what is wrong inside says more
        alternatives = " or ".join(dict.fromkeys(expected))
        sentences.append(f"'{where}': expected {alternatives}, found {found}.")
    raise InputError(f"{thing}: {' '.join(dict.fromkeys(sentences))}")


@functools.cache
def _adapter(record: type) -> pydantic.TypeAdapter[Any]:
    return pydantic.TypeAdapter(record)


@functools.cache
def _numbers(record: type) -> frozenset[str]:
    return frozenset(name for name, hint in get_type_hints(record).items() if hint is float)


def typed(record: type[R], values: Mapping[str, Any]) -> R:
    """A dataclass made of plain values from a file, after its annotations were held against them.

    Null stands for a number that JSON has no words for: NaN.  Raises `ValueError` or `TypeError`
    where a value is of another type, missing or unknown.
    """
    unknown = values.keys() - {one.name for one in dataclasses.fields(cast(Any, record))}
    if unknown:
        raise TypeError(f"no field {cut(str(min(unknown, key=str)), 40)}")
    numbers = _numbers(record)
    told = {k: math.nan if v is None and k in numbers else v for k, v in values.items()}
    return _adapter(record).validate_python(told)


def _models_in(field: pydantic.fields.FieldInfo | None) -> list[type[pydantic.BaseModel]]:
    parts = set() if field is None else _parts(field.annotation)
    return [p for p in parts if isinstance(p, type) and issubclass(p, pydantic.BaseModel)]


def _choices(model: type[pydantic.BaseModel], loc: Iterable[int | str]) -> list[str]:
    """The keys that may stand where an unknown one does."""
    for part in loc:
        inner = _models_in(model.model_fields.get(str(part)))
        model = inner[0] if inner else model
    return [name for name, field in model.model_fields.items() if not field.exclude]


def _switches(
    model: type[pydantic.BaseModel], content: Mapping[str, Any], where: str = ""
) -> Iterator[str]:
    """A sentence on every true or false where a number is wanted, for which pydantic takes 1, 0."""
    for name, field in model.model_fields.items():
        value = content.get(name)
        for place, one in enumerate(value if isinstance(value, list | tuple) else [value]):
            if isinstance(one, bool) and _takes_numbers(field):
                yield f"'{where}{name}': expected a number, found {str(one).lower()}."
            elif isinstance(one, Mapping) and (inner := _models_in(field)):
                at = f"{name}.{place}." if isinstance(value, list | tuple) else f"{name}."
                yield from _switches(inner[0], one, where + at)


def _takes_numbers(field: pydantic.fields.FieldInfo) -> bool:
    """Whether it takes numbers, and neither true nor false."""
    parts = _parts(field.annotation)
    return bool(parts & {int, float}) and bool not in parts


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
