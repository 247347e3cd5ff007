"""Three pre-training tasks that were added in the search: amounts and outlines in other worlds.

Without them the base had never had to count and separated filled shapes badly; counting then was
lost in every merge (README.md, trials A and B).
"""

from __future__ import annotations

import numpy as np

from . import drawing as d
from . import worlds as w
from .pictures import places
from .pretraining_pictures import _SOLIDS, SOLIDS

Array = d.Array
BERRIES = tuple(f"{k} berries" for k in range(2, 11))
DICE = tuple(f"{k} pips" for k in range(1, 7))
OUTLINES = tuple(f"{name}, outline" for name in SOLIDS)
_PIPS = (
    [(0, 0)],
    [(-1, -1), (1, 1)],
    [(-1, -1), (0, 0), (1, 1)],
    [(-1, -1), (-1, 1), (1, -1), (1, 1)],
    [(-1, -1), (-1, 1), (0, 0), (1, -1), (1, 1)],
    [(-1, -1), (-1, 0), (-1, 1), (1, -1), (1, 0), (1, 1)],
)


def berries(rng: np.random.Generator, labels: np.ndarray) -> Array:
    """Two to ten berries of one colour on a pale plate."""
    n, most = len(labels), len(BERRIES) + 1
    at, hue = d.frame(n), rng.uniform(0, 1, n)
    canvas = d.fill(n, d.hsv(rng.uniform(0, 1, n), 0.15, rng.uniform(0.8, 0.95, n)))
    canvas += 0.05 * d.clouds(rng, n, 1.5)[..., None]
    x, y = places(rng, n, most)
    radius = rng.uniform(0.1, 0.17, x.shape)
    radius[np.arange(most) > labels[:, None] + 1] = 0
    for k in range(most):
        berry = d.cover(d.disc(at.shifted(x[:, k], y[:, k]), radius[:, k]), at)
        berry = berry * (radius[:, k] > 0).reshape(-1, 1, 1)
        canvas = d.paint(canvas, berry, d.hsv(hue + rng.uniform(-0.03, 0.03, n), 0.8, 0.6))
    return d.speckle(rng, canvas, 0.05)


def dice(rng: np.random.Generator, labels: np.ndarray) -> Array:
    """The face of a die of any colour, turned a little."""
    n, hue = len(labels), rng.uniform(0, 1, len(labels))
    at = d.jittered(rng, n, move=0.15, turn=0.4, scale=(0.6, 0.9))
    canvas = d.fill(n, d.hsv(hue + 0.5, 0.3, rng.uniform(0.2, 0.5, n)))
    canvas = d.paint(canvas, d.cover(d.box(at, 0.95, 0.95), at), d.hsv(hue, 0.5, 0.9))
    faces = [
        lambda f, face=face: np.minimum.reduce(
            [d.disc(f.shifted(0.55 * x, 0.55 * y), 0.17) for x, y in face]
        )
        for face in _PIPS
    ]
    pips = d.cover(w.by_class(labels, at, faces), at)
    canvas = d.paint(canvas, pips, d.hsv(hue, 0.9, 0.15))
    return d.speckle(rng, canvas, 0.06)


def outlines(rng: np.random.Generator, labels: np.ndarray) -> Array:
    """The outline of a solid, in a bright colour on a dark ground."""
    n, hue = len(labels), rng.uniform(0, 1, len(labels))
    at = d.jittered(rng, n, move=0.25, turn=0.5, scale=(0.55, 0.9))
    canvas = d.fill(n, d.hsv(hue + rng.uniform(0.3, 0.7, n), 0.6, rng.uniform(0.1, 0.35, n)))
    canvas += 0.05 * d.clouds(rng, n, 1.5)[..., None]
    line = np.abs(w.by_class(labels, at, _SOLIDS)) - 0.09
    canvas = d.paint(canvas, d.cover(line, at), d.hsv(hue, 0.5, 0.95))
    return d.speckle(rng, canvas, 0.06)
