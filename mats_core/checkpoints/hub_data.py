"""Data sets in this machine's caches: those that `datasets` has prepared, and those whose files the
hub's client has fetched.  Nothing is asked of a network, and no row is read.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .card import CARD, front_matter, settings_in
from .hub import cache_folder

INFO, ARROW = "dataset_info.json", ".arrow"  # what `datasets` writes
OF_HUB = "datasets--"  # how the folders of data sets begin in the hub's cache
ROWS = (".parquet", ".csv", ".tsv", ".jsonl", ".json", ".jsonl.gz", ".csv.gz")
SPLIT = re.compile(r"(?<![a-z])(train|test|validation|valid|val|dev)(?![a-z])", re.IGNORECASE)
AS_CALLED = {"valid": "validation", "val": "validation", "dev": "validation"}
DEFAULT = "default"  # the subset of a data set that has one
MOST = 200  # folders that are looked at


@dataclass(frozen=True)
class CachedData:
    """A data set in a cache.

    folder     where its files lie
    reference  its id of the hub
    subset     one of several, empty where there is but one
    splits     their names
    """

    folder: Path
    reference: str
    subset: str
    splits: tuple[str, ...]

    @property
    def title(self) -> str:
        """Its id, with its subset."""
        return f"{self.reference} ({self.subset})" if self.subset else self.reference


def data_folder() -> Path:
    """The folder in which `datasets` keeps what it has prepared, made or not."""
    from huggingface_hub import constants

    named = os.environ.get("HF_DATASETS_CACHE")
    return Path(named) if named else Path(constants.HF_HOME) / "datasets"


def cached_data() -> tuple[CachedData, ...]:
    """The data sets of both caches by their names, each once, the prepared ones before others."""
    known: dict[tuple[str, str], CachedData] = {}
    for one in (*_prepared(data_folder()), *_fetched(cache_folder())):
        known.setdefault((one.reference, one.subset), one)
    return tuple(sorted(known.values(), key=lambda one: (one.reference, one.subset)))


def _prepared(home: Path) -> Iterator[CachedData]:
    """OWNER___NAME/SUBSET/VERSION/HASH, of each subset the newest."""
    found = [file for file in _some(home, f"*___*/*/*/*/{INFO}") if not file.is_symlink()]
    for file in sorted(found, key=lambda file: -file.stat().st_mtime):
        told = settings_in(file).get("splits")
        splits = tuple(told) if isinstance(told, dict) else ()
        owner, _, name = file.parents[3].name.partition("___")
        if splits and any(file.parent.glob(f"*{ARROW}")):
            subset = file.parents[2].name
            yield CachedData(file.parent, f"{owner}/{name}", _subset(subset), splits)


def _fetched(home: Path) -> Iterator[CachedData]:
    """datasets--OWNER--NAME/snapshots/COMMIT with files of rows."""
    for folder in _some(home, f"{OF_HUB}*/snapshots/*"):
        owner, _, name = folder.parents[1].name.removeprefix(OF_HUB).partition("--")
        reference = f"{owner}/{name}" if name else owner
        files = [f for f in _some(folder, "**/*") if f.name.lower().endswith(ROWS) and f.is_file()]
        for subset in _subsets(folder):
            own = [f for f in files if not subset or subset in f.relative_to(folder).parts[:-1]]
            if splits := _splits(own):
                home_of = folder / subset
                yield CachedData(home_of if home_of.is_dir() else folder, reference, subset, splits)


def _subsets(folder: Path) -> list[str]:
    """The subsets that a data set's card names; one without a name where it names none."""
    told = front_matter(folder / CARD).get("configs")
    names = [one.get("config_name") for one in told or [] if isinstance(one, dict)]
    return [_subset(one) for one in names if isinstance(one, str)] or [""]


def _subset(name: str) -> str:
    return "" if name == DEFAULT else name


def _splits(files: Sequence[Path]) -> tuple[str, ...]:
    """Splits by the names of files; what is called otherwise is training rows."""
    names = [match[1].lower() if (match := SPLIT.search(f.name)) else "train" for f in files]
    return tuple(dict.fromkeys(AS_CALLED.get(name, name) for name in sorted(names, reverse=True)))


def _some(folder: Path, pattern: str) -> list[Path]:
    """At most `MOST` paths in a folder that match; none of one that cannot be read."""
    found = list[Path]()
    with contextlib.suppress(OSError):
        for path in folder.glob(pattern):
            found.append(path)
            if len(found) == MOST:
                break
    return sorted(found)


def snapshot_of(reference: str) -> Path | None:
    """The newest snapshot of a data set's files in the hub's cache; None where there is none."""
    place = cache_folder() / (OF_HUB + reference.replace("/", "--")) / "snapshots"
    found = _some(place, "*")
    return max(found, key=lambda folder: folder.stat().st_mtime, default=None)
