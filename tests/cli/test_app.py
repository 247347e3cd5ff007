"""`app`: which words start the explorer, where it lies, and what is refused before it starts."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from mats_core.cli import app
from mats_core.cli.main import main, parser
from mats_core.errors import InputError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def started(monkeypatch) -> list:
    """Calls that would have become the app: their words and environments."""
    calls: list = []
    monkeypatch.setattr(os, "execve", lambda program, words, env: calls.append((words, env)))
    return calls


def test_a_checkout_starts_its_app_on_this_machine_alone(started):
    assert main(["app"]) == 0
    ((words, _),) = started
    assert words[:5] == [sys.executable, "-P", "-m", "streamlit", "run"]
    assert words[5] == str(ROOT / "app.py")
    told = dict(zip(words[6::2], words[7::2], strict=True))
    assert told == {
        "--server.port": "8501",
        "--server.address": "127.0.0.1",
        "--browser.gatherUsageStats": "false",
    }


def test_what_follows_two_dashes_is_said_last(started):
    assert main(["app", "--port", "9000", "--headless", "--", "--server.port", "9001"]) == 0
    words = started[0][0]
    assert words[words.index("--server.headless") + 1] == "true"
    assert words[-2:] == ["--server.port", "9001"]
    assert words.count("9000") == 1


def test_a_shared_server_is_one_switch(started, tmp_path, capsys):
    assert main(["app", "--demo"]) == 0
    ((words, environment),) = started
    assert environment[app.DEMO] == "1"
    told = dict(zip(words[6::2], words[7::2], strict=True))
    assert told["--server.address"] == "127.0.0.1"
    assert told["--server.maxUploadSize"] == str(app.UPLOAD)
    assert told["--server.headless"] == "true"
    assert main(["app", "--demo", "--families", str(tmp_path)]) == 2
    assert "--families" in capsys.readouterr().err
    assert len(started) == 1


def test_families_are_folders_wherever_the_app_runs(started, tmp_path, monkeypatch, capsys):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(app.FAMILIES, "another")
    assert main(["app", "--families", "one", str(tmp_path / "two")]) == 0
    assert started[0][1][app.FAMILIES] == f"{tmp_path / 'one'}{os.pathsep}{tmp_path / 'two'}"
    assert main(["app"]) == 0
    assert started[1][1][app.FAMILIES] == "another"
    for wrong, named in (("absent", "nothing there"), ("file", "a file")):
        assert main(["app", "--families", wrong]) == 2
        error = capsys.readouterr().err
        assert named in error
        assert wrong in error
    assert len(started) == 2


def test_without_streamlit_the_extra_is_named(started, monkeypatch, capsys):
    monkeypatch.setattr(app, "NEEDED", ("streamlit", "no_such_package"))
    assert main(["app"]) == 2
    error = capsys.readouterr().err
    assert "no_such_package" in error
    assert "[app]" in error
    assert not started


def test_the_wheel_keeps_the_app_in_a_folder(tmp_path):
    with pytest.raises(InputError, match="mats_explorer"):
        app.script(tmp_path)
    (tmp_path / "app.py").write_text("")  # somebody else's module
    (tmp_path / "mats_explorer" / "pages").mkdir(parents=True)
    (tmp_path / "mats_explorer" / "app.py").write_text("")
    assert app.script(tmp_path) == tmp_path / "mats_explorer" / "app.py"


def test_the_command_is_called_what_it_was_called_by(monkeypatch):
    for called, name in (("/bin/mats", "mats"), ("mats.exe", "mats"), ("x/__main__.py", None)):
        monkeypatch.setattr(sys, "argv", [called])
        grammar = parser()
        assert grammar.prog == (name or "python -m mats_core")
        assert f"\n  {grammar.prog} methods\n" in (grammar.epilog or "")
