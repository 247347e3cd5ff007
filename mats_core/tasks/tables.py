"""Tables of rows: `.jsonl`, `.csv`, `.tsv`, `.parquet` (also `.gz`), and data sets of the hub."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, existing, member, needed

if TYPE_CHECKING:
    import pandas as pd

PACKED = (".gz",)
FORMATS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")


def ending(path: Path) -> str:
    """`.jsonl` of `rows.jsonl.gz`."""
    suffixes = [s.lower() for s in path.suffixes]
    return suffixes[-2] if len(suffixes) > 1 and suffixes[-1] in PACKED else "".join(suffixes[-1:])


def read_table(thing: str, path: Path) -> pd.DataFrame:
    """The rows of a file; raises `InputError` where it is missing or not what its name says."""
    existing(thing, path)
    kind = ending(path)
    if kind not in FORMATS or path.is_dir():
        raise InputError(
            f"{thing} '{path}'", expected=f"a file {', '.join(FORMATS)} (.gz)", found="another"
        )
    pd = needed(f"{thing} '{path}'", "pandas", "pandas", "data")  # imported here: half a second
    try:
        if kind == ".parquet":
            frame = pd.read_parquet(path)
        elif kind in (".csv", ".tsv"):
            # Every cell stays the text that it is: "NA" may be a name, "1e3" a word.
            separator = "," if kind == ".csv" else "\t"
            frame = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False)
        else:
            frame = pd.DataFrame(_records(path, lines=kind == ".jsonl"))
    except (ValueError, OSError, EOFError, KeyError, ImportError) as error:
        raise InputError(
            f"{thing} '{path}'",
            expected=f"a table in {kind.removeprefix('.')}",
            found=str(error).splitlines()[0][:200],
        ) from None
    if not len(frame):
        raise InputError(f"{thing} '{path}'", expected="at least one row", found="none")
    return frame


def _records(path: Path, *, lines: bool) -> list[dict[str, Any]]:
    """JSON objects, one a line or all in one list; values stay what they are."""
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as handle:
        if not lines:
            rows = json.load(handle)
            rows = rows if isinstance(rows, list) else [rows]
        else:
            rows = []
            for number, line in enumerate(handle, 1):
                if line.strip():
                    rows.append(_parsed(line, number))
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("a row that is not an object")
    return rows


def _parsed(line: str, number: int) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise ValueError(f"line {number}: {error}") from None


def read_hub(
    thing: str, name: str, subset: str | None, split: str, revision: str | None
) -> pd.DataFrame:
    """One split of a hub data set: from the cache of this machine, else downloaded."""
    try:
        import datasets
    except ImportError:
        raise InputError(
            f"data set '{name}' of {thing}",
            expected="the package 'datasets'",
            found="none",
            remedy="pip install datasets",
        ) from None
    try:
        rows = _cached(datasets, name, subset, split, revision)
    except Exception as error:  # the library's own errors have no common base
        raise InputError(
            f"data set '{name}' of {thing}",
            expected=f"its split '{split}' in this machine's cache, or access to the hub",
            found=(str(error).strip() or type(error).__name__).splitlines()[0][:200],
            remedy="Check the name, the subset and the split; load it once while online.",
        ) from None
    frame: Any = rows.to_pandas()
    # Class labels are numbers with names beside them; the names are what a reader knows.
    for column, feature in rows.features.items():
        names = getattr(feature, "names", None)
        if names is not None:
            frame[column] = [names[k] if k >= 0 else None for k in frame[column]]
            frame.attrs[column] = tuple(names)
    return frame


def _cached(datasets: Any, name: str, subset: str | None, split: str, revision: str | None) -> Any:
    offline = datasets.config.HF_HUB_OFFLINE
    try:
        datasets.config.HF_HUB_OFFLINE = True  # what is here needs no network
        return datasets.load_dataset(name, subset, split=split, revision=revision)
    except Exception:
        if offline:
            raise
    finally:
        datasets.config.HF_HUB_OFFLINE = offline
    return datasets.load_dataset(name, subset, split=split, revision=revision)


def column(thing: str, frame: pd.DataFrame, name: str) -> np.ndarray:
    """One column as objects; raises `InputError` with the nearest name."""
    member(f"column of {thing}", name, [str(c) for c in frame.columns])
    return frame[name].astype(object).to_numpy()


def texts(thing: str, frame: pd.DataFrame, name: str, *, empty: bool = False) -> np.ndarray:
    """One column as texts; raises `InputError` with the row of an empty one."""
    found = np.array([_text(value) for value in column(thing, frame, name)], dtype=object)
    bare = [row for row, text in enumerate(found) if not text.strip()]
    if bare and not empty:
        raise InputError(
            f"column '{name}' of {thing}",
            expected="a text in every row",
            found=f"none in row {bare[0] + 1}" + (f" and {len(bare) - 1} more" if bare[1:] else ""),
            remedy="Remove those rows.",
        )
    return found


def _text(value: Any) -> str:
    return "" if value is None or (isinstance(value, float) and np.isnan(value)) else str(value)


def labels(thing: str, values: Sequence[Any], classes: Sequence[str], *, named: bool) -> np.ndarray:
    """Class names (`named`) or numbers as numbers (n,) int64 into `classes`."""
    places = {known: place for place, known in enumerate(classes)}
    found = np.empty(len(values), dtype=np.int64)
    for row, value in enumerate(values):
        where, name = f"label in row {row + 1} of {thing}", class_name(value)
        if named or not _whole(name):
            found[row] = places[member(where, name, classes)]
        elif 0 <= int(name) < len(classes):
            found[row] = int(name)
        else:
            raise InputError(where, expected=f"a number from 0 to {len(classes) - 1}", found=name)
    return found


def are_names(values: Sequence[Any], classes: Sequence[str]) -> bool:
    """Whether a label column holds names: all of them are, though some may look like numbers."""
    return set(map(class_name, values)) <= set(classes)


def class_name(value: Any) -> str:
    """A label as the name of a class: whole numbers without their decimals."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return _text(value).strip()


def _whole(text: str) -> bool:
    return text.removeprefix("-").isdigit()


def distinct(values: Sequence[str]) -> tuple[str, ...]:
    """The classes that occur: in the order of their numbers where all are, else by name."""
    names = sorted(set(values))
    return tuple(sorted(names, key=int)) if all(map(_whole, names)) else tuple(names)
