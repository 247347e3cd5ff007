"""What decides a model's answers beside its weights."""

from __future__ import annotations

from pathlib import Path

from . import images
from .tokens import FILES, files_digest

NAMES = ("config.json", *images.FILES, *FILES)


def settings_digest(directory: Path | None) -> str:
    """SHA-256 of the files beside a checkpoint that decide what it answers: its configuration, and
    those of its tokenizer and its image processor; empty without a directory."""
    return files_digest(directory, NAMES) if directory is not None else ""
