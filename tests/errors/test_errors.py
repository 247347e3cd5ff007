"""Errors are sentences that name the thing, what was expected, what was found, and the remedy."""

from __future__ import annotations

import json

import pytest
from pydantic import BaseModel, ConfigDict, Field

from mats_core.errors import (
    InputError,
    beginning,
    existing,
    listing,
    member,
    nearest,
    needed,
    read_json,
    read_yaml,
    sentences,
    undisturbed,
    validated,
)
from mats_core.errors.beginnings import BEGINNINGS


def test_the_sentence():
    error = InputError("file 'x'", expected="a", found="b", remedy="Do c.")
    assert str(error) == "file 'x': expected a, found b. Do c."
    assert str(InputError("nothing more")) == "nothing more"
    assert str(InputError("x", found="b")) == "x: found b"
    assert (error.thing, error.expected, error.found, error.remedy) == (
        "file 'x'", "a", "b", "Do c.",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("first\nsecond", "first"),
        ("field 'a':\n    it is none\nmore", "field 'a': it is none"),
        ("", "ValueError"),
        ("x" * 5000, "…"),
    ],
)
def test_the_reason_of_an_exception_is_one_short_line(said, told):
    found = sentences.reason(ValueError(said))
    assert told in found
    assert "\n" not in found
    assert len(found) < 400


def test_listing_is_short():
    assert listing("abc") == "a, b, c"
    assert listing("abcdefgh") == "a, b, c, d, e, f and 2 more"


def test_nearest_names_the_closest_or_all():
    assert nearest("dampng", ["damping", "start"]) == "Did you mean 'damping'?"
    assert nearest("zzz", ["damping", "start"]) == "Choose one of: damping, start."
    assert "nothing" in nearest("zzz", [])


def test_member():
    assert member("method", "kfac", ["kfac"]) == "kfac"
    with pytest.raises(InputError, match=r"method: expected one of kfac, found 'kfc'\. Did you"):
        member("method", "kfc", ["kfac"])


def test_existing(tmp_path):
    assert existing("thing", str(tmp_path)) == tmp_path
    with pytest.raises(InputError, match="nothing there"):
        existing("thing", tmp_path / "no")


def test_what_pydantic_refuses_is_one_error():
    class Model(BaseModel):
        model_config = ConfigDict(extra="forbid")
        density: float = Field(0.5, le=1)

    with pytest.raises(InputError) as caught:
        validated("options", Model, {"densty": 1, "density": 3})
    text = str(caught.value)
    assert "'densty' is not an option here. Did you mean 'density'?" in text
    assert "less than or equal to 1, found 3" in text
    assert validated("options", Model, {"density": 1}).density == 1


def test_unknown_keys_are_told_those_of_their_own_place():
    class Inner(BaseModel):
        model_config = ConfigDict(extra="forbid")
        split: str = ""

    class Outer(BaseModel):
        model_config = ConfigDict(extra="forbid")
        seed: int = 0
        inner: Inner | bool = False
        several: tuple[Inner, ...] = ()
        folder: str = Field("", exclude=True)

    for content, choices in (
        ({"zzzz": 1}, "Choose one of: seed, inner, several."),
        ({"inner": {"zzzz": 1}}, "Choose one of: split."),
        ({"several": [{"zzzz": 1}]}, "Choose one of: split."),
    ):
        with pytest.raises(InputError) as caught:
            validated("recipe", Outer, content, Inner)
        assert choices in str(caught.value)


def test_true_is_no_number():
    class Inner(BaseModel):
        weight: float = 1.0

    class Outer(BaseModel):
        scaling: float = 1.0
        layers: int | None = None
        switch: bool | float = False
        several: tuple[Inner, ...] = ()

    for content, says in (
        ({"scaling": True}, "'scaling': expected a number, found true."),
        ({"layers": False}, "'layers': expected a number, found false."),
        ({"several": [{}, {"weight": True}]}, "'several.1.weight': expected a number, found true."),
    ):
        with pytest.raises(InputError) as caught:
            validated("options", Outer, content, Inner)
        assert says in str(caught.value)
    assert validated("options", Outer, {"switch": True, "scaling": 1}).switch is True


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_json_and_yaml_are_read_by_their_first_bytes(tmp_path, encoding):
    (tmp_path / "a.json").write_text('{"name": "é"}', encoding)
    assert read_json(tmp_path / "a.json") == {"name": "é"}
    if encoding != "utf-32":  # which YAML is never in
        (tmp_path / "a.yaml").write_text("name: é", encoding)
        assert read_yaml("recipe", tmp_path / "a.yaml") == {"name": "é"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "found an empty file"),
        (b"# nothing", "found an empty file"),
        (b"- a", "found a list"),
        (b"average", "found str 'average'"),
        ("name: é".encode("latin-1"), "Save it as UTF-8"),
    ],
)
def test_what_is_no_mapping_in_yaml_is_named(tmp_path, content, says):
    (tmp_path / "a.yaml").write_bytes(content)
    with pytest.raises(InputError, match=says):
        read_yaml("recipe", tmp_path / "a.yaml")


@pytest.mark.parametrize("path", ["https://x.org/a.csv", "data/http:/x.org/a", "s3://bucket/a"])
def test_an_address_is_no_path(path):
    with pytest.raises(InputError, match="an address of the web"):
        existing("thing", path)


def test_what_a_file_is_by_its_first_bytes():
    told = {bytes_: beginning(bytes_ + bytes(20)) for bytes_, *_ in BEGINNINGS}
    assert all(told.values())
    for plain in (b"text,label", b"PAR1,label", b"GGUF;x", b"PK,x", b"", b'{"a": 1}', b"version,x"):
        assert beginning(plain) is None


def test_a_package_that_is_not_installed_is_named_with_its_extra():
    assert needed("a table", "json", "json", "data") is json
    with pytest.raises(InputError, match=r"a table: .*package no-such.*\[data\]"):
        needed("a table", "no_such.module", "no-such", "data")


def test_a_broken_package_is_not_called_missing(tmp_path, monkeypatch):
    (tmp_path / "broken_package.py").write_text("import no_such_module_anywhere")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_module_anywhere"):
        needed("a table", "broken_package", "broken", "data")


def test_a_parser_that_another_thread_disturbs_is_asked_again():
    asked = []

    def read(says: str = "AST constructor recursion depth mismatch (before=48, after=45)"):
        asked.append(says)
        if len(asked) < 3:
            raise SystemError(says)
        return len(asked)

    assert undisturbed(read) == 3
    asked.clear()
    with pytest.raises(SystemError, match="something else"):
        undisturbed(lambda: read("something else"))
    assert len(asked) == 1
    with pytest.raises(ZeroDivisionError):
        undisturbed(lambda: 1 / 0)
