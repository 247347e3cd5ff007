"""Stroke fonts: letters as polylines in [-0.6, 0.6] x [-0.9, 0.9], and invented symbols."""

from __future__ import annotations

import numpy as np

# Points on a grid 0..4 (right) by 0..6 (down); lines are separated by spaces, points are two
# digits each.
_LETTERS = {
    "A": "062046 1434",
    "B": "06003041423303 3344453606",
    "C": "4130100105163645",
    "D": "00304145360600",
    "E": "40000646 0333",
    "F": "400006 0333",
    "G": "41301001051636454323",
    "H": "0006 4046 0343",
    "J": "404536160504",
    "K": "0006 4003 0346",
    "L": "000646",
    "M": "0600234046",
    "N": "06004640",
    "P": "06003041423303",
    "Q": "103041453616050110 2446",
    "R": "06003041423303 2346",
    "S": "413010010213334445361605",
    "T": "0040 2026",
    "U": "000516364540",
    "V": "002640",
    "W": "0016233640",
    "X": "0046 4006",
    "Y": "002340 2326",
    "Z": "00400646",
}


def letter(name: str) -> list[list[tuple[float, float]]]:
    """The polylines of a capital letter."""
    lines = []
    for word in _LETTERS[name].split():
        points = [(int(word[i]), int(word[i + 1])) for i in range(0, len(word), 2)]
        lines.append([((x - 2) * 0.3, (y - 3) * 0.3) for x, y in points])
    return lines


def symbols(count: int, seed: int) -> list[list[list[tuple[float, float]]]]:
    """Invented characters: two random polylines each, the same for the same seed."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        ends = rng.uniform(-1, 1, (2, 3, 2)) * np.array([0.6, 0.85])
        made.append([[(float(x), float(y)) for x, y in line] for line in ends])
    return made
