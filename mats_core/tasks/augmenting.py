"""More examples from few: copies of pictures that are moved and lit otherwise.

A copy of a picture shows the same thing a little beside it, so that layers that are matched on
eight pictures are not matched on these eight alone.  Texts have no such copies that hold: they stay
as they are.
"""

from __future__ import annotations

import math

import numpy as np

from .task import Split

MOVED = 12  # a picture is moved by up to its side divided by this: 2 pixels of 24
CONTRAST = (0.8, 1.2)  # factors of each channel around middle grey
BRIGHTER = 0.05 * 255  # added to each channel, or taken away, at most


def augmented(split: Split, count: int, seed: int) -> Split:
    """The examples, and moved and lit copies of them up to `count` in all; texts as they are.

    A round of copies is moved alike, by up to a twelfth of a side, over its own edge pixels; each
    copy has a contrast and a brightness of its own in every channel.
    """
    if split.form.kind != "image" or not 0 < len(split) < count:
        return split
    random = np.random.default_rng(seed)
    images = np.asarray(split.inputs)
    rounds = [_copies(images, random) for _ in range(math.ceil(count / len(split)) - 1)]
    inputs = np.concatenate([images, *rounds])[:count]
    return Split(inputs, np.resize(split.labels, len(inputs)), split.form)


def _copies(images: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """One copy of every image (n, height, width, channels)."""
    n, height, width, channels = images.shape
    most = [max(1, round(side / MOVED)) for side in (height, width)]
    down, right = (int(random.integers(-most_, most_ + 1)) for most_ in most)
    rows = np.clip(np.arange(height) + down, 0, height - 1)
    columns = np.clip(np.arange(width) + right, 0, width - 1)
    moved = images[:, rows][:, :, columns].astype(np.float32) - 127.5
    factor = random.uniform(*CONTRAST, (n, 1, 1, channels))
    more = random.uniform(-BRIGHTER, BRIGHTER, (n, 1, 1, channels))
    return np.rint((moved * factor + more + 127.5).clip(0, 255)).astype(np.uint8)
