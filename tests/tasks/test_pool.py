"""Inputs of no task, and copies of few examples."""

from __future__ import annotations

import numpy as np
import pytest

from mats_core.errors import InputError
from mats_core.tasks import Form, Split, augmented, pool
from mats_core.tasks.pool import sentences


@pytest.mark.parametrize("kind", ["image", "text", "language"])
def test_equal_seeds_give_equal_pools_and_other_seeds_others(kind):
    one, again, other = (pool(kind, 12, seed) for seed in (3, 3, 4))
    assert np.array_equal(one.inputs, again.inputs)
    assert not np.array_equal(one.inputs, other.inputs)
    assert (one.form.kind, len(one)) == (kind, 12)


@pytest.mark.parametrize("kind", ["image", "text"])
def test_a_longer_pool_begins_with_the_shorter_one(kind):
    assert np.array_equal(pool(kind, 40, 1).inputs[:7], pool(kind, 7, 1).inputs)


def test_pictures_differ_and_show_more_than_a_colour():
    pictures = pool("image", 64, 0).inputs
    assert (pictures.shape, pictures.dtype) == ((64, 48, 48, 3), np.uint8)
    assert len({picture.tobytes() for picture in pictures}) == 64
    colours = [len(np.unique(picture.reshape(-1, 3), axis=0)) for picture in pictures]
    assert max(colours) <= 8  # the ground, and a colour for each of up to seven shapes
    assert np.mean(np.array(colours) > 1) > 0.8


def test_every_sentence_comes_once_and_halves_make_the_whole():
    lines = sentences()
    assert len(lines) == len(set(lines)) > 250
    assert sorted(pool("text", 10**6, 0).inputs[:, 0]) == sorted(lines)
    whole = ["".join(row) for row in pool("language", 30, 2).inputs]
    assert whole == list(pool("text", 30, 2).inputs[:, 0])


def test_answers_to_choose_from_are_no_pool():
    with pytest.raises(InputError, match="kind image, text or language"):
        pool("choices", 3, 0)


# Copies -------------------------------------------------------------------------------------------


def pictures(count, *, side=24, channels=3):
    random = np.random.default_rng(0)
    inputs = random.integers(60, 190, (count, side, side, channels), dtype=np.uint8)
    return Split(inputs, np.arange(count))


def test_eight_pictures_become_twenty_of_the_same_classes():
    few = pictures(8)
    many = augmented(few, 20, seed=5)
    assert many.inputs.shape == (20, 24, 24, 3)
    assert np.array_equal(many.inputs[:8], few.inputs)
    assert many.labels.tolist() == [*range(8), *range(8), *range(4)]
    assert np.array_equal(many.inputs, augmented(few, 20, seed=5).inputs)
    assert not np.array_equal(many.inputs, augmented(few, 20, seed=6).inputs)


def test_a_copy_is_its_picture_moved_by_two_pixels_and_lit_otherwise():
    few = pictures(1)
    for copy in augmented(few, 9, seed=1).inputs[1:]:
        inner = copy[4:-4, 4:-4].astype(float)
        fits = []
        for down in range(-2, 3):
            for right in range(-2, 3):
                moved = few.inputs[0, 4 + down : 20 + down, 4 + right : 20 + right].astype(float)
                for channel in range(3):
                    x, y = moved[..., channel].ravel(), inner[..., channel].ravel()
                    slope, level = np.polyfit(x, y, 1)
                    fits.append((np.abs(slope * x + level - y).max(), slope))
        best = sorted(fits)[:3]  # of the three channels, each with a contrast of its own
        assert all(error < 1.2 and 0.78 < slope < 1.22 for error, slope in best)
        assert sorted(fits)[3][0] > 5


@pytest.mark.parametrize(("count", "wanted"), [(8, 8), (8, 3), (0, 20)])
def test_enough_pictures_stay_as_they_are(count, wanted):
    few = pictures(count)
    assert augmented(few, wanted, seed=0) is few


def test_texts_have_no_copies():
    few = Split(np.array([["a"], ["b"]], dtype=object), np.zeros(2, dtype=int), Form("text"))
    assert augmented(few, 100, seed=0) is few
