"""Reading the packed tasks, with the halves that a trainer may see kept apart from the others.

A trainer is given `Data.training` and nothing else: validation rows (the last fifth of the training
half, at most 500, as in `mats_core.tasks`) choose settings, test rows make the final figure.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mats_core.errors import InputError
from mats_core.tasks import VALIDATION_MOST

COLUMNS = ("text", "text_b")  # of a line of text; the second one of pairs alone


@dataclass(frozen=True)
class Examples:
    """Rows (sentences, pairs of them, or uint8 images (n, height, width)), labels (n,) int64."""

    rows: Any
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Data:
    """One task: class names in the order of the labels, and three disjoint sets of examples."""

    name: str
    classes: tuple[str, ...]
    training: Examples
    validation: Examples
    test: Examples


def split(name: str, classes: Sequence[str], train: Examples, test: Examples) -> Data:
    """Hold out the last fifth of the training half, at most `VALIDATION_MOST` rows."""
    cut = len(train) - min(VALIDATION_MOST, len(train) // 5)
    return Data(
        name,
        tuple(str(label) for label in classes),
        Examples(train.rows[:cut], train.labels[:cut]),
        Examples(train.rows[cut:], train.labels[cut:]),
        test,
    )


def read_text(folder: Path, name: str) -> Data:
    """`NAME.train.jsonl.gz`, `NAME.test.jsonl.gz` and `NAME.classes.json` of `folder`."""
    classes = json.loads(_file(folder / f"{name}.classes.json").read_text("utf-8"))
    return split(
        name,
        classes,
        _lines(_file(folder / f"{name}.train.jsonl.gz")),
        _lines(_file(folder / f"{name}.test.jsonl.gz")),
    )


def read_images(folder: Path, name: str) -> Data:
    """The arrays `x_train, y_train, x_test, y_test, classes` of `NAME.npz` in `folder`."""
    with np.load(_file(folder / f"{name}.npz"), allow_pickle=False) as arrays:
        train, test = (
            Examples(arrays[f"x_{half}"], arrays[f"y_{half}"].astype(np.int64))
            for half in ("train", "test")
        )
        return split(name, arrays["classes"], train, test)


def _lines(file: Path) -> Examples:
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    columns = [name for name in COLUMNS if name in rows[0]]
    texts = [tuple(row[name] for name in columns) for row in rows]
    labels = np.array([row["label"] for row in rows])
    return Examples(texts if len(columns) > 1 else [text for (text,) in texts], labels)


def columns(examples: Examples) -> list[str]:
    """The names of the columns that sentences, or pairs of them, come from."""
    return list(COLUMNS if isinstance(examples.rows[0], tuple) else COLUMNS[:1])


def _file(path: Path) -> Path:
    if not path.is_file():
        raise InputError(
            f"data file '{path}'",
            expected="the packed tasks in folders 'images' and 'text'",
            found="no such file",
            remedy="Name the data folder by --data or by the environment variable MATS_DATA.",
        )
    return path
