"""Words of the library: public docstrings, the fields of public records, and names in texts."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydantic
import pytest

from tests.test_docs import exists

ROOT = Path(__file__).resolve().parent.parent
ROOMS = (
    "adapters", "aligning", "analysis", "checkpoints", "cli", "estimating", "evaluation", "export",
    "families", "figures", "linear", "merging", "methods", "models", "notebook", "statistics",
    "system", "tasks",
)  # fmt: skip
PERSONS = re.compile(r"\b(who(m|ever)?|(no|some|any|every)(body|one)|people|person)\b", re.I)
NOT_A_PERSON = re.compile(r"`who`")


def handed_out(room: str) -> Iterator[tuple[str, Any]]:
    """(name, class or function) of everything of ours in a door's `__all__`, and what a module
    in it defines."""
    door = importlib.import_module(f"mats_core.{room}")
    for name in door.__all__:
        value = getattr(door, name)
        if inspect.ismodule(value):
            inside = [(f"{name}.{k}", v) for k, v in vars(value).items() if not k.startswith("_")]
        else:
            inside = [(name, value)]
        for full, one in inside:
            if inspect.isclass(one) or inspect.isfunction(one):
                home = getattr(one, "__module__", "")
                if home.startswith("mats_core") and (full == name or home == value.__name__):
                    yield full, one


def written(one: Any) -> str:
    """The docstring as it was written: not inherited, and not one that `dataclass` made up."""
    text = vars(one).get("__doc__") or "" if inspect.isclass(one) else inspect.getdoc(one) or ""
    made_up = inspect.isclass(one) and text.startswith(f"{one.__name__}(")
    return "" if made_up else text


def methods(one: type) -> Iterator[tuple[str, Any]]:
    """(name, function) of the public methods and properties that a class defines."""
    for name, value in vars(one).items():
        function = value.fget if isinstance(value, property) else value
        function = getattr(function, "func", getattr(function, "__func__", function))
        if not name.startswith("_") and inspect.isfunction(function):
            yield name, getattr(one, name) if not isinstance(value, property) else value


def fields(one: type) -> list[str]:
    """Public fields of a record that need words: of a pydantic model those without description.

    Of a record that extends another one, only the fields that it adds.
    """
    if dataclasses.is_dataclass(one):
        inherited = {
            field.name
            for base in one.__mro__[1:]
            if dataclasses.is_dataclass(base)
            for field in dataclasses.fields(base)
        }
        names = [f.name for f in dataclasses.fields(one) if f.name not in inherited]
    elif issubclass(one, pydantic.BaseModel):
        names = [name for name, field in one.model_fields.items() if not field.description]
    else:
        names = list(getattr(one, "_fields", ()))
    return [name for name in names if not name.startswith("_")]


PUBLIC = [(room, name, one) for room in ROOMS for name, one in handed_out(room)]
RECORDS = [(room, name, one) for room, name, one in PUBLIC if inspect.isclass(one)]


def ids(rows: list[tuple[str, str, Any]]) -> list[str]:
    return [f"{room}.{name}" for room, name, _ in rows]


@pytest.mark.parametrize(("room", "name", "one"), PUBLIC, ids=ids(PUBLIC))
def test_what_is_handed_out_says_what_it_is(room, name, one):
    texts = {name: written(one)}
    if inspect.isclass(one):
        texts |= {f"{name}.{own}": inspect.getdoc(value) or "" for own, value in methods(one)}
    for full, text in texts.items():
        assert text, f"mats_core.{room}: {full} has no docstring"
        persons = PERSONS.search(NOT_A_PERSON.sub("", text))
        assert persons is None, f"mats_core.{room}: {full} speaks of '{persons and persons[0]}'"


@pytest.mark.parametrize(("room", "name", "one"), RECORDS, ids=ids(RECORDS))
def test_every_field_of_a_record_is_documented(room, name, one):
    text = written(one)
    missing = [field for field in fields(one) if not re.search(rf"\b{field}\b", text)]
    assert not missing, f"mats_core.{room}: {name} does not say what these are: {missing}"


@pytest.mark.parametrize("room", ROOMS)
def test_names_in_the_texts_of_the_library_exist(room):
    files = {path.name for path in (ROOT / "mats_core").rglob("*.py")}
    for file in (ROOT / "mats_core" / room).glob("*.py"):
        text = file.read_text("utf-8")
        for name in re.findall(r"\bmats_core(?:\.[A-Za-z_]\w*)+", text):
            assert exists(name), f"{file.name} names {name}"
        for path in re.findall(r"`([\w/]+\.py)`", text):
            known = (ROOT / path).exists() or (file.parent / path).exists() or path in files
            assert known, f"{file.name} names {path}"
