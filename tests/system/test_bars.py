"""Progress bars: by default where a person looks, silent on request and in scripts."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest

import mats_core
from mats_core.system import bars
from mats_core.system.bars import bar, fraction_of, time_left
from mats_core.system.stream import Event
from tests.module_cases import family, loader


def test_a_script_is_silent_and_a_terminal_has_a_bar(monkeypatch, capsys):
    base, experts = family("mlp")
    mats_core.merge_models(base, experts)
    mats_core.measure(base, loader())
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    mats_core.merge_models(base, experts)
    mats_core.measure(base, loader())
    assert "%" in capsys.readouterr().err
    mats_core.merge_models(base, experts, progress=False)
    assert capsys.readouterr() == ("", "")


@pytest.fixture
def bundles(monkeypatch) -> list[dict[str, str]]:
    """What a kernel displays and updates."""
    shown: list[dict[str, str]] = []
    handle = SimpleNamespace(update=lambda bundle, raw: shown.append(bundle))

    def display(bundle: dict[str, str], raw: bool, display_id: bool) -> SimpleNamespace:
        assert raw
        assert display_id
        shown.append(bundle)
        return handle

    ipython, screen = ModuleType("IPython"), ModuleType("IPython.display")
    shell = type("ZMQInteractiveShell", (), {})()
    monkeypatch.setattr(ipython, "get_ipython", lambda: shell, raising=False)
    monkeypatch.setattr(screen, "display", display, raising=False)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", screen)
    return shown


def test_a_notebook_has_html_that_is_taken_away(bundles, monkeypatch):
    monkeypatch.setattr(bars, "SOON", 0.0)
    shown = bar()
    tell = shown.__enter__()
    assert tell is not None
    tell(Event(fraction=0.25, text="a < b"))
    error = ZeroDivisionError()
    assert not shown.__exit__(ZeroDivisionError, error, None)  # the error goes on
    html = '<progress value="0.250"></progress> a &lt; b'
    assert bundles == [
        {"text/html": html, "text/plain": "a < b"},
        {"text/html": "", "text/plain": ""},
    ]
    with bar(False) as tell:
        assert tell is None


def test_what_is_done_at_once_has_no_bar(bundles):
    with bar() as tell:
        assert tell is not None
        tell(Event(fraction=0.5, text="half"))
    assert bundles == []


def test_the_time_left_is_told_once_it_can_be():
    assert time_left(0.25, 12.0) == "about 36 s left"
    assert time_left(0.5, 200.0) == "about 3 min left"
    assert time_left(0.25, 0.5) == ""  # too soon to say
    assert time_left(0.01, 60.0) == ""
    assert time_left(0.0, 60.0) == ""
    assert time_left(1.0, 60.0) == ""


def test_progress_never_goes_back():
    assert fraction_of(Event(fraction=0.2), 0.4) == 0.4
    assert fraction_of(Event(fraction=3.0)) == 1.0
    assert fraction_of(Event()) == 0.0
