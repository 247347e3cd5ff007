"""The looks of the tasks: eight visual worlds, each a way to place a drawing on a background.

A world takes shapes as signed distances and paints them in its own palette and noise. A fine-tuning
task and a pre-training task share each world but never a class, so that the base knows the look of
a task and not its answers.

Every drawer takes `(rng, labels)` and returns canvases (n, size, size, 3) in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from . import drawing as d

Array = d.Array
Drawer = Callable[[np.random.Generator, np.ndarray], Array]
Shape = Callable[[d.Frame], Array]


def by_class(labels: np.ndarray, at: d.Frame, shapes: Sequence[Shape]) -> Array:
    """The signed distance of each canvas's own class, in that canvas's frame."""
    distance = np.empty(at.x.shape, dtype=np.float32)
    for label, shape in enumerate(shapes):
        rows = labels == label
        if rows.any():
            distance[rows] = shape(d.Frame(at.x[rows], at.y[rows], at.pixel[rows]))
    return distance


def chalk(rng: np.random.Generator, labels: np.ndarray, glyphs: Sequence) -> Array:
    """Blurred white strokes on black, like the scanned digits: drawn on 8x8 pixels, enlarged."""
    n = len(labels)
    at = d.jittered(rng, n, move=0.1, turn=0.12, scale=(0.9, 1.1), shear=0.2, size=8)
    shapes = [lambda f, g=g: d.stroke(f, g, 0.12) for g in glyphs]
    ink = d.cover(by_class(labels, at, shapes), at) * rng.uniform(0.8, 1.0, (n, 1, 1))
    ink = np.rint(np.clip(ink + rng.normal(0, 0.04, ink.shape), 0, 1) * 16) / 16
    return np.repeat(enlarge(ink)[..., None], 3, axis=3)


def enlarge(images: Array, size: int = d.SIZE) -> Array:
    """Bilinear interpolation of (n, h, w) to (n, size, size)."""
    for axis in (1, 2):
        old = images.shape[axis]
        where = np.clip((np.arange(size) + 0.5) * old / size - 0.5, 0, old - 1)
        low = np.minimum(where.astype(int), max(old - 2, 0))
        high = np.minimum(low + 1, old - 1)
        share = (where - low).reshape((1, -1, 1) if axis == 1 else (1, 1, -1))
        images = images.take(low, axis) * (1 - share) + images.take(high, axis) * share
    return images


def paper_cutouts(rng: np.random.Generator, labels: np.ndarray, shapes: Sequence[Shape]) -> Array:
    """Filled shapes in a strong colour on a pale background of another hue."""
    n = len(labels)
    hue = rng.uniform(0, 1, n)
    at = d.jittered(rng, n, move=0.25, turn=0.5, scale=(0.5, 0.85))
    canvas = d.fill(n, d.hsv(hue + rng.uniform(0.3, 0.7, n), 0.2, 0.95))
    canvas += 0.03 * d.clouds(rng, n, 2.0)[..., None]
    shadow = d.cover(by_class(labels, at.shifted(0.08, 0.1), shapes), at) * 0.4
    canvas = d.paint(canvas, shadow, np.zeros((n, 3)))
    canvas = d.paint(canvas, d.cover(by_class(labels, at, shapes), at), d.hsv(hue, 0.85, 0.75))
    return d.speckle(rng, canvas, 0.06)


def night_sky(
    rng: np.random.Generator, n: int, lights: Sequence[tuple[Array, Array, Array]]
) -> Array:
    """Yellow lights (centre x, centre y, radius; radius <= 0 draws none) on a dark blue sky."""
    at = d.frame(n)
    canvas = d.fill(n, np.stack([rng.uniform(0.02, 0.1, n)] * 2 + [rng.uniform(0.2, 0.4, n)], 1))
    canvas += 0.07 * d.clouds(rng, n, 1.5)[..., None] * np.array([0.4, 0.6, 1.0], np.float32)
    for x, y, radius in lights:
        glow = d.cover(d.disc(at.shifted(x, y), np.maximum(radius, 0)), at)
        glow = glow * (radius > 0).reshape(-1, 1, 1)
        canvas = d.paint(canvas, glow, d.hsv(rng.uniform(0.11, 0.17, n), 0.6, 1.0))
    return d.speckle(rng, canvas, 0.04)


def ripples(rng: np.random.Generator, wave: Array) -> Array:
    """A wave in [-1, 1] as green light and shade, with strong noise and random contrast."""
    n = len(wave)
    light = 0.5 + rng.uniform(0.15, 0.4, (n, 1, 1)) * wave + 0.12 * d.clouds(rng, n, 0.6)
    green = d.hsv(rng.uniform(0.36, 0.5, n), 0.75, 0.9).reshape(n, 1, 1, 3)
    return d.speckle(rng, light[..., None] * green, 0.06)


def earthenware(rng: np.random.Generator, pattern: Array) -> Array:
    """A pattern in [0, 1] glazed between a dark brown and a pale clay."""
    n = len(pattern)
    dark = d.hsv(rng.uniform(0.02, 0.08, n), 0.75, rng.uniform(0.25, 0.5, n))
    pale = d.hsv(rng.uniform(0.06, 0.12, n), 0.35, rng.uniform(0.75, 1.0, n))
    share = np.clip(pattern + 0.12 * d.clouds(rng, n, 0.7), 0, 1)[..., None]
    canvas = dark.reshape(n, 1, 1, 3) * (1 - share) + pale.reshape(n, 1, 1, 3) * share
    return d.speckle(rng, canvas, 0.04)


def handwriting(rng: np.random.Generator, labels: np.ndarray, glyphs: Sequence) -> Array:
    """Thin blue ink on ruled cream paper."""
    n = len(labels)
    canvas = d.fill(n, d.hsv(rng.uniform(0.1, 0.16, n), 0.15, 0.97))
    ruled = d.frame(n, dy=rng.uniform(0, 0.5, n), turn=rng.uniform(-0.1, 0.1, n))
    lines = d.cover(np.abs((ruled.y % 0.5) - 0.25) - 0.03, ruled)
    canvas = d.paint(canvas, 0.5 * lines, np.tile([0.75, 0.45, 0.5], (n, 1)))
    at = d.jittered(rng, n, move=0.22, turn=0.35, scale=(0.65, 1.0), shear=0.25)
    width = rng.uniform(0.05, 0.1, n)
    shapes = [lambda f, g=g: d.stroke(f, g, 0.0) for g in glyphs]
    ink = d.cover(by_class(labels, at, shapes) - width.reshape(-1, 1, 1), at)
    canvas = d.paint(canvas, ink, d.hsv(rng.uniform(0.6, 0.68, n), 0.8, 0.45))
    return d.speckle(rng, canvas, 0.05)


def portraits(rng: np.random.Generator, labels: np.ndarray, features: Sequence) -> Array:
    """A round yellow face on a sky; `features` are lists of (shape, colour) drawn upon it."""
    n = len(labels)
    canvas = d.fill(n, d.hsv(rng.uniform(0.5, 0.6, n), 0.35, rng.uniform(0.8, 1.0, n)))
    canvas += 0.04 * d.clouds(rng, n, 2.5)[..., None]
    at = d.jittered(rng, n, move=0.12, turn=0.2, scale=(0.75, 1.0))
    skin = d.hsv(rng.uniform(0.1, 0.15, n), 0.75, rng.uniform(0.85, 1.0, n))
    canvas = d.paint(canvas, d.cover(d.disc(at, 0.85), at), skin)
    for label, drawings in enumerate(features):
        rows = np.flatnonzero(labels == label)
        own = d.Frame(at.x[rows], at.y[rows], at.pixel[rows])
        for shape, colour in drawings:
            colours = np.tile(np.asarray(colour, np.float32), (len(rows), 1))
            canvas[rows] = d.paint(canvas[rows], d.cover(shape(own), own), colours)
    return d.speckle(rng, canvas, 0.05)


def cloth(rng: np.random.Generator, labels: np.ndarray, layouts: Sequence) -> Array:
    """Flags: `layouts` give the areas of a second and a third colour, over a first."""
    n = len(labels)
    at = d.frame(
        n,
        dx=rng.uniform(-0.15, 0.15, n),
        dy=rng.uniform(-0.15, 0.15, n),
        turn=rng.uniform(-0.12, 0.12, n),
        scale=rng.uniform(0.85, 1.1, n),
    )
    hue = rng.uniform(0, 1, n)
    value = rng.uniform(0.5, 0.95, (3, n))
    colours = [
        d.hsv(hue + k / 3 + rng.uniform(-0.1, 0.1, n), rng.uniform(0.6, 1.0, n), value[k])
        for k in range(3)
    ]
    canvas = d.fill(n, colours[0])
    for k in (0, 1):
        area = by_class(labels, at, [layout[k] for layout in layouts])
        canvas = d.paint(canvas, d.cover(area, at), colours[k + 1])
    wave = np.sin(3 * at.x + rng.uniform(0, 6.28, (n, 1, 1)))
    return d.speckle(rng, canvas * (1 + 0.15 * wave[..., None]), 0.05)


def signboard(rng: np.random.Generator, labels: np.ndarray, shapes: Sequence[Shape]) -> Array:
    """Any shape in any colour over cloudy backgrounds of any colour: breadth for the base."""
    n = len(labels)
    hue = rng.uniform(0, 1, n)
    canvas = d.fill(n, d.hsv(hue, rng.uniform(0, 0.9, n), rng.uniform(0.1, 1.0, n)))
    canvas += rng.uniform(0, 0.15, (n, 1, 1, 1)) * d.clouds(rng, n, 1.0)[..., None]
    at = d.jittered(rng, n, move=0.25, turn=0.15, scale=(0.6, 1.0))
    other = d.hsv(hue + rng.uniform(0.25, 0.75, n), rng.uniform(0.3, 1, n), 1.0)
    # A bright drawing on a dark ground, or the reverse, so that it can be seen.
    dark = canvas.mean(axis=(1, 2, 3)) > 0.5
    other = np.where(dark[:, None], other * 0.3, other)
    canvas = d.paint(canvas, d.cover(by_class(labels, at, shapes), at), other)
    return d.speckle(rng, canvas, 0.08)
