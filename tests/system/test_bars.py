"""Progress bars: by default where a person looks, silent on request and in scripts."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import mats_core
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


def test_a_notebook_has_html_that_is_taken_away(monkeypatch):
    texts: list[str] = []
    handle = SimpleNamespace(update=texts.append)
    ipython, screen = ModuleType("IPython"), ModuleType("IPython.display")
    shell = type("ZMQInteractiveShell", (), {})()
    monkeypatch.setattr(ipython, "get_ipython", lambda: shell, raising=False)
    monkeypatch.setattr(screen, "HTML", lambda text: text, raising=False)
    monkeypatch.setattr(screen, "display", lambda text, display_id: handle, raising=False)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", screen)
    shown = bar()
    tell = shown.__enter__()
    assert tell is not None
    tell(Event(fraction=0.25, text="a < b"))
    error = ZeroDivisionError()
    assert not shown.__exit__(ZeroDivisionError, error, None)  # the error goes on
    assert texts == ['<progress value="0.250"></progress> a &lt; b', ""]
    with bar(False) as tell:
        assert tell is None


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
