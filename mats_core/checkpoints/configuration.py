"""`config.json`, which other programs write in many forms: read where the meaning is clear.

Class names may be a mapping from ids, a list, or a mapping to ids; the architecture a text; numbers
may be texts.  Everything else of another kind than the key needs is an error that names the key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError, read_json

# Sizes of a model and marks of its texts, which must be numbers.
NUMBERS = re.compile(
    r"(\w+_)?(size|dim|layers|layer|heads|head|embd|channels|positions|embeddings|labels|kv)"
    r"|(n|d|num)_\w+|d_ff|depth|\w+_token_id"
)
TEXTS = frozenset({"model_type"})
SWITCHES = frozenset({"tie_word_embeddings"})
REMEDY = "Write it as transformers' save_pretrained does."


def read_config(file: Path) -> dict[str, Any]:
    """The settings in a `config.json`, in the forms that transformers writes.

    Raises `InputError` that names the file and the key for what cannot be understood.
    """
    content = read_json(file)
    if not isinstance(content, dict):
        found = "null" if content is None else f"a {_kind(content)}"
        raise InputError(f"'{file}'", expected="a JSON object", found=found, remedy=REMEDY)
    return settled(content, f"'{file}'")


def settled(content: Mapping[str, Any], thing: str) -> dict[str, Any]:
    """A configuration in the forms that transformers writes; `thing` is what errors call it."""
    found = {}
    for key, value in content.items():
        if key in ("id2label", "label2id", "architectures") and value is None:
            continue
        found[key] = _settled(str(key), value, f"'{key}' in {thing}")
    return found


def _settled(key: str, value: Any, thing: str) -> Any:
    if key == "id2label":
        return _class_names(value, thing)
    if key == "architectures":
        names = [value] if isinstance(value, str) else value
        return [str(name) for name in _checked(names, list, str, thing, "a list of class names")]
    if key in TEXTS and value is not None and not isinstance(value, str):
        raise InputError(thing, expected="a text", found=_kind(value), remedy=REMEDY)
    if key in SWITCHES and isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if NUMBERS.fullmatch(key) and isinstance(value, str) and re.fullmatch(r"\s*-?\d+\s*", value):
        return int(value)
    return value


def _class_names(value: Any, thing: str) -> dict[str, str]:
    """id → name, from a mapping in either direction or a list."""
    if isinstance(value, list):
        value = dict(enumerate(value))
    if not isinstance(value, Mapping):
        expected = "class names by their numbers"
        raise InputError(thing, expected=expected, found=_kind(value), remedy=REMEDY)
    if all(re.fullmatch(r"\d+", str(key)) for key in value):
        return {str(int(key)): str(name) for key, name in value.items()}
    return _inverse(value, thing)


def _inverse(value: Mapping[Any, Any], thing: str) -> dict[str, str]:
    numbers = [str(number) for number in value.values()]
    if not all(re.fullmatch(r"\d+", n) for n in numbers) or len({*numbers}) < len(numbers):
        raise InputError(
            thing,
            expected="class names by their numbers",
            found=f"neither numbers as keys nor as values: {next(iter(value.items()))!r}",
            remedy=REMEDY,
        )
    return {str(int(number)): str(name) for name, number in value.items()}


def _checked(value: Any, outer: type, inner: type, thing: str, expected: str) -> Any:
    if isinstance(value, outer) and all(isinstance(one, inner) for one in value):
        return value
    raise InputError(thing, expected=expected, found=_kind(value), remedy=REMEDY)


def _kind(value: Any) -> str:
    kinds = {dict: "object", list: "list", str: "text", bool: "boolean", int: "number"}
    word = kinds.get(type(value), type(value).__name__)
    return f"{word} ({str(value)[:40]})" if not isinstance(value, dict | list) else word
