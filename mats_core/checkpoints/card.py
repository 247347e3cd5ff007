"""What a model says about itself beside its weights: the front matter of its card, its licence, and
the model that it was made from.

All of it was written by others: texts to be shown as texts, and never opened or run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ..errors import InputError, read_json
from .configuration import read_config

CARD, CONFIG, ADAPTER = "README.md", "config.json", "adapter_config.json"
FRONT = re.compile(r"\A\ufeff?---\r?\n(.*?)\r?\n---\s*$", re.S | re.M)
LIMIT = 1_000_000  # bytes of a card, or of a configuration, that are looked at
LONGEST = 300  # characters of one thing that is said


def front_matter(file: Path) -> dict[str, Any]:
    """The YAML at the head of a model card; empty where there is none that can be read."""
    try:
        with file.open("rb") as handle:
            text = handle.read(LIMIT).decode("utf-8", "replace")
        found = FRONT.match(text)
        content = yaml.safe_load(found[1]) if found else None
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def stated_licence(folder: Path | None, config: Mapping[str, Any]) -> str:
    """The licence that a model's card states, or else its configuration; empty where none does."""
    front = front_matter(folder / CARD) if folder else {}
    stated = front.get("license") or config.get("license") or ""
    several = stated if isinstance(stated, list) else [stated]
    # Plain values alone: a file of a few lines can make nested ones of any size.
    return ", ".join(str(one) for one in several if isinstance(one, str | int | float)).strip()


def stated_bases(folder: Path) -> tuple[str, ...]:
    """What a model says that it was made from, most telling first: a hub id or a path each.

    The base of an adapter's settings, `base_model` of the card, `_name_or_path` of `config.json`.
    """
    card = front_matter(folder / CARD).get("base_model")
    said = [
        settings_in(folder / ADAPTER).get("base_model_name_or_path"),
        *(card if isinstance(card, list) else [card]),
        settings_in(folder / CONFIG).get("_name_or_path"),
    ]
    texts = [one.strip() for one in said if isinstance(one, str) and len(one) <= LONGEST]
    return tuple(dict.fromkeys(text for text in texts if text))


def stated_classes(folder: Path) -> tuple[str, ...]:
    """The classes that the `config.json` in a folder names, in the order of their numbers."""
    try:
        labels = read_config(folder / CONFIG).get("id2label") or {}
    except InputError:
        return ()
    return tuple(labels[key] for key in sorted(labels, key=int))


def settings_in(file: Path) -> dict[str, Any]:
    """The mapping in a file of JSON; empty where there is none that can be read, or a huge one."""
    try:
        if not file.is_file() or file.stat().st_size > LIMIT:
            return {}
        content = read_json(file)
    except (OSError, InputError):
        return {}
    return content if isinstance(content, dict) else {}
