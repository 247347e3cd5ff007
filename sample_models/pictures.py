"""The seven drawn fine-tuning tasks: class names and a drawer for each."""

from __future__ import annotations

import numpy as np

from . import drawing as d
from . import glyphs
from . import worlds as w

Array = d.Array
INK, RED, WHITE = (0.15, 0.1, 0.1), (0.75, 0.1, 0.15), (1.0, 1.0, 1.0)

SHAPES = ("circle", "square", "triangle", "star", "plus", "ring", "heart", "diamond")
COUNTS = ("one", "two", "three", "four", "five", "six", "seven", "eight")
ANGLES = ("0°", "22.5°", "45°", "67.5°", "90°", "112.5°", "135°", "157.5°")
TEXTURES = ("bricks", "checks", "dots", "hatching", "scales", "stripes", "waves", "weave")
LETTERS = tuple("ABEFHKMNRS")
EXPRESSIONS = ("happy", "sad", "surprised", "neutral", "winking", "angry", "laughing", "kissing")
FLAGS = ("tricolour", "pale", "cross", "saltire", "disc", "canton", "wedge", "bordered")


def _heart(at: d.Frame) -> Array:
    lobes = np.minimum(np.hypot(at.x - 0.4, at.y + 0.3), np.hypot(at.x + 0.4, at.y + 0.3)) - 0.48
    return np.minimum(lobes, d.polygon(at, [(-0.82, -0.05), (0.82, -0.05), (0, 0.9)]))


def _plus(at: d.Frame) -> Array:
    return np.minimum(d.box(at, 0.9, 0.3), d.box(at, 0.3, 0.9))


def shapes(rng: np.random.Generator, labels: np.ndarray) -> Array:
    """Eight filled shapes, turned a little."""
    return w.paper_cutouts(
        rng,
        labels,
        [
            lambda f: d.disc(f, 0.85),
            lambda f: d.box(f, 0.75, 0.75),
            lambda f: d.polygon(f, d.regular(3, 1.0)),
            lambda f: d.polygon(f, d.regular(5, 1.0, 0.42)),
            _plus,
            lambda f: np.abs(d.disc(f, 0.65)) - 0.22,
            _heart,
            lambda f: d.polygon(f, [(0, -1), (0.6, 0), (0, 1), (-0.6, 0)]),
        ],
    )


