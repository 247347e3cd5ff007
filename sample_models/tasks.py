"""The tasks of the sample family: eight to fine-tune on, and those that the base is trained on.

`arrays(name)` gives images uint8 (n, 24, 24, 3) and labels int64 (n,), a train and a test half from
disjoint random streams. Only `digits` is a data set (scikit-learn's scanned digits, 1,797 images,
split once by a fixed seed); all others are drawn. Everything is a function of `(name, seed)`.
"""

from __future__ import annotations

import gzip
import importlib.util
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mats_core.errors import needed

from . import drawing, pictures, worlds
from . import more_pictures as more
from . import pretraining_pictures as earlier

_DRAWN = {
    "shapes": (pictures.SHAPES, pictures.shapes),
    "counting": (pictures.COUNTS, pictures.counting),
    "orientation": (pictures.ANGLES, pictures.orientation),
    "textures": (pictures.TEXTURES, pictures.textures),
    "letters": (pictures.LETTERS, pictures.letters),
    "expressions": (pictures.EXPRESSIONS, pictures.expressions),
    "flags": (pictures.FLAGS, pictures.flags),
}
_EARLIER = {
    "symbols": (earlier.SYMBOLS, earlier.symbols),
    "solids": (earlier.SOLIDS, earlier.solids),
    "constellations": (earlier.CONSTELLATIONS, earlier.constellations),
    "waves": (earlier.WAVES, earlier.waves),
    "fabrics": (earlier.FABRICS, earlier.fabrics),
    "runes": (earlier.RUNES, earlier.runes),
    "heads": (earlier.HEADS, earlier.heads),
    "banners": (earlier.BANNERS, earlier.banners),
    "signs": (earlier.SIGNS, earlier.signs),
    "arrows": (earlier.ARROWS, earlier.arrows),
    "charts": (earlier.CHARTS, earlier.charts),
    "colours": (earlier.COLOURS, earlier.colours),
    "corners": (earlier.CORNERS, earlier.corners),
    "sizes": (earlier.SIZES, earlier.sizes),
    "berries": (more.BERRIES, more.berries),
    "dice": (more.DICE, more.dice),
    "outlines": (more.OUTLINES, more.outlines),
}
_DRAWERS: dict[str, tuple[tuple[str, ...], worlds.Drawer]] = {**_DRAWN, **_EARLIER}

TASKS: tuple[str, ...] = ("digits", *_DRAWN)
PRETRAINING: tuple[str, ...] = tuple(_EARLIER)
NAMES: tuple[str, ...] = (*TASKS, "pretraining")  # what `sample:NAME` may name

DESCRIPTIONS: dict[str, str] = {
    "digits": "scanned handwritten digits from scikit-learn, 0 to 9",
    "shapes": "eight filled shapes cut from coloured paper",
    "counting": "one to eight lights in a night sky",
    "orientation": "gratings at eight angles, in green light and strong noise",
    "textures": "eight patterns glazed on earthenware: bricks, checks, dots, weave, …",
    "letters": "ten capital letters in blue ink on ruled paper",
    "expressions": "eight expressions of a round yellow face",
    "flags": "eight layouts of three colours on cloth",
}

_TRAIN, _TEST = 0, 1


def arrays(
    name: str, *, train: int = 4000, test: int = 500, seed: int = 0
) -> dict[str, NDArray[Any]]:
    """Images, labels and class names of one task.

    `train` and `test` are upper bounds for `digits`, which has 1,197 and 600. The training images
    are in random order, so that any leading part of them is a fair sample.
    """
    if name == "digits":
        return _digits(train, test)
    if name == "pretraining":
        return _joint(train, test, seed)
    if name not in _DRAWERS:
        raise ValueError(f"unknown task {name!r}; expected one of {(*TASKS, *PRETRAINING)}")
    classes, drawer = _DRAWERS[name]
    x_train, y_train = _draw(name, drawer, len(classes), train, seed, _TRAIN)
    x_test, y_test = _draw(name, drawer, len(classes), test, seed, _TEST)
    return {
        "x_train": x_train,
        "y_train": y_train,
        "x_test": x_test,
        "y_test": y_test,
        "classes": np.array(classes),
    }


def _joint(train: int, test: int, seed: int) -> dict[str, NDArray[Any]]:
    """What the base was trained on: all its tasks as one, over the union of their classes.

    `train` and `test` images in all, in random order; the classes are in the order of the base's
    own head.
    """
    parts, offset = [], 0
    for name in PRETRAINING:
        share = -(-train // len(PRETRAINING)), -(-test // len(PRETRAINING))
        part = arrays(name, train=share[0], test=share[1], seed=seed)
        part["y_train"], part["y_test"] = part["y_train"] + offset, part["y_test"] + offset
        part["classes"] = np.array([f"{name}: {label}" for label in part["classes"]])
        offset += len(part["classes"])
        parts.append(part)
    joint = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    rng = np.random.default_rng(seed)
    for half, n in (("train", train), ("test", test)):
        order = rng.permutation(len(joint[f"y_{half}"]))[:n]
        joint[f"x_{half}"], joint[f"y_{half}"] = (
            joint[f"x_{half}"][order],
            joint[f"y_{half}"][order],
        )
    return joint


def _draw(
    name: str, drawer: worlds.Drawer, classes: int, n: int, seed: int, half: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    # The name's checksum, not its place in the list, so that a new task disturbs no other.
    rng = np.random.default_rng([seed, zlib.crc32(name.encode()), half])
    labels = rng.permutation(np.arange(n, dtype=np.int64) % classes)
    return drawing.bytes_of(drawer(rng, labels)), labels


def _scanned() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """scikit-learn's digits: images (1797, 8, 8) from 0 to 16, and labels.

    From its file alone where that lies in its place: to import the package takes a second, for
    which the first number that a family shows would wait.
    """
    package = importlib.util.find_spec("sklearn")
    origin = package.origin if package is not None else None
    file = Path(origin).parent / "datasets/data/digits.csv.gz" if origin else None
    if file is None or not file.is_file():
        sets = needed("sample task 'digits'", "sklearn.datasets", "scikit-learn", "app")
        data: Any = sets.load_digits()
        return data.images, data.target.astype(np.int64)
    with gzip.open(file, "rt", encoding="ascii") as lines:
        table = np.loadtxt(lines, delimiter=",")
    return table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(np.int64)


def _digits(train: int, test: int) -> dict[str, NDArray[Any]]:
    scanned, labels = _scanned()
    images = worlds.enlarge(scanned / 16)
    images = drawing.bytes_of(np.repeat(images[..., None], 3, axis=3))
    order = np.random.default_rng(20).permutation(len(labels))
    held_out, rest = order[:600][:test], order[600:][:train]
    return {
        "x_train": images[rest],
        "y_train": labels[rest],
        "x_test": images[held_out],
        "y_test": labels[held_out],
        "classes": np.array([str(k) for k in range(10)]),
    }
