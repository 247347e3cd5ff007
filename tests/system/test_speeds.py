"""The speeds of this machine are measured once an hour, by whichever process is first."""

from __future__ import annotations

import json
import os
import time

import pytest

from mats_core.system import speeds
from mats_core.system.speeds import Rates

FOUND = Rates("cpu", 1e9, 2e8, 3e9, 4e-6)


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """How often a device was measured, with a cache of its own."""
    monkeypatch.setenv("MATS_CACHE", str(tmp_path))
    monkeypatch.setattr(speeds, "_MEASURED", {})
    asked = []
    monkeypatch.setattr(speeds, "measured_rates", lambda device: asked.append(device) or FOUND)
    return asked


def forget():
    """As another process."""
    speeds._MEASURED.clear()


def test_another_process_takes_what_was_measured_within_the_hour(measured):
    assert speeds.rates() == FOUND
    forget()
    assert speeds.rates() == FOUND
    assert measured == ["cpu"]
    old = time.time() - speeds.KEPT - 1
    os.utime(speeds._file("cpu"), (old, old))
    forget()
    assert speeds.rates() == FOUND
    assert measured == ["cpu", "cpu"]


def test_another_number_of_threads_is_another_machine(measured, monkeypatch):
    speeds.rates()
    forget()
    monkeypatch.setattr(speeds.torch, "get_num_threads", lambda: 777)
    speeds.rates()
    assert len(measured) == 2


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "null",
        "{}",
        json.dumps({"device": "cpu", "products": 1.0}),
        json.dumps({**vars(FOUND), "moved": 0.0}),
        json.dumps({**vars(FOUND), "call": None}),
        json.dumps({**vars(FOUND), "moved": "fast"}),
    ],
)
def test_a_damaged_file_is_measured_anew(content, measured):
    speeds.rates()
    speeds._file("cpu").write_text(content)
    forget()
    assert speeds.rates() == FOUND
    assert len(measured) == 2


def test_where_nothing_can_be_written_it_is_measured(measured, monkeypatch, tmp_path):
    (tmp_path / "rates").write_text("a file where the folder should be")
    assert speeds.rates() == FOUND
    forget()
    assert speeds.rates() == FOUND
    assert len(measured) == 2
