"""The drawn pre-training tasks: the worlds of the fine-tuning tasks with other classes, and more.

The first eight tasks share one world (palette, noise, background) each with a fine-tuning task,
with classes of other names and pictures; `planks` comes close to `bricks`. The others (signs,
arrows, charts, colours, corners, sizes) add breadth.
"""

from __future__ import annotations

import numpy as np

from . import drawing as d
from . import glyphs
from . import worlds as w
from .pictures import INK, RED, WHITE, _dot, _pen, _tile, places

Array = d.Array

SOLIDS = ("pentagon", "hexagon", "crescent", "arrow", "ell", "tee", "trapezoid", "ellipse",
          "half disc", "six-pointed star", "chevron", "hourglass")  # fmt: skip
CONSTELLATIONS = ("line", "ring", "cluster", "two clusters", "grid", "arc", "big and small",
                  "scattered")  # fmt: skip
WAVES = ("circles", "spokes", "plaid", "chirp", "fine", "coarse", "zigzag", "spiral")
FABRICS = ("speckles", "blobs", "herringbone", "rings", "triangles", "grain", "diamonds", "crosses",
           "planks", "pebbles")  # fmt: skip
RUNES = tuple("CDGJLPQTUVXYZW")
HEADS = ("glasses", "hat", "beard", "moustache", "ears", "antennae", "eye patch", "freckles",
         "mask", "crown")  # fmt: skip
BANNERS = ("halves", "quarters", "diagonal", "stripes", "chequers", "diamond", "chevron", "chief",
           "ring", "pall")  # fmt: skip
ARROWS = ("north", "north-east", "east", "south-east", "south", "south-west", "west", "north-west")
CHARTS = ("rising", "falling", "peak", "valley", "level", "first high", "last high", "comb")
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "violet", "pink")
CORNERS = ("top left", "top", "top right", "left", "middle", "right", "bottom left", "bottom",
           "bottom right")  # fmt: skip
SIZES = ("tiny", "small", "middling", "large", "huge")
SYMBOLS = tuple(f"symbol {k}" for k in range(16))
SIGNS = tuple(f"sign {k}" for k in range(12))


def symbols(rng: np.random.Generator, labels: np.ndarray) -> Array:
    """Invented characters in chalk."""
    return w.chalk(rng, labels, glyphs.symbols(len(SYMBOLS), seed=1))


def signs(rng: np.random.Generator, labels: np.ndarray) -> Array:
    """Other invented characters, broad, in any colour."""
    made = glyphs.symbols(len(SIGNS), seed=2)
    return w.signboard(rng, labels, [lambda f, g=g: d.stroke(f, g, 0.12) for g in made])


_SOLIDS = (
    lambda f: d.polygon(f, d.regular(5)),
    lambda f: d.polygon(f, d.regular(6)),
    lambda f: np.maximum(d.disc(f, 0.9), -d.disc(f.shifted(0.35, 0), 0.7)),
    lambda f: d.polygon(
        f, [(0, -1), (0.7, -0.1), (0.3, -0.1), (0.3, 0.9), (-0.3, 0.9), (-0.3, -0.1), (-0.7, -0.1)]
    ),
    lambda f: d.polygon(
        f, [(-0.6, -0.9), (-0.05, -0.9), (-0.05, 0.4), (0.7, 0.4), (0.7, 0.9), (-0.6, 0.9)]
    ),
    lambda f: np.minimum(d.box(f.shifted(0, -0.6), 0.85, 0.28), d.box(f, 0.28, 0.88)),
    lambda f: d.polygon(f, [(-0.4, -0.6), (0.4, -0.6), (0.95, 0.6), (-0.95, 0.6)]),
    lambda f: d.disc(f, 0.5, 1.9),
    lambda f: np.maximum(d.disc(f.shifted(0, 0.4), 0.9), f.y - 0.4),
    lambda f: d.polygon(f, d.regular(6, 1.0, 0.5)),
    lambda f: d.polygon(
        f, [(-0.9, 0.2), (0, -0.7), (0.9, 0.2), (0.9, 0.8), (0, -0.1), (-0.9, 0.8)]
    ),
    lambda f: d.polygon(
        f, [(-0.7, -0.9), (0.7, -0.9), (0.12, 0), (0.7, 0.9), (-0.7, 0.9), (-0.12, 0)]
    ),
)


def solids(rng: np.random.Generator, labels: np.ndarray) -> Array:
    """Other filled shapes."""
    return w.paper_cutouts(rng, labels, _SOLIDS)


