"""What tells one state of a file from another."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from mats_core.system import state_of


def at(file: Path, text: str, when: float) -> None:
    """Write a file with a time of modification that tells nothing."""
    file.write_text(text)
    os.utime(file, (when, when))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    place = tmp_path / "a"
    at(place, "one", 1.0)
    return place


def test_a_young_file_that_nothing_changes_keeps_its_state(file: Path, monkeypatch):
    young = state_of(file)
    assert young[-1], "its contents count as well"
    assert state_of(file) == young
    later = time.time_ns() + 10**10
    monkeypatch.setattr("mats_core.system.state.time.time_ns", lambda: later)
    assert state_of(file) == young
    assert state_of(file) == young


def test_another_content_is_another_state_whatever_the_times_say(file: Path, monkeypatch):
    before, stood = state_of(file), os.stat(file)
    at(file, "two", 1.0)
    monkeypatch.setattr(
        "mats_core.system.state.os.stat", lambda place: stood
    )  # within one tick of the clock
    after = state_of(file)
    assert after[:-1] == before[:-1]
    assert after != before
    file.write_text("six")
    later = time.time_ns() + 10**10
    monkeypatch.setattr("mats_core.system.state.time.time_ns", lambda: later)
    settled = state_of(file)
    assert settled not in (before, after), "it is looked at once more when it is no longer young"
    assert state_of(file) == settled


def test_an_old_file_is_known_by_its_times_and_a_missing_one_by_zeros(file: Path, monkeypatch):
    later = time.time_ns() + 10**10
    monkeypatch.setattr("mats_core.system.state.time.time_ns", lambda: later)
    assert state_of(file)[-1] == ""
    at(file, "two", 2.0)
    assert state_of(file)[3] == 2 * 10**9
    file.unlink()
    assert state_of(file) == (str(file), 0, 0, 0, 0, "")
