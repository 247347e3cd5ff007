"""Inputs of no task: pictures that are drawn at random, and sentences that come with the library.

Layers can be matched on them where an expert's own data are not at hand.  Equal seeds give equal
pools, and a longer pool begins with the shorter one.  The sentences were written for this purpose
and are in the public domain (CC0).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..system import recall
from .task import IMAGES, Form, Kind, Split

SIDE = 48  # pixels of a drawn picture
MOST = 7  # shapes in it
SENTENCES = Path(__file__).with_name("sentences.txt")

Array = np.ndarray
Grid = tuple[Array, Array]  # x and y of every pixel, 0 to 1


def pool(kind: Kind, count: int, seed: int) -> Split:
    """Inputs of no task, for a model that reads tasks of this kind; their labels are all zero.

    image      `count` pictures (n, 48, 48, 3) uint8 of random shapes
    text       at most `count` of the sentences, in an order drawn from the seed
    language   the same, cut where a model is to go on
    """
    if kind == "image":
        pictures = recall(("pool of pictures", count, seed), lambda: drawn(count, seed))
        return _unlabelled(pictures, IMAGES)
    if kind == "choices":
        raise InputError("pool", expected="kind image, text or language", found="choices")
    lines = sentences()
    rows = [lines[i] for i in np.random.default_rng(seed).permutation(len(lines))[:count]]
    parts = [(row,) if kind == "text" else _halves(row) for row in rows]
    return _unlabelled(np.array(parts, dtype=object), Form(kind))


def _unlabelled(inputs: Array, form: Form) -> Split:
    return Split(inputs, np.zeros(len(inputs), dtype=np.int64), form)


@functools.cache
def sentences() -> tuple[str, ...]:
    """The sentences of the pool, in the order of their file."""
    lines = SENTENCES.read_text("utf-8").splitlines()
    return tuple(line for line in lines if line and not line.startswith("#"))


def _halves(sentence: str) -> tuple[str, str]:
    words = sentence.split()
    middle = max(1, len(words) // 2)
    return " ".join(words[:middle]), " " + " ".join(words[middle:])


# Pictures -----------------------------------------------------------------------------------------


def drawn(count: int, seed: int) -> Array:
    """Pictures (count, 48, 48, 3) uint8 of up to seven shapes in random colours."""
    random = np.random.default_rng(seed)
    steps = (np.arange(SIDE) + 0.5) / SIDE
    x, y = np.meshgrid(steps, steps)
    return np.stack([_picture(random, (x, y)) for _ in range(count)])


def _picture(random: np.random.Generator, grid: Grid) -> Array:
    picture = np.empty((SIDE, SIDE, 3), dtype=np.uint8)
    picture[:] = _colour(random)
    for _ in range(random.integers(1, MOST + 1)):
        place, size = random.uniform(-0.1, 1, 2), random.uniform(0.08, 0.7, 2)
        shape = SHAPES[random.integers(0, len(SHAPES))]
        # In a square of its own, from -1 to 1; what is one pixel wide there.
        u, v = (2 * (axis - p) / s - 1 for axis, p, s in zip(grid, place, size, strict=True))
        pixel = 2 / SIDE / float(size.mean())
        picture[shape(random, (u, v), pixel)] = _colour(random)
    return picture


def _colour(random: np.random.Generator) -> Array:
    return random.integers(0, 256, 3, dtype=np.uint8)


def _width(random: np.random.Generator, pixel: float) -> float:
    """Of a line, from one to four pixels."""
    return float(random.integers(1, 5)) * pixel


def _solid(random: np.random.Generator, away: Array, pixel: float) -> Array:
    """A shape by how far outside a pixel is: filled, or its outline."""
    if random.random() < 0.6:
        return away <= 0
    return (away <= 0) & (away > -_width(random, pixel))


def _ellipse(random: np.random.Generator, grid: Grid, pixel: float) -> Array:
    return _solid(random, np.hypot(*grid) - 1, pixel)


def _box(random: np.random.Generator, grid: Grid, pixel: float) -> Array:
    return _solid(random, np.maximum(np.abs(grid[0]), np.abs(grid[1])) - 1, pixel)


def _polygon(random: np.random.Generator, grid: Grid, pixel: float) -> Array:
    """Three to six corners; a ray from a pixel inside crosses an odd number of sides."""
    corners = random.uniform(-1, 1, (int(random.integers(3, 7)), 2))
    inside = np.zeros(grid[0].shape, dtype=bool)
    for (ax, ay), (bx, by) in zip(corners, np.roll(corners, 1, 0), strict=True):
        beside = (ay > grid[1]) != (by > grid[1])
        inside ^= beside & (grid[0] < (bx - ax) * (grid[1] - ay) / (by - ay) + ax)
    return inside


def _line(random: np.random.Generator, grid: Grid, pixel: float) -> Array:
    corners = random.uniform(-1, 1, (int(random.integers(2, 6)), 2))
    near = [_to_segment(grid, a, b) for a, b in itertools.pairwise(corners)]
    return np.min(near, 0) <= _width(random, pixel) / 2


def _to_segment(grid: Grid, a: Array, b: Array) -> Array:
    """Distance of every pixel to a segment."""
    along, (x, y) = b - a, (grid[0] - a[0], grid[1] - a[1])
    share = np.clip((x * along[0] + y * along[1]) / max(float(along @ along), 1e-12), 0, 1)
    return np.hypot(x - share * along[0], y - share * along[1])


def _arc(random: np.random.Generator, grid: Grid, pixel: float) -> Array:
    first, last = np.sort(random.uniform(-np.pi, np.pi, 2))
    angle = np.arctan2(grid[1], grid[0])
    near = np.abs(np.hypot(*grid) - 1) <= _width(random, pixel) / 2
    return near & (angle >= first) & (angle <= last)


SHAPES: tuple[Callable[[np.random.Generator, Grid, float], Array], ...]
SHAPES = (_ellipse, _box, _polygon, _line, _arc)
