"""Scores that are known from earlier processes: of experts and bases, which change rarely.

Files are named by all that decides the answers: weights, settings, data, device, and the versions
of what computes them.  Deleting them loses time, never results.  A package that brings models may
bring their scores as well, in one file (`write`, `bring`); those were computed on another machine,
so they count here only once a few of the answers were asked again and came out the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from ..checkpoints import write_atomically
from ..errors import InputError, MachineError, foreseen, parsing, read_json
from ..system import cache_folder
from .scores import Score

Scores = tuple[Score, ...]
SCORES = "scores as they were written here"
VERSION = "1"  # of how models are asked
_BROUGHT: dict[Path, Mapping[str, Scores] | None] = {}  # None: not read yet


def bring(file: Path) -> None:
    """Make the scores of a file that `write` made known to this process."""
    _BROUGHT.setdefault(file, None)


def write(file: Path, scores: Mapping[Sequence[Hashable], Scores]) -> None:
    """Write scores by their keys for `bring`."""
    content = {name_of(key): [score.to_dict() for score in found] for key, found in scores.items()}
    write_atomically(file, (json.dumps(content, indent=0, sort_keys=True) + "\n").encode())


def brought(file: Path) -> Mapping[str, Scores]:
    """The scores of a file that `write` made, by the names of their keys; none where there is no
    such file."""
    with contextlib.suppress(InputError), parsing(f"'{file}'", SCORES):  # missing, or not whole
        content = read_json(file)
        return {name: tuple(map(Score.from_dict, scores)) for name, scores in content.items()}
    return {}


def name_of(key: Sequence[Hashable]) -> str:
    """The name of a key in files."""
    parts = (VERSION, *map(repr, key))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def once(
    key: Sequence[Hashable],
    device: str,
    compute: Callable[[], Scores],
    confirm: Callable[[Scores], bool],
) -> Scores:
    """The scores of a key on a device, from the machine's cache, or computed and kept there.

    `confirm`: whether scores that a package brought hold on this machine.
    """
    file = _file((*key, device))
    known = _read(file)
    if known is not None:
        return known
    told = _brought(key)
    found = told if told is not None and confirm(told) else compute()
    text = json.dumps([score.to_dict() for score in found], allow_nan=False)
    try:
        with foreseen(f"'{file}'"):
            write_atomically(file, text.encode())
    except MachineError:  # a full disk: the scores are none the worse
        pass
    return found


def _file(key: Sequence[Hashable]) -> Path:
    name = name_of((version("torch"), version("transformers"), *key))
    return cache_folder() / "scores" / f"{name}.json"


def _read(file: Path) -> Scores | None:
    with contextlib.suppress(InputError), parsing(f"'{file}'", SCORES):  # missing, or not whole
        return tuple(map(Score.from_dict, read_json(file)))
    return None


def _brought(key: Sequence[Hashable]) -> Scores | None:
    for file, content in list(_BROUGHT.items()):
        if content is None:
            content = _BROUGHT[file] = brought(file)
        if name_of(key) in content:
            return content[name_of(key)]
    return None
