"""Colours that can be told apart and read on: contrast, and distances as colour-blind eyes see."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest

from mats_core.figures import style

# Machado, Oliveira and Fernandes, 2009: what is seen without one kind of cones, in linear RGB.
SEEN = {
    "all cones": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
PAGES = {"light": "#FFFFFF", "dark": "#11181F"}


def linear(colour: str) -> np.ndarray:
    """Linear RGB of a colour as six digits."""
    values = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """The ratio of WCAG 2."""
    low, high = sorted(float(TO_XYZ[1] @ linear(colour)) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of linear RGB, under D65."""
    xyz = TO_XYZ @ np.clip(rgb, 0, 1) / (TO_XYZ @ np.ones(3))
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def between(colours: list[str], share: float) -> str:
    """A mixture of two colours."""
    rows = [[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in colours]
    mixed = (1 - share) * np.array(rows[0]) + share * np.array(rows[1])
    return "#" + "".join(f"{round(value):02X}" for value in mixed)


def test_contrast_is_that_of_the_standard():
    assert contrast("#000000", "#FFFFFF") == pytest.approx(21)
    assert contrast("#777777", "#FFFFFF") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("eye", SEEN)
def test_colours_of_tasks_can_be_told_apart(eye: str):
    seen = {colour: lab(np.array(SEEN[eye]) @ linear(colour)) for colour in style.PALETTE}
    for one, other in combinations(style.PALETTE, 2):
        distance = float(np.linalg.norm(seen[one] - seen[other]))
        assert distance > 10, f"{one} and {other}: {distance:.1f}"


def test_tasks_of_one_family_differ_in_dash_and_marker():
    looks = [style.look(index) for index in range(len(style.PALETTE))]
    assert len({look.dash for look in looks}) == len(looks)
    assert len({look.marker for look in looks}) == len(looks)


@pytest.mark.parametrize("scale", ["UPWARDS", "AROUND"])
def test_numbers_in_cells_are_read_on_every_colour_of_their_scale(scale: str):
    colours = [colour for _, colour in getattr(style, scale)]
    for pair in pairwise(colours):
        for share in np.linspace(0, 1, 11):
            assert contrast(style.INK["color"], between(list(pair), float(share))) >= 4.5


@pytest.mark.parametrize("page", PAGES)
def test_grey_lines_are_seen_on_both_pages(page: str):
    assert contrast(style.GREY, PAGES[page]) >= 3