def constellations(rng: np.random.Generator, labels: np.ndarray) -> Array:
    """How four to eight lights are arranged; how many there are says nothing."""
    n, most = len(labels), 8
    k = np.arange(most)
    count = rng.integers(4, most + 1, n)
    turn, share = rng.uniform(0, 2 * np.pi, (n, 1)), k / (count[:, None] - 1)
    ring = turn + 2 * np.pi * k / count[:, None]
    x, y = places(rng, n, most)
    side = np.where(k % 2 == 0, 1, -1)
    blob = rng.normal(0, 0.18, (2, n, most))
    grid = ((k % 3 - 1) * 0.5, (k // 3 - 1) * 0.5)
    bow = turn + np.pi * 0.8 * share
    layouts = {
        0: ((1.5 * share - 0.75) * np.cos(turn), (1.5 * share - 0.75) * np.sin(turn)),
        1: (0.6 * np.cos(ring), 0.6 * np.sin(ring)),
        2: (blob[0], blob[1]),
        3: (0.5 * side * np.cos(turn) + blob[0] / 2, 0.5 * side * np.sin(turn) + blob[1] / 2),
        4: (grid[0] + 0 * x, grid[1] + 0 * y),
        5: (0.8 * np.cos(bow) - 0.3 * np.cos(turn), 0.8 * np.sin(bow) - 0.3 * np.sin(turn)),
    }
    radius = rng.uniform(0.08, 0.14, x.shape)
    radius[labels == 6, :2] *= 2
    for label, (own_x, own_y) in layouts.items():
        rows = labels == label
        x[rows], y[rows] = own_x[rows], own_y[rows]
    radius[k >= count[:, None]] = 0
    x, y = x + rng.uniform(-0.1, 0.1, (n, 1)), y + rng.uniform(-0.1, 0.1, (n, 1))
    return w.night_sky(rng, n, [(x[:, j], y[:, j], radius[:, j]) for j in range(most)])


def waves(rng: np.random.Generator, labels: np.ndarray) -> Array:
    """Waves that differ in anything but their angle."""
    n = len(labels)
    at = d.jittered(rng, n, move=0.3, turn=np.pi, scale=(0.8, 1.2))
    x, y = at.x, at.y
    distance, angle = np.hypot(x, y), np.arctan2(y, x)
    phases = (
        8 * distance, 6 * angle, None, 4 * (x + 1.2) ** 2, 13 * x, 3 * x,
        7 * (x + 0.25 * np.abs(_tile(4 * y, 2))), 5 * distance + 2 * angle,
    )  # fmt: skip
    start = rng.uniform(0, 6.28, (n, 1, 1))
    wave = np.empty(x.shape, np.float32)
    for label, phase in enumerate(phases):
        rows = labels == label
        if phase is None:
            wave[rows] = (np.sin(6 * x + start) * np.sin(6 * y + start))[rows] * 1.3
        else:
            wave[rows] = np.sin(phase + start)[rows]
    return w.ripples(rng, wave)


def _triangles(f: d.Frame) -> Array:
    return np.abs(_tile(f.x, 2.0)) - (f.y % 1.6) / 1.6


_FABRICS = (
    None,
    None,
    lambda f: np.abs(_tile(f.y + np.abs(_tile(f.x, 2.4)), 1.2)) - 0.3,
    lambda f: np.abs(np.hypot(_tile(f.x, 2.2), _tile(f.y, 2.2)) - 0.7) - 0.18,
    _triangles,
    None,
    lambda f: np.abs(_tile(f.x, 2.0)) + np.abs(_tile(f.y, 2.0)) - 0.7,
    lambda f: np.minimum(
        np.maximum(np.abs(_tile(f.x, 2.0)) - 0.7, np.abs(_tile(f.y, 2.0)) - 0.22),
        np.maximum(np.abs(_tile(f.x, 2.0)) - 0.22, np.abs(_tile(f.y, 2.0)) - 0.7),
    ),
    lambda f: np.maximum(
        np.abs(_tile(f.x + 1.7 * np.floor(f.y / 1.4), 5.1)) - 2.3,
        np.abs(_tile(f.y - 0.7, 1.4)) - 0.55,
    ),
    None,
)


def fabrics(rng: np.random.Generator, labels: np.ndarray) -> Array:
    """Other patterns, regular and irregular."""
    n = len(labels)
    at = d.frame(
        n,
        dx=rng.uniform(-1, 1, n),
        dy=rng.uniform(-1, 1, n),
        turn=rng.uniform(-0.25, 0.25, n),
        scale=rng.uniform(0.2, 0.34, n),
    )
    pattern = np.empty(at.x.shape, np.float32)
    for label, shape in enumerate(_FABRICS):
        rows = np.flatnonzero(labels == label)
        own = d.Frame(at.x[rows], at.y[rows], at.pixel[rows])
        if shape is not None:
            pattern[rows] = np.clip(0.5 - shape(own) / own.pixel, 0, 1)
            continue
        noise = d.clouds(rng, len(rows), {0: 0.5, 1: 1.6, 5: 0.4, 9: 1.0}[label])
        if label == 5:
            noise = (noise + np.roll(noise, 1, 2) + np.roll(noise, 2, 2) + np.roll(noise, 3, 2)) / 2
        if label == 9:
            noise = np.abs(noise) - 0.6
        pattern[rows] = np.clip(0.5 + 1.5 * noise, 0, 1)
    return w.earthenware(rng, pattern)


def runes(rng: np.random.Generator, labels: np.ndarray) -> Array:
    """Fourteen other capital letters in ink."""
    return w.handwriting(rng, labels, [glyphs.letter(name) for name in RUNES])


_PLAIN = [(_dot(-0.33, -0.25, 0.11), INK), (_dot(0.33, -0.25, 0.11), INK)]
_BLUE, _BROWN, _GREEN = (0.15, 0.25, 0.7), (0.4, 0.22, 0.1), (0.1, 0.5, 0.2)
_HEADS = (
    [
        *_PLAIN,
        (
            _pen(
                d.arc(0, 1, 0.24, -0.33, -0.25),
                d.arc(0, 1, 0.24, 0.33, -0.25),
                [(-0.1, -0.25), (0.1, -0.25)],
                width=0.05,
            ),
            INK,
        ),
    ],
    [
        *_PLAIN,
        (
            lambda f: np.minimum(
                d.box(f.shifted(0, -0.85), 0.5, 0.3), d.box(f.shifted(0, -0.6), 0.9, 0.08)
            ),
            _BLUE,
        ),
    ],
    [*_PLAIN, (lambda f: np.maximum(d.disc(f, 0.85), 0.25 - f.y), _BROWN)],
    [*_PLAIN, (_pen([(-0.4, 0.3), (0, 0.18), (0.4, 0.3)], width=0.12), _BROWN)],
    [*_PLAIN, (_dot(-0.75, -0.6, 0.28), _BROWN), (_dot(0.75, -0.6, 0.28), _BROWN)],
    [*_PLAIN, (_pen([(-0.3, -0.75), (-0.5, -1.1)], [(0.3, -0.75), (0.5, -1.1)]), _GREEN)],
    [_PLAIN[1], (_dot(-0.33, -0.25, 0.24), INK), (_pen([(-0.8, -0.5), (0.6, -0.65)]), INK)],
    [
        *_PLAIN,
        *[
            (_dot(x, y, 0.08), RED)
            for x, y in [
                (-0.5, 0.1),
                (-0.3, 0.25),
                (-0.6, 0.3),
                (0.5, 0.1),
                (0.3, 0.25),
                (0.6, 0.3),
            ]
        ],
    ],
    [
        (lambda f: d.box(f.shifted(0, -0.25), 0.8, 0.2), INK),
        (_dot(-0.33, -0.25, 0.1), WHITE),
        (_dot(0.33, -0.25, 0.1), WHITE),
    ],
    [
        *_PLAIN,
        (
            lambda f: d.polygon(
                f,
                [
                    (-0.6, -0.5),
                    (-0.6, -1.1),
                    (-0.3, -0.8),
                    (0, -1.1),
                    (0.3, -0.8),
                    (0.6, -1.1),
                    (0.6, -0.5),
                ],
            ),
            RED,
        ),
    ],
)


def heads(rng: np.random.Generator, labels: np.ndarray) -> Array:
    """What a face wears."""
    return w.portraits(rng, labels, _HEADS)


_BANNERS = (
    (lambda f: f.y, lambda f: np.full_like(f.x, 1)),
    (lambda f: f.x * f.y, lambda f: np.full_like(f.x, 1)),
    (lambda f: f.x - f.y, lambda f: np.abs(f.x - f.y) - 0.25),
    (lambda f: np.abs(_tile(f.y, 0.5)) - 0.125, lambda f: np.full_like(f.x, 1)),
    (lambda f: np.sign(_tile(f.x, 1.0) * _tile(f.y, 1.0)), lambda f: np.full_like(f.x, 1)),
    (lambda f: np.abs(f.x) + np.abs(f.y) - 0.8, lambda f: np.abs(f.x) + np.abs(f.y) - 0.4),
    (lambda f: np.abs(f.y - np.abs(f.x) * 0.8 + 0.3) - 0.3, lambda f: np.full_like(f.x, 1)),
    (lambda f: f.y + 0.4, lambda f: np.full_like(f.x, 1)),
    (lambda f: np.abs(d.disc(f, 0.6)) - 0.15, lambda f: d.disc(f, 0.2)),
    (lambda f: d.stroke(f, [[(-1.2, -1.2), (0, 0), (1.5, 0)], [(-1.2, 1.2), (0, 0)]], 0.22),
     lambda f: d.stroke(f, [[(-1.2, -1.2), (0, 0), (1.5, 0)], [(-1.2, 1.2), (0, 0)]], 0.09)),
)  # fmt: skip


def banners(rng: np.random.Generator, labels: np.ndarray) -> Array:
    """Other layouts of two or three colours."""
    return w.cloth(rng, labels, _BANNERS)


def _turned(shape: w.Shape, turn: float) -> w.Shape:
    cos, sin = np.cos(turn), np.sin(turn)
    return lambda f: shape(d.Frame(cos * f.x + sin * f.y, cos * f.y - sin * f.x, f.pixel))


def arrows(rng: np.random.Generator, labels: np.ndarray) -> Array:
    """Which way an arrow points."""
    arrow = _pen([(0, 0.8), (0, -0.8), (-0.45, -0.3)], [(0, -0.8), (0.45, -0.3)], width=0.13)
    return w.signboard(rng, labels, [_turned(arrow, k * np.pi / 4) for k in range(8)])


_HEIGHTS = ((1, 2, 3, 4, 5), (5, 4, 3, 2, 1), (1, 3, 5, 3, 1), (5, 3, 1, 3, 5), (3, 3, 3, 3, 3),
            (5, 1, 1, 1, 1), (1, 1, 1, 1, 5), (5, 1, 5, 1, 5))  # fmt: skip


def charts(rng: np.random.Generator, labels: np.ndarray) -> Array:
    """Bar charts by their outline."""

    def bars(heights: tuple[int, ...]) -> w.Shape:
        return lambda f: np.minimum.reduce(
            [
                d.box(f.shifted(0.4 * k - 0.8, 0.9 - 0.17 * h), 0.14, 0.17 * h)
                for k, h in enumerate(heights)
            ]
        )

    return w.signboard(rng, labels, [bars(heights) for heights in _HEIGHTS])


def colours(rng: np.random.Generator, labels: np.ndarray) -> Array:
    """The hue of one of many solids on a grey ground."""
    n = len(labels)
    hues = np.array([0, 0.075, 0.155, 0.33, 0.5, 0.63, 0.76, 0.9])
    at = d.jittered(rng, n, move=0.3, turn=0.5, scale=(0.4, 0.8))
    canvas = d.fill(n, np.repeat(rng.uniform(0.1, 0.9, (n, 1)), 3, 1))
    canvas += 0.1 * d.clouds(rng, n, 1.5)[..., None]
    shape = w.by_class(rng.integers(0, len(_SOLIDS), n), at, _SOLIDS)
    hue = hues[labels] + rng.uniform(-0.02, 0.02, n)
    canvas = d.paint(canvas, d.cover(shape, at), d.hsv(hue, rng.uniform(0.6, 1, n), 0.9))
    return d.speckle(rng, canvas, 0.08)


def corners(rng: np.random.Generator, labels: np.ndarray) -> Array:
    """Where on the canvas a solid lies."""
    n = len(labels)
    x = (labels % 3 - 1) * 0.62 + rng.uniform(-0.15, 0.15, n)
    y = (labels // 3 - 1) * 0.62 + rng.uniform(-0.15, 0.15, n)
    hue = rng.uniform(0, 1, n)
    at = d.frame(n, dx=x, dy=y, turn=rng.uniform(0, 6.28, n), scale=rng.uniform(0.2, 0.35, n))
    canvas = d.fill(n, d.hsv(hue, 0.5, rng.uniform(0.1, 0.9, n)))
    canvas += 0.08 * d.clouds(rng, n, 1.0)[..., None]
    shape = w.by_class(rng.integers(0, len(_SOLIDS), n), at, _SOLIDS)
    canvas = d.paint(canvas, d.cover(shape, at), d.hsv(hue + 0.5, 0.7, 0.9))
    return d.speckle(rng, canvas, 0.08)


def sizes(rng: np.random.Generator, labels: np.ndarray) -> Array:
    """How large a solid is."""
    n = len(labels)
    hue = rng.uniform(0, 1, n)
    scale = np.array([0.15, 0.28, 0.45, 0.65, 0.9])[labels] * rng.uniform(0.92, 1.08, n)
    move = 0.6 * (1 - scale)
    at = d.frame(
        n,
        dx=rng.uniform(-1, 1, n) * move,
        dy=rng.uniform(-1, 1, n) * move,
        turn=rng.uniform(0, 6.28, n),
        scale=scale,
    )
    canvas = d.fill(n, d.hsv(hue, 0.6, rng.uniform(0.1, 0.4, n)))
    shape = w.by_class(rng.integers(0, len(_SOLIDS), n), at, _SOLIDS)
    canvas = d.paint(canvas, d.cover(shape, at), d.hsv(hue + rng.uniform(0.2, 0.8, n), 0.6, 0.95))
    return d.speckle(rng, canvas, 0.1)
