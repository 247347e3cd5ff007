"""What the server loads before its first visitor, and what happens where that fails."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pages.shared.frame import ahead
from tests.importing import loads_none_of

WAIT = 60.0  # seconds after which a thread that has not ended is a failure


@pytest.fixture(autouse=True)
def nothing_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "_thread", None)
    monkeypatch.setattr("pages.shared.work.prepare.libraries", lambda: None)


@pytest.fixture
def rooms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path, for packages that a test writes."""
    monkeypatch.syspath_prepend(str(tmp_path))
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if name.partition(".")[0] in ("whole_room", "broken_room", "slow_room"):
            del sys.modules[name]


def room(folder: Path, name: str, **modules: str) -> str:
    (folder / name).mkdir()
    for module, text in {"__init__": "", **modules}.items():
        (folder / name / f"{module}.py").write_text(text, "utf-8")
    return name


def test_it_needs_no_pytorch():
    loads_none_of("from pages.shared.frame import ahead", "torch", "transformers")


def test_every_module_of_a_room_is_there_once_it_was_waited_for(rooms: Path):
    ahead.begin([room(rooms, "whole_room", one="", other="")])
    ahead.wait()
    assert {"whole_room.one", "whole_room.other"} <= set(sys.modules)
    assert not ahead.loading()


def test_it_is_begun_once(rooms: Path):
    first = ahead.begin([room(rooms, "whole_room")])
    assert ahead.begin(["of no name"]) is first
    first.join(WAIT)
    assert not first.is_alive()


def test_meanwhile_it_says_so(rooms: Path, monkeypatch: pytest.MonkeyPatch):
    go_on = threading.Event()
    monkeypatch.setattr("pages.shared.work.prepare.libraries", lambda: go_on.wait(WAIT))
    thread = ahead.begin([room(rooms, "slow_room")])
    assert ahead.loading()
    go_on.set()
    thread.join(WAIT)
    assert not ahead.loading()


def test_a_failing_import_is_logged_and_ends_no_server(rooms: Path, caplog):
    ahead.begin([room(rooms, "broken_room", damaged="raise RuntimeError('half a file')")])
    ahead.wait()
    assert not ahead.loading()
    assert "could not be loaded ahead" in caplog.text
    assert "half a file" in caplog.text


def test_the_page_is_drawn_where_loading_ahead_has_failed(rooms: Path, open_app, caplog):
    ahead.begin([room(rooms, "broken_room", damaged="raise ImportError('no such library')")])
    app = open_app()
    assert not app.exception
    assert [title.value for title in app.title] == ["Merge"]
    assert "no such library" in caplog.text


def test_where_no_server_has_begun_nothing_is_waited_for():
    ahead.wait()
    assert ahead.loading() == ("torch" not in sys.modules)