def places(rng: np.random.Generator, n: int, count: int, cells: int = 4) -> tuple[Array, Array]:
    """`count` points (n, count) in distinct cells of a grid, so that lights do not overlap."""
    order = np.argsort(rng.random((n, cells * cells)), axis=1)[:, :count]
    jitter = rng.uniform(-0.08, 0.08, (2, n, count))
    step = 1.7 / cells
    x = (order % cells - (cells - 1) / 2) * step + jitter[0]
    y = (order // cells - (cells - 1) / 2) * step + jitter[1]
    return x, y


def counting(rng: np.random.Generator, labels: np.ndarray) -> Array:
    """One to eight lights, at random places."""
    n = len(labels)
    x, y = places(rng, n, len(COUNTS))
    radius = rng.uniform(0.09, 0.17, x.shape)
    radius[np.arange(len(COUNTS)) > labels[:, None]] = 0
    return w.night_sky(rng, n, [(x[:, k], y[:, k], radius[:, k]) for k in range(len(COUNTS))])


def orientation(rng: np.random.Generator, labels: np.ndarray) -> Array:
    """Gratings at eight angles."""
    n = len(labels)
    turn = (labels + rng.uniform(-0.25, 0.25, n)) * np.pi / len(ANGLES)
    at = d.frame(n, turn=-turn)
    cycles = rng.uniform(1.2, 3.0, (n, 1, 1))
    return w.ripples(rng, np.sin(np.pi * cycles * at.y + rng.uniform(0, 6.28, (n, 1, 1))))


def textures(rng: np.random.Generator, labels: np.ndarray) -> Array:
    """Eight regular patterns at random scales and offsets."""
    n = len(labels)
    at = d.frame(
        n,
        dx=rng.uniform(-1, 1, n),
        dy=rng.uniform(-1, 1, n),
        turn=rng.uniform(-0.25, 0.25, n),
        scale=rng.uniform(0.2, 0.34, n),
    )
    return w.earthenware(rng, np.clip(0.5 - w.by_class(labels, at, _PATTERNS) / at.pixel, 0, 1))


def _tile(value: Array, period: float) -> Array:
    """The distance from the middle of the tile, in [-period/2, period/2]."""
    return (value + period / 2) % period - period / 2


def _bricks(f: d.Frame) -> Array:
    shifted = f.x + np.where(np.floor(f.y / 1.2) % 2 == 0, 0.0, 1.2)
    return np.maximum(np.abs(_tile(shifted, 2.4)) - 1.0, np.abs(_tile(f.y - 0.6, 1.2)) - 0.42)


def _scales(f: d.Frame) -> Array:
    shifted = f.x + np.where(np.floor(f.y / 1.2) % 2 == 0, 0.0, 1.2)
    return np.abs(np.hypot(_tile(shifted, 2.4), f.y % 1.2) - 1.0) - 0.16


def _weave(f: d.Frame) -> Array:
    across = (np.floor(f.x / 1.6) + np.floor(f.y / 1.6)) % 2 == 0
    return np.where(across, np.abs(_tile(f.x, 0.8)), np.abs(_tile(f.y, 0.8))) - 0.2


_PATTERNS = (
    _bricks,
    lambda f: (
        np.sign(_tile(f.x, 2.4) * _tile(f.y, 2.4))
        * np.minimum(np.abs(_tile(f.x, 1.2)), np.abs(_tile(f.y, 1.2)))
    ),
    lambda f: np.hypot(_tile(f.x, 1.6), _tile(f.y, 1.6)) - 0.45,
    lambda f: np.minimum(np.abs(_tile(f.x, 1.5)), np.abs(_tile(f.y, 1.5))) - 0.15,
    _scales,
    lambda f: np.abs(_tile(f.y, 1.6)) - 0.4,
    lambda f: np.abs(_tile(f.y + 0.5 * np.sin(1.8 * f.x), 1.6)) - 0.4,
    _weave,
)


def letters(rng: np.random.Generator, labels: np.ndarray) -> Array:
    """Ten capital letters, slanted and turned."""
    return w.handwriting(rng, labels, [glyphs.letter(name) for name in LETTERS])


def expressions(rng: np.random.Generator, labels: np.ndarray) -> Array:
    """Eight expressions of a round face."""
    return w.portraits(rng, labels, _FACES)


def _dot(x: float, y: float, radius: float) -> w.Shape:
    return lambda f: d.disc(f.shifted(x, y), radius)


def _pen(*lines: list, width: float = 0.08) -> w.Shape:
    return lambda f: d.stroke(f, lines, width)


_EYES = [(_dot(-0.33, -0.25, 0.13), INK), (_dot(0.33, -0.25, 0.13), INK)]
_SMILE = d.arc(0.05, 0.45, 0.48, 0, 0.05)
_FROWN = d.arc(0.58, 0.92, 0.45, 0, 0.8)
_CLOSED = [[(-0.48, -0.25), (-0.18, -0.25)]]
_FACES = (
    [*_EYES, (_pen(_SMILE), INK)],
    [*_EYES, (_pen(_FROWN), INK)],
    [*_EYES, (_dot(0, 0.38, 0.24), INK)],
    [*_EYES, (_pen([(-0.35, 0.4), (0.35, 0.4)]), INK)],
    [_EYES[1], (_pen(*_CLOSED), INK), (_pen(_SMILE), INK)],
    [
        *_EYES,
        (_pen([(-0.55, -0.55), (-0.15, -0.38)], [(0.55, -0.55), (0.15, -0.38)]), INK),
        (_pen(_FROWN), INK),
    ],
    [
        *_EYES,
        (lambda f: np.maximum(d.disc(f.shifted(0, 0.1), 0.5), 0.1 - f.y + 0.05), WHITE),
        (_pen([(-0.5, 0.15), (0.5, 0.15)], _SMILE, width=0.05), INK),
    ],
    [*_EYES, (_dot(0, 0.4, 0.14), RED)],
)


def flags(rng: np.random.Generator, labels: np.ndarray) -> Array:
    """Eight layouts of three colours."""
    return w.cloth(rng, labels, _LAYOUTS)


def _diagonals(f: d.Frame) -> Array:
    return np.minimum(np.abs(f.x - f.y), np.abs(f.x + f.y)) / np.sqrt(2)


_LAYOUTS = (
    (lambda f: np.abs(f.y) - 1 / 3, lambda f: 1 / 3 - f.y),
    (lambda f: np.abs(f.x) - 1 / 3, lambda f: 1 / 3 - f.x),
    (
        lambda f: np.minimum(np.abs(f.x), np.abs(f.y)) - 0.3,
        lambda f: np.minimum(np.abs(f.x), np.abs(f.y)) - 0.12,
    ),
    (lambda f: _diagonals(f) - 0.3, lambda f: _diagonals(f) - 0.12),
    (lambda f: -f.y, lambda f: d.disc(f, 0.5)),
    (lambda f: -f.y, lambda f: np.maximum(f.x, f.y)),
    (lambda f: -f.y, lambda f: np.abs(f.y) + f.x + 0.1),
    (lambda f: 0.6 - np.maximum(np.abs(f.x), np.abs(f.y)), lambda f: d.box(f, 0.25, 0.25)),
)
