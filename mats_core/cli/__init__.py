"""`mats`, or `python -m mats_core`: the same recipes without a browser, one file a command."""

from .main import main

__all__ = ["main"]
