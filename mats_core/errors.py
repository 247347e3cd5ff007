"""Validation at the door, and the one style of error.

Every error a user can cause is an `InputError`: it names the thing, what was expected, what was
found and how to mend it.  The inside of the library trusts its inputs.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import importlib
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import pydantic
import yaml

M = TypeVar("M", bound=pydantic.BaseModel)
MOST = 2000  # characters of what was found: files may hold names of any length
SAID = 300  # characters of what a library said

ROOM = "Make room there, or choose a folder on another disk."
LEAVE = "Ask for the permission, or choose another folder."
FEWER = "Close other programs, use fewer threads (OMP_NUM_THREADS), or merge on a larger machine."
# What the system refuses → what was wanted, what there is, and the way out.
SYSTEM: dict[int, tuple[str, str, str]] = {
    errno.ENOSPC: ("room to write", "a full disk", ROOM),
    errno.EDQUOT: ("room to write", "a quota that is used up", ROOM),
    errno.EFBIG: (
        "room to write",
        "a file larger than its disk or a limit allows",
        "Choose another disk (FAT32 takes 4 GB a file), or raise the limit (ulimit -f).",
    ),
    errno.EROFS: ("a disk that can be written", "a read-only one", "Choose another folder."),
    errno.EACCES: ("the permission", "none", LEAVE),
    errno.EPERM: ("the permission", "none", LEAVE),
    errno.ENAMETOOLONG: ("a name that the system takes", "one too long", "Shorten it."),
    errno.EIO: (
        "a disk that answers",
        "an input/output error",
        "The disk may be failing: copy what is on it, and look at the system's log.",
    ),
    errno.EMFILE: (
        "few open files", "as many as this process may have", "Raise the limit: ulimit -n 4096.",
    ),
    errno.ENFILE: ("few open files", "as many as the system may have", "Close other programs."),
    errno.ENOENT: ("an existing file or directory", "nothing there", "Was it moved or removed?"),
    errno.EISDIR: ("a file", "a directory", "Name a file in it, or another path."),
    errno.ENOTDIR: ("a directory", "a file on the way there", "Check the path."),
    errno.ELOOP: ("a path that ends", "links that lead in a circle", "Remove one of the links."),
    errno.ENOMEM: ("memory", "too little of it", FEWER),
    errno.ESTALE: (
        "a file of the network disk", "one that has gone there", "Mount the disk again.",
    ),
}  # fmt: skip
# What libraries say where memory is short; the types of these errors are not theirs alone.
NO_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "bad_alloc",
             "can't start new thread", "not enough memory", "failed to map", "os error 12",
             "resource temporarily unavailable")  # fmt: skip


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


class MachineError(InputError):
    """What the machine refused, in one clear sentence: disk, memory, permission."""


def cut(text: str, most: int) -> str:
    """A text of at most `most` characters: its beginning and its end."""
    if len(text) <= most:
        return text
    return f"{text[: most * 2 // 3]} … {text[len(text) - most // 3 :]}"


def reason(error: BaseException) -> str:
    """What an exception says, on one line and short; its type where it says nothing."""
    if isinstance(error, RecursionError):
        return "brackets nested too deep"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = cut(lines[0], SAID).rstrip(".") if lines else ""
    return f"no key {said}" if isinstance(error, KeyError) else said or type(error).__name__


def machine_error(thing: str, error: BaseException) -> MachineError | None:
    """The sentence for what the machine refused; None for an exception of another kind."""
    if isinstance(error, OSError) and error.errno is not None:
        expected, found, remedy = SYSTEM.get(
            error.errno, ("a system that can do it", f"'{error.strerror}'", "")
        )
        file = error.filename
        named = os.fsdecode(file) if isinstance(file, str | bytes | os.PathLike) else ""
        above, last = os.path.split(named)
        told = named in thing or (last.startswith(".") and above in thing)  # a file under way
        where = thing if told else f"{thing}: '{named}'"
        return MachineError(where, expected=expected, found=found, remedy=remedy)
    said = str(error).lower()
    memory = isinstance(error, MemoryError) or any(words in said for words in NO_MEMORY)
    if memory and isinstance(error, MemoryError | RuntimeError | OSError):
        on = "memory of the GPU" if "cuda" in said or "mps" in said else "memory"
        return MachineError(thing, expected=f"enough {on}", found="too little", remedy=FEWER)
    if isinstance(error, OSError):
        return MachineError(thing, expected="a system that can do it", found=reason(error))
    return None


@contextlib.contextmanager
def foreseen(thing: str) -> Iterator[None]:
    """A context in which what the machine refuses becomes a `MachineError` about `thing`.

    A pipe that its reader has closed is none of that, and goes on as it is.
    """
    try:
        yield
    except (OSError, MemoryError, RuntimeError) as error:
        if isinstance(error, BrokenPipeError):
            raise
        found = machine_error(thing, error)
        if found is None:
            raise
        raise found from error


@contextlib.contextmanager
def parsing(thing: str, expected: str, remedy: str = "") -> Iterator[None]:
    """A context in which whatever a parser raises becomes an `InputError` about `thing`."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        refused = machine_error(thing, error)
        if refused is None:
            refused = InputError(thing, expected=expected, found=reason(error), remedy=remedy)
        raise refused from error


def regular(thing: str, file: Path, expected: str = "a file") -> Path:
    """`file` if it can be read like a file, else an `InputError`: a pipe would block for ever."""
    with foreseen(thing):
        mode = os.stat(file).st_mode
    if stat.S_ISREG(mode):
        return file
    found = "a directory" if stat.S_ISDIR(mode) else "a pipe, a socket or a device"
    raise InputError(thing, expected=expected, found=found, remedy="Name another path.")


def read_json(file: Path) -> Any:
    """What a JSON file holds, with or without a byte-order mark; `InputError` where it is none."""
    thing = f"'{file}'"
    regular(thing, file)
    with parsing(thing, "JSON", "Copy or download it again."):
        return json.loads(file.read_text("utf-8-sig"))


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
    with foreseen(f"{thing} '{path}'"):
        there = path.exists()
    if not there:
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
    named = f"{thing} '{path}'"
    path = regular(named, existing(thing, path), "a file of YAML")
    try:
        with foreseen(named):
            text = path.read_bytes().decode("utf-8-sig")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        content = None
        if node is not None:
            _as_written(named, node, _text_fields(models))
            content = yaml.SafeLoader("").construct_document(node)
    except InputError:
        raise
    except (yaml.YAMLError, ValueError, RecursionError, LookupError, TypeError) as error:
        found = "brackets nested too deep" if isinstance(error, RecursionError) else str(error)
        raise InputError(
            named, expected="YAML", found=cut(found.replace("\n", " "), 2 * SAID)
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


def _as_written(thing: str, node: yaml.Node, texts: Mapping[str, bool]) -> None:
    """Make the scalars of these fields texts, wherever the mapping lies, but for free ones."""
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
    lines: dict[Any, int] = {}
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if isinstance(key, yaml.ScalarNode) and lines.setdefault(key.value, line) != line:
            raise InputError(
                f"{thing}: '{key.value}'",
                expected="each key once",
                found=f"it in line {lines[key.value]} and in line {line}",
                remedy="Remove one of the two.",
            )


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
