"""Tables of rows: `.jsonl`, `.csv`, `.tsv`, `.parquet` (also `.gz`), and data sets of the hub."""

from __future__ import annotations

import csv
import io
import json
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ..checkpoints import snapshot_of
from ..errors import (
    InputError,
    cut,
    existing,
    member,
    needed,
    refusal,
    regular,
)
from ..system import require_memory
from .classes import DROP, text_of
from .decoding import lines, read_text, whole_characters

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")
PACKED = (".gz",)
CELL = 16  # bytes that a cell takes at least
FORMATS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
UNCLOSED = "A quotation mark opens a cell and is never closed: double it, or save a .tsv."
REMARKS = "# remarks"  # in the attributes of a table, beside the names of columns
TWICE = "# twice"  # the same, of columns that have one name


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
            f"{thing} '{path}'",
            expected=f"a file {', '.join(FORMATS)} (.gz)",
            found="a folder" if path.is_dir() else f"'{path.name}'",
            remedy="Name a file in it." if path.is_dir() else "Unpack it, or save it as .csv.",
        )
    pd = needed(f"{thing} '{path}'", "pandas", "pandas", "data")  # imported here: half a second
    remarks: list[str] = []
    try:
        if kind == ".parquet":
            _require_room(f"{thing} '{path}'", path)
            frame = pd.read_parquet(path)
        else:
            text, remark = read_text(f"{thing} '{path}'", path)
            remarks += [remark] if remark else []
            if kind in (".csv", ".tsv"):
                frame = _separated(pd, text, kind)
            else:
                rows, replaced = _records(text, lined=kind == ".jsonl")
                frame = pd.DataFrame(rows)
                if replaced:
                    remarks.append(
                        f"{replaced} half characters in '{path.name}' are replaced by U+FFFD"
                    )
    except InputError:
        raise
    except Exception as error:  # of zlib, Arrow, pandas and their like
        told = UNCLOSED if "EOF inside string" in str(error) else ""
        expected = f"a table in {kind.removeprefix('.')}"
        raise refusal(f"{thing} '{path}'", error, expected, told) from error
    if not len(frame):
        raise InputError(f"{thing} '{path}'", expected="at least one row", found="none")
    frame.attrs[REMARKS] = tuple(remarks)
    return frame


def _require_room(thing: str, path: Path) -> None:
    """Raise `InputError` for a .parquet whose rows do not fit: a few bytes may say a billion."""
    parquet = needed(thing, "pyarrow.parquet", "pyarrow", "data")
    about = parquet.ParquetFile(regular(thing, path)).metadata
    packed = sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups))
    require_memory(thing, max(2 * packed, CELL * about.num_rows * about.num_columns))


def remarks_of(frame: pd.DataFrame) -> tuple[str, ...]:
    """What users should know about how a table was read, a sentence each."""
    return frame.attrs.get(REMARKS, ())


def _separated(pd: Any, text: str, kind: str) -> pd.DataFrame:
    """The rows of a .csv or .tsv; every cell stays the text that it is: "NA" may be a name.

    In a .tsv a quotation mark is a letter like any other: sentences begin with it.
    """
    first, _, rest = text.lstrip("\r\n").partition("\n")
    declared = re.fullmatch(r"sep=(.)\r?", first)  # what Excel writes above the header
    header = (rest if declared else first).splitlines()[:1] or [""]
    separator = declared[1] if declared else _separator(header[0], kind)
    how = {"quoting": 3} if kind == ".tsv" else {}
    with warnings.catch_warnings():
        # A row with more cells than the header would lose the last ones with a warning.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            frame = pd.read_csv(
                io.StringIO(rest if declared else text, newline=""), sep=separator, dtype=str,
                keep_default_na=False, index_col=False, **how,
            )  # fmt: skip
        except pd.errors.ParserWarning:
            raise ValueError("a row with more cells than the header has columns") from None
    # Blank cells of a row that ended too early come as NaN, those of a name with its blanks.
    frame = frame.rename(columns=lambda name: str(name).strip())
    quoting: Any = csv.QUOTE_NONE if kind == ".tsv" else csv.QUOTE_MINIMAL
    names = next(csv.reader(header, delimiter=separator, quoting=quoting), [])
    counted = Counter(name.strip() for name in names)
    frame.attrs[TWICE] = tuple(name for name, count in counted.items() if count > 1)
    return frame


def _separator(header: str, kind: str) -> str:
    """What stands between the columns of a header: of a .csv a comma, unless it has none."""
    if kind == ".tsv":
        return "\t"
    bare = re.sub(r'"[^"]*"', "", header)  # what stands inside of a cell separates none
    return next((one for one in ",;\t|" if one in bare), ",")


