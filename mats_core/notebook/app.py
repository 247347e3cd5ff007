"""The app of a panel's family: started once, and opened at the panel's settings."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from html import escape
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlencode

from ..errors import InputError
from ..recipes import settings_of
from .subjects import Request

PATIENCE = 5.0  # seconds that the app has to end
HOME = Path(__file__).resolve().parents[2]  # where this library lies


class App:
    """The app as a process of its own, on this machine, until it is closed.

    folder   of the family
    """

    def __init__(self, folder: Path) -> None:
        if find_spec("streamlit") is None:
            raise InputError(
                "the app",
                expected="the package streamlit",
                found="none",
                remedy="Install it with: python -m pip install streamlit (MaTS Explorer's extra "
                "[app] brings it).",
            )
        self.folder, self.port = folder.resolve(), _free_port()
        words = ["-m", "mats_core", "app", "--headless", "--port", str(self.port)]
        # A notebook in a checkout may have found the library by its own path.
        paths = [str(HOME), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [sys.executable, *words, "--families", str(self.folder)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def close(self) -> None:
        """End the process."""
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(PATIENCE)

    def address(self, request: Request) -> str:
        """The address of the page Merge, which is the first one, with a request's settings."""
        told = json.dumps(settings_of(request))
        return f"http://127.0.0.1:{self.port}/?{urlencode({'settings': told})}"

    def link(self, request: Request) -> str:
        """The address as HTML, to be clicked where the kernel's machine is the reader's."""
        return (
            f'<a href="{escape(self.address(request))}" target="_blank" rel="noopener">Open these '
            "settings in the app</a>, which starts on this kernel's machine and takes a few "
            "seconds to answer."
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
