"""Errors are sentences that name the thing, what was expected, what was found, and the remedy."""

from __future__ import annotations

import json

import pytest
from pydantic import BaseModel, ConfigDict, Field

from mats_core.errors import (
    InputError,
    existing,
    listing,
    member,
    nearest,
    needed,
    sentences,
    validated,
)


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


def test_a_package_that_is_not_installed_is_named_with_its_extra():
    assert needed("a table", "json", "json", "data") is json
    with pytest.raises(InputError, match=r"a table: .*package no-such.*\[data\]"):
        needed("a table", "no_such.module", "no-such", "data")


def test_a_broken_package_is_not_called_missing(tmp_path, monkeypatch):
    (tmp_path / "broken_package.py").write_text("import no_such_module_anywhere")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_module_anywhere"):
        needed("a table", "broken_package", "broken", "data")
