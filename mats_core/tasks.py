"""What a task is: labelled images in three splits, and where they come from.

A task is named by the path of an `.npz` file with the arrays `x_train, y_train, x_test, y_test,
classes` (uint8 images of shape (n, height, width) or (n, height, width, channels)), or by
`sample:NAME`, which draws one of the sample family's tasks.  Validation examples are the last
fifth of the training half, at most `VALIDATION_MOST`; hyper-parameters are chosen on them and
never on test examples.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .checks import InputError, existing, member
from .places import cache_folder
from .writer import write_atomically

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")
VALIDATION_MOST = 500
SAMPLE = "sample:"
ARRAYS = ("x_train", "y_train", "x_test", "y_test", "classes")


@dataclass(frozen=True)
class Split:
    """Images (n, height, width, channels) uint8 and labels (n,) int64, row by row."""

    inputs: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int | None) -> Split:
        """The first `count` examples (all for None)."""
        return Split(self.inputs[:count], self.labels[:count])


@dataclass(frozen=True)
class Task:
    """A classification task: class names in the order of the labels, and three splits."""

    name: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split

    def split(self, name: str) -> Split:
        member("split", name, SPLITS)
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of everything that is evaluated or measured."""
        digest = hashlib.sha256("\0".join(self.classes).encode())
        for split in (self.train, self.validation, self.test):
            digest.update(split.inputs.tobytes())
            digest.update(split.labels.tobytes())
        return digest.hexdigest()

    @classmethod
    def from_arrays(cls, name: str, arrays: Mapping[str, Any]) -> Task:
        """A task from the five arrays; raises `InputError` for what does not fit together."""
        missing = [key for key in ARRAYS if key not in arrays]
        if missing:
            raise InputError(
                f"task '{name}'",
                expected=f"arrays {', '.join(ARRAYS)}",
                found=f"no {', '.join(missing)}",
            )
        classes = tuple(str(label) for label in arrays["classes"])
        train = _split(name, "train", arrays["x_train"], arrays["y_train"], len(classes))
        test = _split(name, "test", arrays["x_test"], arrays["y_test"], len(classes))
        held = min(VALIDATION_MOST, len(train) // 5)
        cut = len(train) - held
        return cls(
            name,
            classes,
            train.first(cut),
            Split(train.inputs[cut:], train.labels[cut:]),
            test,
        )


def _split(task: str, half: str, images: Any, labels: Any, classes: int) -> Split:
    images, labels = np.asarray(images), np.asarray(labels)
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise InputError(
            f"x_{half} of task '{task}'",
            expected="uint8 images (n, height, width[, channels])",
            found=f"{images.dtype} {images.shape}",
        )
    if images.ndim == 3:
        images = images[..., None]
    if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"y_{half} of task '{task}'",
            expected=f"{len(images)} integer labels",
            found=f"{labels.dtype} {labels.shape}",
        )
    if len(labels) and not (labels.min() >= 0 and labels.max() < classes):
        raise InputError(
            f"y_{half} of task '{task}'",
            expected=f"labels from 0 to {classes - 1}",
            found=f"{labels.min()} to {labels.max()}",
        )
    return Split(images, labels.astype(np.int64))


def load(reference: str | Path, *, root: Path | None = None) -> Task:
    """The task that `reference` names: `sample:NAME` or the path of an `.npz` (under `root`)."""
    reference = str(reference)
    if reference.startswith(SAMPLE):
        return _sample(reference.removeprefix(SAMPLE))
    path = Path(reference) if root is None else root / reference
    existing("task", path)
    if path.suffix != ".npz":
        raise InputError(
            f"task '{reference}'",
            expected="an .npz file or sample:NAME",
            found=f"'{path.name}'",
        )
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return Task.from_arrays(path.stem, dict(arrays))
    except (ValueError, OSError, EOFError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"task '{path}'", expected="an .npz file of plain arrays", found=str(error)
        ) from None


@functools.lru_cache(maxsize=16)
def _sample(name: str) -> Task:
    # Imported here: the sample family lies beside the library and is not needed without it.
    from sample_models import tasks as drawn

    member("sample task", name, drawn.NAMES)
    file = cache_folder() / "tasks" / f"{name}-{_source_digest(Path(drawn.__file__).parent)}.npz"
    if not file.is_file():  # drawing takes a second a task, reading a hundredth
        buffer = io.BytesIO()
        np.savez(buffer, **drawn.arrays(name))  # type: ignore[arg-type]
        with contextlib.suppress(OSError):  # a read-only home is no reason to fail
            write_atomically(file, buffer.getvalue())
        buffer.seek(0)
        with np.load(buffer, allow_pickle=False) as arrays:
            return Task.from_arrays(name, dict(arrays))
    with np.load(file, allow_pickle=False) as arrays:
        return Task.from_arrays(name, dict(arrays))


def _source_digest(folder: Path) -> str:
    """What the drawings depend on: the code that makes them."""
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
