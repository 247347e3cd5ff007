"""The browser window that a server opens: its address, and when there is none."""

from __future__ import annotations

from typing import Any

import pytest

from pages.shared.frame import window


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Streamlit's options, as a test sets them."""
    options: dict[str, Any] = {"server.port": 8501, "server.headless": False}
    monkeypatch.setattr("streamlit.get_option", options.get)
    return options


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that were opened; nobody waits for them."""
    addresses: list[str] = []

    class AtOnce:
        """A timer that has run down as it is started."""

        def __init__(self, seconds: float, call: Any, words: list[str]) -> None:
            assert seconds > 0
            self._call, self._words = call, words

        def start(self) -> None:
            self._call(*self._words)

    monkeypatch.setattr("webbrowser.open", addresses.append)
    monkeypatch.setattr("threading.Timer", AtOnce)
    return addresses


@pytest.mark.parametrize(
    ("options", "address"),
    [
        ({}, "http://localhost:8501/"),
        ({"server.address": "127.0.0.1"}, "http://127.0.0.1:8501/"),
        ({"server.address": "0.0.0.0"}, "http://localhost:8501/"),
        ({"server.address": "::"}, "http://localhost:8501/"),
        ({"server.address": "::1"}, "http://[::1]:8501/"),
        ({"server.address": "mats.example", "server.port": 80}, "http://mats.example:80/"),
        ({"server.baseUrlPath": "mats"}, "http://localhost:8501/mats"),
        ({"server.baseUrlPath": "/a/mats/"}, "http://localhost:8501/a/mats"),
        ({"server.sslCertFile": "server.pem"}, "https://localhost:8501/"),
    ],
)
def test_the_address_is_one_that_a_browser_here_can_open(told, opened, options, address):
    told |= options
    window.open_soon()
    assert opened == [address]


def test_a_headless_server_opens_nothing(told, opened):
    told["server.headless"] = True
    window.open_soon()
    assert opened == []