def _records(text: str, *, lined: bool) -> tuple[list[dict[str, Any]], int]:
    """JSON objects, one a line or all in one list, and how many half characters were replaced;
    values stay what they are."""
    lined = lined and not text.lstrip().startswith("[")  # a list by the name of lines
    if not lined:
        try:
            content = json.loads(text)
            rows = content if isinstance(content, list) else [content]
        except json.JSONDecodeError as error:
            if not error.msg.startswith("Extra data"):  # of a list of lines by another name
                raise
            lined = True
    if lined:
        rows = [_parsed(one, n) for n, one in enumerate(lines(text), 1) if one.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("a row that is not an object")
    # Only an escape can be half a character in a file that could be decoded.
    return whole_characters(rows) if re.search(r"\\ud", text, re.IGNORECASE) else (rows, 0)


def _parsed(line: str, number: int) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise ValueError(f"line {number}: {error}") from None


def read_hub(
    thing: str,
    name: str,
    subset: str | None,
    split: str,
    revision: str | None,
    most: int | None = None,
) -> pd.DataFrame:
    """One split of a hub data set, or its first rows: from the cache of this machine, else
    downloaded."""
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
    frame: Any = rows.select(range(min(most or len(rows), len(rows)))).to_pandas()
    # Class labels are numbers with names beside them; the names are what a reader knows.
    for column, feature in rows.features.items():
        names = getattr(feature, "names", None)
        if names is not None:
            frame[column] = [names[k] if k >= 0 else None for k in frame[column]]
            frame.attrs[column] = tuple(names)
    return frame


def _cached(datasets: Any, name: str, subset: str | None, split: str, revision: str | None) -> Any:
    """One split, from what was prepared before, from files in the hub's cache, or from the hub."""

    def load() -> Any:
        try:
            return datasets.load_dataset(name, subset, split=split, revision=revision)
        except Exception:
            folder = None if revision else snapshot_of(name)
            if folder is None:
                raise
        return datasets.load_dataset(str(folder), subset, split=split)

    return offline_first(load)


def offline_first(load: Callable[[], T]) -> T:
    """What `load` returns, which asks `datasets`: from this machine's cache, else from the hub."""
    from datasets import config

    offline = config.HF_HUB_OFFLINE
    try:
        config.HF_HUB_OFFLINE = True  # what is here needs no network
        return load()
    except Exception:
        if offline:
            raise
    finally:
        config.HF_HUB_OFFLINE = offline
    return load()


def column(thing: str, frame: pd.DataFrame, name: str) -> np.ndarray:
    """One column as objects; raises `InputError` with the nearest name."""
    member(f"column of {thing}", name, [str(c) for c in frame.columns])
    if name in frame.attrs.get(TWICE, ()):
        raise InputError(
            f"column '{name}' of {thing}",
            expected="one column of that name",
            found="two or more",
            remedy="Rename or remove the others.",
        )
    return frame[name].astype(object).to_numpy()


def labels(thing: str, frame: pd.DataFrame, name: str) -> list[Any]:
    """One column as labels, a plain value a row; raises `InputError` with the row of a list."""
    return [*_plain(f"column '{name}' of {thing}", column(thing, frame, name))]


def _plain(thing: str, cells: Iterable[Any]) -> Iterator[Any]:
    """The values of a column: bytes as text; `InputError` for a value that holds several."""
    for row, cell in enumerate(cells, 1):
        if isinstance(cell, list | tuple | dict | set | np.ndarray):
            raise InputError(
                f"{thing}, row {row}",
                expected="a text, a number or a name",
                found=f"a {type(cell).__name__} ({cut(str(cell), 60)})",
                remedy="Write what is meant into a column: one value a row.",
            )
        yield cell.decode("utf-8", "replace") if isinstance(cell, bytes) else cell


def texts(thing: str, frame: pd.DataFrame, name: str, *, empty: bool = False) -> np.ndarray:
    """One column as texts; raises `InputError` with the row of an empty one, unless `empty`."""
    cells = _plain(f"column '{name}' of {thing}", column(thing, frame, name))
    found = np.array([text_of(value) for value in cells], dtype=object)
    bare = [row for row, text in enumerate(found) if not text.strip()]
    if bare and not empty:
        raise InputError(
            f"column '{name}' of {thing}",
            expected="a text in every row",
            found=f"none in row {bare[0] + 1}" + (f" and {len(bare) - 1} more" if bare[1:] else ""),
            remedy=DROP,
        )
    return found
