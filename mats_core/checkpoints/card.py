"""What a model says about itself beside its weights: the front matter of its card, its licence, and
the model that it was made from.

All of it was written by others: texts to be shown as texts, and never opened or run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError, plain_yaml, read_json
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
        content = plain_yaml(f"'{file}'", found[1]) if found else None
    except (OSError, ValueError):  # of which an InputError is one
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


@dataclass(frozen=True)
class StatedScore:
    """An accuracy that a model's card states.

    data    id of the data set; empty where it is not named
    subset  of the data set; empty where it is not named
    value   from 0 to 1
    """

    data: str
    subset: str
    value: float


def stated_scores(folder: Path) -> tuple[StatedScore, ...]:
    """The accuracies in the `model-index` of a model's card, in its order."""
    return tuple(
        StatedScore(*_data_of(result), value)
        for result in _results(folder)
        for metric in _mappings(result.get("metrics"))
        if str(metric.get("type")).lower() == "accuracy"
        and (value := _share(metric.get("value"))) is not None
    )


def stated_data(folder: Path) -> tuple[tuple[str, str], ...]:
    """(id, subset) of the data sets that a card says the model was trained or tested on; an empty
    subset where it names none.
    """
    told = front_matter(folder / CARD).get("datasets")
    names = told if isinstance(told, list) else [told]
    said = [*map(_data_of, _results(folder)), *((one, "") for one in names)]
    texts = [(a, b) for a, b in said if isinstance(a, str) and a and len(a) <= LONGEST]
    return tuple(dict.fromkeys(texts))


def _results(folder: Path) -> list[Mapping[str, Any]]:
    models = _mappings(front_matter(folder / CARD).get("model-index"))
    return [result for model in models for result in _mappings(model.get("results"))]


def _mappings(told: Any) -> list[Mapping[str, Any]]:
    """The mappings in a list that others wrote; none where it is no list."""
    return [one for one in told if isinstance(one, Mapping)] if isinstance(told, list) else []


def _data_of(result: Mapping[str, Any]) -> tuple[str, str]:
    """(id, subset) of the data set of one result."""
    told = result.get("dataset")
    told = told if isinstance(told, Mapping) else {}
    data, subset = told.get("type"), told.get("config") or told.get("args")
    return (
        data if isinstance(data, str) else "",
        subset if isinstance(subset, str) and subset != "default" else "",
    )


def _share(value: Any) -> float | None:
    """A figure as a share: 0.91 as it is, 91 as per cent; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 100:
        return None
    return value / 100 if value > 1 else float(value)


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
