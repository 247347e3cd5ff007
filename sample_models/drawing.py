"""A small vectorised drawing kit: batches of shapes on batches of 24x24 canvases, in numpy.

Coordinates. A `Frame` holds local coordinates `x` (right) and `y` (down), each (n, size, size);
the unit square [-1, 1]^2 is the canvas before the frame is moved, turned or scaled. `pixel` is the
width of one pixel in local units, (n, 1, 1).

Shapes. A shape is a signed distance (negative inside), so that `cover` can anti-alias it. Strokes
are the distance to a set of line segments.

Colours are float arrays in [0, 1] of shape (n, 3); canvases are (n, size, size, 3).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SIZE = 24
Array = NDArray[np.floating]


@dataclass(frozen=True)
class Frame:
    """Local coordinates of every pixel of every canvas."""

    x: Array
    y: Array
    pixel: Array

    def shifted(self, dx: Array | float, dy: Array | float) -> Frame:
        """The same frame seen from (dx, dy)."""
        return Frame(self.x - _column(dx), self.y - _column(dy), self.pixel)


def _column(value: Array | float) -> Array:
    array = np.asarray(value, dtype=np.float32)
    return array.reshape(-1, 1, 1) if array.ndim else array


def frame(
    n: int,
    *,
    dx: Array | float = 0.0,
    dy: Array | float = 0.0,
    turn: Array | float = 0.0,
    scale: Array | float = 1.0,
    shear: Array | float = 0.0,
    size: int = SIZE,
) -> Frame:
    """Coordinates moved by (dx, dy), turned by `turn` radians and enlarged by `scale`."""
    steps = (np.arange(size, dtype=np.float32) + 0.5) * 2 / size - 1
    x, y = np.meshgrid(steps, steps)
    x = np.broadcast_to(x, (n, size, size)) - _column(dx)
    y = np.broadcast_to(y, (n, size, size)) - _column(dy)
    cos, sin, scale = np.cos(_column(turn)), np.sin(_column(turn)), _column(scale)
    u, v = (cos * x + sin * y) / scale, (cos * y - sin * x) / scale
    u = u + _column(shear) * v
    return Frame(u, v, np.broadcast_to(2 / size / scale, (n, 1, 1)))


def jittered(
    rng: np.random.Generator,
    n: int,
    *,
    move: float = 0.2,
    turn: float = 0.2,
    scale: tuple[float, float] = (0.7, 1.0),
    shear: float = 0.0,
    size: int = SIZE,
) -> Frame:
    """A frame with random position, angle, scale and shear for each canvas."""
    return frame(
        n,
        dx=rng.uniform(-move, move, n),
        dy=rng.uniform(-move, move, n),
        turn=rng.uniform(-turn, turn, n),
        scale=rng.uniform(*scale, n),
        shear=rng.uniform(-shear, shear, n),
        size=size,
    )


def cover(distance: Array, at: Frame) -> Array:
    """Share of each pixel inside the shape, from the signed distance to its edge."""
    return np.clip(0.5 - distance / at.pixel, 0.0, 1.0)


def paint(canvas: Array, coverage: Array, colour: Array) -> Array:
    """The canvas with `colour` laid over it where `coverage` is 1."""
    colour = np.asarray(colour, dtype=np.float32).reshape(-1, 1, 1, 3)
    return canvas + coverage[..., None] * (colour - canvas)


def fill(n: int, colour: Array, size: int = SIZE) -> Array:
    """Canvases of one colour each."""
    colour = np.asarray(colour, dtype=np.float32).reshape(-1, 1, 1, 3)
    return np.broadcast_to(colour, (n, size, size, 3)).copy()


# --- signed distances -------------------------------------------------------------------------


def disc(at: Frame, radius: Array | float, stretch: Array | float = 1.0) -> Array:
    """A disc, or an ellipse `stretch` times as wide as it is high."""
    return np.hypot(at.x / _column(stretch), at.y) - _column(radius)


def box(at: Frame, half_width: Array | float, half_height: Array | float) -> Array:
    """An upright rectangle."""
    return np.maximum(np.abs(at.x) - _column(half_width), np.abs(at.y) - _column(half_height))


def polygon(at: Frame, corners: Sequence[tuple[float, float]]) -> Array:
    """A closed polygon; the sign follows the even-odd rule."""
    distance = np.full(at.x.shape, np.inf, dtype=np.float32)
    inside = np.zeros(at.x.shape, dtype=bool)
    for (ax, ay), (bx, by) in zip(corners, [*corners[1:], corners[0]], strict=True):
        distance = np.minimum(distance, _segment(at, ax, ay, bx, by))
        crosses = (ay > at.y) != (by > at.y)
        if ay != by:
            inside ^= crosses & (at.x < ax + (at.y - ay) * (bx - ax) / (by - ay))
    return np.where(inside, -distance, distance)


def regular(corners: int, radius: float = 0.9, inner: float | None = None) -> list:
    """Corners of a regular polygon, or of a star when `inner` is given; the first points up."""
    n = corners if inner is None else 2 * corners
    angles = 2 * np.pi * np.arange(n) / n - np.pi / 2
    radii = np.full(n, radius)
    if inner is not None:
        radii[1::2] = inner
    return [
        (float(r * np.cos(a)), float(r * np.sin(a))) for r, a in zip(radii, angles, strict=True)
    ]


def stroke(
    at: Frame, lines: Sequence[Sequence[tuple[float, float]]], width: Array | float
) -> Array:
    """Polylines drawn with a round pen of the given half-width."""
    distance = np.full(at.x.shape, np.inf, dtype=np.float32)
    for line in lines:
        for (ax, ay), (bx, by) in itertools.pairwise(line):
            distance = np.minimum(distance, _segment(at, ax, ay, bx, by))
    return distance - _column(width)


def _segment(at: Frame, ax: float, ay: float, bx: float, by: float) -> Array:
    px, py, dx, dy = at.x - ax, at.y - ay, bx - ax, by - ay
    share = np.clip((px * dx + py * dy) / max(dx * dx + dy * dy, 1e-9), 0, 1)
    return np.hypot(px - share * dx, py - share * dy)


def arc(start: float, stop: float, radius: float, cx: float = 0.0, cy: float = 0.0) -> list:
    """A polyline along a circle; angles in turns, clockwise from the right."""
    angles = 2 * np.pi * np.linspace(start, stop, 9)
    return [(cx + radius * float(np.cos(a)), cy + radius * float(np.sin(a))) for a in angles]


# --- colours and noise ------------------------------------------------------------------------


def hsv(hue: Array, saturation: Array | float, value: Array | float) -> Array:
    """RGB colours (n, 3) from hues in turns."""
    hue = np.asarray(hue, dtype=np.float32)[..., None]
    wheel = np.clip(np.abs((hue + np.array([0, 2 / 3, 1 / 3])) % 1 * 6 - 3) - 1, 0, 1)
    saturation = np.asarray(saturation, dtype=np.float32).reshape(-1, 1)
    value = np.asarray(value, dtype=np.float32).reshape(-1, 1)
    return (value * (1 - saturation * (1 - wheel))).astype(np.float32)


def speckle(rng: np.random.Generator, canvas: Array, amount: float) -> Array:
    """Independent Gaussian noise on every channel of every pixel."""
    return canvas + amount * rng.standard_normal(canvas.shape, dtype=np.float32)


def clouds(rng: np.random.Generator, n: int, smooth: float, size: int = SIZE) -> Array:
    """Smooth periodic noise with mean 0 and deviation 1, (n, size, size)."""
    frequency = np.fft.fftfreq(size)
    gain = np.exp(-2 * (np.pi * smooth) ** 2 * (frequency[:, None] ** 2 + frequency[None] ** 2))
    gain[0, 0] = 0
    noise = np.fft.fft2(rng.standard_normal((n, size, size)))
    field = np.fft.ifft2(noise * gain).real.astype(np.float32)
    return field / field.std(axis=(1, 2), keepdims=True)


def bytes_of(canvas: Array) -> NDArray[np.uint8]:
    """Canvases as 8-bit images."""
    return np.clip(np.rint(canvas * 255), 0, 255).astype(np.uint8)
