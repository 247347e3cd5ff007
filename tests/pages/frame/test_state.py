"""The session has one owner: who else touches it is found in the sources."""

from __future__ import annotations

import ast
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from pages.shared.frame import Wanted, session, state
from pages.shared.frame.state import Held, Session, Slot
from tests.importing import loads_none_of

ROOT = Path(__file__).resolve().parents[3]
OWNER = ROOT / "pages" / "shared" / "frame" / "state.py"
SOURCES = [ROOT / "app.py", *sorted((ROOT / "pages").rglob("*.py"))]
HELD = {name: held for name, held in vars(Session).items() if isinstance(held, Held)}


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """An empty session without an app."""
    empty: dict[str, object] = {}
    monkeypatch.setattr("streamlit.session_state", empty)
    return empty


def touches(source: str) -> list[int]:
    """Lines that name `session_state`: as an attribute, by itself, or imported."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if (isinstance(node, ast.Attribute) and node.attr == "session_state")
        or (isinstance(node, ast.Name) and node.id == "session_state")
        or (
            isinstance(node, ast.ImportFrom)
            and any(alias.name == "session_state" for alias in node.names)
        )
    ]


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_the_session_is_touched_by_its_owner_alone(file: Path):
    lines = touches(file.read_text("utf-8"))
    assert bool(lines) == (file == OWNER), f"st.session_state in lines {lines}"


@pytest.mark.parametrize(
    "line",
    ['st.session_state["x"]', 'st.session_state.get("x")', '"x" in st.session_state',
     "from streamlit import session_state", "session_state.x = 1"],
)  # fmt: skip
def test_the_reader_sees_every_way_to_touch_it(line: str):
    assert touches(f"import streamlit as st\n{line}") == [2]
    assert not touches("from ..frame import session\nsession.baseline = None")


def test_every_key_has_a_type_a_sentence_and_a_name_of_its_own():
    (owner,) = (
        node
        for node in ast.parse(OWNER.read_text("utf-8")).body
        if isinstance(node, ast.ClassDef) and node.name == "Session"
    )
    said = {
        first.target.id
        for first, second in zip(owner.body, owner.body[1:], strict=False)
        if isinstance(first, ast.AnnAssign)
        and isinstance(first.target, ast.Name)
        and isinstance(second, ast.Expr)
    }
    assert said == set(HELD)
    names = [*(held.name for held in HELD.values()), *(slot.value for slot in Slot)]
    assert len(set(names)) == len(names)


@pytest.mark.usefixtures("alone")
def test_a_key_has_its_default_until_it_is_set_and_after_it_is_deleted():
    assert session.reset_count == 0
    session.reset_count += 1
    assert session.reset_count == 1
    del session.reset_count
    del session.reset_count
    assert session.reset_count == 0
    assert not state.is_set("reset count")


def test_a_widget_and_its_key_are_one(alone: dict[str, object]):
    alone["shown run"] = "abc"  # as Streamlit does for a widget of this name
    assert session.shown_run == "abc"
    session.shown_run = "def"
    assert alone["shown run"] == "def"


def test_what_is_wanted_cannot_be_changed_on_the_way():
    with pytest.raises(FrozenInstanceError):
        Wanted("kfac").method = "ties"  # type: ignore[misc]


def test_the_way_in_needs_no_pytorch():
    loads_none_of("from pages.shared.frame import navigation", "torch", "mats_core")
